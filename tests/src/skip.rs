//! Skips: a test that cannot run here says so, and only if the committed list allows it.
//!
//! A test that returned early and counted as passed would hide that nothing was tested. `skips.txt` therefore lists
//! which test may be skipped, on which kernels, and why; any other skip fails.

use std::{fs, io::Write as _};

/// Compiled in: the tests also run on machines that have no sources.
const LIST: &str = include_str!("../skips.txt");

/// Skips the test `name`, which the caller must return from: prints the reason past the test harness's capture.
///
/// # Panics
/// If `skips.txt` does not list the test for this kernel.
pub fn skip(name: &str, reason: &str) {
    let kernel = kernel();
    assert!(
        is_listed(LIST, name, &kernel),
        "{name} cannot run here ({reason}), and tests/skips.txt does not list it for kernel {kernel}"
    );
    writeln!(std::io::stderr(), "SKIPPED {name} on {kernel}: {reason}").expect("stderr is open");
}

/// The running kernel's release.
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    release.trim().to_owned()
}

/// Whether the running kernel is that release, (major, minor), or a newer one.
pub fn is_since(least: (u32, u32)) -> bool {
    let release = kernel();
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|release| release >= least)
}

/// One entry a line: `NAME KERNEL REASON...`; the kernel is the start of a release, or `*`.
fn is_listed(list: &str, name: &str, kernel: &str) -> bool {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(name)
            && words.next().is_some_and(|release| release == "*" || kernel.starts_with(release))
            && words.next().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_with_a_reason_may_be_skipped() {
        let list = "# comment\na 6.1. no such tracepoint\nb * no browser\nc *\n";
        assert!(is_listed(list, "a", "6.1.0-35-amd64"));
        assert!(!is_listed(list, "a", "6.18.44"));
        assert!(is_listed(list, "b", "6.18.44"));
        assert!(!is_listed(list, "c", "6.18.44"), "a skip without a reason");
        assert!(!is_listed(list, "d", "6.18.44"));
        assert!(!is_listed(list, "#", "6.18.44"));
    }

    #[test]
    #[should_panic(expected = "does not list it")]
    fn an_unlisted_skip_fails() {
        skip("no_test_has_this_name", "to see it fail");
    }
}
