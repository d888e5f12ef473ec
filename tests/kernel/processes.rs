//! Processes that come, change and go: short-lived ones, exec, fork, dlopen.

use profiler_tests::{
    expect,
    record::Record,
    target::{Target, number},
    view::{Entry, View},
    workload,
};

/// How many short-lived processes; fewer on a machine that is told to be slow (an emulated one takes 50 ms for each).
fn short_lived_count() -> u64 {
    let set = std::env::var("PROFILER_TEST_PROCESSES").ok();
    set.map_or(1000, |count| count.parse().expect("PROFILER_TEST_PROCESSES is a number"))
}

/// What a driver, its children before they exec, and the children are made of.
const MODULES: [&str; 5] = ["short", "short_driver", "libc.so.6", "[vdso]", "[kernel]"];

/// Whether the code that ran is known to be where it was. Only the innermost frame says so: the dynamic linker has no
/// frame pointers, and while a process execs, its user registers are still those of the program before.
fn is_placed(entry: &Entry<'_>) -> bool {
    use profiler::model::{FrameKind, Reason};
    let Some(leaf) = entry.frames.first() else { return false };
    // Stripped system libraries have code without a symbol, which still says whose it is.
    let reason = leaf.function.unresolved;
    let is_known = reason.is_none_or(|reason| matches!(reason, Reason::NoSymbols | Reason::NoSymbolFound));
    let module = leaf.module.name();
    is_known
        && (MODULES.contains(&module) || module.starts_with("ld-linux") || leaf.kind == FrameKind::Kernel)
}

/// Checks the samples of `children`, the processes that the driver started.
fn short_lived(record: Record) {
    let driver = workload::path("short_driver");
    let short = workload::path("short");
    let count = short_lived_count();
    let recorded = record.command(&driver, [count.to_string().as_ref(), short.as_os_str()]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let said = recorded.said();
    assert_eq!(number(&said, "started"), count);

    expect::no_sample_lost(&profile);
    let driver_pid = number(&said, "pid");
    // A child has its parent's name until it execs.
    let is_child = |e: &Entry<'_>| {
        u64::from(e.thread.pid) != driver_pid
            && ["short", "short_driver"].contains(&e.thread.process.as_str())
    };
    let children = view.count(is_child);
    let nameless = |e: &Entry<'_>| e.thread.process.starts_with('[') || e.thread.process.is_empty();
    assert_eq!(view.count(nameless), 0, "processes without a name{}", view.list(nameless));

    let good = |e: &Entry<'_>| {
        let ran_short = e.frames.iter().any(|frame| frame.module.name() == "short");
        is_placed(e) && (!ran_short || e.thread.process == "short" && e.thread.name == "short")
    };
    let right = view.count(|e| is_child(e) && good(e));
    let wrong = view.list(|e| is_child(e) && !good(e));
    assert!(
        right * 100 >= children * 99,
        "{right} of {children} samples have the right command and modules{wrong}"
    );

    // The work itself, 1 to 3 ms; each overruns by at most a slice of about 4 us. A process of `t` ms is hit by `t` ticks or
    // by one more, a standard deviation of at most 0.5 each, and of as much again if it is preempted once: six of them for
    // all are 7 % of a thousand processes.
    let work_ns = number(&said, "work_ns");
    let tolerance = 6.0 * 0.5 * (2.0 * count as f64).sqrt() / (work_ns as f64 / 1e6);
    expect::samples("short_work", view.with("short_work"), work_ns, &profile, tolerance);
    let strangers = view.count(|e| e.has("short_work") && e.thread.process != "short");
    assert_eq!(strangers, 0, "{}", view.list(|e| e.has("short_work") && e.thread.process != "short"));
}

#[test]
fn a_thousand_short_lived_children() {
    short_lived(Record::at_999());
}

#[test]
fn a_thousand_short_lived_processes_system_wide() {
    short_lived(Record::at_999().args(["-a"]));
}

/// CPU time of each part of the workloads below, and what its samples may be off: 300 ticks, one more or less at each
/// start and stop; 5 % are 15.
const PART: &str = "300";
const PART_NS: u64 = 300_000_000;
const PART_TOLERANCE: f64 = 0.05;

