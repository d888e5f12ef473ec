//! What was counted of packets since a moment, made rows.

use std::collections::BTreeMap;

use profiler_common::probe::packets::{DEVICE, Drop, Dropped, Interface, NOBODY, PacketCpu};

use super::super::histogram::{percentile, range, ranges};
use crate::{
    bpf::packets::{InterfaceAccount, Packets},
    host::{btf::DropReasons, network::Counted},
    model::{
        name::{clean, clean_c},
        packets::{DropRow, InterfaceRow, Softirqs},
    },
};

/// Protocols of the network layer with a name (`ETH_P_*`, include/uapi/linux/if_ether.h).
const PROTOCOLS: [(u32, &str); 13] = [
    (0, "-"),
    (0x0004, "802.2"),
    (0x0800, "IPv4"),
    (0x0806, "ARP"),
    (0x86dd, "IPv6"),
    (0x8100, "802.1Q"),
    (0x8847, "MPLS"),
    (0x8863, "PPPoE discovery"),
    (0x8864, "PPPoE"),
    (0x888e, "802.1X"),
    (0x88a8, "802.1ad"),
    (0x88cc, "LLDP"),
    (0x88f7, "PTP"),
];

/// The rows of all interfaces on which anything happened since `earlier`, by namespace and number. `own_netns`: the
/// profiler's.
pub fn interfaces(
    now: &Packets,
    earlier: &Packets,
    own_netns: Option<u32>,
    histogram: bool,
) -> Vec<InterfaceRow> {
    let mut rows = Vec::new();
    for (key, account) in &now.interfaces {
        let none = || InterfaceAccount { sums: account.sums.cleared(), waits: BTreeMap::new() };
        let before = earlier.interfaces.get(key).cloned().unwrap_or_else(none);
        let sums = account.sums.since(&before.sums);
        let waits = more(&account.waits, &before.waits);
        let any = [sums.received, sums.sent, sums.failed, sums.busy, sums.waits, sums.polls];
        if any.into_iter().any(|n| n != 0) {
            let max_ns = longest(&account.sums, &before.sums, &waits);
            rows.push(interface(&sums, &waits, max_ns, own_netns, histogram));
        }
    }
    rows
}

/// What is in one histogram more than in an earlier one, ascending.
fn more(now: &BTreeMap<u16, u64>, before: &BTreeMap<u16, u64>) -> Vec<(u16, u64)> {
    let added =
        now.iter().map(|(&bucket, &n)| (bucket, n - before.get(&bucket).copied().unwrap_or(0).min(n)));
    added.filter(|&(_, n)| n != 0).collect()
}

/// The longest time since then is known if it is the longest of all, else only its bucket.
fn longest(now: &Interface, before: &Interface, waits: &[(u16, u64)]) -> u64 {
    let last = waits.last().map_or(0, |&(bucket, _)| range(bucket).1);
    if now.wait_max_ns > before.wait_max_ns { now.wait_max_ns } else { last.min(now.wait_max_ns) }
}

fn interface(
    sums: &Interface,
    waits: &[(u16, u64)],
    max_ns: u64,
    own_netns: Option<u32>,
    histogram: bool,
) -> InterfaceRow {
    let is_device = sums.kind == DEVICE;
    let netns = (is_device && own_netns.is_some()).then_some(sums.netns);
    let percentile = |percent| percentile(waits, percent).map(|ns| ns.min(max_ns));
    InterfaceRow {
        interface: match sums.kind {
            DEVICE => clean_c(&sums.name),
            NOBODY => clean(b"[no interface]"),
            _ => clean(b"[other]"),
        },
        ifindex: is_device.then_some(sums.ifindex),
        netns,
        is_own_netns: netns == own_netns,
        received: sums.received,
        received_bytes: sums.received_bytes,
        sent: sums.sent,
        sent_bytes: sums.sent_bytes,
        send_failed: sums.failed,
        send_busy: sums.busy,
        queued: sums.waits,
        queued_ns: sums.wait_ns,
        queued_avg_ns: sums.wait_ns.checked_div(sums.waits),
        queued_p50_ns: percentile(50),
        queued_p90_ns: percentile(90),
        queued_p99_ns: percentile(99),
        queued_max_ns: (sums.waits != 0).then_some(max_ns),
        polls: sums.polls,
        polled: sums.polled,
        polls_exhausted: sums.exhausted,
        histogram: histogram.then(|| ranges(waits)),
    }
}

/// Times in queues that are in no histogram: no room was left.
pub fn not_in_histograms(packets: &Packets) -> u64 {
    let missing =
        |account: &InterfaceAccount| account.sums.waits.saturating_sub(account.waits.values().sum::<u64>());
    packets.interfaces.values().map(missing).sum()
}

/// Soft interrupts that no program saw begin. `kernel`: those of a time, modulo 2^32; `seen`: those of a time that is longer.
pub fn not_traced(kernel: u32, seen: u64) -> u64 {
    let more = kernel.wrapping_sub(seen as u32).cast_signed();
    u64::try_from(more).unwrap_or(0)
}

