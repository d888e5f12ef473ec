//! What a host's network does: interfaces, drops, soft interrupts, the kernel's own counters; for one span of time.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Serialize;

use super::{Cost, Losses, Meta};

/// An interface. Bytes are those of packets with their link header; times are ns. A packet is what the stack and the driver
/// hand to each other, which can be many on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceRow {
    /// Its name, cleaned; `[no interface]`: polls of what CPUs hand to each other and to themselves, which is how loopback
    /// and veth receive, and of drivers that poll for several; `[other]`: interfaces without account of their own.
    pub interface: String,
    /// Its number in its namespace; `None`: not of one interface.
    pub ifindex: Option<u32>,
    /// Inode number of its network namespace; `None`: not of one interface, or the kernel has none.
    pub netns: Option<u32>,
    /// That is the profiler's own.
    pub is_own_netns: bool,
    /// Packets that the stack received from the driver.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that the driver took.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that the driver dropped.
    pub send_failed: u64,
    /// Times that the driver had no room, and the packet waited on.
    pub send_busy: u64,
    /// Packets whose time from the queue to the driver is known.
    pub queued: u64,
    /// Sum of these times.
    pub queued_ns: u64,
    /// The mean; `None`, as the next ones: there were none.
    pub queued_avg_ns: Option<u64>,
    /// The median, within 3.2 %.
    pub queued_p50_ns: Option<u64>,
    /// 90 % are shorter, within 3.2 %.
    pub queued_p90_ns: Option<u64>,
    /// 99 % are shorter, within 3.2 %.
    pub queued_p99_ns: Option<u64>,
    /// The longest.
    pub queued_max_ns: Option<u64>,
    /// Polls of its receive queues.
    pub polls: u64,
    /// Packets that they found.
    pub polled: u64,
    /// Polls that found as many as they may.
    pub polls_exhausted: u64,
    /// Times in the queue, `(from, to, count)` of ns, ascending; if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Vec<(u64, u64, u64)>>,
}

impl InterfaceRow {
    /// The columns that rows can be sorted by.
    pub const COLUMNS: [&str; 14] = [
        "bytes",
        "packets",
        "received",
        "received_bytes",
        "sent",
        "sent_bytes",
        "send_failed",
        "send_busy",
        "queued_ns",
        "queued_p50_ns",
        "queued_p99_ns",
        "queued_max_ns",
        "polls",
        "polls_exhausted",
    ];

    /// The number in a column, 0 if it is not known; `None` if there is no such column.
    pub fn column(&self, name: &str) -> Option<u64> {
        let value = match name {
            "bytes" => self.received_bytes + self.sent_bytes,
            "packets" => self.received + self.sent,
            "received" => self.received,
            "received_bytes" => self.received_bytes,
            "sent" => self.sent,
            "sent_bytes" => self.sent_bytes,
            "send_failed" => self.send_failed,
            "send_busy" => self.send_busy,
            "queued_ns" => self.queued_ns,
            "queued_p50_ns" => self.queued_p50_ns.unwrap_or(0),
            "queued_p99_ns" => self.queued_p99_ns.unwrap_or(0),
            "queued_max_ns" => self.queued_max_ns.unwrap_or(0),
            "polls" => self.polls,
            "polls_exhausted" => self.polls_exhausted,
            _ => return None,
        };
        Some(value)
    }
}

/// Packets dropped for one reason in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DropRow {
    /// The kernel's name of the reason; `None`: this kernel does not say; `[other]`: drops without account of their own.
    pub reason: Option<String>,
    /// The place in the kernel's code, `function+0x1f`, with the module in brackets; an address if it has no name.
    pub location: String,
    /// Protocol of the network layer: `IPv4`, a number; `-` of what is none of the network's.
    pub protocol: String,
    /// Packets.
    pub packets: u64,
    /// Their bytes when they were dropped.
    pub bytes: u64,
}

/// Soft interrupts of the network, all CPUs together, and what the kernel says of them. `None`: it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Softirqs {
    /// Soft interrupts that receive.
    pub receive_count: u64,
    /// Time in these, ns; interrupts that hit them are in it.
    pub receive_ns: u64,
    /// Soft interrupts that send what was left over.
    pub send_count: u64,
    /// Time in these, ns.
    pub send_ns: u64,
    /// Packets that CPUs took in.
    pub processed: Option<u64>,
    /// Packets dropped because a CPU's backlog was full.
    pub dropped: Option<u64>,
    /// Times that a CPU stopped receiving before it was done.
    pub squeezed: Option<u64>,
}

/// A span of time and the network in it.
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
    /// Interfaces on which anything happened.
    pub interfaces: Vec<InterfaceRow>,
    /// Drops, most packets first.
    pub drops: Vec<DropRow>,
    /// Soft interrupts.
    pub softirqs: Softirqs,
    /// The kernel's counters of the profiler's own namespace, by our names.
    pub counters: BTreeMap<&'static str, u64>,
}

impl Span {
    /// Puts the interfaces with most of a column in front; gives `false` if there is no such column.
    pub fn sort(&mut self, column: &str) -> bool {
        if InterfaceRow::default().column(column).is_none() {
            return false;
        }
        let key = |row: &InterfaceRow| Reverse((row.column(column), row.received + row.sent, row.polls));
        self.interfaces.sort_by_key(key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_sorted_by_every_column() {
        let row = |received| InterfaceRow { received, received_bytes: 9, ..InterfaceRow::default() };
        let mut span = Span { interfaces: vec![row(1), row(2)], ..Span::default() };
        for column in InterfaceRow::COLUMNS {
            assert!(span.sort(column), "{column}");
        }
        assert!(!span.sort("none such"));
        assert_eq!(span.interfaces[0].received, 2);
    }
}
