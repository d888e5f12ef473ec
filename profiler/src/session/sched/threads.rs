//! Accounts of threads and CPUs while they are kept: begun, read at a moment, closed. What makes spans of them, or a whole
//! of them and others, is above.

use std::collections::HashMap;

use profiler_common::{
    Comm,
    probe::sched::{Cpu, KEPT, Thread},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    AccountOptions, SessionError, THREADS,
    account::{self, Account, CpuNow},
    counters, cpus,
    ended::Ended,
    own,
};
use crate::{
    bpf::{
        accounts,
        load::{self, Kernel},
    },
    host::cpu_times::CpuTimes,
    model::{Losses, sched::Row, stat::Number},
    perf::{clock::monotonic_ns, counters::Counters},
    probe::sched::SchedProbe,
};

/// The accounts.
pub struct Threads {
    /// What keeps them.
    pub probe: SchedProbe,
    /// Of threads that ended.
    pub ended: Ended,
    /// Readable when many threads have ended.
    pub ring: AsyncFd<accounts::Ended>,
    by_cgroup: bool,
    /// When the profiler was started, ns since boot.
    begun_ns: u64,
    ended_numbers: Numbers,
    torn: u64,
}

/// How many there were. A process is counted by its first thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// Threads.
    pub threads: Number,
    /// Processes.
    pub processes: Number,
}

impl Numbers {
    fn add(&mut self, account: &Account, begun_ns: u64) {
        let process = (account.pid == account.tid).then_some(&mut self.processes);
        for number in [Some(&mut self.threads), process].into_iter().flatten() {
            number.seen += 1;
            number.started += u64::from(account.start_ns >= begun_ns);
            number.ended += u64::from(account.has_ended());
        }
    }
}

/// What was read at a moment.
pub struct Moment {
    /// When.
    pub end_ns: u64,
    /// Threads that have not ended.
    pub alive: Vec<Account>,
    /// CPUs.
    pub cpus: Vec<Cpu>,
    /// The kernel's own split of their time.
    pub ticks: HashMap<u32, CpuTimes>,
}

impl Threads {
    /// What an object is to be loaded with for them, and for so many performance counters.
    pub fn room(options: &AccountOptions, counters: usize) -> load::SchedOptions {
        load::SchedOptions {
            offsets: options.sched_offsets,
            threads: own::threads(THREADS),
            counters: counters as u32,
        }
    }

    /// Attaches what keeps them. Nothing is accounted yet. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`):
    /// threads that were made since then were not there at the start, the one of a command among them.
    pub fn open(
        kernel: &mut Kernel,
        options: &AccountOptions,
        counters: Counters,
        begun_ns: u64,
    ) -> Result<Self, SessionError> {
        let (probe, ring) = SchedProbe::open(kernel, counters, options.wakers)?;
        let by_cgroup = options.filter.cgroup_id != 0;
        Ok(Self {
            probe,
            ended: Ended::default(),
            ring: watch(ring)?,
            by_cgroup,
            begun_ns: since_boot(begun_ns),
            ended_numbers: Numbers::default(),
            torn: 0,
        })
    }

    /// Begins to account: from the time that is returned on (`CLOCK_MONOTONIC`, ns).
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<u64, SessionError> {
        Ok(self.probe.enable(kernel)?)
    }

    /// When it began, `CLOCK_MONOTONIC`, ns.
    pub const fn start_ns(&self) -> u64 {
        self.probe.start_ns()
    }

    /// Takes ended threads out of the ring.
    pub fn take_ended(&mut self) {
        while let Some(thread) = self.ring.get_mut().take() {
            let account = Account::close(&thread, &[], thread.since_ns);
            if !self.by_cgroup || account.is_in_cgroup() {
                self.ended_numbers.add(&account, self.begun_ns);
                self.ended.push(account);
            }
        }
    }

