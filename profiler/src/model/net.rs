//! Sockets and connections: who talks to whom, how much, how fast, and what goes wrong; for one span of time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Cost, Losses, Meta};

/// What rows are about; besides, each is about one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// A process.
    #[default]
    Process,
    /// The two ends of a connection, and a process.
    Connection,
    /// A remote address.
    Remote,
    /// The port of the side that listens.
    Port,
    /// A container, service or other control group.
    Container,
}

/// Sockets that a row is about. Times are ns; `None`: not known, or there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Process id; `None`: not of one process, or not known.
    pub pid: Option<u32>,
    /// Name, cleaned; `[all]`: not of one process; `[other]`: sockets without account; `[ended]`: in sum, of sockets that
    /// are not kept apart.
    pub comm: String,
    /// `tcp`, `udp`, `unix`, or the number of another.
    pub protocol: String,
    /// Local address and port.
    pub local: Option<String>,
    /// Remote address, and port if the row is about a connection.
    pub remote: Option<String>,
    /// The port of the side that listens.
    pub port: Option<u16>,
    /// What that port is usually for.
    pub service: Option<String>,
    /// The name of the remote address, if names were asked for.
    pub remote_name: Option<String>,
    /// The control group.
    pub container: Option<String>,
    /// Inode number of the network namespace; `None`: of several.
    pub netns: Option<u32>,
    /// State of the connection, or of the last of several.
    pub state: Option<&'static str>,
    /// Sockets that are open at the end of the span.
    pub open: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent in a second.
    pub tx_bytes_per_second: u64,
    /// Bytes received in a second.
    pub rx_bytes_per_second: u64,
    /// Calls that sent; of several messages in one call, each.
    pub tx_calls: u64,
    /// Calls that received.
    pub rx_calls: u64,
    /// Calls to send that failed, except those that would have had to wait.
    pub tx_errors: u64,
    /// The same of calls to receive.
    pub rx_errors: u64,
    /// Connections asked for.
    pub connects: u64,
    /// Connections that listening sockets took.
    pub accepts: u64,
    /// Connections asked for that did not come about.
    pub failed: u64,
    /// The same by error; `closed`: by its own process, before.
    pub failures: BTreeMap<String, u64>,
    /// Connections that were there and ended by an error, by error.
    pub broken: BTreeMap<String, u64>,
    /// Time from asking for a connection to having it: the mean.
    pub connect_ns: Option<u64>,
    /// The longest.
    pub connect_max_ns: Option<u64>,
    /// Time that connections were there, or have been until now: the mean. Not of those that there were at the start.
    pub lifetime_ns: Option<u64>,
    /// Smoothed round-trip time, the last that was seen.
    pub rtt_ns: Option<u64>,
    /// The least.
    pub rtt_min_ns: Option<u64>,
    /// The median of what it was when segments came in, within 3.2 %.
    pub rtt_p50_ns: Option<u64>,
    /// 99 % were shorter, within 3.2 %.
    pub rtt_p99_ns: Option<u64>,
    /// Segments sent again.
    pub retransmits: u64,
    /// Resets received.
    pub resets_in: u64,
    /// Resets sent.
    pub resets_out: u64,
    /// Packets that sockets dropped: the receive queue was full, or that of connections.
    pub drops: u64,
}

impl Row {
    /// The columns that rows can be sorted by.
    pub const COLUMNS: [&str; 20] = [
        "bytes",
        "tx_bytes",
        "rx_bytes",
        "calls",
        "tx_calls",
        "rx_calls",
        "tx_errors",
        "rx_errors",
        "connects",
        "accepts",
        "failed",
        "connect_ns",
        "lifetime_ns",
        "rtt_ns",
        "rtt_p99_ns",
        "retransmits",
        "resets_in",
        "resets_out",
        "drops",
        "open",
    ];

    /// The number in a column, 0 if it is not known; `None` if there is no such column.
    pub fn column(&self, name: &str) -> Option<u64> {
        let value = match name {
            "bytes" => Some(self.tx_bytes + self.rx_bytes),
            "tx_bytes" => Some(self.tx_bytes),
            "rx_bytes" => Some(self.rx_bytes),
            "calls" => Some(self.tx_calls + self.rx_calls),
            "tx_calls" => Some(self.tx_calls),
            "rx_calls" => Some(self.rx_calls),
            "tx_errors" => Some(self.tx_errors),
            "rx_errors" => Some(self.rx_errors),
            "connects" => Some(self.connects),
            "accepts" => Some(self.accepts),
            "failed" => Some(self.failed),
            "connect_ns" => self.connect_ns,
            "lifetime_ns" => self.lifetime_ns,
            "rtt_ns" => self.rtt_ns,
            "rtt_p99_ns" => self.rtt_p99_ns,
            "retransmits" => Some(self.retransmits),
            "resets_in" => Some(self.resets_in),
            "resets_out" => Some(self.resets_out),
            "drops" => Some(self.drops),
            "open" => Some(self.open),
            _ => return None,
        };
        Some(value.unwrap_or(0))
    }
}

/// A span of time and the sockets in it.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Its number, from 1; `None`: the whole run.
    pub number: Option<u64>,
    /// Circumstances.
    pub meta: Meta,
    /// What was lost, of the whole run.
    pub losses: Losses,
    /// The profiler's own consumption, of the whole run.
    pub cost: Cost,
    /// What the rows are about.
    pub by: By,
    /// The sockets.
    pub rows: Vec<Row>,
}

impl Span {
    /// Puts the rows with most of a column in front; gives `false` if there is no such column.
    pub fn sort(&mut self, column: &str) -> bool {
        if Row::default().column(column).is_none() {
            return false;
        }
        let key = |row: &Row| std::cmp::Reverse((row.column(column), row.tx_bytes + row.rx_bytes, row.open));
        self.rows.sort_by(|a, b| {
            let names = |row: &Row| (row.pid, row.local.clone(), row.remote.clone(), row.protocol.clone());
            key(a).cmp(&key(b)).then_with(|| names(a).cmp(&names(b)))
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_any_column() {
        let row = |tx_bytes, rx_bytes| Row { tx_bytes, rx_bytes, ..Row::default() };
        let mut span = Span { rows: vec![row(1, 5), row(3, 2), row(2, 9)], ..Span::default() };
        let sent = |span: &Span| span.rows.iter().map(|row| row.tx_bytes).collect::<Vec<_>>();
        assert!(span.sort("bytes"));
        assert_eq!(sent(&span), [2, 1, 3]);
        assert!(span.sort("tx_bytes"));
        assert_eq!(sent(&span), [3, 2, 1]);
        assert!(!span.sort("comm"));
    }

    #[test]
    fn every_column_has_a_number() {
        for column in Row::COLUMNS {
            assert_eq!(Row::default().column(column), Some(0), "{column}");
        }
    }
}
