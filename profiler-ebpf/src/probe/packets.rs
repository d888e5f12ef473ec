//! Probe `packets`: what the host's network does, by interface; time in soft interrupts; packets that are dropped.
//!
//! Hooks: BTF tracepoints `netif_receive_skb`, `net_dev_queue`, `net_dev_start_xmit`, `net_dev_xmit`, `napi_poll`,
//! `kfree_skb`; raw tracepoints `softirq_entry`, `softirq_exit`.
//!
//! A packet that is received costs one look-up in an array of the CPU's own (`interface`). One that is sent costs three
//! programs: its time goes into a hash map by its address when it is queued, and out of it when it is handed to the driver.
//! For an interface that queues nothing (loopback, veth, bridges), which hands it over before the CPU does anything else, the
//! CPU keeps the time instead. The hand-over is `net_dev_start_xmit`, before the driver has the packet, because at
//! `net_dev_xmit` it can be freed and its address be another packet's. A device on top of another one (VLAN, bond, tunnel) hands over to the lower one's queue
//! within its own hand-over: each has its own time, as the first entry is gone when the second is made.
//!
//! A packet that leaves a queue otherwise is dropped, which takes its entry out, or is cut into segments that were never
//! queued themselves. Then its entry stays until its address is queued again. A segment may get that address, but it is
//! shorter than what it was cut from: a packet shorter than what was queued has no time.
//!
//! Who writes. The kernel sends, receives and polls with soft interrupts off, and a CPU runs its soft interrupts one after
//! the other. What can still come in between on that CPU are interrupts, which neither send nor receive: of the programs
//! that do not handle drops one runs at a time, and what a CPU keeps for itself needs no atomics. (netconsole polls drivers
//! in interrupts too: such a poll can be lost if it hits another one. From Linux 6.1 on it is counted as missed.)
//! `kfree_skb` is hit with soft interrupts on as well, and the drops of one that comes in between would be lost by a sum
//! that is read, added to and written: it is added to in one instruction. From Linux 6.1 on (05b24ff9b2cf) the kernel
//! leaves out a program's run inside of a run of its own, and counts it (`programs_missed`).

use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{HashMap, PerCpuArray, PerCpuHashMap},
    helpers::generated::bpf_ktime_get_ns,
    macros::btf_map,
    programs::{BtfTracePointContext, RawTracePointContext},
};
use profiler_common::{
    hist,
    loss::Loss,
    probe::packets::{
        DEVICE, Drop, Dropped, FREE, INTERFACES, Interface, MAX_DROPS, MAX_QUEUED, NAME_LEN, NOBODY, OTHER,
        PROBES, PacketCpu, PacketOffsets, Queued, WAIT_BLOCKS, WaitBlock, first_place,
    },
};

use crate::{
    atomic, drop, loss,
    sched::member::{get, pointer, probe},
};

#[unsafe(no_mangle)]
static PACKET_OFFSETS: Global<PacketOffsets> = Global::new(PacketOffsets::UNKNOWN);

/// One of the offsets, never a copy of all (see `crate::task`).
macro_rules! offset {
    ($member:ident) => {{
        let offsets = (&raw const PACKET_OFFSETS).cast::<PacketOffsets>();
        // SAFETY: a member of a global that is initialized and never written; volatile because the loader replaces what
        // the compiler sees.
        unsafe { (&raw const (*offsets).$member).read_volatile() }
    }};
}

/// Interfaces that this CPU saw. All maps are shrunk to one entry at load if packets are not looked at.
#[btf_map]
static INTERFACE_TABLE: PerCpuArray<Interface, { INTERFACES + 1 }> = PerCpuArray::new();

/// Blocks of the histograms of times in queues.
#[btf_map]
static QUEUE_BLOCKS: PerCpuArray<WaitBlock, WAIT_BLOCKS> = PerCpuArray::new();

#[btf_map]
static PACKET_CPUS: PerCpuArray<PacketCpu, 1> = PerCpuArray::new();

/// Packets in queues, by address.
#[btf_map]
static QUEUED_PACKETS: HashMap<u64, Queued, MAX_QUEUED> = HashMap::new();

/// Packets dropped, by kind.
#[btf_map]
static DROPS: PerCpuHashMap<Drop, Dropped, MAX_DROPS> = PerCpuHashMap::new();

/// Packets dropped that found no place in `DROPS`.
#[btf_map]
static OTHER_DROPS: PerCpuArray<Dropped, 1> = PerCpuArray::new();

/// Soft interrupts that send and that receive (`NET_TX_SOFTIRQ`, `NET_RX_SOFTIRQ`, include/linux/interrupt.h).
const SEND: u32 = 2;
const RECEIVE: u32 = 3;

/// What drivers return (`enum netdev_tx`, include/linux/netdevice.h): the packet is theirs, or they have no room.
const TAKEN: i32 = 0;
const BUSY: i32 = 0x10;

