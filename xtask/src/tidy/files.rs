//! What is committed: no build products, no paths of somebody's machine, no file names that say nothing.

use std::{fs, process::Command};

use super::Problem;
use crate::{
    process::{Failure, capture},
    workspace,
};

/// File names that collect what has no place, and so hide it.
const VAGUE_NAMES: [&str; 7] =
    ["util.rs", "utils.rs", "helper.rs", "helpers.rs", "misc.rs", "common.rs", "stuff.rs"];

/// Starts of paths that exist on one machine only. Cut in two, or this file would violate its own rule.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/tmp/", "wt"), concat!("/tmp/", "target-"), concat!("/root/", ".cargo")];

/// First bytes of what compilers write.
const BUILD_PRODUCTS: [(&[u8], &str); 4] = [
    (b"\x7fELF", "an ELF file"),
    (b"!<arch>\n", "a library archive"),
    (b"\xca\xfe\xba\xbe", "a Java class"),
    (b"PK\x03\x04", "a zip or jar archive"),
];

/// A committed file.
pub struct File {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl File {
    /// The file as text; `None` if it is none.
    pub fn text(&self) -> Option<&str> {
        str::from_utf8(&self.data).ok()
    }
}

/// All files that are committed or would be by `git add --all`.
pub fn committed() -> Result<Vec<File>, Failure> {
    let root = workspace::root();
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let names = capture(&mut git)?;
    let mut files = Vec::new();
    for path in names.split_terminator('\0') {
        let full = root.join(path);
        // Deleted but not yet committed, or a link.
        if !fs::symlink_metadata(&full).is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        let data = fs::read(&full).map_err(|e| Failure::io(&full, &e))?;
        files.push(File { path: path.to_owned(), data });
    }
    Ok(files)
}

/// Checks one file.
pub fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |line, message: String| problems.push(Problem::new(&file.path, line, message));
    let name = file.path.rsplit('/').next().unwrap_or_default();
    if VAGUE_NAMES.contains(&name) {
        problem(0, format!("{name} says nothing: name the file after what it holds"));
    }
    for (magic, what) in BUILD_PRODUCTS {
        if file.data.starts_with(magic) {
            problem(0, format!("{what} is committed: build products are built"));
        }
    }
    let text = file.text().unwrap_or_default();
    for (number, line) in text.lines().enumerate() {
        for path in MACHINE_PATHS.into_iter().filter(|path| has_path(line, path)) {
            problem(number + 1, format!("`{path}` exists on one machine only"));
        }
    }
    problems
}

/// `true` if an absolute path that starts with `start` is in the line, not only as a part of another path.
fn has_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}~)".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, data: &[u8]) -> Vec<String> {
        check(&File { path: path.into(), data: data.into() }).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn vague_names_are_refused() {
        assert_eq!(messages("a/src/helpers.rs", b"//! x\n").len(), 1);
        assert_eq!(messages("a/src/symbols.rs", b"//! x\n"), [""; 0]);
    }

    #[test]
    fn build_products_are_refused() {
        assert_eq!(
            messages("x/prog", b"\x7fELF\x02"),
            ["x/prog: an ELF file is committed: build products are built"]
        );
        assert_eq!(messages("x/A.class", b"\xca\xfe\xba\xbe\0").len(), 1);
    }

    #[test]
    fn machine_paths_are_refused_with_their_line() {
        let bad = format!("first\ncd {}main\n", MACHINE_PATHS[0]);
        assert_eq!(
            messages("a.md", bad.as_bytes()),
            [format!("a.md:2: `{}` exists on one machine only", MACHINE_PATHS[0])]
        );
        let bad = format!("see `{}/xtask`", MACHINE_PATHS[1]);
        assert_eq!(messages("a.md", bad.as_bytes()).len(), 1);
    }

    #[test]
    fn parts_of_other_paths_are_not() {
        let part = MACHINE_PATHS[0];
        assert_eq!(messages("a.md", format!("~{part} $HOME{part} net{part}").as_bytes()), [""; 0]);
    }
}