    /// The same when threads have ended.
    pub async fn take_ready(&mut self) -> Result<(), SessionError> {
        self.ring.readable().await.map_err(SessionError::Ring)?.clear_ready();
        self.take_ended();
        Ok(())
    }

    fn cpus_now(&mut self) -> Result<Vec<CpuNow>, SessionError> {
        let (cpus, torn) = counters::read_cpus(&self.probe, self.start_ns())?;
        self.torn += torn;
        Ok(cpus)
    }

    /// Reads everything as it is at `end_ns`. The ring first: a thread that ends meanwhile is in the map no more, and
    /// comes with the next moment.
    pub fn moment(&mut self, end_ns: u64) -> Result<Moment, SessionError> {
        self.take_ended();
        let (cpus, start_ns) = (self.cpus_now()?, self.start_ns());
        let (by_cgroup, begun_ns) = (self.by_cgroup, self.begun_ns);
        let (mut alive, ended, numbers) = (Vec::new(), &mut self.ended, &mut self.ended_numbers);
        let mut close = |thread: &Thread, cpus: &[CpuNow]| {
            let account = Account::close(thread, cpus, end_ns);
            if by_cgroup && !account.is_in_cgroup() {
                return;
            }
            if thread.flags & KEPT != 0 {
                numbers.add(&account, begun_ns);
                ended.push(account);
            } else {
                alive.push(account);
            }
        };
        // Threads that came to a CPU since the CPUs were read.
        let mut came: Vec<Thread> = Vec::new();
        let torn = self.probe.accounts.read(|thread| {
            if account::is_running(thread) && account::its_cpu(thread, &cpus).is_none() {
                came.push(*thread);
            } else {
                close(thread, &cpus);
            }
        })?;
        if !came.is_empty() {
            let (now, _) = counters::read_cpus(&self.probe, start_ns)?;
            came.iter().for_each(|thread| close(thread, &now));
        }
        self.torn += torn;
        let cpus = cpus.iter().map(|cpu| cpus::close(&cpu.account, start_ns, end_ns)).collect();
        Ok(Moment { end_ns, alive, cpus, ticks: own::ticks() })
    }

    /// Those that ended, and those that have not.
    pub fn numbers(&self, moment: &Moment) -> Numbers {
        let mut numbers = self.ended_numbers;
        moment.alive.iter().for_each(|account| numbers.add(account, self.begun_ns));
        numbers
    }

    /// All accounts in one sum.
    pub fn sum(&mut self, moment: &Moment) -> Row {
        let mut sum = self.ended.sum();
        moment.alive.iter().for_each(|account| sum.add(account));
        sum.row(None, None, &Comm::default(), self.probe.counters.names())
    }

    /// What was lost.
    pub fn losses(&self) -> Result<Losses, SessionError> {
        let mut losses = Losses::default();
        for (loss, count) in self.probe.accounts.losses()? {
            losses.counters.insert(loss.name().to_owned(), count);
        }
        losses.counters.insert("accounts_torn".to_owned(), self.torn);
        losses.counters.insert("ended_threads_merged".to_owned(), self.ended.merged());
        Ok(losses)
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        self.probe.memory() + self.ring.get_ref().memory()
    }
}

/// A time of `CLOCK_MONOTONIC` in that of `CLOCK_BOOTTIME`, which the kernel tells by when a thread was made.
pub fn since_boot(monotonic: u64) -> u64 {
    let boot = clock_gettime(ClockId::Boottime);
    let boot = boot.tv_sec as u64 * 1_000_000_000 + boot.tv_nsec as u64;
    boot.saturating_sub(monotonic_ns().saturating_sub(monotonic))
}

fn watch(ring: accounts::Ended) -> Result<AsyncFd<accounts::Ended>, SessionError> {
    // SAFETY: the ring owns the descriptor it gives, gives the same one each time, and keeps it open until dropped.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
        .map_err(|error| SessionError::Ring(error.into()))
}