/// Longest link header that is believed: the offset is no such thing in packets that have none.
const MAX_LINK_HEADER: u64 = 255;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// The same number, of which the compiler knows nothing any more: it would leave out the check of an index whose bounds
/// it can derive, and the verifier cannot.
#[inline(always)]
fn opaque(index: usize) -> usize {
    // SAFETY: a local number.
    unsafe { (&raw const index).read_volatile() }
}

/// What this CPU keeps.
#[inline(always)]
fn cpu() -> Option<&'static mut PacketCpu> {
    // SAFETY: it is this CPU's, and programs that ask for it run one after the other (see the module).
    PACKET_CPUS.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}

/// This CPU's account at a place of its table.
#[inline(always)]
fn at(place: u32) -> Option<&'static mut Interface> {
    // SAFETY: as in `cpu`.
    INTERFACE_TABLE.get_ptr_mut(place).map(|interface| unsafe { &mut *interface })
}

/// This CPU's account of an interface, whose type the verifier knows. It may be null, or one without a number: nobody's.
#[inline(always)]
fn interface(dev: *const u8) -> Option<&'static mut Interface> {
    // Loads by way of a null pointer read zeros. It is not compared with null: the verifier need not believe that it can be.
    let ifindex: u32 = get::<true, u32>(dev, offset!(dev_ifindex));
    let kind = if ifindex == 0 { NOBODY } else { DEVICE };
    let netns = if offset!(namespaces) == 0 || kind == NOBODY {
        0
    } else {
        get::<true, u32>(pointer::<true>(dev, offset!(dev_net)), offset!(net_inum))
    };
    let first = first_place(netns, ifindex);
    for probe in 0..PROBES as u32 {
        let found = at((first + probe) % INTERFACES as u32)?;
        if found.kind == kind && found.ifindex == ifindex && found.netns == netns {
            return Some(found);
        }
        if found.kind == FREE {
            found.ifindex = ifindex;
            found.netns = netns;
            if kind == DEVICE {
                found.name = name(dev);
            }
            // User space reads it from here on.
            found.kind = kind;
            return Some(found);
        }
    }
    loss::count(Loss::InterfacesFull);
    let other = at(INTERFACES as u32)?;
    other.kind = OTHER;
    Some(other)
}

/// The name of an interface.
#[inline(always)]
fn name(dev: *const u8) -> [u8; NAME_LEN] {
    probe(dev.wrapping_add(offset!(dev_name) as usize).cast::<[u8; NAME_LEN]>()).unwrap_or_default()
}

/// `netif_receive_skb(skb)`.
#[inline(always)]
pub fn received(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    let Some(interface) = interface(pointer::<true>(skb, offset!(skb_dev))) else { return };
    // The link header is off already: it stands before the data.
    let header = (pointer::<true>(skb, offset!(skb_data)) as u64)
        .wrapping_sub(pointer::<true>(skb, offset!(skb_head)) as u64)
        .wrapping_sub(u64::from(get::<true, u16>(skb, offset!(skb_mac_header))));
    let len = u64::from(get::<true, u32>(skb, offset!(skb_len)));
    interface.received += 1;
    interface.received_bytes += if header <= MAX_LINK_HEADER { len + header } else { len };
}

/// `net_dev_queue(skb)`.
#[inline(always)]
pub fn queued(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    let dev = pointer::<true>(skb, offset!(skb_dev));
    // The first queue stands for all: interfaces that queue nothing have no other kind.
    let qdisc = pointer::<true>(pointer::<true>(dev, offset!(dev_tx)), offset!(tx_qdisc));
    let Some(cpu) = cpu() else { return };
    let len = get::<true, u32>(skb, offset!(skb_len));
    if get::<true, u64>(qdisc, offset!(qdisc_enqueue)) == 0 {
        cpu.direct = skb as u64;
        cpu.direct_len = u64::from(len);
        cpu.direct_ns = now();
        return;
    }
    cpu.direct = 0;
    let queued = Queued { since_ns: now(), len, padding: 0 };
    if QUEUED_PACKETS.insert(skb as u64, queued, BPF_ANY as u64).is_err() {
        loss::count(Loss::QueuedFull);
    }
}

/// `net_dev_start_xmit(skb, dev)`.
#[inline(always)]
pub fn started(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    let Some(cpu) = cpu() else { return };
    let (since_ns, len_then) = if cpu.direct == skb as u64 {
        cpu.direct = 0;
        (cpu.direct_ns, cpu.direct_len)
    } else {
        let Some(queued) = QUEUED_PACKETS.get_ptr(skb as u64) else { return };
        // SAFETY: the packet is this CPU's now: nobody else changes or removes its entry.
        let Queued { since_ns, len, .. } = unsafe { *queued };
        _ = QUEUED_PACKETS.remove(skb as u64);
        (since_ns, u64::from(len))
    };
    if u64::from(get::<true, u32>(skb, offset!(skb_len))) < len_then {
        return;
    }
    if let Some(interface) = interface(ctx.arg(1)) {
        waited(interface, now().saturating_sub(since_ns));
    }
}

