//! Demangling of Rust and C++ names, with a bound on what a hostile name can expand to.
//!
//! A mangled name can refer back to its own parts, so that a few hundred bytes expand to gigabytes. The writers used
//! here stop as soon as the result is longer than a name may be.

use std::fmt::{self, Write};

use cpp_demangle::DemangleOptions;

use crate::model::name::{self, MAX_NAME_BYTES};

/// Keeps what fits, and makes the demangler stop at the first byte that does not.
struct Bounded {
    text: String,
    full: bool,
}

impl Bounded {
    fn new() -> Self {
        Self { text: String::new(), full: false }
    }
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.text.push_str(part);
        self.full = self.text.len() > MAX_NAME_BYTES;
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The cleaned, demangled form of a raw symbol name; the cleaned name itself if it is not mangled. Rust names lose
/// their hash, C++ names keep their parameters.
pub fn demangle(raw: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(raw) else { return name::clean(raw) };
    match rust(text).or_else(|| cpp(text)) {
        Some(demangled) => name::clean(demangled.as_bytes()),
        None => name::clean(raw),
    }
}

fn rust(text: &str) -> Option<String> {
    if !["_R", "_ZN", "__R", "__ZN", "ZN", "R"].iter().any(|prefix| text.starts_with(prefix)) {
        return None;
    }
    let name = rustc_demangle::try_demangle(text).ok()?;
    let mut out = Bounded::new();
    match write!(out, "{name:#}") {
        Ok(()) => Some(out.text),
        Err(_) => out.full.then_some(out.text),
    }
}

fn cpp(text: &str) -> Option<String> {
    if !text.starts_with("_Z") && !text.starts_with("__Z") && !text.starts_with("_GLOBAL_") {
        return None;
    }
    let symbol = cpp_demangle::Symbol::new(text).ok()?;
    let mut out = Bounded::new();
    match symbol.structured_demangle(&mut out, &DemangleOptions::default()) {
        Ok(()) => Some(out.text),
        Err(_) => out.full.then_some(out.text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names() {
        for (raw, want) in [
            ("main", "main"),
            ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_ZN2ns5outerIiEEvT_i", "void ns::outer<int>(int, int)"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back(int const&)",
            ),
            ("_Znot_mangled", "_Znot_mangled"),
            ("runtime.goexit", "runtime.goexit"),
            ("bad\nname", "bad\\nname"),
        ] {
            assert_eq!(demangle(raw.as_bytes()), want);
        }
    }

    #[test]
    fn a_name_that_expands_without_end_is_cut() {
        // f<A, A, ...> where every level repeats the one before twice: doubles 40 times.
        let mut raw = String::from("_Z1fI1AIiiE");
        for level in 0..40 {
            let back = if level == 0 { "S0_".to_owned() } else { format!("S{}_", base36(level)) };
            raw.push_str(&format!("S_I{back}{back}E"));
        }
        raw.push_str("EvT_");
        assert!(demangle(raw.as_bytes()).len() <= MAX_NAME_BYTES + 3);
    }

    fn base36(n: u32) -> String {
        let digit = |d: u32| char::from_digit(d, 36).unwrap().to_ascii_uppercase();
        if n < 36 { digit(n).to_string() } else { format!("{}{}", digit(n / 36), digit(n % 36)) }
    }

    proptest! {
        #[test]
        fn anything_is_bounded(tail in "[A-Za-z0-9_.$]{0,200}", prefix in prop::sample::select(vec!["", "_ZN", "_R", "_Z"])) {
            let name = format!("{prefix}{tail}");
            prop_assert!(demangle(name.as_bytes()).len() <= MAX_NAME_BYTES + 3);
        }
    }
}
