//! The maps of the accounting: threads, CPUs, the ring of threads that ended, and the switches that open and close it.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};

use aya::{
    Ebpf,
    maps::{Array, HashMap, IterableMap as _, MapData, MapError, PerCpuArray, RingBuf},
};
use profiler_common::{
    loss::Loss,
    probe::sched::{Cpu, Gate, KEPT, State, Thread},
};

use super::{
    BpfError, batch,
    stats::{Counters, map_memory},
};

const THREADS: &str = "THREADS";
const CPUS: &str = "CPUS";
const GATES: &str = "GATES";
const ENDED: &str = "ENDED";

/// How often an account is read again that a program was changing. Each time takes a system call, a change some 100 ns.
const RETRIES: usize = 64;

/// The maps.
pub struct Accounts {
    threads: HashMap<MapData, u64, Thread>,
    cpus: PerCpuArray<MapData, Cpu>,
    gates: Array<MapData, u64>,
    losses: Counters,
}

/// What was read.
#[derive(Default)]
pub struct Read {
    /// Accounts by the address of the task.
    pub threads: Vec<(u64, Thread)>,
    /// Accounts that were never read while nothing changed them: their times do not add up.
    pub torn: u64,
}

impl Accounts {
    /// Takes the maps out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let mut take = |name| ebpf.take_map(name).ok_or(BpfError::Missing(name));
        let threads = take(THREADS)?.try_into().map_err(failed("open", THREADS))?;
        let cpus = take(CPUS)?.try_into().map_err(failed("open", CPUS))?;
        let gates = take(GATES)?.try_into().map_err(failed("open", GATES))?;
        Ok(Self { threads, cpus, gates, losses: Counters::new(ebpf, "LOSSES")? })
    }

    /// Sets a switch.
    pub fn set(&mut self, gate: Gate, value: u64) -> Result<(), BpfError> {
        self.gates.set(gate as u32, value, 0).map_err(failed("write", GATES))
    }

    /// Reads the accounts of all threads. Those of threads that ended and did not fit into the ring are taken out.
    pub fn read(&mut self) -> Result<Read, BpfError> {
        let mut read = Read::default();
        batch::read(self.threads.map().fd().as_fd(), THREADS, |&key: &u64, thread: &Thread| {
            read.threads.push((key, *thread));
        })?;
        let mut gone = Vec::new();
        for (index, (key, thread)) in read.threads.iter_mut().enumerate() {
            let mut tries = 0;
            while !thread.adds_up() && tries < RETRIES {
                match self.threads.get(key, 0) {
                    Ok(again) => *thread = again,
                    // It ended meanwhile: it is in the ring.
                    Err(MapError::KeyNotFound) => {
                        gone.push(index);
                        break;
                    }
                    Err(error) => return Err(failed("read", THREADS)(error)),
                }
                tries += 1;
            }
            read.torn += u64::from(tries == RETRIES);
            if thread.flags & KEPT != 0 {
                // It may have been overwritten meanwhile, or have gone.
                _ = self.threads.remove(key);
            } else if thread.state == State::Ended as u8 && gone.last() != Some(&index) {
                // It is on its way into the ring.
                gone.push(index);
            }
        }
        for index in gone.into_iter().rev() {
            read.threads.swap_remove(index);
        }
        Ok(read)
    }

    /// Reads the accounts of all CPUs, by number; and how many of them were being changed each time.
    pub fn read_cpus(&self, start_ns: u64) -> Result<(Vec<Cpu>, u64), BpfError> {
        let read = || self.cpus.get(&0, 0).map_err(failed("read", CPUS));
        let mut cpus: Vec<Cpu> = read()?.iter().copied().collect();
        for _ in 0..RETRIES {
            if cpus.iter().all(|cpu| adds_up(cpu, start_ns)) {
                return Ok((cpus, 0));
            }
            for (kept, again) in cpus.iter_mut().zip(read()?.iter()) {
                if !adds_up(kept, start_ns) {
                    *kept = *again;
                }
            }
        }
        let torn = cpus.iter().filter(|cpu| !adds_up(cpu, start_ns)).count();
        Ok((cpus, torn as u64))
    }

    /// Counts of what was lost.
    pub fn losses(&self) -> Result<Vec<(Loss, u64)>, BpfError> {
        Loss::ACCOUNTING.iter().map(|&loss| Ok((loss, self.losses.sum(loss as u32)?))).collect()
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        [self.threads.map(), self.cpus.map(), self.gates.map()]
            .into_iter()
            .map(|map| map_memory(map.fd().as_fd()))
            .sum()
    }
}

/// Waits until no program runs that began before the call: detaching a tracepoint does not. Where membarrier(2) cannot
/// do it (CPUs without a tick, `nohz_full`), for longer than a program takes.
pub fn wait_for_programs() {
    /// include/uapi/linux/membarrier.h: waits for a grace period of RCU, under whose lock programs run.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes two numbers and touches no memory.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0) } != 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Whether all time of the CPU until its last switch is in one of the parts.
fn adds_up(cpu: &Cpu, start_ns: u64) -> bool {
    let parts =
        cpu.idle_ns.wrapping_add(cpu.busy_ns).wrapping_add(cpu.unknown_ns).wrapping_add(cpu.irq_at_ns);
    // An interrupt at the very start can have begun before it.
    cpu.since_ns == 0 || start_ns.wrapping_add(parts).abs_diff(cpu.since_ns) < 1_000_000
}

/// The ring of accounts of threads that ended.
pub struct Ended(RingBuf<MapData>);

impl Ended {
    /// Takes the ring out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let ring = ebpf.take_map(ENDED).ok_or(BpfError::Missing(ENDED))?;
        Ok(Self(ring.try_into().map_err(failed("open", ENDED))?))
    }

    /// Takes the next account out, if there is one.
    pub fn take(&mut self) -> Option<Thread> {
        let item = self.0.next()?;
        let bytes: &[u8; size_of::<Thread>()] = item.first_chunk()?;
        // SAFETY: a Pod of this size; the copy need not be aligned.
        Some(unsafe { bytes.as_ptr().cast::<Thread>().read_unaligned() })
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        map_memory(self.0.as_fd())
    }
}

impl AsRawFd for Ended {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn failed(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> BpfError {
    move |source| BpfError::Map { operation, map, source: Box::new(source) }
}
