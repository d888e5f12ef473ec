//! Tables, and where they go: docs/performance.md, between two comments.

use std::{fs, process::Command};

use crate::{
    process::{Failure, capture},
    workspace,
};

const DOCUMENT: &str = "docs/performance.md";
const BEGIN: &str = "<!-- bench: begin -->\n";
const END: &str = "<!-- bench: end -->";

/// A table in Markdown.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(&head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}

/// A number with as many digits as it deserves; `-` for none.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Where and when something was measured, and by which command.
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

/// Puts the text between the document's comments.
pub fn write(text: &str) -> Result<(), Failure> {
    let path = workspace::root().join(DOCUMENT);
    let document = fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
    let updated = between(&document, text)
        .ok_or_else(|| Failure::new(format!("{DOCUMENT} has no `{}` ... `{END}`", BEGIN.trim())))?;
    fs::write(&path, updated).map_err(|e| Failure::io(&path, &e))
}

fn between(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, behind) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{text}{END}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_rule_under_its_head() {
        let rows = [vec!["x".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["a", "b"], &rows), "| a | b |\n|---|---|\n| x | 1 |\n");
    }

    #[test]
    fn only_what_is_between_the_comments_changes() {
        let document = format!("head\n{BEGIN}old\n{END}\ntail\n");
        assert_eq!(between(&document, "new\n"), Some(format!("head\n{BEGIN}new\n{END}\ntail\n")));
        assert_eq!(between("head", "new"), None);
    }
}
