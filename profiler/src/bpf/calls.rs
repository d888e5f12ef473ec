//! The maps of the accounts of system calls (`profiler_common::probe::syscalls`): slabs that are read through `mmap`,
//! queues of free places, a ring of threads that ended, errors, and sums of what has no account of its own.

use std::{collections::HashMap as Sums, os::fd::AsFd as _};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, IterableMap as _, MapData, PerCpuArray, RingBuf},
};
use profiler_common::{
    hist::BLOCKS,
    loss::Loss,
    probe::syscalls::{Block, Call, Caller, ErrorKey, OTHERS, Other, PerCpu, Range, Slab, other_of_key},
};

use super::{
    BpfError, batch,
    map::{failed, take},
    slab::SlabMaps,
    stats::{Counters, map_memory},
};

const ERRORS: &str = "CALL_ERRORS";
const OTHER_CALLS: &str = "OTHER_CALLS";
const CPUS: &str = "CALL_CPUS";
const ENDED: &str = "ENDED_CALLERS";

/// Places that a CPU takes at a time: few, because what it does not use it keeps.
const RANGE: u32 = 32;

/// The part of a slab's places that are kept back when they are freed: together they are fewer and longer ranges, each of
/// which takes a system call.
const KEPT_BACK: u32 = 16;

/// The part of the threads that there is room for that can have ended before they are taken out at once: they can hold more
/// calls and blocks than others.
const MANY: usize = 64;

/// Room for accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Threads.
    pub callers: u32,
    /// Pairs of thread and system call.
    pub calls: u32,
    /// Powers of two of latencies of such a pair.
    pub blocks: u32,
}

/// A slab, and its places that were freed and are not in the queue yet.
struct Store<T: Pod> {
    slab: SlabMaps<T, Range>,
    freed: Vec<u32>,
    /// Fewer are kept back.
    most_freed: usize,
}

impl<T: Pod> Store<T> {
    fn new(ebpf: &mut Ebpf, names: (&'static str, &'static str), len: u32) -> Result<Self, BpfError> {
        let range = |first| Range { first, len: RANGE.min(len - first) };
        let free = (1..len).step_by(RANGE as usize).map(range);
        let slab = SlabMaps::new(ebpf, names, len, free)?;
        Ok(Self { slab, freed: Vec::new(), most_freed: (len / KEPT_BACK) as usize })
    }

    /// Gives the freed places back if they are many, neighbours together.
    fn give_back(&mut self) -> Result<(), BpfError> {
        if self.freed.len() < self.most_freed {
            return Ok(());
        }
        self.freed.sort_unstable();
        for run in self.freed.chunk_by(|a, b| a + 1 == *b) {
            for part in run.chunks(RANGE as usize) {
                let (Some(&first), len) = (part.first(), part.len() as u32) else { continue };
                self.slab.give_back(Range { first, len })?;
            }
        }
        self.freed.clear();
        Ok(())
    }

    fn get(&self, place: u32) -> Option<T> {
        self.slab.get(place)
    }

    const fn len(&self) -> usize {
        self.slab.len()
    }

    fn clear(&mut self, place: u32, zero: T) {
        self.slab.set(place, zero);
        self.freed.push(place);
    }

    fn memory(&self) -> u64 {
        self.slab.memory()
    }
}

/// What an account of a call says.
#[derive(Debug)]
pub struct CallAccount {
    /// Sums.
    pub call: Call,
    /// Latencies: index of the bucket (`block * BUCKETS + bucket`), how many. Ascending, without the empty ones.
    pub latencies: Vec<(u16, u32)>,
    /// Number of errors by error number.
    pub errors: Vec<(u32, u64)>,
}

/// Calls of one number that have no account of their own.
pub struct OtherAccount {
    /// Which number (`other_number`).
    pub place: u32,
    /// Sums.
    pub sum: Other,
    /// Number of errors by error number; a number can be there several times.
    pub errors: Vec<(u32, u64)>,
}

