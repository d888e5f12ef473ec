//! Expectations with their tolerances.
//!
//! # How many samples a known CPU time gives
//! The timer of a CPU ticks with a fixed period, whoever runs, so a thread that uses `t` seconds of CPU time is hit
//! `rate x t` times, but for: one tick more or less at each of its starts and stops (at random, so the error of `n`
//! switches is about `sqrt(n) / 2`), and the ticks that a CPU did not deliver, because interrupts were off or because
//! the hypervisor ran something else. The recording says how many those were (`meta.ticks` of `meta.expected_ticks`).

use profiler::model::{Meta, Profile};

use crate::{view::View, workload};

/// The share of the timer's ticks that were delivered, all CPUs together; 1 for a hardware event.
pub fn delivered(meta: &Meta) -> f64 {
    if meta.expected_ticks == 0 { 1.0 } else { meta.ticks as f64 / meta.expected_ticks as f64 }
}

/// Ticks of all CPUs that were not delivered; 0 for a hardware event. An idle CPU misses none: at worst all of them were
/// the workload's.
pub fn undelivered(meta: &Meta) -> u64 {
    meta.expected_ticks.saturating_sub(meta.ticks)
}

/// Whether this is a guest of `cargo xtask vm-test`, whose emulated CPUs miss ticks at any time.
pub fn is_emulated() -> bool {
    std::env::var_os(workload::DIRECTORY_VARIABLE).is_some()
}

/// What a program needs before its stacks are whole, ms: time to make its unwind tables, while it and perhaps another one use
/// the CPUs.
pub fn warm_up_ms() -> u64 {
    if is_emulated() { 2500 } else { 400 }
}

/// Time that the hypervisor has taken from all CPUs so far, ticks of 10 ms: `steal` in /proc/stat. The kernel's CPU time of a
/// thread can be without it (`CONFIG_PARAVIRT_TIME_ACCOUNTING`).
///
/// # Panics
/// If /proc/stat cannot be read.
pub fn steal_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc is there");
    let steal = stat.lines().next().and_then(|all| all.split_ascii_whitespace().nth(8));
    steal.map_or(0, |ticks| ticks.parse().expect("it is a number"))
}

/// What that is at most since it was `before`, ns; 0 on a machine that it was never taken from.
pub fn steal_since_ns(before: u64) -> u64 {
    match steal_ticks() {
        0 => 0,
        ticks => 10_000_000 * (ticks - before + 1),
    }
}

/// What is no loss of the profiler's: ticks that the machine did not deliver (see [`samples`]), and walks that went in
/// circles because code without frame pointers (the dynamic linker's) uses the register for something else; and switches
/// that the machine's kernel makes without hitting the tracepoint, which some do between an idle CPU and a task.
const NOT_LOSSES: [&str; 3] = ["ticks_not_delivered", "user_stack_truncated", "switches_not_traced"];

/// Switches that the kernel hid from a recording of time off the CPU: so many waits have no end, and are not there.
///
/// # Panics
/// If the recording has no such counter.
pub fn hidden_switches(profile: &Profile) -> u64 {
    profile.losses.counters["switches_not_traced"]
}

