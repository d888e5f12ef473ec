//! How soon a large JVM's Java code is walked and named after the profiler was started on it, and in what memory: 200 threads at
//! work, 21,000 compiled methods (`tests/workload/Crowd.java`).
//!
//! Samples that come before the code is known say so by how their stacks end; at the rate of all samples, their number is a
//! time.

use std::{path::Path, thread, time::Duration};

use serde_json::Value;

use super::{java::Program, own, page, stats};
use crate::process::{Failure, say};

const ROUNDS: usize = 5;
/// Its methods are compiled when they are first called, and keep frames of their own.
const OPTIONS: [&str; 6] = [
    "-Xmx256m",
    "-Xcomp",
    "-XX:TieredStopAtLevel=1",
    "-XX:CompileCommand=quiet",
    "-XX:CompileCommand=compileonly,known.Crowd$Small::*",
    "-XX:CompileCommand=dontinline,known.Crowd$Small::*",
];
/// Threads, loaders of 21 methods, ms.
const ARGUMENTS: [&str; 3] = ["200", "1000", "60000"];
/// All threads work by then.
const STARTED: Duration = Duration::from_millis(1500);
const RECORDED: Duration = Duration::from_secs(3);
const FILE: &str = "large.pb.gz";
/// How stacks end before the code of a process is known.
const EARLY: [&str; 2] = ["first_sample", "table_not_loaded"];

/// A value for each round.
#[derive(Default)]
pub struct Large {
    /// From the profiler's start until it samples, ms.
    sampling_ms: Vec<f64>,
    /// From there until Java code is known, ms.
    known_ms: Vec<f64>,
    /// Its largest resident set while it recorded, MB.
    peak_mb: Vec<f64>,
    /// Memory of the kernel's for it, MB.
    kernel_mb: Vec<f64>,
    /// Samples.
    samples: Vec<f64>,
}

/// Starts the profiler on such a JVM again and again.
pub fn measure(program: &Program, directory: &Path) -> Result<Large, Failure> {
    say("a large JVM");
    let mut jvm = program.start("known.Crowd", &OPTIONS, &ARGUMENTS)?;
    jvm.go()?;
    thread::sleep(STARTED);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut large = Large::default();
    for _ in 0..ROUNDS {
        let arguments = ["record", "-F", "999", "-p", "PID", "-o", FILE];
        // Those that follow processes, and the timers.
        let (profiler, until_sampling) = jvm.look(&arguments, directory, 2 * cpus)?;
        thread::sleep(RECORDED);
        profiler.interrupt()?;
        let document = own::report(directory, FILE)?;
        let failed = || Failure::new("a recording of a large JVM lacks a part of cost, losses or meta");
        large.add(&document, until_sampling).ok_or_else(failed)?;
    }
    Ok(large)
}

impl Large {
    fn add(&mut self, document: &Value, until_sampling: Duration) -> Option<()> {
        let (cost, ends) = (&document["cost"], document["losses"]["stack_ends"].as_object()?);
        let samples = |end: &Value| end["samples"].as_f64();
        let all = ends.values().map(samples).sum::<Option<f64>>()?;
        let early = EARLY.map(|end| ends.get(end).map_or(Some(0.0), samples));
        let early = early.into_iter().sum::<Option<f64>>()?;
        let duration_ms = document["meta"]["duration_ns"].as_f64()? / 1e6;
        self.sampling_ms.push(until_sampling.as_secs_f64() * 1e3);
        self.known_ms.push(duration_ms * early / all);
        self.peak_mb.push(cost["recording_peak_rss_bytes"].as_f64()? / 1e6);
        self.kernel_mb.push(cost["kernel_map_bytes"].as_f64()? / 1e6);
        self.samples.push(all);
        Some(())
    }

    /// The table.
    pub fn table(&self) -> String {
        let cell = |values: &Vec<f64>, digits| {
            [stats::median(values), stats::largest(values)].map(|value| page::number(value, digits))
        };
        let row =
            |name: &str, values, digits| [vec![name.to_owned()], cell(values, digits).to_vec()].concat();
        let rows = [
            row("until it samples, ms", &self.sampling_ms, 0),
            row("from there until Java code is known, ms", &self.known_ms, 1),
            row("peak memory while it records, MB", &self.peak_mb, 1),
            row("memory of the kernel's, MB", &self.kernel_mb, 1),
        ];
        format!(
            "\nA JVM of 200 threads at work and 21,000 compiled methods, recorded at 999 Hz, {ROUNDS} times, {} samples each.\n\n{}",
            page::number(stats::median(&self.samples), 0),
            page::table(&["", "median", "most"], &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_before_the_code_is_known_are_a_time() {
        let document = |ends: Value| {
            serde_json::json!({
                "meta": {"duration_ns": 2_000_000_000u64},
                "losses": {"stack_ends": ends},
                "cost": {"recording_peak_rss_bytes": 20_000_000, "kernel_map_bytes": 9_000_000},
            })
        };
        let mut large = Large::default();
        let early = serde_json::json!({"complete": {"samples": 990}, "table_not_loaded": {"samples": 6},
                                       "first_sample": {"samples": 4}});
        large.add(&document(early), Duration::from_millis(150)).unwrap();
        large.add(&document(serde_json::json!({"complete": {"samples": 1000}})), Duration::ZERO).unwrap();
        assert_eq!(large.known_ms, [20.0, 0.0]);
        assert!(large.table().contains("| until it samples, ms | 75 | 150 |"), "{}", large.table());
        assert_eq!(large.add(&serde_json::json!({"losses": {"stack_ends": {}}}), Duration::ZERO), None);
    }
}
