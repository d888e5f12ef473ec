//! The `packets` probe: what a host's network does, by interface and by CPU; which packets it drops, where and why.
//!
//! All numbers are kept by each CPU for itself: a CPU finds the account of an interface in its own table ([`first_place`],
//! [`PROBES`] places from there), and takes the blocks of its histograms from its own store. User space adds up.

use crate::hist::{BLOCKS, BUCKETS};

/// Places in a CPU's table of interfaces, a power of two; one more, the last, is for those that found none.
pub const INTERFACES: usize = 1024;

/// Places that are looked at for one interface.
pub const PROBES: usize = 8;

/// Blocks of histograms that a CPU has. Block 0 is nobody's.
pub const WAIT_BLOCKS: usize = 1024;

/// Packets in queues whose time is kept.
pub const MAX_QUEUED: usize = 65_536;

/// Kinds of drops that are kept apart.
pub const MAX_DROPS: usize = 4096;

/// Bytes of an interface's name, the terminating NUL included (`IFNAMSIZ`, include/uapi/linux/if.h).
pub const NAME_LEN: usize = 16;

/// [`Drop::reason`] of kernels that have none, and a reason that no kernel has.
pub const NO_REASON: u32 = u32::MAX;

/// [`Interface::kind`] of a free place.
pub const FREE: u32 = 0;
/// The same of an interface.
pub const DEVICE: u32 = 1;
/// The same of polls of no interface: those of a CPU's backlog, which loopback and veth devices fill, and of drivers that poll
/// for several interfaces.
pub const NOBODY: u32 = 2;
/// The same of the interfaces that no place was left for.
pub const OTHER: u32 = 3;

/// Where the kernel keeps what is read of packets and interfaces, and what it says of drops.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketOffsets {
    /// `sk_buff.dev`.
    pub skb_dev: u32,
    /// `sk_buff.len`.
    pub skb_len: u32,
    /// `sk_buff.protocol`.
    pub skb_protocol: u32,
    /// `sk_buff.head`.
    pub skb_head: u32,
    /// `sk_buff.data`.
    pub skb_data: u32,
    /// `sk_buff.mac_header`.
    pub skb_mac_header: u32,
    /// `net_device.ifindex`.
    pub dev_ifindex: u32,
    /// `net_device.name`.
    pub dev_name: u32,
    /// `net_device.nd_net`, a pointer to the namespace.
    pub dev_net: u32,
    /// `net.ns` + `ns_common.inum`.
    pub net_inum: u32,
    /// `net_device._tx`, a pointer to its first queue.
    pub dev_tx: u32,
    /// `netdev_queue.qdisc`.
    pub tx_qdisc: u32,
    /// `Qdisc.enqueue`: null where nothing is queued.
    pub qdisc_enqueue: u32,
    /// `napi_struct.dev`.
    pub napi_dev: u32,
    /// Not 0: interfaces have namespaces.
    pub namespaces: u32,
}

const _: () = assert!(size_of::<PacketOffsets>() == 15 * 4);

impl PacketOffsets {
    /// Nothing known: the programs that need them are not loaded.
    pub const UNKNOWN: Self = Self {
        skb_dev: 0,
        skb_len: 0,
        skb_protocol: 0,
        skb_head: 0,
        skb_data: 0,
        skb_mac_header: 0,
        dev_ifindex: 0,
        dev_name: 0,
        dev_net: 0,
        net_inum: 0,
        dev_tx: 0,
        tx_qdisc: 0,
        qdisc_enqueue: 0,
        napi_dev: 0,
        namespaces: 0,
    };
}

/// What this kernel's `kfree_skb` says of a dropped packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropConfig {
    /// Not 0: why.
    pub reasons: u32,
    /// Not 0: which socket was to have it.
    pub receiver: u32,
    /// The reason of packets that are not dropped but done with; [`NO_REASON`] if there is none.
    pub consumed: u32,
    /// The reason that means that there is none; [`NO_REASON`] if no value does.
    pub not_dropped: u32,
}

impl DropConfig {
    /// Nothing but that it is dropped.
    pub const UNKNOWN: Self = Self { reasons: 0, receiver: 0, consumed: NO_REASON, not_dropped: NO_REASON };
}

const _: () = assert!(size_of::<DropConfig>() == 4 * 4);

/// What one CPU saw of an interface. Bytes are those of packets with their link header; times are ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// [`FREE`], [`DEVICE`], [`NOBODY`] or [`OTHER`].
    pub kind: u32,
    /// Number of the interface in its namespace.
    pub ifindex: u32,
    /// The namespace's inode number.
    pub netns: u32,
    _padding: u32,
    /// Its name when the CPU saw it first.
    pub name: [u8; NAME_LEN],
    /// Packets that the stack received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that the driver took.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that the driver dropped.
    pub failed: u64,
    /// Times that the driver had no room: the packet was tried again.
    pub busy: u64,
    /// Packets that went from the queue to the driver and whose time in between is known.
    pub waits: u64,
    /// Sum of these times.
    pub wait_ns: u64,
    /// The longest.
    pub wait_max_ns: u64,
    /// Polls of its receive queues.
    pub polls: u64,
    /// What they found.
    pub polled: u64,
    /// Of these polls: those that left something, because they may find no more at a time.
    pub exhausted: u64,
    /// Places of the blocks of the histogram of times in the queue; 0: nothing in it.
    pub blocks: [u16; BLOCKS],
    _end: [u8; 4],
}

