//! Places in the kernel's code (kprobes): a function that a program has the kernel call so often, and no other program does.
//! On a kernel without them: that this is told.

use std::path::Path;

use profiler::model::{FrameKind, Profile};
use profiler_tests::{
    expect,
    record::{Record, fails_with, profiler},
    target::{Target, number},
    view::{Entry, View},
    workload,
};

use crate::generic::{check, nothing_lost};

/// The function of the system call getpriority.
const FUNCTION: &str =
    if cfg!(target_arch = "aarch64") { "__arm64_sys_getpriority" } else { "__x64_sys_getpriority" };

const OFTEN: [&str; 3] = ["ask_priority", "call_often", "main"];
const RARELY: [&str; 3] = ["ask_priority", "call_rarely", "main"];

fn times() -> u64 {
    if expect::is_emulated() { 300 } else { 3000 }
}

fn arguments() -> [String; 2] {
    [expect::warm_up_ms().to_string(), times().to_string()]
}

/// Whether this kernel has kprobes. Where it has none, that is what the events are refused with, and `doctor` says so.
fn has_kprobes() -> bool {
    let is_there = Path::new("/sys/bus/event_source/devices/kprobe/type").exists();
    let doctor = profiler(["doctor", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let lines = value["rows"].as_array().unwrap();
    let line = lines.iter().find(|line| line["id"] == "kprobes").unwrap();
    assert_eq!(line["status"] == "works", is_there, "{line}");
    // All kernels that guests are booted with have them.
    assert!(is_there || !expect::is_emulated(), "{line}");
    if !is_there {
        for kind in ["kprobe", "kretprobe"] {
            let event = format!("{kind}:{FUNCTION}");
            let recorded = Record::new().args(["-e", &event]).command(&workload::path("burner"), ["0"]).run();
            fails_with(&event, recorded.status(), &recorded.stderr(), 3, "CONFIG_KPROBE_EVENTS");
        }
        assert!(line["reason"].as_str().unwrap().contains("CONFIG_KPROBE_EVENTS"), "{line}");
    }
    is_there
}

/// The names of the kernel's functions, from the innermost.
fn kernel_names<'a>(e: &'a Entry<'_>) -> Vec<&'a str> {
    let frames = e.frames.iter().take_while(|frame| frame.kind == FrameKind::Kernel);
    frames.map(|frame| frame.function.name.as_str()).collect()
}

/// Checks that no stack has what is between the function and the program.
fn nothing_of_the_hook(profile: &Profile, event: &str) {
    let view = View::of_type(profile, event);
    let reached = |e: &Entry<'_>| {
        let parts = ["kprobe", "kretprobe", "rethook", "bpf_", "perf_", "ftrace"];
        kernel_names(e).iter().any(|name| parts.iter().any(|part| name.contains(part)))
    };
    assert_eq!(view.count(reached), 0, "{}", view.list(reached));
}

#[test]
fn every_call_of_a_kernel_function_is_counted_with_its_callers() {
    if !has_kprobes() {
        return;
    }
    // It does the same, and is in nobody's filter.
    let words = arguments();
    let mut other = Target::ready(&workload::path("rare_calls"), &[&words[0], &words[1], "wait"]);
    let other_pid = u64::from(other.pid());
    other.go();
    let (call, back) = (format!("kprobe:{FUNCTION}"), format!("kretprobe:{FUNCTION}"));
    let recorded = Record::new()
        .args(["-e", &format!("{call},{back}")])
        .command(&workload::path("rare_calls"), &words)
        .run();
    let (_, beside) = other.finish();
    let (profile, times) = (recorded.succeeded(), times());
    let made = times + times.div_ceil(2);
    assert_eq!([number(&recorded.said(), "made"), number(&beside, "made")], [made; 2]);
    nothing_lost(&profile);
    let types: Vec<_> = profile.sample_types.iter().map(|t| (t.name.as_str(), t.unit.name())).collect();
    assert_eq!(types, [(call.as_str(), "count"), (back.as_str(), "count")]);
    for event in [&call, &back] {
        check(&profile, event, times, 0, &OFTEN);
        check(&profile, event, times.div_ceil(2), 0, &RARELY);
        let view = View::of_type(&profile, event);
        assert_eq!((view.total(), view.of_pid(other_pid)), (made, 0));
        nothing_of_the_hook(&profile, event);
    }
    // A call's stack begins with the function, one that has returned with the function's caller or further out.
    let begins = |e: &Entry<'_>| kernel_names(e).first() == Some(&FUNCTION);
    let calls = View::of_type(&profile, &call);
    assert_eq!(calls.count(begins), made, "{}", calls.list(|e| !begins(e)));
    let returns = View::of_type(&profile, &back);
    assert_eq!(returns.with(FUNCTION), 0, "{}", returns.list(|_| true));
}

#[test]
fn a_kernel_function_goes_with_tracepoints_and_timer_samples() {
    if !has_kprobes() {
        return;
    }
    let call = format!("kprobe:{FUNCTION}");
    let enter = "tracepoint:syscalls:sys_enter_getpriority";
    let recorded = Record::new()
        .args(["-e", &format!("cpu,{call},{enter}")])
        .command(&workload::path("rare_calls"), arguments())
        .run();
    let (profile, times) = (recorded.succeeded(), times());
    nothing_lost(&profile);
    for event in [call.as_str(), enter] {
        check(&profile, event, times, 0, &OFTEN);
        check(&profile, event, times.div_ceil(2), 0, &RARELY);
    }
    assert!(View::of_type(&profile, "samples").with("warm") > 0);
}

#[test]
fn a_place_in_the_kernel_that_cannot_be_hooked_is_told() {
    if !has_kprobes() {
        return;
    }
    for (event, code, part) in [
        (format!("kprobe:{FUNCTION}x"), 2, FUNCTION),
        ("kprobe:profiler none".to_owned(), 2, "write it kprobe:FUNCTION"),
        (format!("kretprobe:{FUNCTION}+4"), 2, "no offset"),
        (format!("kprobe:{FUNCTION}+1"), 3, "no instruction begins there"),
        // What runs when a kprobe is hit.
        ("kprobe:kprobe_int3_handler".to_owned(), 3, "lets nothing be hooked there"),
    ] {
        // Both are about instructions of several bytes, and about breakpoints of one.
        if code == 3 && !cfg!(target_arch = "x86_64") {
            continue;
        }
        let recorded = Record::new().args(["-e", &event]).command(&workload::path("burner"), ["0"]).run();
        fails_with(&event, recorded.status(), &recorded.stderr(), code, part);
    }
}
