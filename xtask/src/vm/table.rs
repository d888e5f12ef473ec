//! The outcome of a run as a table, kernel by test: on stdout, and in docs/kernels.md.

use std::collections::BTreeMap;

use super::{Run, expected::Verdict};

/// The table in Markdown: a row per test, a column per kernel; reasons as notes below.
pub fn markdown(runs: &[Run]) -> String {
    let mut notes = Notes::default();
    let heads: Vec<_> = runs.iter().map(|run| format!("{} {}", run.kernel, run.arch)).collect();
    let mut text = format!("| test | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(runs.len()));
    let releases = runs.iter().map(|run| match (&run.absent, &run.release) {
        (Some(why), _) => format!("absent {}", notes.number(why)),
        (None, release) => release.clone().unwrap_or_else(|| "no release".to_owned()),
    });
    text += &format!("| *release* | {} |\n", releases.collect::<Vec<_>>().join(" | "));
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (column, run) in runs.iter().enumerate() {
        for (test, verdict) in &run.verdicts {
            let cell = match verdict {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Again => "passed (later run)".to_owned(),
                Verdict::Skipped(why) => format!("skipped {}", notes.number(why)),
                Verdict::Expected(why) => format!("expected failure {}", notes.number(why)),
                Verdict::Wrong(_) => "**failed**".to_owned(),
            };
            rows.entry(test).or_insert_with(|| vec!["-".to_owned(); runs.len()])[column] = cell;
        }
    }
    for (test, cells) in rows {
        text += &format!("| `{test}` | {} |\n", cells.join(" | "));
    }
    text + &notes.list()
}

/// Reasons, numbered in the order of their first use.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn number(&mut self, reason: &str) -> String {
        let known = self.0.iter().position(|note| note == reason);
        let at = known.unwrap_or_else(|| {
            self.0.push(reason.to_owned());
            self.0.len() - 1
        });
        format!("[{}]", at + 1)
    }

    fn list(&self) -> String {
        let lines = self
            .0
            .iter()
            .enumerate()
            .map(|(at, note)| format!("\n[{}] {}\n", at + 1, note.replace('\n', " ")));
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kernel: &'static str, verdicts: &[(&str, Verdict)]) -> Run {
        Run {
            kernel,
            arch: "x86_64",
            release: Some(format!("{kernel}.0-1")),
            absent: None,
            broken: Vec::new(),
            verdicts: verdicts.iter().map(|(name, verdict)| ((*name).to_owned(), verdict.clone())).collect(),
        }
    }

    #[test]
    fn a_row_per_test_and_a_note_per_reason() {
        let old = run("5.10", &[("k::a", Verdict::Expected("since 5.11".into())), ("k::b", Verdict::Passed)]);
        let mut new = run("6.1", &[("k::a", Verdict::Wrong("x".into()))]);
        new.arch = "aarch64";
        let gone = Run { absent: Some("not on the mirror".into()), release: None, ..run("new", &[]) };
        assert_eq!(
            markdown(&[old, new, gone]),
            "| test | 5.10 x86_64 | 6.1 aarch64 | new x86_64 |\n|---|---|---|---|\n\
             | *release* | 5.10.0-1 | 6.1.0-1 | absent [1] |\n\
             | `k::a` | expected failure [2] | **failed** | - |\n\
             | `k::b` | passed | - | - |\n\
             \n[1] not on the mirror\n\n[2] since 5.11\n"
        );
    }
}
