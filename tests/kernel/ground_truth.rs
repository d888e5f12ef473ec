//! A program whose CPU time is split 50/30/20 by construction, 20 calls deep: in C, C++ and Rust.

use profiler_tests::{
    expect,
    record::{Record, fails_with},
    target::number,
    view::View,
    workload,
};

/// CPU time of the workload.
const MILLISECONDS: &str = "5000";

/// Calls below `main`, the work function included.
const DEPTH: usize = 20;

/// What the number of samples may be off (`expect::samples`).
const COUNT_TOLERANCE: f64 = 0.02;

/// Checks one language. `chain` says whether a name is one of a caller's functions; the work function is `work`.
fn split(program: &str, work: &str, callers: [&str; 3]) {
    let recorded = Record::of_split().command(&workload::path(program), [MILLISECONDS]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let said = recorded.said();
    let total = view.of_pid(number(&said, "pid"));
    assert_eq!(
        total,
        view.total(),
        "samples of other processes{}",
        view.list(|e| e.thread.process != program)
    );

    expect::nothing_lost(&profile);
    // Not its start, which the kernel and the dynamic linker do: on an emulated CPU that is 2 % of the samples.
    let working = view.count(|entry| {
        entry.frames.iter().any(|f| callers.iter().any(|name| f.function.name.contains(name)))
    });
    expect::at_least("samples of the work", working, total, 95.0);
    for (caller, percent) in callers.into_iter().zip([50.0, 30.0, 20.0]) {
        let count = view.count(|entry| entry.frames.iter().any(|f| f.function.name.contains(caller)));
        expect::share(caller, count, working, percent);
    }
    let is_full = |names: &[&str]| {
        names.len() > DEPTH
            && names[0] == work
            && names[DEPTH].ends_with("main")
            && callers.iter().any(|caller| names[1..DEPTH].iter().all(|name| name.contains(caller)))
    };
    let full = view.count(|entry| {
        let names: Vec<_> = entry.user_frames().map(|frame| frame.function.name.as_str()).collect();
        is_full(&names)
    });
    // Not what hits the calls on their way to the work, which an emulated CPU spends 1 % of its time on.
    expect::at_least("stacks of full depth", full, view.with(work), 99.0);
    expect::samples("all callers", total, number(&said, "cpu_ns"), &profile, COUNT_TOLERANCE);
}

#[test]
fn split_in_c() {
    split("split-c", "split_work", ["split_half", "split_third", "split_fifth"]);
}

#[test]
fn split_in_cpp() {
    split("split-cpp", "split::work(unsigned long)", ["split::half", "split::third", "split::fifth"]);
}

#[test]
fn split_in_rust() {
    split("split-rust", "split::work", ["split::half::", "split::third::", "split::fifth::"]);
}

/// At the default rate too.
#[test]
fn split_at_the_default_rate() {
    let record = Record::new().args(["--sampler", "cpu-clock"]);
    let recorded = record.command(&workload::path("split-c"), [MILLISECONDS]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    assert_eq!(profile.meta.frequency_hz, 99);
    expect::split("split-c", &view);
    expect::samples("all", view.total(), number(&recorded.said(), "cpu_ns"), &profile, COUNT_TOLERANCE);
}

/// Whether the kernel has a driver for the CPU's performance counters: on x86 `cpu` (of hybrid ones `cpu_core`), on arm64
/// named after the architecture or the core.
fn has_cycle_counter() -> bool {
    let devices = std::fs::read_dir("/sys/bus/event_source/devices").expect("the kernel has perf events");
    devices.flatten().any(|device| {
        let name = device.file_name();
        let name = name.to_string_lossy();
        name == "cpu" || name == "cpu_core" || name.starts_with("armv8_")
    })
}

/// By the hardware's cycle counter wherever there is one, and then the split is the same: the loop of each caller is the
/// same, and so are its cycles per second.
#[test]
fn split_by_the_cycle_counter_where_there_is_one() {
    let record = |sampler| {
        let record = Record::new().args(["-F", "999", "--sampler", sampler]);
        record.command(&workload::path("split-c"), ["2000"]).run()
    };
    if !has_cycle_counter() {
        let refused = record("cycles");
        fails_with("cycles", refused.status(), &refused.stderr(), 3, "no hardware cycle counter (PMU)");
    }
    let recorded = record("auto");
    let profile = recorded.succeeded();
    let sampler = if has_cycle_counter() { "cycles" } else { "cpu-clock" };
    assert_eq!(profile.meta.sampler, sampler, "{:?}", profile.meta.sampler_reason);
    let view = View::of(&profile);
    expect::split("split-c", &view);
}
