//! Rows of calls as text: numbers, and below each row, if asked for, its errors and its latencies as a picture.

use std::io::{self, Write};

use super::Show;
use crate::{
    model::syscalls::{Row, Span},
    render::{
        histogram::picture,
        units::{count, seconds},
    },
};

/// Columns of text before a histogram's picture.
const INDENT: usize = 31;

/// Writes the rows, at most those that are to be shown.
pub fn write(span: &Span, show: Show, out: &mut dyn Write) -> io::Result<()> {
    write!(
        out,
        "{:>7} {:>7} {:<15} {:<22} {:>12} {:>7}",
        "PID", "TID", "COMM", "SYSCALL", "COUNT", "COUNT%"
    )?;
    if span.timed {
        write!(
            out,
            " {:>9} {:>9} {:>6} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "ERRORS", "TOTAL", "TIME%", "CPU%", "AVG", "P50", "P90", "P99", "MAX"
        )?;
    }
    writeln!(out)?;
    let sums = Sums {
        count: span.rows.iter().map(|row| row.count).sum(),
        total_ns: span.rows.iter().filter_map(|row| row.total_ns).sum(),
    };
    for row in span.rows.iter().take(show.rows) {
        line(row, sums, span.timed, out)?;
        if show.errors && !row.errno.is_empty() {
            let errors: Vec<_> = row.errno.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
            writeln!(out, "{:>31} {}", "", errors.join(", "))?;
        }
        if show.histogram {
            picture(row.histogram.as_deref().unwrap_or_default(), INDENT, out)?;
        }
    }
    let hidden = span.rows.get(show.rows..).unwrap_or_default();
    if !hidden.is_empty() {
        let calls: u64 = hidden.iter().map(|row| row.count).sum();
        writeln!(
            out,
            "... and {} more rows with {} calls (--rows, --json)",
            count(hidden.len() as u64),
            count(calls)
        )?;
    }
    Ok(())
}

/// Of all rows.
#[derive(Clone, Copy)]
struct Sums {
    count: u64,
    total_ns: u64,
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn line(row: &Row, sums: Sums, timed: bool, out: &mut dyn Write) -> io::Result<()> {
    let id = |id: Option<u32>| id.map_or("-".to_owned(), |id| id.to_string());
    let comm: String = row.comm.chars().take(15).collect();
    let is_usual = matches!(row.abi, "x86-64" | "arm64");
    let call = if is_usual { row.syscall.clone() } else { format!("{} ({})", row.syscall, row.abi) };
    write!(
        out,
        "{:>7} {:>7} {comm:<15} {call:<22} {:>12} {:>7.1}",
        id(row.pid),
        id(row.tid),
        count(row.count),
        share(row.count, sums.count)
    )?;
    if timed {
        let time = |ns: Option<u64>| ns.map_or("-".to_owned(), seconds);
        let total_ns = row.total_ns.unwrap_or(0);
        write!(
            out,
            " {:>9} {:>9} {:>6.1} {:>5.1} {:>9} {:>9} {:>9} {:>9} {:>9}",
            row.errors.map_or("-".to_owned(), count),
            time(row.total_ns),
            share(total_ns, sums.total_ns),
            share(row.cpu_ns.unwrap_or(0), total_ns),
            time(row.avg_ns),
            time(row.p50_ns),
            time(row.p90_ns),
            time(row.p99_ns),
            time(row.max_ns)
        )?;
        if let Some(n) = row.in_progress.filter(|&n| n != 0) {
            write!(out, "  {} in progress for {}", count(n), time(row.in_progress_ns))?;
        }
    }
    writeln!(out)
}
