//! The shape of a source file: it opens with what it is, and is short enough to be read.

use super::{Problem, source::without_tests};

/// Most lines of a file, its unit tests not counted.
const MAX_LINES: usize = 400;

/// Files that may be longer, and why.
const LONG_FILES: [(&str, &str); 0] = [];

/// Checks one Rust file; `is_test`: it holds nothing but tests.
pub fn check(path: &str, text: &str, is_test: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push(Problem::new(
            path,
            1,
            "does not open with `//!`: say what it does, from what source, and why",
        ));
    }
    let lines = without_tests(text).lines().count();
    let excepted = LONG_FILES.iter().any(|(file, _)| *file == path);
    if lines > MAX_LINES && !excepted && !is_test {
        problems.push(Problem::new(
            path,
            0,
            format!("{lines} lines without tests, more than {MAX_LINES}: divide it"),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_head_is_refused() {
        assert_eq!(check("a/src/x.rs", "use std::fs;\n", false).len(), 1);
        assert_eq!(check("a/src/x.rs", "// not a doc comment\n", false).len(), 1);
        assert_eq!(check("a/src/x.rs", "//! What it does.\n", false), []);
    }

    #[test]
    fn a_long_file_is_refused_unless_tests_make_it_long() {
        let filler = "let x = 1;\n".repeat(MAX_LINES - 1);
        let fits = format!("//! x\n{filler}");
        assert_eq!(check("a/src/x.rs", &fits, false), []);
        assert_eq!(check("a/src/x.rs", &format!("{fits}fn f() {{}}\n"), false).len(), 1);
        assert_eq!(
            check("a/src/x.rs", &format!("{fits}#[cfg(test)]\nmod tests {{\n{filler}}}\n"), false),
            []
        );
        assert_eq!(check("a/src/tests.rs", &format!("{fits}{filler}"), true), []);
    }
}