/// The maps.
pub struct Calls {
    callers: Store<Caller>,
    calls: Store<Call>,
    blocks: Store<Block>,
    cpus: PerCpuArray<MapData, PerCpu>,
    ended: RingBuf<MapData>,
    /// Places of threads that ended and were not taken out yet.
    leaving: Vec<u32>,
    /// Where accounts of a thread are put together.
    scratch: Vec<CallAccount>,
    errors: HashMap<MapData, ErrorKey, u64>,
    others: PerCpuArray<MapData, Other>,
    losses: Counters,
}

/// Errors by the place of the call.
type Errors = Sums<u32, Vec<(u32, u64)>>;

impl Calls {
    /// Takes the maps out of the object, which was loaded with this room.
    pub fn new(ebpf: &mut Ebpf, room: Room) -> Result<Self, BpfError> {
        Ok(Self {
            callers: Store::new(ebpf, ("CALLERS", "FREE_CALLERS"), room.callers)?,
            calls: Store::new(ebpf, ("CALLS", "FREE_CALLS"), room.calls)?,
            blocks: Store::new(ebpf, ("CALL_BLOCKS", "FREE_BLOCKS"), room.blocks)?,
            cpus: take(ebpf, CPUS)?,
            ended: take(ebpf, ENDED)?,
            leaving: Vec::new(),
            scratch: Vec::new(),
            errors: take(ebpf, ERRORS)?,
            others: take(ebpf, OTHER_CALLS)?,
            losses: Counters::new(ebpf, "LOSSES")?,
        })
    }

    /// Whether so many threads have ended that their accounts should be taken out soon.
    pub fn have_many_ended(&mut self) -> bool {
        self.look_for_ended();
        self.leaving.len() >= self.callers.len() / MANY
    }

    fn look_for_ended(&mut self) {
        while let Some(item) = self.ended.next() {
            self.leaving.extend(item.first_chunk().map(|&place| u32::from_ne_bytes(place)));
        }
    }

    /// Gives the accounts of each thread that ended since the last time, and makes room of them.
    pub fn take_ended(&mut self, mut each: impl FnMut(&Caller, &[CallAccount])) -> Result<(), BpfError> {
        self.look_for_ended();
        if self.leaving.is_empty() {
            return Ok(());
        }
        let errors = self.errors()?;
        let (mut leaving, mut scratch) =
            (std::mem::take(&mut self.leaving), std::mem::take(&mut self.scratch));
        for place in leaving.drain(..) {
            let Some(caller) = self.callers.get(place) else { continue };
            each(&caller, self.accounts(&caller, &errors, &mut scratch));
            self.free(place, &caller, &errors)?;
        }
        (self.leaving, self.scratch) = (leaving, scratch);
        self.blocks.give_back()?;
        self.calls.give_back()?;
        self.callers.give_back()
    }

    /// Makes room of what a thread had.
    fn free(&mut self, place: u32, caller: &Caller, errors: &Errors) -> Result<(), BpfError> {
        for at in caller.calls.into_iter().filter(|&at| at != 0) {
            let Some(call) = self.calls.get(at) else { continue };
            for &(errno, _) in errors.get(&at).into_iter().flatten() {
                self.errors.remove(&ErrorKey { call: at, errno }).map_err(failed("clear", ERRORS))?;
            }
            for block in call.blocks.into_iter().filter(|&block| block != 0) {
                self.blocks.clear(block, [0; _]);
            }
            self.calls.clear(at, Call::EMPTY);
        }
        self.callers.clear(place, Caller::EMPTY);
        Ok(())
    }