/// A packet was in the queue for so long.
#[inline(always)]
fn waited(interface: &mut Interface, ns: u64) {
    interface.waits += 1;
    interface.wait_ns += ns;
    if ns > interface.wait_max_ns {
        interface.wait_max_ns = ns;
    }
    let (block, bucket) = hist::place(ns);
    let Some(place) = interface.blocks.get_mut(opaque(block)) else { return };
    if *place == 0 {
        // User space sees from the sums if there is none left.
        let Some(cpu) = cpu() else { return };
        if cpu.blocks + 1 >= WAIT_BLOCKS as u64 {
            return;
        }
        cpu.blocks += 1;
        *place = cpu.blocks as u16;
    }
    // SAFETY: as in `cpu`.
    let block = QUEUE_BLOCKS.get_ptr_mut(u32::from(*place)).map(|block| unsafe { &mut *block });
    if let Some(number) = block.and_then(|block| block.get_mut(opaque(bucket))) {
        *number += 1;
    }
}

/// `net_dev_xmit(skb, rc, dev, len)`. The packet may be gone.
#[inline(always)]
pub fn sent(ctx: &BtfTracePointContext) {
    let Some(interface) = interface(ctx.arg(2)) else { return };
    match ctx.arg::<u64>(1) as i32 {
        TAKEN => {
            interface.sent += 1;
            interface.sent_bytes += u64::from(ctx.arg::<u64>(3) as u32);
        }
        BUSY => interface.busy += 1,
        _ => interface.failed += 1,
    }
}

/// `napi_poll(napi, work, budget)`.
#[inline(always)]
pub fn polled(ctx: &BtfTracePointContext) {
    let napi: *const u8 = ctx.arg(0);
    let (work, budget) = (ctx.arg::<u64>(1) as i32, ctx.arg::<u64>(2) as i32);
    let Some(interface) = interface(pointer::<true>(napi, offset!(napi_dev))) else { return };
    interface.polls += 1;
    if work > 0 {
        interface.polled += work as u64;
        // A poll without a budget only gives back what was sent.
        interface.exhausted += u64::from(work >= budget);
    }
}

/// `kfree_skb(skb, location)`, with more on newer kernels.
#[inline(always)]
pub fn dropped(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    if QUEUED_PACKETS.get_ptr(skb as u64).is_some() {
        _ = QUEUED_PACKETS.remove(skb as u64);
    } else if let Some(cpu) = cpu()
        && cpu.direct == skb as u64
    {
        // What comes between these two lines has sent its own packet when it returns here.
        cpu.direct = 0;
    }
    let Some(reason) = drop::reason(|index| ctx.arg(index)) else { return };
    let protocol = u16::from_be(get::<true, u16>(skb, offset!(skb_protocol)));
    let key = Drop { location: ctx.arg(1), reason, protocol: u32::from(protocol) };
    let bytes = u64::from(get::<true, u32>(skb, offset!(skb_len)));
    if DROPS.get_ptr(key).is_none() {
        // Full, which is counted below; or another CPU was faster.
        _ = DROPS.insert(key, Dropped { packets: 0, bytes: 0 }, BPF_NOEXIST as u64);
    }
    let dropped = match DROPS.get_ptr_mut(key) {
        Some(dropped) => dropped,
        None => {
            loss::count(Loss::DropsFull);
            let Some(other) = OTHER_DROPS.get_ptr_mut(0) else { return };
            other
        }
    };
    // SAFETY: aligned words of this CPU's entry, which is never removed; only this program writes them.
    unsafe {
        atomic::add(&mut (*dropped).packets, 1);
        atomic::add(&mut (*dropped).bytes, bytes);
    }
}

/// `softirq_entry(vec)`.
#[inline(always)]
pub fn softirq_entry(ctx: &RawTracePointContext) {
    if let SEND | RECEIVE = ctx.arg::<u64>(0) as u32
        && let Some(cpu) = cpu()
    {
        cpu.begun += 1;
        cpu.since_ns = now();
    }
}

/// `softirq_exit(vec)`.
#[inline(always)]
pub fn softirq_exit(ctx: &RawTracePointContext) {
    let vec = ctx.arg::<u64>(0) as u32;
    let (SEND | RECEIVE) = vec else { return };
    let Some(cpu) = cpu() else { return };
    // The one that was in progress at the start.
    if cpu.since_ns == 0 {
        return;
    }
    let ns = now().saturating_sub(cpu.since_ns);
    cpu.since_ns = 0;
    if vec == SEND {
        cpu.send_count += 1;
        cpu.send_ns += ns;
    } else {
        cpu.receive_count += 1;
        cpu.receive_ns += ns;
    }
}
