//! Rows of sockets as text.

use std::io::{self, Write};

use crate::{
    model::net::{By, Row, Span},
    render::units::{bytes, count, seconds},
};

/// Writes the rows, at most so many.
pub fn write(span: &Span, rows: usize, out: &mut dyn Write) -> io::Result<()> {
    let by = span.by;
    let names = if by == By::Connection { connection_width(span, rows) } else { 0 };
    writeln!(
        out,
        "{} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6} {:>6}",
        heads(by, names),
        "SENT",
        "RECEIVED",
        "SENT/s",
        "RECV/s",
        "TX CALLS",
        "RX CALLS",
        "ASKED",
        "TAKEN",
        "FAILED",
        "CONNECT",
        "LIFE",
        "RTT",
        "RTT P99",
        "AGAIN",
        "RESETS",
        "DROPS"
    )?;
    for row in span.rows.iter().take(rows) {
        line(row, by, names, out)?;
    }
    let hidden = span.rows.get(rows..).unwrap_or_default();
    if !hidden.is_empty() {
        let sum: u64 = hidden.iter().map(|row| row.tx_bytes + row.rx_bytes).sum();
        writeln!(
            out,
            "... and {} more rows with {} (--rows, --json)",
            count(hidden.len() as u64),
            bytes(sum)
        )?;
    }
    Ok(())
}

/// Characters of the longest local and remote ends that are shown.
fn connection_width(span: &Span, rows: usize) -> usize {
    let shown = span.rows.iter().take(rows);
    let widths = shown.flat_map(|row| [end(row.local.as_deref()).len(), remote(row).len()]);
    widths.max().unwrap_or(0).clamp(15, 60)
}

fn heads(by: By, width: usize) -> String {
    let process = format!("{:>7} {:<15}", "PID", "COMM");
    match by {
        By::Process => format!("{process} {:<5} {:>6}", "PROTO", "OPEN"),
        By::Connection => {
            format!("{process} {:<5} {:<width$} {:<width$} {:<11}", "PROTO", "LOCAL", "REMOTE", "STATE")
        }
        By::Remote => format!("{:<39} {:<5} {:>6}", "REMOTE", "PROTO", "OPEN"),
        By::Port => format!("{:>5} {:<15} {:<5} {:>6}", "PORT", "SERVICE", "PROTO", "OPEN"),
        By::Container => format!("{:<50} {:<5} {:>6}", "CONTAINER", "PROTO", "OPEN"),
    }
}

fn end(end: Option<&str>) -> String {
    end.unwrap_or("-").to_owned()
}

/// The remote end, by name if there is one.
fn remote(row: &Row) -> String {
    match (&row.remote_name, &row.remote) {
        (Some(name), Some(address)) => match address.rsplit_once(':') {
            Some((_, port)) if row.local.is_some() => format!("{name}:{port}"),
            _ => name.clone(),
        },
        (_, address) => end(address.as_deref()),
    }
}

fn what(row: &Row, by: By, width: usize) -> String {
    let cut = |text: &str, width: usize| -> String { text.chars().take(width).collect() };
    let pid = row.pid.map_or("-".to_owned(), |pid| pid.to_string());
    let process = format!("{pid:>7} {:<15}", cut(&row.comm, 15));
    let protocol = &row.protocol;
    let named = |name: String| if name == "-" && row.comm != "[all]" { row.comm.clone() } else { name };
    match by {
        By::Process => format!("{process} {protocol:<5} {:>6}", count(row.open)),
        By::Connection => {
            let (local, remote) = (cut(&end(row.local.as_deref()), width), cut(&remote(row), width));
            format!(
                "{process} {protocol:<5} {local:<width$} {remote:<width$} {:<11}",
                row.state.unwrap_or("-")
            )
        }
        By::Remote => format!("{:<39} {protocol:<5} {:>6}", cut(&named(remote(row)), 39), count(row.open)),
        By::Port => {
            let port = named(row.port.map_or("-".to_owned(), |port| port.to_string()));
            let service = cut(row.service.as_deref().unwrap_or("-"), 15);
            format!("{port:>5} {service:<15} {protocol:<5} {:>6}", count(row.open))
        }
        By::Container => {
            let name = named(end(row.container.as_deref()));
            // The end of a path says more than its beginning.
            let from = name.chars().count().saturating_sub(50);
            let name: String = name.chars().skip(from).collect();
            format!("{name:<50} {protocol:<5} {:>6}", count(row.open))
        }
    }
}

fn line(row: &Row, by: By, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let time = |ns: Option<u64>| ns.map_or("-".to_owned(), seconds);
    write!(
        out,
        "{} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6} {:>6}",
        what(row, by, width),
        bytes(row.tx_bytes),
        bytes(row.rx_bytes),
        bytes(row.tx_bytes_per_second),
        bytes(row.rx_bytes_per_second),
        count(row.tx_calls),
        count(row.rx_calls),
        count(row.connects),
        count(row.accepts),
        count(row.failed),
        time(row.connect_ns),
        time(row.lifetime_ns),
        time(row.rtt_ns),
        time(row.rtt_p99_ns),
        count(row.retransmits),
        count(row.resets_in + row.resets_out),
        count(row.drops)
    )?;
    let reasons = |what: &str, errors: &std::collections::BTreeMap<String, u64>| {
        let each: Vec<_> = errors.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
        if each.is_empty() { String::new() } else { format!("  {what}: {}", each.join(", ")) }
    };
    writeln!(out, "{}{}", reasons("failed", &row.failures), reasons("broken", &row.broken))
}
