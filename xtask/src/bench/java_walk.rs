//! What walking a stack through Java code costs, by its depth: by what the JVM knows, and by frame pointers alone
//! (`--unwind fp`), which does not get through.
//!
//! What the eBPF programs take for ticks that hit others is measured by a recording that wants no thread at all, and
//! subtracted.

use std::path::Path;

use super::{
    java::Program,
    own::{self, Own},
    page, stats,
};
use crate::process::{Failure, say};

/// Modes of the workload, and the Java frames that its thread has in them.
const STACKS: [(&str, u32); 2] = [("callers", 9), ("deep", 64)];
/// How stacks are walked.
const WAYS: [&str; 2] = ["fp", "auto"];
const ROUNDS: usize = 3;
const HZ: &str = "999";
/// The thread that works.
const NAME: &str = "known-worker";
/// A name that no thread has.
const NOBODY: &str = "nobody-has-this";
/// Where a Java stack of it begins.
const ROOT: &str = "java.lang.Thread.run";

/// One stack in one way: a value per round.
#[derive(Default)]
struct Costs {
    /// Run time of the eBPF programs per sample, ns.
    sample_ns: Vec<f64>,
    /// Samples that get to the thread's first method, percent.
    whole_percent: Vec<f64>,
}

/// What was measured: by stack and way.
pub struct Walks {
    costs: [[Costs; WAYS.len()]; STACKS.len()],
    /// Of a tick that is filtered out, ns.
    filtered_ns: Vec<f64>,
}

/// Measures all stacks and ways in turn.
pub fn measure(program: &Program, directory: &Path) -> Result<Walks, Failure> {
    let mut walks = Walks { costs: Default::default(), filtered_ns: Vec::new() };
    for round in 1..=ROUNDS {
        say(format!("walks through Java code, round {round} of {ROUNDS}"));
        let (nobody, _) = record(program, directory, STACKS[0].0, WAYS[1], NOBODY)?;
        let filtered_ns = nobody.ebpf_ns / nobody.ticks;
        walks.filtered_ns.push(filtered_ns);
        for ((mode, _), ways) in STACKS.iter().zip(&mut walks.costs) {
            for (way, costs) in WAYS.iter().zip(ways) {
                let (own, whole) = record(program, directory, mode, way, NAME)?;
                costs.sample_ns.push(own.per_sample_ns(filtered_ns));
                costs.whole_percent.push(100.0 * whole / own.samples);
            }
        }
    }
    Ok(walks)
}

/// A recording of the threads of a name, and how many of its samples get to the thread's first method.
fn record(
    program: &Program,
    directory: &Path,
    mode: &str,
    way: &str,
    comm: &str,
) -> Result<(Own, f64), Failure> {
    const FILE: &str = "walk.pb.gz";
    let arguments = ["record", "-a", "-F", HZ, "--comm", comm, "--unwind", way, "-o", FILE];
    program.run(mode, Some(&arguments), directory)?;
    let document = own::report(directory, FILE)?;
    let failed = || Failure::new("a recording of a JVM lacks a part of cost or meta, or has no samples");
    let own = Own::of(&document).filter(|own| comm == NOBODY || own.samples > 0.0).ok_or_else(failed)?;
    let rows = document["rows"].as_array().into_iter().flatten();
    let whole = rows.filter(|row| row["function"] == ROOT).filter_map(|row| row["total_samples"].as_f64());
    // The sum of none is -0.
    Ok((own, whole.fold(0.0, |sum, samples| sum + samples)))
}

impl Walks {
    /// Run time per frame, ns: between the two stacks, so that what a sample costs at any depth is not in it.
    fn per_frame_ns(&self) -> Option<f64> {
        let of = |stack: usize| stats::median(&self.costs[stack][1].sample_ns);
        Some((of(1)? - of(0)?) / f64::from(STACKS[1].1 - STACKS[0].1))
    }

    /// The table.
    pub fn table(&self) -> String {
        let cells = |costs: &Costs| {
            let us = stats::median(&costs.sample_ns).map(|ns| ns / 1e3);
            [page::number(us, 1), page::number(stats::median(&costs.whole_percent), 1)]
        };
        let row = |((_, frames), ways): (&(&str, u32), &[Costs; WAYS.len()])| {
            [vec![frames.to_string()], ways.iter().flat_map(cells).collect()].concat()
        };
        let rows: Vec<_> = STACKS.iter().zip(&self.costs).map(row).collect();
        let head = [
            "frames of Java",
            "eBPF us per sample, frame pointers",
            "to the first method, %",
            "eBPF us per sample, walked through",
            "to the first method, %",
        ];
        format!(
            "\nWalks through Java code: medians of {ROUNDS} runs, {HZ} Hz. A frame of Java takes {} ns. A tick that is \
             filtered out takes {} ns.\n\n{}",
            page::number(self.per_frame_ns(), 0),
            page::number(stats::median(&self.filtered_ns), 0),
            page::table(&head, &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_s_cost_is_the_slope() {
        let costs = |ns: f64, percent: f64| Costs { sample_ns: vec![ns], whole_percent: vec![percent] };
        let walks = Walks {
            costs: [[costs(5000.0, 1.0), costs(9000.0, 99.0)], [costs(6000.0, 0.0), costs(64_000.0, 100.0)]],
            filtered_ns: vec![],
        };
        assert_eq!(walks.per_frame_ns(), Some(1000.0));
        assert!(walks.table().contains("| 64 | 6.0 | 0.0 | 64.0 | 100.0 |"), "{}", walks.table());
    }
}
