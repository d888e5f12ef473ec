//! What the profiler may cost, and whether it keeps to it.

use super::{Samples, page, stats};
use crate::process::Failure;

/// What a long recording used.
pub struct Long {
    /// CPU time of the profiler while recording, percent of one core.
    pub cpu_percent: f64,
    /// Largest resident set while recording, MiB.
    pub recording_rss_mib: f64,
    /// Largest resident set, naming included, MiB.
    pub peak_rss_mib: f64,
    /// From Ctrl-C to the end, s.
    pub exit_s: f64,
}

/// One number that must stay below a limit.
pub struct Budget {
    what: &'static str,
    unit: &'static str,
    limit: f64,
    /// `None`: not measured.
    measured: Option<f64>,
}

/// The budgets with what was measured. Of repeated runs, the largest counts.
pub fn of(samples: &Samples, warm: &Long, cold: &Long, browser: Option<&Long>) -> Vec<Budget> {
    let rss = [warm, cold].map(|long| long.recording_rss_mib);
    let rss = stats::largest(&[&samples.recording_rss_mib[..], &rss].concat());
    let cpu = [&samples.recording_cpu_percent[..], &[warm.cpu_percent, cold.cpu_percent]].concat();
    let budget = |what, unit, limit, measured| Budget { what, unit, limit, measured };
    vec![
        budget("start to first sample", "s", 0.3, stats::median(&samples.start_s)),
        budget("Ctrl-C to report, names in the page cache", "s", 1.0, Some(warm.exit_s)),
        budget("Ctrl-C to report, page cache empty", "s", 3.0, Some(cold.exit_s)),
        budget("RSS while recording", "MiB", 40.0, rss),
        budget("peak RSS, naming a browser", "MiB", 150.0, browser.map(|long| long.peak_rss_mib)),
        budget("own CPU at 99 Hz, of one core", "%", 0.5, stats::median(&cpu)),
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
            format!("{} {}", page::number(b.measured, 2), b.unit),
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
