//! Events that the user names by their hooks: tracepoints with and without filters on their fields. A program comes to each
//! place so often.

use profiler::model::{Profile, StackEnd};
use profiler_tests::{
    expect,
    record::{Record, Recorded, fails_with, profiler},
    target::Target,
    view::{Entry, View},
    workload,
};

const FORK: &str = "tracepoint:sched:sched_process_fork";
const WRITE: &str = "tracepoint:syscalls:sys_enter_write";

/// How often the program does what.
struct Times {
    forks: u64,
    writes: u64,
    calls: u64,
}

fn times() -> Times {
    if expect::is_emulated() {
        Times { forks: 30, writes: 3000, calls: 300 }
    } else {
        Times { forks: 200, writes: 30_000, calls: 3000 }
    }
}

fn arguments() -> [String; 4] {
    let Times { forks, writes, calls } = times();
    [expect::warm_up_ms().to_string(), forks.to_string(), writes.to_string(), calls.to_string()]
}

fn play(events: &str) -> Recorded {
    Record::new().args(["-e", events]).command(&workload::path("hooks"), arguments()).run()
}

/// Hits that the kernel says it left out, at most so many are missing. Where it does not say, none may be: these kernels
/// do not preempt what they would be left out for, and nothing that is counted here happens in an interrupt.
fn left_out(profile: &Profile) -> u64 {
    profile.losses.counters.get("programs_missed").copied().unwrap_or(0)
}

/// Checks that nothing but such hits was lost, and hardly any of these: one in a thousand.
pub(crate) fn nothing_lost(profile: &Profile) {
    let mut others = profile.clone();
    others.losses.counters.remove("programs_missed");
    expect::nothing_lost(&others);
    assert!(left_out(profile) <= View::of(profile).total() / 1000, "{:?}", profile.losses);
}

/// Checks that an event was counted so often, all of it with that stack: functions from the innermost of the program's
/// own outwards, behind at most `library` frames of the C library.
pub(crate) fn check(profile: &Profile, event: &str, times: u64, library: usize, functions: &[&str]) {
    let view = View::of_type(profile, event);
    let stands = |e: &Entry<'_>| {
        let names: Vec<_> = e.user_frames().map(|frame| frame.function.name.as_str()).collect();
        let at = names.iter().position(|name| *name == functions[0]);
        at.is_some_and(|at| at <= library && names[at..].starts_with(functions))
            && e.end == StackEnd::Complete
    };
    let found = view.count(stands);
    let wrong = view.list(|e| !stands(e));
    assert!(
        (times.saturating_sub(left_out(profile))..=times).contains(&found),
        "{event}: {found} of {times} in {functions:?}{wrong}"
    );
    let all = view.count(|e| functions.iter().all(|function| e.has(function)));
    assert_eq!(all, found, "{wrong}");
}

const FORKED: [&str; 3] = ["fork_here", "fork_outer", "main"];
const SEVEN: [&str; 3] = ["write_seven", "write_outer", "main"];
const NINE: [&str; 3] = ["write_nine", "write_outer", "main"];

#[test]
fn every_hit_of_a_tracepoint_is_counted_with_its_stack() {
    let recorded = play(&format!("{FORK},{WRITE}"));
    let (profile, said, times) = (recorded.succeeded(), recorded.said(), times());
    nothing_lost(&profile);
    let types: Vec<_> = profile.sample_types.iter().map(|t| (t.name.as_str(), t.unit.name())).collect();
    assert_eq!(types, [(FORK, "count"), (WRITE, "count")]);
    assert_eq!(profile.meta.events, [FORK, WRITE]);
    check(&profile, FORK, times.forks, 4, &FORKED);
    check(&profile, WRITE, times.writes, 2, &SEVEN);
    check(&profile, WRITE, times.writes.div_ceil(3), 2, &NINE);
    // The program makes no other child, and says who it is in one more write.
    let (forks, writes) = (View::of_type(&profile, FORK), View::of_type(&profile, WRITE));
    assert!(forks.total() <= times.forks, "{}", forks.list(|_| true));
    let other = |e: &Entry<'_>| !e.has("write_outer");
    assert_eq!(writes.count(other), 1, "{}", writes.list(other));
    assert_eq!(writes.of_pid(said["pid"].as_u64().unwrap()), writes.total());
    // How the program is reached is no part of what was hit.
    let reached = |e: &Entry<'_>| {
        let innermost = e.frames.first().map_or("", |frame| frame.function.name.as_str());
        ["__traceiter", "perf_", "bpf_"].iter().any(|start| innermost.starts_with(start))
    };
    for view in [&forks, &writes] {
        assert_eq!(view.count(reached), 0, "{}", view.list(reached));
    }
}

