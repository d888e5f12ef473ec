//! What a kernel's tests are expected to say, where that is not "passed": `tests/expected.txt`.
//!
//! The list is exact. A failure has to be listed, with a text that the failing test prints; a test that is listed and
//! passes fails the run as well, and so does a line that no test matches.

use super::verdict::{Outcome, Test};
use crate::process::Failure;

/// One line: `TEST | KERNELS | TEXT | REASON`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    test: String,
    kernels: Vec<String>,
    text: String,
    /// Why, for the table.
    pub reason: String,
}

/// What the run makes of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// As it should be in a later run; what the first one said is in the console's record.
    Again,
    /// The test does not apply here; what it said.
    Skipped(String),
    /// It failed as listed; the reason.
    Expected(String),
    /// Anything else; what is wrong.
    Wrong(String),
}

/// Reads the list.
///
/// # Errors
/// The line that is none.
pub fn parse(text: &str) -> Result<Vec<Expectation>, Failure> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        let [test, kernels, text, reason] = fields[..] else {
            return Err(Failure::new(format!("line {}: not TEST | KERNELS | TEXT | REASON", number + 1)));
        };
        if fields.iter().any(|field| field.is_empty()) {
            return Err(Failure::new(format!("line {}: an empty field", number + 1)));
        }
        let kernels = kernels.split(',').map(|kernel| kernel.trim().to_owned()).collect();
        all.push(Expectation { test: test.into(), kernels, text: text.into(), reason: reason.into() });
    }
    Ok(all)
}

impl Expectation {
    /// Whether it is about that kernel of that architecture: `6.1`, `6.1/aarch64`, `*/aarch64` or `*`.
    fn is_about(&self, kernel: &str, arch: &str) -> bool {
        self.kernels.iter().any(|pattern| {
            let (kernels, arches) = pattern.split_once('/').unwrap_or((pattern, "*"));
            (kernels == "*" || kernels == kernel) && (arches == "*" || arches == arch)
        })
    }

    /// Whether it is about that test on that kernel.
    pub fn matches(&self, test: &str, kernel: &str, arch: &str) -> bool {
        self.test == test && self.is_about(kernel, arch)
    }
}

/// Compares what became of a test with the list.
pub fn judge(list: &[Expectation], name: &str, test: &Test, kernel: &str, arch: &str) -> Verdict {
    let expected = list.iter().find(|expectation| expectation.matches(name, kernel, arch));
    match (test.outcome, expected) {
        (Outcome::Passed, None) if test.output.is_empty() => Verdict::Passed,
        (Outcome::Passed, None) => Verdict::Again,
        (Outcome::Passed, Some(expected)) => {
            Verdict::Wrong(format!("passed, although tests/expected.txt says: {}", expected.reason))
        }
        (Outcome::Skipped, None) => Verdict::Skipped(skip_reason(&test.output)),
        (Outcome::Failed, Some(expected)) if test.output.contains(&expected.text) => {
            Verdict::Expected(expected.reason.clone())
        }
        (Outcome::Failed, Some(expected)) => Verdict::Wrong(format!(
            "failed otherwise than expected (no `{}`):\n{}",
            expected.text, test.output
        )),
        (Outcome::Lost, _) => Verdict::Wrong("no verdict: the guest ended before".to_owned()),
        (Outcome::Hung, _) => Verdict::Wrong(format!("did not end in time\n{}", test.output)),
        (Outcome::Failed | Outcome::Skipped, _) => Verdict::Wrong(test.output.clone()),
    }
}

/// Lines of the list that are about this kernel and no test of it.
pub fn unused<'a>(
    list: &'a [Expectation],
    tests: impl Fn(&str) -> bool,
    kernel: &str,
    arch: &str,
) -> Vec<&'a str> {
    let unused = list.iter().filter(|expected| expected.is_about(kernel, arch) && !tests(&expected.test));
    unused.map(|expected| expected.test.as_str()).collect()
}

/// `SKIPPED name on kernel: reason`, as `tests/src/skip.rs` prints it.
fn skip_reason(output: &str) -> String {
    let line = output.lines().find(|line| line.starts_with("SKIPPED "));
    line.and_then(|line| line.split_once(": ")).map_or_else(String::new, |(_, reason)| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\n\nk::a | 5.10, 6.1/aarch64 | no such helper | helper since 5.11\n\
        h::b | * | 0 of 100 | a broken probe\n";

    fn judged(name: &str, outcome: Outcome, output: &str, kernel: &str, arch: &str) -> Verdict {
        let test = Test { outcome, milliseconds: 1, output: output.to_owned() };
        judge(&parse(LIST).unwrap(), name, &test, kernel, arch)
    }

    fn is_wrong(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Wrong(_))
    }

    #[test]
    fn a_listed_failure_is_expected_on_its_kernels_only() {
        let expected = Verdict::Expected("helper since 5.11".to_owned());
        let failed = |kernel, arch| judged("k::a", Outcome::Failed, "no such helper", kernel, arch);
        assert_eq!(failed("5.10", "x86_64"), expected);
        assert_eq!(failed("6.1", "aarch64"), expected);
        assert!(is_wrong(&failed("6.1", "x86_64")));
        assert!(is_wrong(&failed("6.12", "x86_64")));
    }

    #[test]
    fn another_failure_than_the_listed_one_is_wrong() {
        assert!(is_wrong(&judged("k::a", Outcome::Failed, "lost samples", "5.10", "x86_64")));
        for outcome in [Outcome::Hung, Outcome::Lost, Outcome::Skipped] {
            assert!(is_wrong(&judged("k::a", outcome, "no such helper", "5.10", "x86_64")), "{outcome:?}");
        }
    }

    #[test]
    fn an_unexpected_pass_is_wrong() {
        assert!(is_wrong(&judged("k::a", Outcome::Passed, "", "5.10", "x86_64")));
        assert!(is_wrong(&judged("h::b", Outcome::Passed, "", "new", "x86_64")));
        assert_eq!(judged("k::a", Outcome::Passed, "", "6.12", "x86_64"), Verdict::Passed);
        assert_eq!(judged("k::a", Outcome::Passed, "failed once", "6.12", "x86_64"), Verdict::Again);
    }

    #[test]
    fn a_skip_keeps_its_reason() {
        let output = "SKIPPED a on 6.1.0: no cgroup v2\n";
        let verdict = judged("k::c", Outcome::Skipped, output, "6.1", "x86_64");
        assert_eq!(verdict, Verdict::Skipped("no cgroup v2".to_owned()));
    }

    #[test]
    fn a_line_without_a_test_is_noticed() {
        let list = parse(LIST).unwrap();
        assert_eq!(unused(&list, |test| test == "h::b", "5.10", "x86_64"), ["k::a"]);
        assert_eq!(unused(&list, |test| test == "h::b", "6.12", "x86_64"), [""; 0]);
    }

    #[test]
    fn a_line_that_lacks_a_field_is_refused() {
        assert!(parse("k::a | 5.10 | text\n").is_err());
        assert!(parse("k::a | 5.10 | | reason\n").is_err());
        assert!(parse("k::a\n").is_err());
    }

    #[test]
    fn the_committed_list_can_be_read() {
        assert!(parse(include_str!("../../../tests/expected.txt")).is_ok());
    }
}
