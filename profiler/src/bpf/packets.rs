//! The maps of the host's network (`profiler_common::probe::packets`): each CPU's table of interfaces with their histograms,
//! drops by kind, time in soft interrupts.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, IterableMap as _, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues},
};
use profiler_common::{
    hist::{BLOCKS, BUCKETS},
    loss::Loss,
    probe::packets::{
        Drop, DropConfig, Dropped, FREE, INTERFACES, Interface, MAX_DROPS, MAX_QUEUED, PacketCpu,
        PacketOffsets, Queued, WAIT_BLOCKS, WaitBlock,
    },
};

use super::{
    BpfError,
    map::{failed, take},
    stats::{Counters, map_memory},
};

const TABLE: &str = "INTERFACE_TABLE";
const WAITS: &str = "QUEUE_BLOCKS";
const CPUS: &str = "PACKET_CPUS";
const QUEUED: &str = "QUEUED_PACKETS";
const DROPS: &str = "DROPS";
const OTHER_DROPS: &str = "OTHER_DROPS";

/// Which interface: kind, namespace, number.
pub type InterfaceKey = (u32, u32, u32);

/// The account of an interface, all CPUs together.
#[derive(Clone, Debug)]
pub struct InterfaceAccount {
    /// Sums; `blocks` means nothing.
    pub sums: Interface,
    /// Times in the queue: index of the bucket (`block * BUCKETS + bucket`), how many.
    pub waits: BTreeMap<u16, u64>,
}

/// Everything that was counted up to a moment.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    /// By interface.
    pub interfaces: BTreeMap<InterfaceKey, InterfaceAccount>,
    /// By kind; `None`: of those that had no room.
    pub drops: BTreeMap<Option<Drop>, Dropped>,
    /// All CPUs together; `since_ns` and `blocks` mean nothing.
    pub softirqs: PacketCpu,
}

/// Fills in what the programs read, and sizes the maps; without offsets, packets are not looked at.
pub fn prepare<'a>(
    loader: &mut EbpfLoader<'a>,
    offsets: Option<&'a PacketOffsets>,
    drops: Option<&'a DropConfig>,
) {
    let entries = |entries: usize| if offsets.is_some() { entries as u32 } else { 1 };
    loader
        .override_global("DROP_CONFIG", drops.unwrap_or(&DropConfig::UNKNOWN), true)
        .override_global("PACKET_OFFSETS", offsets.unwrap_or(&PacketOffsets::UNKNOWN), true)
        .map_max_entries(TABLE, entries(INTERFACES + 1))
        .map_max_entries(WAITS, entries(WAIT_BLOCKS))
        .map_max_entries(QUEUED, entries(MAX_QUEUED))
        .map_max_entries(DROPS, entries(MAX_DROPS));
}

/// The maps.
pub struct PacketMaps {
    table: PerCpuArray<MapData, Interface>,
    waits: PerCpuArray<MapData, WaitBlock>,
    cpus: PerCpuArray<MapData, PacketCpu>,
    queued: HashMap<MapData, u64, Queued>,
    drops: PerCpuHashMap<MapData, Drop, Dropped>,
    other_drops: PerCpuArray<MapData, Dropped>,
    losses: Counters,
}

impl PacketMaps {
    /// Takes the maps out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        Ok(Self {
            table: take(ebpf, TABLE)?,
            waits: take(ebpf, WAITS)?,
            cpus: take(ebpf, CPUS)?,
            queued: take(ebpf, QUEUED)?,
            drops: take(ebpf, DROPS)?,
            other_drops: take(ebpf, OTHER_DROPS)?,
            losses: Counters::new(ebpf, "LOSSES")?,
        })
    }

    /// Reads everything. A number may be one event older than another one.
    pub fn read(&self) -> Result<Packets, BpfError> {
        let cpus = self.cpus.get(&0, 0).map_err(failed("read", CPUS))?;
        let mut packets = Packets { drops: self.drops()?, ..Packets::default() };
        for cpu in cpus.iter() {
            let sum = &mut packets.softirqs;
            sum.begun += cpu.begun;
            sum.send_count += cpu.send_count;
            sum.send_ns += cpu.send_ns;
            sum.receive_count += cpu.receive_count;
            sum.receive_ns += cpu.receive_ns;
        }
        // A block that an interface is seen to have was taken before: the tables are read first.
        let mut rows = Vec::new();
        for place in 0..self.table.len() {
            let of_cpus = self.table.get(&place, 0).map_err(failed("read", TABLE))?;
            let used = (0..).zip(of_cpus.iter()).filter(|(_, row)| row.kind != FREE);
            rows.extend(used.map(|(cpu, row): (usize, &Interface)| (cpu, *row)));
        }
        let last = rows.iter().flat_map(|(_, row)| row.blocks).max().unwrap_or(0);
        let blocks: Vec<PerCpuValues<WaitBlock>> = (0..=u32::from(last).min(self.waits.len() - 1))
            .map(|place| self.waits.get(&place, 0).map_err(failed("read", WAITS)))
            .collect::<Result<_, _>>()?;
        for (cpu, row) in rows {
            let key = (row.kind, row.netns, row.ifindex);
            let empty = || InterfaceAccount { sums: row.cleared(), waits: BTreeMap::new() };
            let account = packets.interfaces.entry(key).or_insert_with(empty);
            account.sums.add(&row);
            for (number, place) in (0..BLOCKS).zip(row.blocks).filter(|&(_, place)| place != 0) {
                let block = blocks.get(usize::from(place)).and_then(|of_cpus| of_cpus.get(cpu));
                for (bucket, n) in (0..).zip(block.into_iter().flatten()).filter(|&(_, n)| *n != 0) {
                    *account.waits.entry((number * BUCKETS + bucket) as u16).or_default() += n;
                }
            }
        }
        Ok(packets)
    }

    fn drops(&self) -> Result<BTreeMap<Option<Drop>, Dropped>, BpfError> {
        let sum = |of_cpus: &PerCpuValues<Dropped>| {
            of_cpus.iter().fold(Dropped::default(), |sum, cpu| Dropped {
                packets: sum.packets + cpu.packets,
                bytes: sum.bytes + cpu.bytes,
            })
        };
        let mut drops = BTreeMap::new();
        for entry in self.drops.iter() {
            let (key, of_cpus) = entry.map_err(failed("read", DROPS))?;
            drops.insert(Some(key), sum(&of_cpus));
        }
        let other = sum(&self.other_drops.get(&0, 0).map_err(failed("read", OTHER_DROPS))?);
        if other.packets != 0 {
            drops.insert(None, other);
        }
        Ok(drops)
    }

    /// Counts of what was lost.
    pub fn losses(&self) -> Result<Vec<(Loss, u64)>, BpfError> {
        Loss::PACKETS.iter().map(|&loss| Ok((loss, self.losses.sum(loss as u32)?))).collect()
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        let maps: [BorrowedFd<'_>; 6] = [
            self.table.map().fd().as_fd(),
            self.waits.map().fd().as_fd(),
            self.cpus.map().fd().as_fd(),
            self.queued.map().fd().as_fd(),
            self.drops.map().fd().as_fd(),
            self.other_drops.map().fd().as_fd(),
        ];
        maps.into_iter().map(map_memory).sum()
    }
}
