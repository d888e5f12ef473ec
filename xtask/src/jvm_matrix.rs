//! `cargo xtask jvm-matrix`: the tests of Java names, stacks and threads (`tests/kernel/{jvm,java_*}.rs`) with each JDK that
//! [`jdks`] unpacks, and what they found as a table: on stdout, and between two comments of docs/jvm.md.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::{
    document, jdks,
    process::{Failure, as_root, is_root, line, say},
    run::build_release,
    workspace,
};

const DOCUMENT: &str = "docs/jvm.md";
/// The tests that are about JVMs, by the start of their names.
const TESTS: [&str; 6] =
    ["jvm::", "java_mixed::", "java_stacks::", "java_processes::", "java_view::", "java_reuse::"];

/// What the tests note (`profiler_tests::jdk::Jdk::note`), and how it is shown.
const COLUMNS: [(&str, &str); 12] = [
    ("perf map", "all code as in the perf map"),
    ("compilations", "compilations as in the log"),
    ("addresses", "addresses named"),
    ("named while it changed", "read whole while code comes and goes"),
    ("whole stacks, compiled", "whole stacks, compiled"),
    ("whole stacks, interpreted", "interpreted"),
    ("whole stacks, recursion", "recursion"),
    ("whole stacks, mixed", "all kinds of threads"),
    ("whole stacks, waits", "waits, by time"),
    ("stacks as printed", "as in Thread.print, by time"),
    ("whole stacks, large", "a large JVM"),
    ("early samples, large", "samples before a large JVM is known"),
];

/// What was found with one JDK.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    build: String,
    /// Sums of parts and wholes, by what they are of.
    found: BTreeMap<String, (u64, u64)>,
}

impl Findings {
    /// Reads what the tests noted, an object a line.
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut findings = Self::default();
        for line in text.lines() {
            let bad = || Failure::new(format!("the tests noted something else: {line}"));
            let value: Value = serde_json::from_str(line).map_err(|_| bad())?;
            let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(bad);
            let number = |key: &str| value[key].as_u64().ok_or_else(bad);
            findings.build = text("build")?;
            let (part, of) = findings.found.entry(text("what")?).or_default();
            (*part, *of) = (*part + number("part")?, *of + number("of")?);
        }
        Ok(findings)
    }
}

/// A JDK's row: what was found, and which tests failed; or why there is nothing.
type Row = (u32, Result<(Findings, Vec<String>), String>);

/// Runs the tests with those of `only` (major numbers, separated by commas), or with all.
///
/// # Errors
/// Nothing could be run; or, when the table is written, a test failed.
pub fn jvm_matrix(only: Option<&str>) -> Result<(), Failure> {
    let outcomes = jdks::prepare(only)?;
    build_release()?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let circumstances = document::circumstances("cargo xtask jvm-matrix", cpus)?;
    let mut rows: Vec<Row> = Vec::new();
    for (jdk, outcome) in outcomes {
        let row = match outcome {
            Ok(root) => Ok(run_with(jdk.major, &root)?),
            Err(e) => Err(e.to_string()),
        };
        rows.push((jdk.major, row));
    }
    let table = markdown(&rows);
    print!("{table}");
    if only.is_none() {
        document::write(DOCUMENT, "jvm-matrix", &format!("\n{circumstances}\n{table}\n"))?;
    }
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|(major, row)| Some((major, row.as_ref().ok()?)))
        .flat_map(|(major, (_, failed))| failed.iter().map(move |test| format!("JDK {major}: {test}")))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("failed: {}", failed.join(", ")))) }
}

/// Runs the tests with the JDK in a root. Their output is kept beside it.
fn run_with(major: u32, root: &Path) -> Result<(Findings, Vec<String>), Failure> {
    let (findings, log) = (root.with_extension("findings"), root.with_extension("log"));
    let io = |path: &PathBuf| {
        let path = path.clone();
        move |e| Failure::io(&path, &e)
    };
    fs::write(&findings, "").map_err(io(&findings))?;
    let output = fs::File::create(&log).map_err(io(&log))?;
    let errors = output.try_clone().map_err(io(&log))?;
    let mut command = workspace::cargo();
    command.args(["test", "--package", "profiler-tests", "--test", "kernel", "--", "--test-threads=1"]);
    command.args(TESTS);
    command.env("PROFILER_BIN", workspace::release_binary()?).env("PROFILER_JDKS", root);
    command.env("PROFILER_FINDINGS", &findings);
    if !is_root() {
        as_root("true")?;
        let triple = workspace::host_triple()?.to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo --preserve-env --");
    }
    say(format!("the tests with JDK {major}; their output is in {}", log.display()));
    run_into(&mut command, output, errors)?;
    let said = fs::read_to_string(&log).map_err(io(&log))?;
    let noted = fs::read_to_string(&findings).map_err(io(&findings))?;
    Ok((Findings::parse(&noted)?, failed(&said)?))
}