/// Checks that nothing was lost: every loss counter is there and is 0, but for [`NOT_LOSSES`].
///
/// # Panics
/// If a counter is not 0, or there are none.
pub fn nothing_lost(profile: &Profile) {
    let counters = &profile.losses.counters;
    assert!(!counters.is_empty(), "the recording has no loss counters");
    let lost: Vec<_> = counters
        .iter()
        .filter(|(cause, count)| **count != 0 && !NOT_LOSSES.contains(&cause.as_str()))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Checks that no sample was lost, of whomever. Of other people's processes stacks may be deeper than is kept.
///
/// # Panics
/// If a sample was lost, or if nobody counted.
pub fn no_sample_lost(profile: &Profile) {
    assert!(!profile.losses.lost_sample_causes.is_empty(), "the recording has no loss counters");
    assert_eq!(profile.losses.lost_samples(), 0, "{:?}", profile.losses.counters);
    assert_eq!(profile.losses.counters.get("stacks_map_full"), Some(&0), "{:?}", profile.losses.counters);
}

/// Checks a number of samples against a CPU time: `tolerance` is a share of the expected number, at least 3 samples
/// (the starts and stops of a short workload, see the module's head). Under emulation, what was not delivered may be missing.
///
/// # Panics
/// If it is outside.
pub fn samples(what: &str, count: u64, cpu_ns: u64, profile: &Profile, tolerance: f64) {
    let meta = &profile.meta;
    let expected = meta.frequency_hz as f64 * cpu_ns as f64 / 1e9;
    // Between two preemptions a task is hit by one tick more or less than the time is long, a standard deviation of at
    // most 0.5: that they are every 2 ms is more than schedulers do (`base_slice_ns`, kernel/sched/fair.c).
    let preempted = 4.5 * 0.5 * (cpu_ns as f64 / 2e6).sqrt();
    // What the hypervisor took may be no CPU time of the workload's, and is hit.
    let stolen = meta.frequency_hz as f64 * meta.stolen_ns as f64 / 1e9;
    let slack = (expected * tolerance).max(3.0).max(preempted) + stolen;
    // On a machine of its own an idle CPU's timer stands still too, so that the number says nothing of the workload's.
    let undelivered = if is_emulated() { undelivered(meta) as f64 } else { 0.0 };
    let error = count as f64 - expected;
    assert!(
        (-slack - undelivered..=slack).contains(&error),
        "{what}: {count} samples, but {:.3} s of CPU time at {} Hz are {expected:.1} +- {slack:.1} \
         ({} of {} ticks were delivered: {:.2} %)",
        cpu_ns as f64 / 1e9,
        meta.frequency_hz,
        meta.ticks,
        meta.expected_ticks,
        100.0 * delivered(meta),
    );
}

/// Checks the share that a caller has of samples of a workload that splits its time by construction: within 2 percentage
/// points, and where `total` samples are too few to tell that from chance, within 4.5 standard deviations of a share
/// (once in 150,000 checks outside by chance).
///
/// # Panics
/// If it is not.
pub fn share(what: &str, part: u64, total: u64, percent: f64) {
    let deviation = (percent * (100.0 - percent) / total.max(1) as f64).sqrt();
    share_within(what, part, total, percent, (4.5 * deviation).max(2.0));
}

/// Checks that a share is within so many percentage points of what it must be.
///
/// # Panics
/// If it is not.
pub fn share_within(what: &str, part: u64, total: u64, percent: f64, points: f64) {
    let share = 100.0 * part as f64 / total.max(1) as f64;
    assert!(
        (share - percent).abs() <= points,
        "{what}: {part} of {total} are {share:.2} %, expected {percent:.2} +- {points:.2}"
    );
}

/// Checks the split of `split-c`: of the samples in its work, the share of each caller. Those that come before its unwind
/// tables are there may lack their callers, and an emulated CPU is long in starting a program: of all samples the work has
/// half.
///
/// # Panics
/// If it is another.
pub fn split(what: &str, view: &View<'_>) {
    let parts = [("split_half", 50.0), ("split_third", 30.0), ("split_fifth", 20.0)];
    let of = |caller: &str| view.count(|entry| !entry.is_early() && entry.has(caller));
    let all = parts.iter().map(|(caller, _)| of(caller)).sum();
    at_least(&format!("{what}: work{}", view.list(|_| true)), all, view.total(), 50.0);
    for (caller, percent) in parts {
        share(&format!("{what}: {caller}{}", view.list(|e| !e.has(caller))), of(caller), all, percent);
    }
}

/// Checks that at least `percent` of `total` are in `part`.
///
/// # Panics
/// If they are fewer, or if there is nothing.
pub fn at_least(what: &str, part: u64, total: u64, percent: f64) {
    assert!(total > 0, "{what}: no samples at all");
    let share = 100.0 * part as f64 / total as f64;
    assert!(
        share >= percent,
        "{what}: {part} of {total} samples are {share:.2} %, expected at least {percent}"
    );
}

/// Checks that at least `percent` of `ticks` of a workload are in `part`, or were not delivered.
///
/// # Panics
/// If they are fewer.
pub fn ticks_at_least(what: &str, part: u64, ticks: u64, profile: &Profile, percent: f64) {
    let undelivered = undelivered(&profile.meta);
    let share = 100.0 * (part + undelivered) as f64 / ticks as f64;
    assert!(
        share >= percent && part > 0,
        "{what}: {part} of {ticks} ticks, {undelivered} not delivered: {share:.2} %, expected at least {percent}"
    );
}
