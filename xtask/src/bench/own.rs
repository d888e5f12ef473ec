//! What a recording of this profiler says of itself: the `cost` of its JSON.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    process::{Failure, capture},
    workspace,
};

/// The parts of `cost` and `meta` that are measured here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Own {
    /// Run time of the eBPF programs, ns.
    pub ebpf_ns: f64,
    /// Samples that were counted.
    pub samples: f64,
    /// Ticks, those that were filtered out included.
    pub ticks: f64,
    /// CPU time, user and kernel, while recording, s.
    pub cpu_s: f64,
    /// Length, s.
    pub duration_s: f64,
}

impl Own {
    /// Reads it from the recording in a directory.
    pub fn of_recording(directory: &Path, file: &str) -> Result<Self, Failure> {
        let document = report(directory, file)?;
        Self::of(&document).ok_or_else(|| Failure::new(format!("{file} lacks a part of cost or meta")))
    }

    /// Run time of the eBPF programs for a sample, ns, if a tick without one takes `filtered_ns`.
    pub fn per_sample_ns(&self, filtered_ns: f64) -> f64 {
        (self.ebpf_ns - (self.ticks - self.samples).max(0.0) * filtered_ns) / self.samples
    }

    /// Reads it from a report.
    pub fn of(document: &Value) -> Option<Self> {
        let (cost, meta) = (&document["cost"], &document["meta"]);
        let rows = document["rows"].as_array()?;
        Some(Self {
            ebpf_ns: cost["ebpf_run_ns"].as_f64()?,
            samples: rows.iter().filter_map(|row| row["self_samples"].as_f64()).sum(),
            ticks: meta["ticks"].as_f64()?,
            cpu_s: (cost["user_cpu_ns"].as_f64()? + cost["system_cpu_ns"].as_f64()?) / 1e9,
            duration_s: meta["duration_ns"].as_f64()? / 1e9,
        })
    }

    /// Run time of the eBPF programs, percent of one core.
    pub fn ebpf_percent(&self) -> f64 {
        100.0 * self.ebpf_ns / 1e9 / self.duration_s
    }
}

/// The report of the recording in a directory.
pub fn report(directory: &Path, file: &str) -> Result<Value, Failure> {
    let mut command = Command::new(workspace::release_binary()?);
    command.current_dir(directory).args(["report", file, "--json"]);
    let text = capture(&mut command)?;
    serde_json::from_str(&text).map_err(|e| Failure::new(format!("what `profiler report --json` wrote: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_read_from_a_report() {
        let document = serde_json::json!({
            "meta": {"ticks": 50, "duration_ns": 2_000_000_000u64},
            "cost": {"ebpf_run_ns": 10_000_000, "user_cpu_ns": 1_000_000_000u64, "system_cpu_ns": 500_000_000},
            "rows": [{"self_samples": 30}, {"self_samples": 0}, {"self_samples": 10}],
        });
        let own = Own::of(&document).unwrap();
        let expected = Own { ebpf_ns: 1e7, samples: 40.0, ticks: 50.0, cpu_s: 1.5, duration_s: 2.0 };
        assert_eq!(own, expected);
        assert_eq!(own.ebpf_percent(), 0.5);
        assert_eq!(Own::of(&serde_json::json!({"rows": []})), None);
    }

    #[test]
    fn what_other_ticks_took_is_not_the_samples() {
        let own = Own { ebpf_ns: 10_000.0, samples: 2.0, ticks: 12.0, ..Own::default() };
        assert_eq!(own.per_sample_ns(500.0), 2500.0);
    }
}
