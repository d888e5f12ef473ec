//! What a guest said on its console (`tests/guest/protocol.rs`), as data.
//!
//! Only lines that begin with this boot's word count. How qemu ended says nothing: a panic ends it like a power-off,
//! and exit codes of devices wrap. A test is as good as its verdict; what was planned and has none is lost, and a guest
//! that did not come to its end is broken, whatever it said before.

use std::collections::BTreeMap;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It said that it cannot run here, and `tests/skips.txt` lists it.
    Skipped,
    /// It did not end in time.
    Hung,
    /// It was planned, and nothing was heard of it.
    Lost,
}

/// A test of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took.
    pub milliseconds: u64,
    /// What it printed where it did not pass; of one that passed in a later run, in the earlier ones.
    pub output: String,
}

/// A guest's run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release, of the kernel itself.
    pub release: Option<String>,
    /// By name.
    pub tests: BTreeMap<String, Test>,
    /// Why the run as a whole is worth nothing more than what it says.
    pub broken: Vec<String>,
}

/// Reads what came over the console.
pub fn parse(console: &str, word: &str) -> Report {
    let marker = format!("@{word} ");
    let mut report = Report::default();
    let mut end = None;
    for line in console.lines() {
        // The kernel may have written in front of it.
        let Some((_, said)) = line.split_once(&marker) else { continue };
        if end.is_some() {
            report.broken.push(format!("said behind its end: {said}"));
        }
        let (kind, rest) = said.split_once(' ').unwrap_or((said, ""));
        match kind {
            "machine" => report.release = rest.split(' ').next().map(str::to_owned),
            "plan" => report.plan(rest.trim()),
            "output" => report.output(rest),
            "verdict" => report.verdict(rest.trim()),
            "broken" => report.broken.push(rest.trim().to_owned()),
            "end" => end = Some(rest.trim().parse::<usize>()),
            _ => report.broken.push(format!("said what is no line of the protocol: {said}")),
        }
    }
    match end {
        None => report.broken.push(format!("the guest did not come to its end: {}", last_words(console))),
        Some(Ok(count)) if count == report.tests.len() => {}
        Some(_) => {
            report.broken.push(format!("{} tests were planned, not as many ended", report.tests.len()))
        }
    }
    if report.tests.is_empty() {
        report.broken.push("no test was planned".to_owned());
    }
    report
}

impl Report {
    /// Adds what another guest of the same kernel said.
    pub fn merge(&mut self, other: Self) {
        if self.release.is_some() && self.release != other.release {
            self.broken.push(format!("two kernels: {:?} and {:?}", self.release, other.release));
        }
        self.release = other.release;
        self.broken.extend(other.broken);
        for (name, test) in other.tests {
            if self.tests.insert(name.clone(), test).is_some() {
                self.broken.push(format!("{name} was planned in two guests"));
            }
        }
    }

    fn plan(&mut self, name: &str) {
        let test = Test { outcome: Outcome::Lost, milliseconds: 0, output: String::new() };
        if self.tests.insert(name.to_owned(), test).is_some() {
            self.broken.push(format!("{name} was planned twice"));
        }
    }

    fn output(&mut self, rest: &str) {
        let (name, line) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(test) = self.tests.get_mut(name) {
            test.output.push_str(line);
            test.output.push('\n');
        }
    }

    fn verdict(&mut self, rest: &str) {
        let words: Vec<_> = rest.split(' ').collect();
        let outcome = |word| match word {
            "passed" => Some(Outcome::Passed),
            "failed" => Some(Outcome::Failed),
            "skipped" => Some(Outcome::Skipped),
            "hung" => Some(Outcome::Hung),
            _ => None,
        };
        let parsed = match words[..] {
            [name, word, took] => outcome(word).zip(took.parse().ok()).map(|verdict| (name, verdict)),
            _ => None,
        };
        let Some((name, (outcome, milliseconds))) = parsed else {
            return self.broken.push(format!("a verdict that cannot be read: {rest}"));
        };
        match self.tests.get_mut(name) {
            Some(test) if test.outcome == Outcome::Lost => {
                test.outcome = outcome;
                test.milliseconds = milliseconds;
            }
            Some(_) => self.broken.push(format!("{name} has two verdicts")),
            None => self.broken.push(format!("{name} has a verdict and was not planned")),
        }
    }
}

