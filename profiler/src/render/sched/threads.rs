//! Processes and threads as text. The share of what a thread is blocked by is of its wall time.

use std::io::{self, Write};

use crate::{
    model::sched::{Row, Span},
    render::units::{count, seconds},
};

/// Causes named on a line.
const CAUSES: usize = 3;

/// Characters of a counter.
const WIDTH: usize = 16;

/// Writes the processes, each with its threads if it has several; at most `limit` lines of threads.
pub fn write(span: &Span, limit: usize, out: &mut dyn Write) -> io::Result<()> {
    let counters: String = span.accounts.rows.first().map_or_else(String::new, |row| {
        row.counters.iter().map(|(name, _)| format!(" {:>WIDTH$}", name.to_uppercase())).collect()
    });
    let cpi = span.accounts.rows.iter().any(|row| row.cpi.is_some());
    let cpi_title = if cpi { format!(" {:>5}", "CPI") } else { String::new() };
    writeln!(
        out,
        "{:>7} {:>7} {:<15} {:>6} {:>5} {:>6} {:>6} {:>9} {:>9} {:>9} {:>8} {:>8}{counters}{cpi_title}  blocked by",
        "PID", "TID", "COMM", "CPU%", "IRQ%", "RUNQ%", "BLKD%", "RQ-AVG", "RQ-P99", "RQ-MAX", "VOL", "INVOL"
    )?;
    let (mut shown, mut hidden) = (0, 0);
    for row in &span.accounts.rows {
        // Of a process that has one thread both rows say the same; JSON has both.
        if row.tid.is_none() && (shown >= limit || row.threads == 1) {
            continue;
        }
        if row.tid.is_some() && shown >= limit {
            hidden += 1;
            continue;
        }
        shown += usize::from(row.tid.is_some());
        line(row, cpi, out)?;
    }
    if hidden != 0 {
        writeln!(out, "... and {} more threads (--rows, --json)", count(hidden))?;
    }
    Ok(())
}

fn line(row: &Row, cpi: bool, out: &mut dyn Write) -> io::Result<()> {
    let share = |ns: u64| if row.wall_ns == 0 { 0.0 } else { ns as f64 * 100.0 / row.wall_ns as f64 };
    let id = |id: Option<u32>| id.map_or("-".to_owned(), |id| id.to_string());
    let mut causes: Vec<_> = row.blocked.iter().collect();
    causes.sort_by_key(|&(name, ns)| (std::cmp::Reverse(ns), name));
    let named = causes.into_iter().take(CAUSES).filter(|&(_, ns)| share(ns) >= 0.05);
    let mut causes_text =
        named.map(|(name, ns)| format!("{name} {:.1} %", share(ns))).collect::<Vec<_>>().join(", ");
    if row.ended != 0 {
        let ended =
            if row.tid.is_some() { "ended".to_owned() } else { format!("{} ended", count(row.ended)) };
        causes_text = if causes_text.is_empty() { ended } else { format!("{causes_text}; {ended}") };
    }
    let mut counted: String = row.counters.iter().map(|(_, n)| format!(" {:>WIDTH$}", count(n))).collect();
    if cpi {
        counted += &row.cpi.map_or(format!(" {:>5}", "-"), |cpi| format!(" {cpi:>5.2}"));
    }
    let comm: String = row.comm.chars().take(15).collect();
    writeln!(
        out,
        "{:>7} {:>7} {comm:<15} {:>6.1} {:>5.1} {:>6.1} {:>6.1} {:>9} {:>9} {:>9} {:>8} {:>8}{counted}  {causes_text}",
        id(row.pid),
        id(row.tid),
        share(row.cpu_ns),
        share(row.irq_ns),
        share(row.run_queue_ns),
        share(row.blocked_ns),
        seconds(row.run_queue_avg_ns),
        seconds(row.run_queue_p99_ns),
        seconds(row.run_queue_max_ns),
        count(row.voluntary),
        count(row.involuntary)
    )
}
