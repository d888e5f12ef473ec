//! `cargo xtask tidy`: the rules of this code base that neither the compiler nor clippy checks.
//!
//! Every check is a pure function from text to problems, so that each has tests that show that it can fail; only this
//! file and `files` read the disk.

mod files;
mod generated;
mod layers;
mod probes;
mod shape;
mod source;

use std::fmt;

use crate::process::{Failure, say};
use files::{File, committed};
use generated::Mode;

/// One violation.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    path: String,
    /// From 1. 0: the file as a whole.
    line: usize,
    message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks everything. `bless`: rewrites generated tables instead of checking them.
///
/// # Errors
/// After printing every problem, with their number.
pub fn tidy(bless: bool) -> Result<(), Failure> {
    let files = committed()?;
    let tests: Vec<String> = files
        .iter()
        .filter_map(|file| Some(source::test_modules(&file.path, file.text()?)))
        .flatten()
        .collect();
    let mut problems = probes::check(files.iter().map(|file| file.path.as_str()));
    for file in &files {
        problems.extend(files::check(file));
        let Some(text) = file.text() else { continue };
        if file.path.ends_with(".rs") {
            let is_test = is_test(&file.path, &tests);
            problems.extend(shape::check(&file.path, text, is_test));
            if !is_test {
                problems.extend(layers::check(&file.path, text));
            }
        }
    }
    let mode = if bless { Mode::Bless } else { Mode::Check };
    problems.extend(generated::check(files.iter().filter(|file| is_document(file)), mode)?);

    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => {
            say(format!("tidy: {} files, no problems", files.len()));
            Ok(())
        }
        1 => Err(Failure::new("1 problem")),
        count => Err(Failure::new(format!("{count} problems"))),
    }
}

/// `true` for a file that holds nothing but tests: of the tests' own crate, or below a module that is for tests only.
fn is_test(path: &str, modules: &[String]) -> bool {
    let below = |module: &String| {
        path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    };
    path.starts_with("tests/") || modules.iter().any(below)
}

fn is_document(file: &File) -> bool {
    file.path == "README.md" || (file.path.starts_with("docs/") && file.path.ends_with(".md"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_the_tests_crate_and_what_is_below_test_modules() {
        let modules = ["profiler/src/render/golden".to_owned()];
        for (path, expected) in [
            ("tests/kernel/cpu.rs", true),
            ("profiler/src/render/golden.rs", true),
            ("profiler/src/render/golden/cases.rs", true),
            ("profiler/src/render/golden_rule.rs", false),
            ("profiler/src/render/svg.rs", false),
        ] {
            assert_eq!(is_test(path, &modules), expected, "{path}");
        }
    }
}