impl Interface {
    /// The same interface, nothing counted.
    pub const fn cleared(&self) -> Self {
        Self::new(self.kind, self.netns, self.ifindex, self.name)
    }

    /// An interface of that kind, namespace, number and name, nothing counted.
    pub const fn new(kind: u32, netns: u32, ifindex: u32, name: [u8; NAME_LEN]) -> Self {
        Self {
            kind,
            ifindex,
            netns,
            _padding: 0,
            name,
            received: 0,
            received_bytes: 0,
            sent: 0,
            sent_bytes: 0,
            failed: 0,
            busy: 0,
            waits: 0,
            wait_ns: 0,
            wait_max_ns: 0,
            polls: 0,
            polled: 0,
            exhausted: 0,
            blocks: [0; BLOCKS],
            _end: [0; 4],
        }
    }

    /// Adds what another CPU counted of it.
    pub fn add(&mut self, cpu: &Self) {
        self.received += cpu.received;
        self.received_bytes += cpu.received_bytes;
        self.sent += cpu.sent;
        self.sent_bytes += cpu.sent_bytes;
        self.failed += cpu.failed;
        self.busy += cpu.busy;
        self.waits += cpu.waits;
        self.wait_ns += cpu.wait_ns;
        self.wait_max_ns = self.wait_max_ns.max(cpu.wait_max_ns);
        self.polls += cpu.polls;
        self.polled += cpu.polled;
        self.exhausted += cpu.exhausted;
    }

    /// What was counted since `earlier`; the longest wait is that of the whole run.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            received: self.received.saturating_sub(earlier.received),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            sent: self.sent.saturating_sub(earlier.sent),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            failed: self.failed.saturating_sub(earlier.failed),
            busy: self.busy.saturating_sub(earlier.busy),
            waits: self.waits.saturating_sub(earlier.waits),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
            polls: self.polls.saturating_sub(earlier.polls),
            polled: self.polled.saturating_sub(earlier.polled),
            exhausted: self.exhausted.saturating_sub(earlier.exhausted),
            ..*self
        }
    }
}

const _: () = assert!(size_of::<Interface>() == 4 * 4 + NAME_LEN + 12 * 8 + 2 * BLOCKS + 4);

/// A block of a histogram.
pub type WaitBlock = [u64; BUCKETS];

/// The first of the places to look at for an interface.
#[inline(always)]
pub const fn first_place(netns: u32, ifindex: u32) -> u32 {
    // Namespaces are numbered one by one, and so are the interfaces in each.
    let mixed = netns.wrapping_mul(0x9e37_79b1).wrapping_add(ifindex.wrapping_mul(0x85eb_ca6b));
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2c1b_3c6d);
    (mixed ^ (mixed >> 12)) % INTERFACES as u32
}

/// What else a CPU keeps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCpu {
    /// When the soft interrupt in progress began; 0: none, or none of the network's.
    pub since_ns: u64,
    /// Soft interrupts that began to send or to receive.
    pub begun: u64,
    /// Soft interrupts that sent.
    pub send_count: u64,
    /// Time in these, ns.
    pub send_ns: u64,
    /// Soft interrupts that received.
    pub receive_count: u64,
    /// Time in these, ns.
    pub receive_ns: u64,
    /// Blocks of histograms that are taken.
    pub blocks: u64,
    /// The packet that is being sent over an interface that queues nothing; 0: none.
    pub direct: u64,
    /// When that began (`CLOCK_MONOTONIC`, ns).
    pub direct_ns: u64,
    /// Its bytes then.
    pub direct_len: u64,
}

const _: () = assert!(size_of::<PacketCpu>() == 10 * 8);

/// A packet in a queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// When it was put in (`CLOCK_MONOTONIC`, ns).
    pub since_ns: u64,
    /// Its bytes then.
    pub len: u32,
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Queued>() == 16);

/// A kind of drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Drop {
    /// Address of the code that dropped.
    pub location: u64,
    /// `enum skb_drop_reason`, the subsystem in the high half; [`NO_REASON`]: the kernel does not say.
    pub reason: u32,
    /// Protocol of the network layer (`ETH_P_*`), 0 of what is not of the network.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Drop>() == 16);

/// How often, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Packets.
    pub packets: u64,
    /// Their bytes when they were dropped, without the headers that were taken off until then.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Dropped>() == 16);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for PacketOffsets {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for DropConfig {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Interface {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for PacketCpu {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Queued {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Drop {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Dropped {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_a_host_with_many_containers_find_places() {
        let mut taken = [false; INTERFACES];
        let mut missing = 0;
        // Two in each of 100 namespaces, and the other ends of the pairs in the first.
        let inside = (0..100).flat_map(|ns| [(4_026_532_000 + ns * 60, 1), (4_026_532_000 + ns * 60, 2)]);
        let outside = (0..102).map(|index| (4_026_531_840, index));
        for (netns, ifindex) in inside.chain(outside) {
            let first = first_place(netns, ifindex) as usize;
            let free = (first..first + PROBES).map(|place| place % INTERFACES).find(|&place| !taken[place]);
            match free {
                Some(place) => taken[place] = true,
                None => missing += 1,
            }
        }
        assert_eq!(missing, 0, "of 302 without a place");
    }
}
