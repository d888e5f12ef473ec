//! The tables of the host's network as text.

use std::io::{self, Write};

use super::Show;
use crate::{
    model::packets::{InterfaceRow, Span},
    render::{
        histogram::picture,
        units::{bytes, count, seconds},
    },
};

/// Columns of text before a histogram's picture.
const INDENT: usize = 20;

/// Drops, and how many there were.
pub fn drops(span: &Span, rows: usize, out: &mut dyn Write) -> io::Result<()> {
    let packets: u64 = span.drops.iter().map(|row| row.packets).sum();
    writeln!(out, "{} packets dropped", count(packets))?;
    if span.drops.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:>12} {:>10}  {:<28} {:<8} LOCATION", "DROPPED", "BYTES", "REASON", "PROTOCOL")?;
    for row in span.drops.iter().take(rows) {
        writeln!(
            out,
            "{:>12} {:>10}  {:<28} {:<8} {}",
            count(row.packets),
            bytes(row.bytes),
            row.reason.as_deref().unwrap_or("-"),
            row.protocol,
            row.location
        )?;
    }
    let hidden = span.drops.get(rows..).unwrap_or_default();
    more(hidden.len(), hidden.iter().map(|row| row.packets).sum(), out)
}

/// Interfaces on which anything happened.
pub fn interfaces(span: &Span, show: Show, out: &mut dyn Write) -> io::Result<()> {
    if span.interfaces.is_empty() {
        return writeln!(out, "\nno interface received or sent anything");
    }
    writeln!(
        out,
        "\n{:<24} {:>12} {:>10} {:>12} {:>10} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6}",
        "INTERFACE",
        "RECEIVED",
        "BYTES",
        "SENT",
        "BYTES",
        "FAILED",
        "BUSY",
        "QUEUE P50",
        "P90",
        "P99",
        "MAX",
        "POLLS",
        "EACH",
        "FULL%"
    )?;
    for row in span.interfaces.iter().take(show.rows) {
        interface(row, out)?;
        if show.histogram {
            picture(row.histogram.as_deref().unwrap_or_default(), INDENT, out)?;
        }
    }
    let hidden = span.interfaces.get(show.rows..).unwrap_or_default();
    more(hidden.len(), hidden.iter().map(|row| row.received + row.sent).sum(), out)
}

fn interface(row: &InterfaceRow, out: &mut dyn Write) -> io::Result<()> {
    let time = |ns: Option<u64>| ns.map_or("-".to_owned(), seconds);
    let name = match row.netns {
        // Names say which interface only together with the namespace.
        Some(netns) if !row.is_own_netns => format!("{}@{netns}", row.interface),
        _ => row.interface.clone(),
    };
    let ratio = |part: u64, whole: u64| part as f64 / whole as f64;
    let (each, full) = match row.polls {
        0 => ("-".to_owned(), "-".to_owned()),
        polls => (
            format!("{:.1}", ratio(row.polled, polls)),
            format!("{:.1}", 100.0 * ratio(row.polls_exhausted, polls)),
        ),
    };
    writeln!(
        out,
        "{name:<24} {:>12} {:>10} {:>12} {:>10} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {each:>7} {full:>6}",
        count(row.received),
        bytes(row.received_bytes),
        count(row.sent),
        bytes(row.sent_bytes),
        count(row.send_failed),
        count(row.send_busy),
        time(row.queued_p50_ns),
        time(row.queued_p90_ns),
        time(row.queued_p99_ns),
        time(row.queued_max_ns),
        count(row.polls)
    )
}

/// Soft interrupts, and what share of all CPUs' time they took.
pub fn softirqs(span: &Span, out: &mut dyn Write) -> io::Result<()> {
    let capacity = span.meta.duration_ns.max(1) as f64 * f64::from(span.meta.cpus.max(1));
    let softirqs = &span.softirqs;
    let time = |n: u64, ns: u64| {
        let share = ns as f64 * 100.0 / capacity;
        format!("{} in {} ({share:.1} % of all CPUs' time)", count(n), seconds(ns))
    };
    let known = |n: Option<u64>| n.map_or("-".to_owned(), count);
    writeln!(
        out,
        "\nsoft interrupts: receiving {}, sending {}",
        time(softirqs.receive_count, softirqs.receive_ns),
        time(softirqs.send_count, softirqs.send_ns)
    )?;
    writeln!(
        out,
        "CPUs took in {} packets, dropped {} (backlog full), stopped before they were done {} times",
        known(softirqs.processed),
        known(softirqs.dropped),
        known(softirqs.squeezed)
    )
}

/// The kernel's counters that moved.
pub fn counters(span: &Span, out: &mut dyn Write) -> io::Result<()> {
    let moved = span.counters.iter().filter(|(_, n)| **n != 0);
    let moved: Vec<_> = moved.map(|(name, n)| format!("{name} {}", count(*n))).collect();
    let moved = if moved.is_empty() { "none moved".to_owned() } else { moved.join(", ") };
    writeln!(out, "kernel's counters: {moved}")
}

/// What is not shown.
fn more(rows: usize, packets: u64, out: &mut dyn Write) -> io::Result<()> {
    if rows == 0 {
        return Ok(());
    }
    writeln!(out, "... and {} more with {} packets (--rows, --json)", count(rows as u64), count(packets))
}