#[test]
fn fields_are_compared_in_the_kernel() {
    let times = times();
    let seven = format!("{WRITE}/count==7/");
    let nine = format!("{WRITE}/count>=8&&count<0xa/");
    let none = format!("{WRITE}/count==8/");
    let standard = format!("{WRITE}/fd<=2&&count!=7/");
    let events = [&seven, &nine, &none, &standard].map(|event| event.replace("&&", " && "));
    let recorded = Record::new()
        .args(events.iter().flat_map(|event| ["-e", event]))
        .command(&workload::path("hooks"), arguments())
        .run();
    let profile = recorded.succeeded();
    nothing_lost(&profile);
    check(&profile, &seven, times.writes, 2, &SEVEN);
    check(&profile, &nine, times.writes.div_ceil(3), 2, &NINE);
    let of = |event: &str| View::of_type(&profile, event);
    assert_eq!(of(&seven).total(), of(&seven).with("write_seven"));
    assert_eq!(of(&nine).total(), of(&nine).with("write_nine"));
    assert_eq!(of(&none).total(), 0, "{}", of(&none).list(|_| true));
    // What it says at its end.
    assert_eq!(of(&standard).total(), 1, "{}", of(&standard).list(|_| true));
}

#[test]
fn a_tracepoint_goes_with_timer_samples_and_others_are_not_counted() {
    // It does the same, and is in nobody's filter.
    let words = arguments();
    let mut other =
        Target::ready(&workload::path("hooks"), &[&words[0], &words[1], &words[2], &words[3], "wait"]);
    let other_pid = u64::from(other.pid());
    other.go();
    let recorded = play(&format!("cpu,{FORK}"));
    other.finish();
    let profile = recorded.succeeded();
    nothing_lost(&profile);
    check(&profile, FORK, times().forks, 4, &FORKED);
    for event in ["samples", FORK] {
        assert_eq!(View::of_type(&profile, event).of_pid(other_pid), 0);
    }
    let ticks = View::of_type(&profile, "samples");
    assert!(ticks.with("warm") > 0, "{}", ticks.list(|_| true));
}

/// The event at a function of the program.
fn at(kind: &str, place: &str) -> String {
    format!("{kind}:{}:{place}", workload::path("hooks").display())
}

const OFTEN: [&str; 3] = ["hooked", "call_often", "main"];
const RARELY: [&str; 3] = ["hooked", "call_rarely", "main"];

#[test]
fn every_call_of_a_function_is_counted_with_its_callers() {
    // The same program at the same places, in nobody's filter.
    let words = arguments();
    let mut other = Target::ready(&workload::path("hooks"), &[&words[0], "0", "0", &words[3], "wait"]);
    let other_pid = u64::from(other.pid());
    other.go();
    let (call, back) = (at("uprobe", "hooked"), at("uretprobe", "hooked"));
    let recorded = play(&format!("{call},{back}"));
    other.finish();
    let (profile, calls) = (recorded.succeeded(), times().calls);
    nothing_lost(&profile);
    assert_eq!(profile.losses.counters.get("uprobe_hits_left_out"), Some(&0));
    // At its first instruction a function has no frame yet, and its caller is found all the same.
    check(&profile, &call, calls, 0, &OFTEN);
    check(&profile, &call, calls.div_ceil(2), 0, &RARELY);
    // Where it returns to, it is none any more.
    check(&profile, &back, calls, 0, &OFTEN[1..]);
    check(&profile, &back, calls.div_ceil(2), 0, &RARELY[1..]);
    for event in [&call, &back] {
        let view = View::of_type(&profile, event);
        assert_eq!((view.total(), view.of_pid(other_pid)), (calls + calls.div_ceil(2), 0));
        assert_eq!(view.count(|e| e.user_leaf().is_none() || e.user_frames().count() != e.frames.len()), 0);
    }
}

