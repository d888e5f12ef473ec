//! The maps of the accounting: threads, CPUs, the ring of threads that ended, and the switches that open and close it.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};

use aya::{
    Ebpf,
    maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use profiler_common::{
    loss::Loss,
    probe::sched::{Cpu, Gate, KEPT, State, Thread},
};

use super::{
    BpfError, batch,
    map::{again, failed, take},
    stats::{Counters, map_memory},
};

const THREADS: &str = "THREADS";
const CPUS: &str = "CPUS";
const GATES: &str = "GATES";
const ENDED: &str = "ENDED";

/// How often an account is read again that a program was changing. Each time takes a system call, a change some 100 ns.
const RETRIES: usize = 64;

/// How often CPUs have switched since the accounting's start.
pub struct Switches(PerCpuArray<MapData, Cpu>);

impl Switches {
    /// All together.
    pub fn sum(&self) -> Result<u64, BpfError> {
        let cpus = self.0.get(&0, 0).map_err(failed("read", CPUS))?;
        Ok(cpus.iter().map(|cpu| cpu.switches).sum())
    }
}

/// The maps.
pub struct Accounts {
    threads: HashMap<MapData, u64, Thread>,
    cpus: PerCpuArray<MapData, Cpu>,
    gates: Array<MapData, u64>,
    losses: Counters,
}

impl Accounts {
    /// Takes the maps out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        Ok(Self {
            threads: take(ebpf, THREADS)?,
            cpus: take(ebpf, CPUS)?,
            gates: take(ebpf, GATES)?,
            losses: Counters::new(ebpf, "LOSSES")?,
        })
    }

    /// Sets a switch.
    pub fn set(&mut self, gate: Gate, value: u64) -> Result<(), BpfError> {
        self.gates.set(gate as u32, value, 0).map_err(failed("write", GATES))
    }

    /// Reads the accounts of all threads, one by one: together they would take several times the memory of what is kept
    /// of them. Those of threads that ended and did not fit into the ring are taken out. Gives the number of accounts that
    /// were never read while nothing changed them: their times do not add up.
    pub fn read(&mut self, mut each: impl FnMut(&Thread)) -> Result<u64, BpfError> {
        let (mut torn, mut kept, mut failure) = (0, Vec::new(), None);
        batch::read(self.threads.map().fd().as_fd(), THREADS, |&key: &u64, thread: &Thread| {
            match self.settled(key, thread) {
                Ok(Some(thread)) => {
                    torn += u64::from(!thread.adds_up());
                    if thread.flags & KEPT != 0 {
                        kept.push(key);
                    }
                    each(&thread);
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        })?;
        for key in kept {
            // It may have been overwritten meanwhile, or have gone.
            _ = self.threads.remove(&key);
        }
        failure.map_or(Ok(torn), Err)
    }

    /// An account as it is while nothing changes it; `None` for a thread that is on its way into the ring.
    fn settled(&self, key: u64, thread: &Thread) -> Result<Option<Thread>, BpfError> {
        let mut thread = *thread;
        for _ in 0..RETRIES {
            if thread.adds_up() {
                break;
            }
            match self.threads.get(&key, 0) {
                Ok(again) => thread = again,
                Err(MapError::KeyNotFound) => return Ok(None),
                Err(error) => return Err(failed("read", THREADS)(error)),
            }
        }
        let is_on_its_way = thread.state == State::Ended as u8 && thread.flags & KEPT == 0;
        Ok((!is_on_its_way).then_some(thread))
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

    /// How often CPUs have switched, to be read beside these.
    pub fn switches(&self) -> Result<Switches, BpfError> {
        let cpus = Map::PerCpuArray(again(self.cpus.map(), CPUS)?);
        Ok(Switches(cpus.try_into().map_err(failed("open", CPUS))?))
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
        Ok(Self(take(ebpf, ENDED)?))
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
