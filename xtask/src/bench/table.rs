//! The results as a Markdown table, put between its markers in docs/performance.md.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use super::{FREQUENCY_HZ, Own, Results, Round, SECONDS, Subject, measure::median};
use crate::process::{Failure, capture};

const BEGIN: &str = "<!-- measured: bench -->\n";
const END: &str = "<!-- end -->\n";

/// The text between the markers.
pub fn render(results: &[Results]) -> Result<String, Failure> {
    let kernel = capture(Command::new("uname").arg("-srm"))?;
    let date = capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let cpus = capture(&mut Command::new("nproc"))?;
    let rounds = results.first().map_or(0, |result| result.rounds.len());
    let mut out = format!(
        "{}, {}, {} CPUs; `cargo xtask bench`: medians of {rounds} rounds of {SECONDS} s at {FREQUENCY_HZ} Hz, all \
         processes.\n\n\
         | | its CPU, % of one core | while recording | peak RSS MB | while recording | start and end, s | load's speed |\n\
         |---|---|---|---|---|---|---|\n",
        date.trim(),
        kernel.trim(),
        cpus.trim()
    );
    let base = median_of(results, Subject::Nothing, |round| round.work_rate).unwrap_or(f64::NAN);
    for result in results {
        row(&mut out, result, base);
    }
    if let Some(ours) = results.iter().find(|result| result.subject == Subject::Ours) {
        details(&mut out, ours);
    }
    Ok(out)
}

fn row(out: &mut String, result: &Results, base: f64) {
    let middle = |of: fn(&Round) -> f64| median(result.rounds.iter().map(of).collect()).unwrap_or(f64::NAN);
    let cpu = middle(|round| round.usage.cpu.as_secs_f64()) * 100.0 / f64::from(SECONDS);
    let rss = middle(|round| round.usage.peak_rss_bytes as f64) / 1e6;
    let extra = middle(|round| round.usage.wall.as_secs_f64()) - f64::from(SECONDS);
    let speed = middle(|round| round.work_rate) / base;
    let (recording_cpu, recording_rss) = match own(result, |own| own.recording_cpu_ns) {
        Some(ns) => (
            format!("{:.2}", ns * 100.0 / 1e9 / f64::from(SECONDS)),
            format!("{:.1}", own(result, |own| own.recording_rss_bytes).unwrap_or(f64::NAN) / 1e6),
        ),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let name = result.subject.name();
    // Writing to a String cannot fail.
    _ = writeln!(
        out,
        "| {name} | {cpu:.2} | {recording_cpu} | {rss:.1} | {recording_rss} | {extra:.2} | {speed:.3} |"
    );
}

fn details(out: &mut String, ours: &Results) {
    let value = |of: fn(&Own) -> f64| own(ours, of).unwrap_or(f64::NAN);
    _ = write!(
        out,
        "\nOurs: first possible sample {:.0} ms after the start; names resolved in {:.0} ms; {:.1} MB of kernel maps; \
         eBPF {:.1} us a run.\n",
        value(|own| own.start_ns) / 1e6,
        value(|own| own.naming_ns) / 1e6,
        value(|own| own.map_bytes) / 1e6,
        value(|own| own.ebpf_ns / own.ebpf_runs) / 1e3,
    );
}

fn own(result: &Results, of: fn(&Own) -> f64) -> Option<f64> {
    median(result.rounds.iter().filter_map(|round| round.own.as_ref().map(of)).collect())
}

fn median_of(results: &[Results], subject: Subject, of: fn(&Round) -> f64) -> Option<f64> {
    let result = results.iter().find(|result| result.subject == subject)?;
    median(result.rounds.iter().map(of).collect())
}

/// Replaces the table in the document.
pub fn store(path: &Path, table: &str) -> Result<(), Failure> {
    let document = fs::read_to_string(path).map_err(|e| Failure::io(path, &e))?;
    let replaced = replace(&document, table)
        .ok_or_else(|| Failure::new(format!("{} has no `{}` block", path.display(), BEGIN.trim())))?;
    fs::write(path, replaced).map_err(|e| Failure::io(path, &e))
}

fn replace(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_is_replaced() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(replace(&document, "new\n"), Some(format!("a\n{BEGIN}\nnew\n\n{END}b\n")));
        assert_eq!(replace("no block", "new"), None);
    }
}