/// Drops since `earlier`, most packets first. `location`: the name of a place.
pub fn drops(
    now: &Packets,
    earlier: &Packets,
    reasons: &DropReasons,
    location: impl Fn(u64) -> String,
) -> Vec<DropRow> {
    let since = |(kind, dropped): (&Option<Drop>, &Dropped)| {
        let before = earlier.drops.get(kind).copied().unwrap_or_default();
        let packets = dropped.packets.saturating_sub(before.packets);
        let bytes = dropped.bytes.saturating_sub(before.bytes);
        let row = match kind {
            Some(drop) => DropRow {
                reason: reasons.name(drop.reason).map(|name| clean(name.as_bytes())),
                location: location(drop.location),
                protocol: protocol(drop.protocol),
                packets,
                bytes,
            },
            None => DropRow {
                reason: Some(clean(b"[other]")),
                location: "-".to_owned(),
                protocol: protocol(0),
                packets,
                bytes,
            },
        };
        (packets != 0).then_some(row)
    };
    let mut rows: Vec<_> = now.drops.iter().filter_map(since).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.packets));
    rows
}

fn protocol(number: u32) -> String {
    let known = PROTOCOLS.iter().find(|&&(known, _)| known == number);
    known.map_or_else(|| format!("{number:#06x}"), |(_, name)| (*name).to_owned())
}

/// Soft interrupts since `earlier`. `host`: what the kernel counted of them in the same time.
pub fn softirqs(now: &PacketCpu, earlier: &PacketCpu, host: &Counted) -> Softirqs {
    Softirqs {
        receive_count: now.receive_count.saturating_sub(earlier.receive_count),
        receive_ns: now.receive_ns.saturating_sub(earlier.receive_ns),
        send_count: now.send_count.saturating_sub(earlier.send_count),
        send_ns: now.send_ns.saturating_sub(earlier.send_ns),
        processed: host.softnet.map(|softnet| softnet.processed),
        dropped: host.softnet.map(|softnet| softnet.dropped),
        squeezed: host.softnet.map(|softnet| softnet.squeezed),
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::probe::packets::NO_REASON;

    use super::*;

    fn account(received: u64, waits: &[(u16, u64)], max_ns: u64) -> InterfaceAccount {
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"et\n0");
        let mut sums = Interface::new(DEVICE, 7, 2, name);
        (sums.received, sums.wait_max_ns) = (received, max_ns);
        sums.waits = waits.iter().map(|&(_, n)| n).sum();
        InterfaceAccount { sums, waits: waits.iter().copied().collect() }
    }

    fn packets(account: InterfaceAccount) -> Packets {
        Packets { interfaces: [((DEVICE, 7, 2), account)].into(), ..Packets::default() }
    }

    #[test]
    fn an_interval_has_what_was_added_in_it() {
        let before = packets(account(5, &[(16, 10)], 900));
        let now = packets(account(8, &[(16, 10), (32, 3)], 900));
        let rows = interfaces(&now, &before, Some(7), true);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.received, row.queued, row.is_own_netns), (3, 3, true));
        assert_eq!((row.interface.as_str(), row.netns), ("et\\n0", Some(7)));
        // The bucket from 32 ns on is 2 ns wide.
        assert_eq!((row.queued_p50_ns, row.queued_max_ns), (Some(33), Some(34)));
        assert_eq!(row.histogram, Some(vec![(32, 34, 3)]));
        assert_eq!(not_in_histograms(&now), 0);
    }

    #[test]
    fn interfaces_on_which_nothing_happened_are_left_out() {
        let same = packets(account(5, &[], 0));
        assert_eq!(interfaces(&same, &same, None, false), []);
        let row = &interfaces(&same, &Packets::default(), None, false)[0];
        assert_eq!((row.netns, row.queued_p50_ns, row.queued_max_ns), (None, None, None));
    }

    #[test]
    fn drops_are_named_and_the_rest_is_one_row() {
        let drop = Drop { location: 0x10, reason: NO_REASON, protocol: 0x86dd };
        let many = Dropped { packets: 9, bytes: 900 };
        let now = Packets {
            drops: [(Some(drop), many), (None, Dropped { packets: 1, bytes: 1 })].into(),
            ..Packets::default()
        };
        let name = |address: u64| format!("f+{address:#x}");
        let rows = drops(&now, &Packets::default(), &DropReasons::default(), name);
        assert_eq!((&rows[0].reason, rows[0].protocol.as_str()), (&None, "IPv6"));
        assert_eq!((rows[0].location.as_str(), rows[0].packets, rows[0].bytes), ("f+0x10", 9, 900));
        assert_eq!(rows[1].reason.as_deref(), Some("[other]"));
        assert_eq!(drops(&now, &now, &DropReasons::default(), name), []);
        assert_eq!(protocol(0x1234), "0x1234");
    }

    #[test]
    fn soft_interrupts_not_seen_are_those_that_the_kernel_has_more() {
        assert_eq!([not_traced(9, 7), not_traced(7, 7), not_traced(7, 9)], [2, 0, 0]);
        // Both wrapped, or one of them.
        assert_eq!(
            [not_traced(1, 1 << 32), not_traced(1, (1 << 32) - 2), not_traced(u32::MAX, 3 << 32)],
            [1, 3, 0]
        );
    }
}