    /// Gives the accounts of each thread that has not been taken, as they are.
    pub fn each(&mut self, mut each: impl FnMut(&Caller, &[CallAccount])) -> Result<(), BpfError> {
        let errors = self.errors()?;
        let cpus = self.cpus.get(&0, 0).map_err(failed("read", CPUS))?;
        let end = cpus.iter().map(|cpu| cpu.ends[Slab::Callers as usize]).max().unwrap_or(0);
        let mut scratch = std::mem::take(&mut self.scratch);
        for place in 1..end {
            if let Some(caller) = self.callers.get(place)
                && caller.tid != 0
            {
                each(&caller, self.accounts(&caller, &errors, &mut scratch));
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    /// The accounts of a thread. `scratch`: where they are put, whose memory is used again and again.
    fn accounts<'a>(
        &self,
        caller: &Caller,
        errors: &Errors,
        scratch: &'a mut Vec<CallAccount>,
    ) -> &'a [CallAccount] {
        let mut len = 0;
        for &place in caller.calls.iter().filter(|&&place| place != 0) {
            let Some(call) = self.calls.get(place) else { continue };
            if len == scratch.len() {
                scratch.push(CallAccount { call, latencies: Vec::new(), errors: Vec::new() });
            }
            let account = &mut scratch[len];
            account.call = call;
            account.latencies.clear();
            self.add_latencies(&call, &mut account.latencies);
            account.errors.clear();
            account.errors.extend(errors.get(&place).into_iter().flatten());
            len += 1;
        }
        &scratch[..len]
    }

    fn add_latencies(&self, call: &Call, latencies: &mut Vec<(u16, u32)>) {
        for (number, place) in (0..BLOCKS).zip(call.blocks) {
            let Some(block) = self.blocks.get(place) else { continue };
            let first = number * block.len();
            let filled = (first..).zip(block).filter(|&(_, n)| n != 0);
            latencies.extend(filled.map(|(index, n)| (index as u16, n)));
        }
    }

    fn errors(&self) -> Result<Errors, BpfError> {
        let mut errors = Errors::new();
        batch::read(self.errors.map().fd().as_fd(), ERRORS, |key: &ErrorKey, &number: &u64| {
            errors.entry(key.call).or_default().push((key.errno, number));
        })?;
        Ok(errors)
    }

    /// Calls that have no account of their own, by number, without those that were not made.
    pub fn others(&self) -> Result<Vec<OtherAccount>, BpfError> {
        let mut others = Vec::new();
        // Each of them is counted as a loss too.
        if self.losses.sum(Loss::CallersFull as u32)? + self.losses.sum(Loss::CallsFull as u32)? == 0 {
            return Ok(others);
        }
        let mut errors = Errors::new();
        for (key, of_cpu) in self.errors()? {
            if let Some(place) = other_of_key(key) {
                errors.entry(place).or_default().extend(of_cpu);
            }
        }
        for place in 0..OTHERS as u32 {
            let cpus = self.others.get(&place, 0).map_err(failed("read", OTHER_CALLS))?;
            let sum = cpus.iter().fold(Other::default(), |sum, cpu| Other {
                count: sum.count + cpu.count,
                returned: sum.returned + cpu.returned,
                errors: sum.errors + cpu.errors,
                total_ns: sum.total_ns + cpu.total_ns,
                max_ns: sum.max_ns.max(cpu.max_ns),
                off_ns: sum.off_ns + cpu.off_ns,
                irq_ns: sum.irq_ns + cpu.irq_ns,
                bytes: sum.bytes.wrapping_add(cpu.bytes),
            });
            if sum != Other::default() {
                others.push(OtherAccount { place, sum, errors: errors.remove(&place).unwrap_or_default() });
            }
        }
        Ok(others)
    }

    /// Counts of what was lost.
    pub fn losses(&self) -> Result<Vec<(Loss, u64)>, BpfError> {
        Loss::SYSCALLS.iter().map(|&loss| Ok((loss, self.losses.sum(loss as u32)?))).collect()
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        let maps = [self.cpus.map(), self.errors.map(), self.others.map()];
        let maps: u64 = maps.into_iter().map(|map| map_memory(map.fd().as_fd())).sum();
        let ended = map_memory(self.ended.as_fd());
        maps + ended + self.callers.memory() + self.calls.memory() + self.blocks.memory()
    }
}
