//! Expectations with their tolerances.
//!
//! # How many samples a known CPU time gives
//! The timer of a CPU ticks with a fixed period, whoever runs, so a thread that uses `t` seconds of CPU time is hit
//! `rate x t` times, but for: one tick more or less at each of its starts and stops (at random, so the error of `n`
//! switches is about `sqrt(n) / 2`), and the ticks that a CPU did not deliver, because interrupts were off or because
//! the hypervisor ran something else. The recording says how many those were (`meta.ticks` of `meta.expected_ticks`).

use profiler::model::{Meta, Profile};

/// The share of the timer's ticks that were delivered, all CPUs together; 1 for a hardware event.
pub fn delivered(meta: &Meta) -> f64 {
    if meta.expected_ticks == 0 { 1.0 } else { meta.ticks as f64 / meta.expected_ticks as f64 }
}

/// Checks that nothing was lost: every loss counter is there and is 0.
///
/// # Panics
/// If a counter is not 0, or there are none.
pub fn nothing_lost(profile: &Profile) {
    let counters = &profile.losses.counters;
    assert!(!counters.is_empty(), "the recording has no loss counters");
    let lost: Vec<_> = counters.iter().filter(|(_, count)| **count != 0).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Checks a number of samples against a CPU time: `tolerance` is a share of the expected number, at least 3 samples
/// (the starts and stops of a short workload, see the module's head).
///
/// # Panics
/// If it is outside.
pub fn samples(what: &str, count: u64, cpu_ns: u64, profile: &Profile, tolerance: f64) {
    let meta = &profile.meta;
    let expected = meta.frequency_hz as f64 * cpu_ns as f64 / 1e9;
    let slack = (expected * tolerance).max(3.0);
    let error = count as f64 - expected;
    assert!(
        error.abs() <= slack,
        "{what}: {count} samples, but {:.3} s of CPU time at {} Hz are {expected:.1} +- {slack:.1} \
         ({} of {} ticks were delivered: {:.2} %)",
        cpu_ns as f64 / 1e9,
        meta.frequency_hz,
        meta.ticks,
        meta.expected_ticks,
        100.0 * delivered(meta),
    );
}

/// Checks a share in percent.
///
/// # Panics
/// If it is more than `points` percentage points off.
pub fn share(what: &str, part: u64, total: u64, percent: f64, points: f64) {
    let share = 100.0 * part as f64 / total.max(1) as f64;
    assert!(
        (share - percent).abs() <= points,
        "{what}: {part} of {total} samples are {share:.2} %, expected {percent} +- {points}"
    );
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
