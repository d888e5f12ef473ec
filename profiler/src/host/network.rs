//! What the kernel itself counts of its network since the start: /proc/softirqs (fs/proc/softirqs.c) and
//! /proc/net/softnet_stat (net/core/net-procfs.c), by CPU; /proc/net/snmp, /proc/net/netstat (net/ipv4/proc.c) and
//! /proc/net/snmp6 (net/ipv6/proc.c), of the namespace that this process is in.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use super::file;

/// A counter: our name, and where the kernel has it (`Group.Counter`; of IPv6 one word).
pub const COUNTERS: &[(&str, &str)] = &[
    ("tcp_listen_overflows", "TcpExt.ListenOverflows"),
    ("tcp_listen_drops", "TcpExt.ListenDrops"),
    ("tcp_backlog_drops", "TcpExt.TCPBacklogDrop"),
    ("tcp_receive_queue_drops", "TcpExt.TCPRcvQDrop"),
    ("tcp_request_queue_drops", "TcpExt.TCPReqQFullDrop"),
    ("tcp_retransmitted_segments", "Tcp.RetransSegs"),
    ("tcp_timeouts", "TcpExt.TCPTimeouts"),
    ("tcp_received_bad", "Tcp.InErrs"),
    ("tcp_sent_resets", "Tcp.OutRsts"),
    ("udp_no_port", "Udp.NoPorts"),
    ("udp_received_bad", "Udp.InErrors"),
    ("udp_receive_buffer_errors", "Udp.RcvbufErrors"),
    ("udp_send_buffer_errors", "Udp.SndbufErrors"),
    ("udp6_no_port", "Udp6NoPorts"),
    ("udp6_received_bad", "Udp6InErrors"),
    ("udp6_receive_buffer_errors", "Udp6RcvbufErrors"),
    ("udp6_send_buffer_errors", "Udp6SndbufErrors"),
    ("ip_received_discarded", "Ip.InDiscards"),
    ("ip_sent_discarded", "Ip.OutDiscards"),
    ("ip_sent_no_route", "Ip.OutNoRoutes"),
    ("ip6_received_discarded", "Ip6InDiscards"),
    ("ip6_sent_discarded", "Ip6OutDiscards"),
    ("ip6_sent_no_route", "Ip6OutNoRoutes"),
];

/// What CPUs did with what they received, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// Packets that were taken in.
    pub processed: u64,
    /// Packets dropped because a CPU's backlog was full.
    pub dropped: u64,
    /// Times that a CPU stopped before it was done, because its time or budget was used up.
    pub squeezed: u64,
}

/// The counters at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By CPU, in sum; `None`: the file cannot be read.
    pub softnet: Option<Softnet>,
    /// By our names; those that the kernel does not have are not there.
    pub counters: BTreeMap<&'static str, u64>,
}

impl Counted {
    /// What was counted since `earlier`. What either does not have is not in it.
    pub fn since(&self, earlier: &Self) -> Self {
        let softnet = self.softnet.zip(earlier.softnet).map(|(now, then)| Softnet {
            processed: now.processed.wrapping_sub(then.processed),
            dropped: now.dropped.wrapping_sub(then.dropped),
            squeezed: now.squeezed.wrapping_sub(then.squeezed),
        });
        let counters = self.counters.iter().filter_map(|(name, now)| {
            let then = earlier.counters.get(name)?;
            Some((*name, now.wrapping_sub(*then)))
        });
        Self { softnet, counters: counters.collect() }
    }
}

/// The inode number of the network namespace of this thread; `None`: the kernel has no such namespaces.
pub fn namespace() -> Option<u32> {
    let inode = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    u32::try_from(inode).ok()
}

/// Reads all of them.
pub fn read() -> Counted {
    // Of this thread's namespace: /proc/net is that of the process's first thread.
    let text = |name: &str| file::read_text(format!("/proc/thread-self/net/{name}"), file::LARGE).ok();
    let mut found = BTreeMap::new();
    for name in ["snmp", "netstat"] {
        pairs(&text(name).unwrap_or_default(), &mut found);
    }
    words(&text("snmp6").unwrap_or_default(), &mut found);
    let counters = COUNTERS.iter().filter_map(|(name, kernel)| Some((*name, *found.get(*kernel)?)));
    Counted { softnet: text("softnet_stat").as_deref().map(softnet), counters: counters.collect() }
}