fn run_into(command: &mut Command, output: fs::File, errors: fs::File) -> Result<(), Failure> {
    let status = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    // That tests failed is told by what they say.
    status.map(|_| ()).map_err(|e| Failure::new(format!("`{}`: {e}", line(command))))
}

/// The tests that failed, by what `cargo test` writes.
fn failed(said: &str) -> Result<Vec<String>, Failure> {
    let verdicts = || said.lines().filter_map(|line| line.strip_prefix("test ")?.rsplit_once(" ... "));
    if !said.lines().any(|line| line.starts_with("test result: ")) || verdicts().next().is_none() {
        return Err(Failure::new("the tests did not come to their end"));
    }
    Ok(verdicts().filter(|(_, verdict)| *verdict != "ok").map(|(test, _)| test.to_owned()).collect())
}

/// The table: a row per JDK.
fn markdown(rows: &[Row]) -> String {
    let mut text = "| JDK | build |".to_owned();
    COLUMNS.iter().for_each(|(_, head)| text += &format!(" {head} |"));
    text += &format!(" failed tests |\n|---|---|{}---|\n", "---|".repeat(COLUMNS.len()));
    for (major, row) in rows {
        let cells = match row {
            Err(why) => {
                format!("absent: {} {}|", why.replace(['\n', '|'], " "), "| ".repeat(COLUMNS.len() + 1))
            }
            Ok((findings, failed)) => {
                let cells =
                    COLUMNS.iter().map(|(what, _)| findings.found.get(*what).map_or("-".to_owned(), share));
                let cells: String = cells.map(|cell| format!("{cell} | ")).collect();
                let failed = if failed.is_empty() { "none".to_owned() } else { failed.join(", ") };
                format!("{} | {cells}{failed} |", findings.build)
            }
        };
        text += &format!("| {major} | {cells}\n");
    }
    text
}

/// Small numbers as they are, large ones (time in ns) as a percentage.
fn share(&(part, of): &(u64, u64)) -> String {
    let percent = 100.0 * part as f64 / of.max(1) as f64;
    if part == of && of < 1_000_000 {
        format!("all {of}")
    } else if of < 1_000_000 {
        format!("{percent:.2} % of {of}")
    } else {
        format!("{percent:.2} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTED: &str = r#"{"major":8,"build":"1.8.0","what":"compilations","part":600,"of":600}
{"major":8,"build":"1.8.0","what":"whole stacks, compiled","part":99,"of":100}
{"major":8,"build":"1.8.0","what":"whole stacks, compiled","part":100,"of":100}
"#;

    #[test]
    fn what_is_noted_is_summed() {
        let findings = Findings::parse(NOTED).unwrap();
        assert_eq!(
            (findings.build.as_str(), findings.found["whole stacks, compiled"]),
            ("1.8.0", (199, 200))
        );
        assert!(Findings::parse("{}\n").is_err());
    }

    #[test]
    fn only_tests_that_came_to_an_end_have_verdicts() {
        let said =
            "running 2 tests\ntest jvm::a ... ok\ntest jvm::b ... FAILED\n\ntest result: FAILED. 1 passed\n";
        assert_eq!(failed(said), Ok(vec!["jvm::b".to_owned()]));
        assert!(failed("test jvm::a ... ok\n").is_err());
        assert!(failed("test result: ok. 0 passed\n").is_err());
    }

    #[test]
    fn a_row_per_jdk_and_a_reason_for_each_absence() {
        let found = (Findings::parse(NOTED).unwrap(), vec![]);
        let text = markdown(&[(8, Ok(found)), (9, Err("sid has no openjdk-9".to_owned()))]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.iter().all(|line| line.matches('|').count() == COLUMNS.len() + 4), "{text}");
        assert_eq!(
            lines[2],
            "| 8 | 1.8.0 | - | all 600 | - | - | 99.50 % of 200 | - | - | - | - | - | - | - | none |"
        );
        assert!(lines[3].starts_with("| 9 | absent: sid has no openjdk-9 |"), "{text}");
    }
}
