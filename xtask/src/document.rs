//! Measured tables in the documents: between two comments that name what wrote them, with where and when that was.

use std::{fs, process::Command};

use crate::{
    process::{Failure, capture},
    workspace,
};

/// Where and when something was measured, and by which command.
///
/// # Errors
/// The machine does not say what it is.
pub fn circumstances(command: &str, cpus: usize) -> Result<String, Failure> {
    let say = |program: &str, argument: &str| capture(Command::new(program).arg(argument));
    let date = say("date", "--utc")?;
    let kernel = say("uname", "--kernel-release")?;
    let commit =
        capture(Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(workspace::root()));
    let commit = commit.map_or_else(|_| String::new(), |commit| format!(", commit {}", commit.trim()));
    // What else the machine did: `0.00` is a quiet one.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    let (date, kernel) = (date.trim(), kernel.trim());
    Ok(format!("`{command}`, {date}{commit}, Linux {kernel}, {cpus} CPUs, load {load} when it began.\n"))
}

/// Puts the text between the comments `<!-- NAME: begin -->` and `<!-- NAME: end -->` of a document.
///
/// # Errors
/// It has no such comments, or cannot be written.
pub fn write(document: &str, name: &str, text: &str) -> Result<(), Failure> {
    let path = workspace::root().join(document);
    let old = fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
    let updated = between(&old, name, text).ok_or_else(|| {
        Failure::new(format!("{document} has no comments `<!-- {name}: begin -->` and `end`"))
    })?;
    fs::write(&path, updated).map_err(|e| Failure::io(&path, &e))
}

fn between(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = document.split_once(&begin)?;
    let (_, behind) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_comments_changes() {
        let document = "head\n<!-- x: begin -->\nold\n<!-- x: end -->\ntail\n";
        let expected = "head\n<!-- x: begin -->\nnew\n<!-- x: end -->\ntail\n";
        assert_eq!(between(document, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(between(document, "y", "new\n"), None);
    }
}
