//! Tables in the documents that the program writes: a block between two comments equals what
//! `profiler generate NAME` prints.

use std::{fs, path::PathBuf, process::Command};

use super::{Problem, files::File};
use crate::{
    process::{Failure, capture, run, say},
    workspace,
};

const BEGIN: &str = "<!-- generated: ";
const BEGIN_END: &str = " -->";
const END: &str = "<!-- end -->";

/// What is done with a block that is out of date.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is a problem.
    Check,
    /// It is rewritten.
    Bless,
}

/// Checks or rewrites the blocks of the documents.
///
/// # Errors
/// If the program cannot be built, or a document cannot be written.
pub fn check<'a>(documents: impl Iterator<Item = &'a File>, mode: Mode) -> Result<Vec<Problem>, Failure> {
    let mut problems = Vec::new();
    let mut program = None;
    for file in documents {
        let Some(text) = file.text().filter(|text| text.contains(BEGIN)) else { continue };
        let program = match &program {
            Some(built) => built,
            None => program.insert(build()?),
        };
        let mut print = |name: &str| capture(Command::new(program).args(["generate", name]));
        let (updated, found) = update(&file.path, text, &mut print);
        if mode == Mode::Check {
            problems.extend(found);
            continue;
        }
        problems.extend(found.into_iter().filter(|problem| !problem.message.contains(OUT_OF_DATE)));
        if updated != text {
            let path = workspace::root().join(&file.path);
            fs::write(&path, updated).map_err(|e| Failure::io(&path, &e))?;
            say(format!("{}: tables rewritten", file.path));
        }
    }
    Ok(problems)
}

/// The profiler of a debug build, which the tests need as well.
fn build() -> Result<PathBuf, Failure> {
    run(workspace::cargo().args(["build", "--quiet", "--package", "profiler"]))?;
    Ok(workspace::build_directory()?.join("debug/profiler"))
}

const OUT_OF_DATE: &str = "is out of date: cargo xtask tidy --bless";

/// The document with every block as `print` gives it, and what is wrong with it.
fn update(
    path: &str,
    text: &str,
    print: &mut dyn FnMut(&str) -> Result<String, Failure>,
) -> (String, Vec<Problem>) {
    let (mut out, mut problems) = (String::with_capacity(text.len()), Vec::new());
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((number, line)) = lines.next() {
        out.push_str(line);
        let name = line.trim_end().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(BEGIN_END));
        let Some(name) = name else { continue };
        let mut problem = |message: String| problems.push(Problem::new(path, number + 1, message));
        let (mut old, mut end) = (String::new(), None);
        for (_, line) in lines.by_ref() {
            if line.trim_end() == END {
                end = Some(line);
                break;
            }
            old.push_str(line);
        }
        let printed = print(name);
        let new = printed.as_ref().map_or_else(|_| old.clone(), |new| format!("\n{}\n\n", new.trim()));
        match (&printed, end) {
            (_, None) => problem(format!("the generated block `{name}` has no `{END}`")),
            (Err(e), _) => problem(format!("the program does not print `{name}`: {e}")),
            (Ok(new), _) if new.trim() != old.trim() => problem(format!("the table `{name}` {OUT_OF_DATE}")),
            _ => {}
        }
        // Without an end, everything after the beginning is the document's.
        out.push_str(if end.is_some() { &new } else { &old });
        out.push_str(end.unwrap_or_default());
    }
    (out, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updated(text: &str) -> (String, Vec<String>) {
        let mut print = |name: &str| match name {
            "probes" => Ok("| a |\n|---|\n".to_owned()),
            _ => Err(Failure::new("unknown name")),
        };
        let (out, problems) = update("README.md", text, &mut print);
        (out, problems.iter().map(ToString::to_string).collect())
    }

    const GOOD: &str = "x\n<!-- generated: probes -->\n\n| a |\n|---|\n\n<!-- end -->\ny\n";

    #[test]
    fn an_equal_block_is_left_alone() {
        assert_eq!(updated(GOOD), (GOOD.to_owned(), vec![]));
    }

    #[test]
    fn a_different_block_is_a_problem_and_can_be_rewritten() {
        let old = GOOD.replace("| a |", "| b |");
        let (out, problems) = updated(&old);
        assert_eq!(out, GOOD);
        assert_eq!(problems, ["README.md:2: the table `probes` is out of date: cargo xtask tidy --bless"]);
    }

    #[test]
    fn an_unknown_name_is_a_problem_and_keeps_the_block() {
        let text = GOOD.replace("probes", "prices");
        let (out, problems) = updated(&text);
        assert_eq!(out, text);
        assert_eq!(problems, ["README.md:2: the program does not print `prices`: unknown name"]);
    }

    #[test]
    fn a_block_without_end_is_a_problem_and_eats_nothing() {
        let text = GOOD.replace(END, "");
        let (out, problems) = updated(&text);
        assert_eq!(out, text);
        assert_eq!(problems, ["README.md:2: the generated block `probes` has no `<!-- end -->`"]);
    }
}
