//! `-e kprobe:SYMBOL[+OFFSET]` and `-e kretprobe:SYMBOL`: from words to a place in the kernel's code.

use std::{ffi::CString, io};

use profiler_common::sample::MAX_HOOKS;

use super::{
    error::{Exit, Failure},
    near::near,
    uprobe::{number, refused},
};
use crate::{
    perf::hook::{self, KernelCode},
    probe::{Chosen, Event, Part, kprobe::Asked},
    symbolize::kallsyms::{self, Functions},
};

/// The event that is written as `prefix` and `text`. `place`: how many hooks were named before.
pub fn resolve((prefix, returns): (&str, bool), text: &str, place: usize) -> Result<Chosen, Failure> {
    let usage = |what: &str| refused(&format!("-e {prefix}{text}"), what);
    let (function, offset) = match text.split_once('+') {
        None => (text, 0),
        Some(_) if returns => return Err(usage("a function returns as a whole: no offset")),
        Some((function, offset)) => {
            (function, number(offset).ok_or_else(|| usage("the offset is not a number"))?)
        }
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
    if function.is_empty() || !function.chars().all(is_name) {
        let form = if returns { "kretprobe:FUNCTION" } else { "kprobe:FUNCTION or kprobe:FUNCTION+OFFSET" };
        return Err(usage("no name of a function of the kernel").mend(format!("write it {form}")));
    }
    if place >= MAX_HOOKS {
        let message = format!("a recording has {MAX_HOOKS} events at most that are named by their hooks");
        return Err(usage(&message).mend("record the others by themselves"));
    }
    hook::has_kernel_code().map_err(|error| absent(usage(&why_absent(&error))))?;
    // Where the names cannot be read, the kernel says whether it has the function.
    if let Ok(found) = kallsyms::functions(function) {
        only_one(&found, function).map_err(|(what, mend)| usage(&what).mend(mend))?;
    }
    let into = if offset == 0 { String::new() } else { format!("+{offset:#x}") };
    let name = format!("{prefix}{function}{into}");
    let function = CString::new(function).map_err(|_| usage("no name of a function of the kernel"))?;
    let asked = Asked { name, code: KernelCode { function, offset, returns } };
    Ok(Chosen { event: Event::Kprobe(place as u8), part: Part::Kprobe(asked) })
}

fn why_absent(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "this kernel has no kprobes: it was built without CONFIG_KPROBE_EVENTS".to_owned()
    } else {
        format!("whether this kernel has kprobes cannot be read: {error}")
    }
}

/// The same failure, as one of what the kernel can.
fn absent(failure: Failure) -> Failure {
    let mend = "a tracepoint may be near (`profiler list WORD`); `profiler doctor` has a line `kprobes`";
    Failure { exit: Exit::Unsupported, ..failure }.mend(mend)
}

/// Whether a function is the only one of its name, or what is wrong and what mends it.
fn only_one(found: &Functions, name: &str) -> Result<(), (String, String)> {
    match found.number {
        1 => Ok(()),
        0 => {
            let near = near(name, found.others.iter().map(String::as_str));
            let mend = if near.is_empty() {
                "names are those of /proc/kallsyms; a function that was put into its callers has none"
                    .to_owned()
            } else {
                format!("near: {}", near.join(", "))
            };
            Err(("the kernel has no function of that name".to_owned(), mend))
        }
        number => Err((
            format!("the kernel has {number} functions of that name, and hooks none of them"),
            "name a function that calls it or that it calls".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_without_a_kernel() {
        let refused = |prefix, text: &str, place| resolve(prefix, text, place).unwrap_err();
        let (call, back) = (("kprobe:", false), ("kretprobe:", true));
        for (prefix, text, part) in [
            (call, "", "no name of a function"),
            (call, "a b", "no name of a function"),
            (call, "\u{1b}[31m", "no name of a function"),
            (call, "vfs_read+x", "the offset is not a number"),
            (call, "+4", "no name of a function"),
            (back, "vfs_read+4", "no offset"),
        ] {
            let error = refused(prefix, text, 0);
            assert!(error.exit == Exit::Usage && error.message.contains(part), "{text}: {error}");
            assert!(!error.message.contains('\u{1b}'));
        }
        assert!(refused(call, "vfs_read", MAX_HOOKS).message.contains("4 events at most"));
    }

    #[test]
    fn a_name_is_of_one_function_or_refused() {
        let found = |number, others: &[&str]| Functions {
            number,
            others: others.iter().map(|&other| other.to_owned()).collect(),
        };
        assert_eq!(only_one(&found(1, &[]), "vfs_read"), Ok(()));
        let mend = |found| only_one(&found, "vfs_raed").unwrap_err().1;
        assert_eq!(mend(found(0, &["vfs_read", "vfs_write", "other"])), "near: vfs_read");
        assert!(mend(found(0, &["other"])).contains("/proc/kallsyms"));
        assert!(only_one(&found(3, &[]), "init").unwrap_err().0.contains("3 functions"));
    }

    #[test]
    fn a_kernel_without_is_told() {
        let failure = absent(refused("-e kprobe:f", &why_absent(&io::ErrorKind::NotFound.into())));
        assert_eq!(failure.exit, Exit::Unsupported);
        assert!(
            failure.to_string().contains("CONFIG_KPROBE_EVENTS") && failure.to_string().contains("doctor")
        );
    }
}
