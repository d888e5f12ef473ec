//! Accounts of threads and of system calls, kept by one object: what `stat` shows at the end, and what the daemon takes out
//! window by window.

use super::{
    SessionError,
    sched::{self, threads::Threads},
    spans::{Kept, Shared},
    syscalls::{self, SyscallOptions, calls::CallAccounts, totals::With},
};
use crate::{
    bpf::{
        calls::Room,
        load::{CallOptions, Kernel, LoadOptions},
        stats::RunTime,
        targets::Targets,
    },
    host::cpus,
    model::{Losses, syscalls::Row},
    perf::{clock::monotonic_ns, counters::Counters},
    probe::{sched::SchedProbe, syscalls::SyscallsProbe},
};

/// The accounts of threads and calls.
pub struct Accounts<'a> {
    /// What is accounted.
    pub options: &'a SyscallOptions,
    /// The object.
    pub kernel: Kernel,
    /// The processes that are looked at.
    pub targets: Targets,
    /// Of threads and CPUs.
    pub threads: Threads,
    /// Of system calls, if they are accounted.
    pub calls: Option<CallAccounts>,
    /// Run time of the programs, if it is measured.
    pub run_time: Option<RunTime>,
    /// Limitations.
    pub notes: Vec<String>,
}

/// What the accounts are kept by, before it is attached.
pub struct Loaded {
    kernel: Kernel,
    counters: Counters,
    room: Option<Room>,
    notes: Vec<String>,
}

impl Loaded {
    /// Loads it, with its programs: what takes most of the time of a start. `counters`: the performance counters to read,
    /// those of them that there are.
    pub fn of(
        options: &SyscallOptions,
        with_calls: bool,
        counters: &[&'static str],
    ) -> Result<Self, SessionError> {
        let account = &options.account;
        let mut notes = account.notes.clone();
        let (registers, offsets) = sched::registers(account, &mut notes);
        let helpers = registers | syscalls::helpers(&options.force_fallback, &mut notes);
        let (counters, errors) = Counters::open_available(counters, &cpus::online());
        notes.extend(errors.iter().map(|error| format!("{error}: not counted")));
        let room = with_calls.then(|| syscalls::room(options.accounts));
        let mut kernel = Kernel::load(&LoadOptions {
            filter: account.filter,
            helpers,
            sched: Some(Threads::room(account, counters.names().len())),
            calls: room.map(|room| CallOptions { offsets: account.sched_offsets, room }),
            log: account.log,
            ..LoadOptions::new(offsets)
        })?;
        SchedProbe::load(&mut kernel, account.wakers)?;
        if with_calls {
            SyscallsProbe::load(&mut kernel, options.depth)?;
        }
        Ok(Self { kernel, counters, room, notes })
    }
}

impl<'a> Accounts<'a> {
    /// Attaches everything. System calls are accounted from then on, threads as soon as they are enabled. `begun_ns` is when the
    /// profiler was started (`CLOCK_MONOTONIC`).
    pub fn attach(options: &'a SyscallOptions, loaded: Loaded, begun_ns: u64) -> Result<Self, SessionError> {
        let account = &options.account;
        let Loaded { mut kernel, counters, room, mut notes } = loaded;
        let targets = kernel.targets_of(&account.filter, &account.targets)?;
        let run_time = RunTime::if_asked(account.ebpf_cost, &mut notes);
        let threads = Threads::open(&mut kernel, account, counters, begun_ns)?;
        notes.extend(threads.probe.notes().iter().cloned());
        let calls = room.map(|room| CallAccounts::open(&mut kernel, room, options.depth, options.by));
        let calls = calls.transpose()?;
        Ok(Self { options, kernel, targets, threads, calls, run_time, notes })
    }

    /// Calls so far, those that go on until `end_ns`; none if they are not accounted.
    pub fn calls_until(&mut self, end_ns: u64) -> Result<Vec<Row>, SessionError> {
        let with = With { timed: true, histogram: false };
        let totals = self.calls.as_mut().map(|calls| calls.totals(end_ns)).transpose()?;
        Ok(totals.map(|totals| totals.rows(with)).unwrap_or_default())
    }

    /// What was lost.
    pub fn losses(&self) -> Result<Losses, SessionError> {
        let mut losses = self.threads.losses()?;
        if let Some(calls) = &self.calls {
            // Both count in the same places of the object.
            losses.counters.extend(calls.losses(&self.kernel)?.counters);
        }
        Ok(losses)
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        let calls = self.calls.as_ref().map_or(0, CallAccounts::memory);
        self.kernel.map_memory() + self.threads.memory() + calls + self.targets.map_memory()
    }
}

impl Kept for Accounts<'_> {
    fn shared(&mut self) -> Shared<'_> {
        Shared { account: &self.options.account, kernel: &mut self.kernel, targets: Some(&mut self.targets) }
    }

    fn take_ended(&mut self) -> Result<(), SessionError> {
        self.threads.take_ended();
        self.calls.as_mut().map_or(Ok(()), |calls| calls.take_if_due(monotonic_ns()))
    }

    async fn take_ready(&mut self) -> Result<(), SessionError> {
        self.threads.take_ready().await
    }
}