#[test]
fn a_library_is_that_of_the_target_and_goes_with_other_events() {
    let words = arguments();
    let mut target =
        Target::ready(&workload::path("hooks"), &[&words[0], &words[1], &words[2], &words[3], "wait"]);
    // Its C library, wherever that is.
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid())).unwrap();
    let library =
        maps.lines().find_map(|line| line.contains("/libc.so.6").then(|| line.split_whitespace().last()));
    let write = format!("uprobe:{}:write", library.flatten().expect("it is linked with the C library"));
    let pid = target.pid().to_string();
    let mut recording = Record::new().args(["-e", &format!("{write},{WRITE},cpu"), "-p", &pid]).start();
    recording.wait_until_sampling();
    target.go();
    target.finish();
    let profile = recording.finish().succeeded();
    nothing_lost(&profile);
    let times = times();
    for (event, library) in [(write.as_str(), 1), (WRITE, 2)] {
        check(&profile, event, times.writes, library, &SEVEN);
        check(&profile, event, times.writes.div_ceil(3), library, &NINE);
    }
}

#[test]
fn an_offset_leads_into_a_function() {
    let (_, said) = Target::start(&workload::path("hooks"), &["0", "0", "0", "0"]).finish();
    let inside = said["inside"].as_u64().expect("it says where");
    assert!(inside > 0);
    let event = at("uprobe", &format!("hooked+{inside:#x}"));
    let (profile, calls) = (play(&event).succeeded(), times().calls);
    nothing_lost(&profile);
    check(&profile, &event, calls, 0, &OFTEN);
    check(&profile, &event, calls.div_ceil(2), 0, &RARELY);
}

#[test]
fn what_is_listed_can_be_recorded() {
    let listed = profiler(["list", "sched_process_fork", "--json"]);
    assert!(listed.status.success());
    let value: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(value["schema"], "profiler.list/1");
    let events: Vec<_> = value["rows"].as_array().unwrap().iter().map(|row| row["event"].as_str()).collect();
    assert_eq!(events, [Some(FORK)]);
    let fields = profiler(["list", "sched:sched_process_fork", "--fields"]);
    let text = String::from_utf8(fields.stdout).unwrap();
    assert!(text.starts_with(FORK) && text.contains("child_pid"), "{text}");
    let none = profiler(["list", "sched_proces_fork"]);
    fails_with(
        "list",
        none.status,
        &String::from_utf8_lossy(&none.stderr),
        2,
        "near: sched:sched_process_fork",
    );
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let refused = [
        ("tracepoint:sched:sched_proces_fork", "sched:sched_process_fork"),
        ("tracepoint:schd:sched_process_fork", "near: sched"),
        ("tracepoint:syscalls:sys_enter_write/cnt==7/", "count (size_t)"),
        ("tracepoint:sched:sched_process_fork/parent_comm==7/", "not an integer"),
        ("tracepoint:sched:sched_process_fork/common_pid==7/", "overwritten"),
        ("tracepoint:sched:sched_process_fork/child_pid==0x100000000/", "outside of what"),
        ("tracepoint:sched:../sched/sched_process_fork", "does not end in"),
    ];
    for (event, part) in refused {
        let recorded = Record::new().args(["-e", event]).command(&workload::path("burner"), ["0"]).run();
        fails_with(event, recorded.status(), &recorded.stderr(), 2, part);
    }
    for (place, part) in [
        ("hooke", "near: hooked"),
        ("hooked+4000", "bytes only"),
        ("0x10", "no code there"),
        (":x", "os error 2"),
    ] {
        let event = at("uprobe", place);
        let recorded = Record::new().args(["-e", &event]).command(&workload::path("burner"), ["0"]).run();
        fails_with(&event, recorded.status(), &recorded.stderr(), 2, part);
    }
    let many: Vec<_> = (1..=5).map(|fd| format!("{WRITE}/fd=={fd}/")).collect();
    let recorded =
        Record::new().args(["-e", &many.join(",")]).command(&workload::path("burner"), ["0"]).run();
    fails_with("five hooks", recorded.status(), &recorded.stderr(), 2, "4 events at most");
}
