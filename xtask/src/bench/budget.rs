//! What the profiler may cost, and whether it keeps to it.

use super::{Samples, calls::Calls, loading::Loading, page, stats, storm::Storm};
use crate::process::Failure;

/// What a long recording used.
pub struct Long {
    /// CPU time of the profiler while recording, percent of one core.
    pub cpu_percent: f64,
    /// Resident set at the end of the recording, MiB.
    pub recording_rss_mib: f64,
    /// Largest resident set, naming included, MiB.
    pub peak_rss_mib: f64,
    /// From Ctrl-C to the end, s.
    pub exit_s: f64,
    /// Run time of its eBPF programs, percent of one core; `None` for other profilers.
    pub ebpf_percent: Option<f64>,
}

/// One number that must stay below a limit.
pub struct Budget {
    what: &'static str,
    unit: &'static str,
    limit: f64,
    /// `None`: not measured.
    measured: Option<f64>,
}

/// What the budgets are about, of this profiler.
pub struct Measurements<'a> {
    /// The counting loop.
    pub counting: &'a Samples,
    /// Compilations, names in the page cache.
    pub warm: &'a Long,
    /// Compilations, page cache empty.
    pub cold: &'a Long,
    /// A browser, if there is one.
    pub browser: Option<&'a Long>,
    /// Making unwind tables.
    pub loading: &'a Loading,
    /// Accounting of switches.
    pub storm: &'a Storm,
    /// Accounting of system calls.
    pub calls: &'a Calls,
}

/// The budgets with what was measured.
pub fn of(measured: &Measurements<'_>) -> Vec<Budget> {
    let Measurements { counting, warm, cold, browser, .. } = measured;
    let rss: Vec<f64> =
        [Some(*warm), Some(*cold), *browser].into_iter().flatten().map(|l| l.recording_rss_mib).collect();
    let rss = stats::largest(&[&counting.recording_rss_mib[..], &rss].concat());
    let mut budgets = vec![
        budget("start to first sample", "s", 0.3, stats::median(&counting.start_s)),
        budget("Ctrl-C to report of compilations, files in the page cache", "s", 1.0, Some(warm.exit_s)),
        budget("Ctrl-C to report of compilations, page cache empty", "s", 3.0, Some(cold.exit_s)),
        budget("RSS while recording, tables made", "MiB", 40.0, rss),
        budget("peak RSS, naming a browser", "MiB", 150.0, browser.map(|long| long.peak_rss_mib)),
    ];
    budgets.extend(of_cpu(measured));
    budgets.extend(of_tables(measured.loading));
    budgets.extend(of_accounting(measured.storm));
    budgets.extend(of_calls(measured.calls));
    budgets
}

const fn budget(what: &'static str, unit: &'static str, limit: f64, measured: Option<f64>) -> Budget {
    Budget { what, unit, limit, measured }
}

/// Making unwind tables is in the profiler's own time: where programs that are new to it keep coming, it is most of it.
fn of_cpu(measured: &Measurements<'_>) -> [Budget; 6] {
    let Measurements { counting, warm, browser, .. } = measured;
    let own = |what, limit, measured| budget(what, "%", limit, measured);
    [
        own("own CPU, of one core: counting loop", 0.5, stats::median(&counting.recording_cpu_percent)),
        own("own CPU, of one core: compilations", 1.0, Some(warm.cpu_percent)),
        own("own CPU, of one core: browser", 1.0, browser.map(|long| long.cpu_percent)),
        own("eBPF programs, of one core: counting loop", 1.0, stats::median(&counting.ebpf_percent)),
        own("eBPF programs, of one core: compilations", 1.0, warm.ebpf_percent),
        own("eBPF programs, of one core: browser", 1.0, browser.and_then(|long| long.ebpf_percent)),
    ]
}

fn of_tables(loading: &Loading) -> [Budget; 4] {
    let (java, browser) = (loading.java.as_ref(), loading.browser.as_ref());
    let rss: Vec<f64> = [java, browser].into_iter().flatten().filter_map(|s| s.peak_rss_mib()).collect();
    [
        budget("tables of libjvm and libc, cold", "s", 1.0, java.and_then(|s| s.cold_s())),
        budget("tables of libjvm and libc, from the cache", "s", 0.05, java.and_then(|s| s.cached_s())),
        budget("table of a browser's library, cold", "s", 3.0, browser.and_then(|s| s.cold_s())),
        budget("peak RSS, making tables", "MiB", 150.0, stats::largest(&rss)),
    ]
}

fn of_accounting(storm: &Storm) -> [Budget; 3] {
    [
        // What a histogram of run-queue latency alone takes elsewhere.
        budget("accounting, added to a round trip of switches", "ns", 1831.0, storm.added_ns()),
        budget("accounting, RSS", "MiB", 30.0, storm.rss_mib()),
        budget("accounting, Ctrl-C to end", "s", 0.3, storm.exit_s()),
    ]
}

fn of_calls(calls: &Calls) -> [Budget; 3] {
    [
        // What the kernel's own way to a program takes differs from machine to machine, and from hour to hour on a virtual
        // one: 95 ns where the limits of 115 and 320 ns in all come from.
        budget("system calls counted, above a program that does nothing", "ns", 20.0, calls.counted_ns()),
        budget("system calls timed, above a program that does nothing", "ns", 225.0, calls.timed_ns()),
        budget("accounting of system calls, RSS", "MiB", 30.0, calls.rss_mib()),
    ]
}

/// The budgets as a table.
pub fn table(budgets: &[Budget]) -> String {
    let row = |b: &Budget| {
        let verdict = match b.measured {
            None => "not measured",
            Some(measured) if measured < b.limit => "kept",
            Some(_) => "**missed**",
        };
        vec![
            b.what.to_owned(),
            format!("{} {}", b.limit, b.unit),
            format!("{} {}", page::number(b.measured, if b.limit < 0.1 { 3 } else { 2 }), b.unit),
            verdict.to_owned(),
        ]
    };
    let rows: Vec<_> = budgets.iter().map(row).collect();
    page::table(&["budget", "below", "measured", ""], &rows)
}

/// # Errors
/// The budgets that are not kept.
pub fn check(budgets: &[Budget]) -> Result<(), Failure> {
    let missed: Vec<_> =
        budgets.iter().filter(|b| b.measured.is_some_and(|m| m >= b.limit)).map(|b| b.what).collect();
    if missed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("budgets missed: {}", missed.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(measured: Option<f64>) -> Budget {
        Budget { what: "start", unit: "s", limit: 0.3, measured }
    }

    #[test]
    fn what_reaches_its_limit_is_missed() {
        assert!(check(&[budget(Some(0.29)), budget(None)]).is_ok());
        assert_eq!(check(&[budget(Some(0.3))]).unwrap_err().to_string(), "budgets missed: start");
        assert!(table(&[budget(Some(0.3))]).contains("| **missed** |"));
        assert!(table(&[budget(None)]).contains("| - s | not measured |"));
    }
}
