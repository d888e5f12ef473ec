//! CPUs as text: shares of time, and the histograms of all CPUs as pictures.

use std::io::{self, Write};

use crate::{
    model::sched::{CpuRow, Histogram, Span},
    render::units::{count, seconds},
};

/// Characters of the longest bar.
const BAR: u64 = 40;

/// Writes the table and, for the whole run, the pictures.
pub fn write(span: &Span, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<4} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7} {:>10} {:>10} {:>10}",
        "CPU",
        "user%",
        "system%",
        "hardirq%",
        "softirq%",
        "steal%",
        "idle%",
        "switches",
        "hardirqs",
        "softirqs"
    )?;
    span.accounts.cpus.iter().try_for_each(|row| line(row, out))?;
    if let Some(all) = span.accounts.cpus.first() {
        picture("waiting for a CPU (run-queue latency)", &all.run_queue, out)?;
        picture("on the CPU at a time", &all.slices, out)?;
    }
    Ok(())
}

fn line(row: &CpuRow, out: &mut dyn Write) -> io::Result<()> {
    let share = |ns: u64| if row.wall_ns == 0 { 0.0 } else { ns as f64 * 100.0 / row.wall_ns as f64 };
    let known = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.1}", share(ns)));
    writeln!(
        out,
        "{:<4} {:>7} {:>7} {:>8.1} {:>8.1} {:>7.1} {:>7.1} {:>10} {:>10} {:>10}",
        row.cpu.map_or("all".to_owned(), |cpu| cpu.to_string()),
        known(row.user_ns),
        known(row.system_ns),
        share(row.hardirq_ns),
        share(row.softirq_ns),
        share(row.steal_ns),
        share(row.idle_ns),
        count(row.switches),
        count(row.hardirqs),
        count(row.softirqs)
    )
}

/// A bar for each power of two, from the first to the last that has something.
fn picture(title: &str, histogram: &Histogram, out: &mut dyn Write) -> io::Result<()> {
    let (Some(&(first, ..)), Some(&(last, ..))) = (histogram.first(), histogram.last()) else {
        return Ok(());
    };
    let most = histogram.iter().map(|&(.., n)| n).max().unwrap_or(0).max(1);
    writeln!(out, "\n{title}")?;
    let mut from = first;
    while from <= last {
        let n = histogram.iter().find(|bucket| bucket.0 == from).map_or(0, |&(.., n)| n);
        // What is there is seen, however little.
        let len = (n.saturating_mul(BAR) / most).max(u64::from(n != 0));
        let to = if from == 0 { 2 } else { from.saturating_mul(2) };
        let bar = "#".repeat(len as usize);
        writeln!(out, "{:>9} .. {:<9} {:>12} |{bar:<40}|", seconds(from), seconds(to), count(n))?;
        from = to;
    }
    Ok(())
}