/// How many soft interrupts of the network began so far, all CPUs together, modulo 2^32; `None`: the file cannot be read.
pub fn soft_interrupts() -> Option<u32> {
    Some(of_network(&file::read_text("/proc/softirqs", file::LARGE).ok()?))
}

/// A line `NET_RX:  12  3` for each kind: a number of 32 bits for each CPU, which wraps.
fn of_network(text: &str) -> u32 {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let ours = lines.filter(|(kind, _)| matches!(kind.trim(), "NET_TX" | "NET_RX"));
    let numbers = ours.flat_map(|(_, numbers)| numbers.split_ascii_whitespace());
    numbers.filter_map(|number| number.parse::<u32>().ok()).fold(0, u32::wrapping_add)
}

/// Two lines for each group: `Tcp: RtoAlgorithm InSegs`, `Tcp: 1 2`.
fn pairs(text: &str, found: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((same, values))) = (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        if group != same {
            continue;
        }
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            // Some are negative numbers; none of ours.
            if let Ok(value) = value.parse() {
                found.insert(format!("{group}.{name}"), value);
            }
        }
    }
}

/// Lines `Ip6InReceives    12`.
fn words(text: &str, found: &mut BTreeMap<String, u64>) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(|c: char| c.is_ascii_whitespace())
            && let Ok(value) = value.trim().parse()
        {
            found.insert(name.to_owned(), value);
        }
    }
}

/// A line of hexadecimal numbers for each CPU, 32 bits each: processed, dropped, squeezed, ...
fn softnet(text: &str) -> Softnet {
    let mut sum = Softnet::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next().and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
        sum.processed = sum.processed.wrapping_add(next());
        sum.dropped = sum.dropped.wrapping_add(next());
        sum.squeezed = sum.squeezed.wrapping_add(next());
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_are_two_lines_each() {
        let mut found = BTreeMap::new();
        pairs(
            "Tcp: RtoMin MaxConn InErrs\nTcp: 200 -1 3\nUdp: NoPorts\nUdp: 9\nTcp: X\nUdp: 1\n",
            &mut found,
        );
        assert_eq!(found["Tcp.InErrs"], 3);
        assert_eq!(found["Udp.NoPorts"], 9);
        assert!(!found.contains_key("Tcp.MaxConn") && !found.contains_key("Tcp.X"));
        words("Udp6NoPorts                     \t7\nbad\n", &mut found);
        assert_eq!(found["Udp6NoPorts"], 7);
    }

    #[test]
    fn cpus_are_added_up() {
        let text = "0000000a 00000001 00000002 0 0\n000000ff 00000000 00000003 0 0\n";
        assert_eq!(softnet(text), Softnet { processed: 265, dropped: 1, squeezed: 5 });
    }

    #[test]
    fn soft_interrupts_of_the_network_are_added_up() {
        let text =
            "         CPU0   CPU1\n  HI:  1  2\nNET_TX:  10  20\nNET_RX:  300  4294967295\nTIMER:  7  8\n";
        assert_eq!(of_network(text), 329);
    }

    #[test]
    fn differences_are_of_what_both_have() {
        let then = Counted { softnet: None, counters: [("a", 1), ("b", 5)].into() };
        let now = Counted { softnet: Some(Softnet::default()), counters: [("a", 4), ("c", 1)].into() };
        assert_eq!(now.since(&then), Counted { softnet: None, counters: [("a", 3)].into() });
    }

    #[test]
    fn this_kernel_has_most_of_them() {
        let counted = read();
        assert!(soft_interrupts().is_some_and(|n| n > 0));
        assert!(counted.softnet.is_some() && counted.counters.contains_key("tcp_listen_overflows"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let mut found = BTreeMap::new();
            pairs(&text, &mut found);
            words(&text, &mut found);
            softnet(&text);
            of_network(&text);
        }
    }
}