#[test]
fn exec_changes_the_name_and_the_modules() {
    let burner = workload::path("burner");
    let arguments = [PART.as_ref(), burner.as_os_str(), PART.as_ref()];
    let recorded = Record::at_999().command(&workload::path("exec_chain"), arguments).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    for (function, program) in [("exec_before", "exec_chain"), ("burner_work", "burner")] {
        expect::samples(function, view.with(function), PART_NS, &profile, PART_TOLERANCE);
        let wrong = |e: &Entry<'_>| {
            e.has(function)
                && (e.thread.process != program
                    || e.frames.iter().any(|f| f.function.name == function && f.module.name() != program))
        };
        assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
    }
    let pids: std::collections::BTreeSet<_> = view.entries.iter().map(|e| e.thread.pid).collect();
    assert_eq!(pids.len(), 1, "exec does not change the process id: {pids:?}");
}

const FORKS: [&str; 3] = ["fork_parent_work", "fork_child_work", "fork_grandchild_work"];

#[test]
fn children_are_followed() {
    let recorded = Record::at_999().command(&workload::path("forker"), [PART]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    let mut pids = std::collections::BTreeSet::new();
    for function in FORKS {
        expect::samples(function, view.with(function), PART_NS, &profile, PART_TOLERANCE);
        pids.extend(view.entries.iter().filter(|e| e.has(function)).map(|e| (function, e.thread.pid)));
    }
    assert_eq!(pids.len(), 3, "each function is one process's: {pids:?}");
}

#[test]
fn children_are_left_out_if_so_asked() {
    let recorded = Record::at_999().args(["--no-children"]).command(&workload::path("forker"), [PART]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::samples(FORKS[0], view.with(FORKS[0]), PART_NS, &profile, PART_TOLERANCE);
    let pid = number(&recorded.said(), "pid");
    assert_eq!(view.of_pid(pid), view.total(), "{}", view.list(|e| u64::from(e.thread.pid) != pid));
}

#[test]
fn children_of_a_running_process_are_followed() {
    let mut forker = Target::ready(&workload::path("forker"), &[PART, "wait"]);
    let mut recording = Record::at_999().args(["-p", &forker.pid().to_string()]).start();
    recording.wait_until_sampling();
    forker.go();
    let (status, _) = forker.finish();
    assert!(status.success());
    recording.signal(rustix::process::Signal::INT);
    let profile = recording.finish().succeeded();
    let view = View::of(&profile);
    for function in FORKS {
        // Sampling may begin a moment after its events are opened.
        expect::ticks_at_least(function, view.with(function), 300, &profile, 80.0);
    }
}

#[test]
fn a_library_loaded_by_the_command_is_named() {
    let library = workload::path("dl_library.so");
    let recorded =
        Record::at_999().command(&workload::path("dl_main"), [PART.as_ref(), library.as_os_str()]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    expect::samples("dl_main_work", view.with("dl_main_work"), PART_NS, &profile, PART_TOLERANCE);
    expect::samples("dl_library_work", view.with("dl_library_work"), PART_NS, &profile, PART_TOLERANCE);
    let wrong = |e: &Entry<'_>| {
        e.frames.iter().any(|f| f.function.name == "dl_library_work" && f.module.name() != "dl_library.so")
    };
    assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
}

#[test]
fn a_library_loaded_while_a_running_process_is_recorded_is_named() {
    let library = workload::path("dl_library.so");
    let arguments = [PART.as_ref(), library.as_os_str(), "wait".as_ref()];
    let mut target = Target::ready(&workload::path("dl_main"), &arguments);
    let mut recording = Record::at_999().args(["-p", &target.pid().to_string()]).start();
    recording.wait_until_sampling();
    target.go();
    let (status, _) = target.finish();
    assert!(status.success());
    recording.signal(rustix::process::Signal::INT);
    let profile = recording.finish().succeeded();
    let view = View::of(&profile);
    expect::ticks_at_least("dl_library_work", view.with("dl_library_work"), 300, &profile, 80.0);
    assert_eq!(view.with("dl_main_work"), 0, "that was before the recording");
}