/// The lines that say why a guest ended: those from the first complaint of its kernel on, or the last ones.
fn last_words(console: &str) -> String {
    const LINES: usize = 12;
    const COMPLAINTS: [&str; 4] = ["Oops: ", "BUG: ", "kernel BUG at", "Kernel panic"];
    let lines: Vec<_> = console.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let complains = |line: &&str| COMPLAINTS.iter().any(|start| line.contains(start));
    let first = lines.iter().position(complains).unwrap_or_else(|| lines.len().saturating_sub(LINES));
    lines[first..].iter().take(LINES).copied().collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[    0.0] Linux\r\n@w machine 6.1.0-1 2\r\n@w plan k::a\r\n@w plan k::b\r\n\
        @w verdict k::a passed 12\r\n@w output k::b panicked at\r\n@w output k::b why\r\n\
        @w verdict k::b failed 7\r\n@w end 2\r\n";

    fn outcomes(report: &Report) -> Vec<Outcome> {
        report.tests.values().map(|test| test.outcome).collect()
    }

    #[test]
    fn a_whole_run_is_read() {
        let report = parse(GOOD, "w");
        assert_eq!(report.broken, [""; 0]);
        assert_eq!(report.release.as_deref(), Some("6.1.0-1"));
        assert_eq!(outcomes(&report), [Outcome::Passed, Outcome::Failed]);
        assert_eq!(report.tests["k::b"].output, "panicked at\nwhy\n");
        assert_eq!(report.tests["k::a"].milliseconds, 12);
    }

    #[test]
    fn a_panic_in_the_middle_loses_the_rest_and_is_told() {
        let cut = GOOD.find("@w output").unwrap();
        let report = parse(&format!("{}[   1.5] Kernel panic - not syncing: x\r\n", &GOOD[..cut]), "w");
        assert_eq!(outcomes(&report), [Outcome::Passed, Outcome::Lost]);
        assert!(report.broken[0].contains("Kernel panic - not syncing: x"), "{:?}", report.broken);
    }

    #[test]
    fn the_first_complaint_of_the_kernel_is_told() {
        let registers = "[ 2.2] RAX: 0\r\n".repeat(40);
        let console = format!("{GOOD}[ 2.1] Oops: int3: 0000\r\n{registers}[ 2.3] Kernel panic\r\n");
        let words = last_words(&console);
        assert!(words.starts_with("[ 2.1] Oops: int3: 0000 / [ 2.2] RAX: 0 / "), "{words}");
        assert_eq!(words.matches(" / ").count(), 11);
    }

    #[test]
    fn every_truncation_is_noticed() {
        for length in 0..GOOD.len() - 3 {
            let report = parse(&GOOD[..length], "w");
            assert!(!report.broken.is_empty(), "cut after {length}: {:?}", &GOOD[..length]);
        }
    }

    #[test]
    fn lines_without_the_word_of_this_boot_are_no_verdicts() {
        let forged = GOOD.replace("@w output k::b why", "@x verdict k::b passed 1\r\nverdict k::b passed 1");
        assert_eq!(outcomes(&parse(&forged, "w")), [Outcome::Passed, Outcome::Failed]);
    }

    #[test]
    fn what_a_test_prints_is_no_verdict() {
        let forged = GOOD.replace("k::b why", "k::b verdict k::b passed 1");
        assert_eq!(outcomes(&parse(&forged, "w")), [Outcome::Passed, Outcome::Failed]);
    }

    #[test]
    fn contradictions_are_told() {
        for (from, to) in [
            ("@w end 2", "@w verdict k::a failed 1\r\n@w end 2"),
            ("@w end 2", "@w verdict k::c passed 1\r\n@w end 2"),
            ("@w end 2", "@w plan k::a\r\n@w end 2"),
            ("@w end 2", "@w end 3"),
            ("@w end 2", "@w end 2\r\n@w verdict k::b passed 1"),
            ("passed 12", "passes 12"),
            ("passed 12", "passed"),
        ] {
            assert!(!parse(&GOOD.replace(from, to), "w").broken.is_empty(), "{from} -> {to}");
        }
    }

    #[test]
    fn the_kernel_may_write_in_front_of_a_line() {
        let report = parse(&GOOD.replace("@w verdict k::a", "[ 3.1] note@w verdict k::a"), "w");
        assert_eq!(report.broken, [""; 0]);
    }

    #[test]
    fn guests_of_a_kernel_say_what_one_would() {
        let (a, b) = GOOD.split_once("@w plan k::b\r\n").unwrap();
        let (of_a, of_b) = b.split_once("\r\n").unwrap();
        let (first, second) = (
            format!("{a}{of_a}\r\n@w end 1\r\n"),
            format!("@w machine 6.1.0-1 2\r\n@w plan k::b\r\n{}", of_b.replace("end 2", "end 1")),
        );
        let merged = |second: &str| {
            let mut all = Report::default();
            all.merge(parse(&first, "w"));
            all.merge(parse(second, "w"));
            all
        };
        assert_eq!(merged(&second), parse(GOOD, "w"));
        assert_eq!(merged(&second.replace("6.1.0-1", "6.1.0-2")).broken.len(), 1);
        assert!(!merged(&first).broken.is_empty(), "a test ran twice");
        assert!(!merged("@w machine 6.1.0-1 2\r\n").broken.is_empty(), "one did not come to its end");
    }

    #[test]
    fn a_guest_that_planned_nothing_tested_nothing() {
        assert!(!parse("@w machine 6.1 2\r\n@w end 0\r\n", "w").broken.is_empty());
    }
}
