//! Where the time of threads went, on one screen: the accounts of threads and of system calls, kept by one object, and
//! samples with their stacks, taken by another, of the same time.
//!
//! Order of the start: both are attached, then sampling begins, then the accounts, all within some ms; a stopped command
//! is released at once then. At the end the accounts are closed first, of threads and calls at the same moment.

mod compose;
mod tops;

use std::thread;

use super::{
    RecordOptions, Recording, SessionError, Stop,
    sched::{self, threads::Threads},
    spans::{self, Kept, Shared, Spans},
    syscalls::{self, SyscallOptions, calls::CallAccounts},
    together::OfAccounts,
};
use crate::{
    bpf::{
        calls::Room,
        load::{CallOptions, Kernel, LoadOptions},
        stats::RunTime,
        targets::Targets,
    },
    host::cpus,
    model::{Losses, stat::Stat},
    perf::{
        clock::monotonic_ns,
        counters::{Counters, DEFAULT, MAJOR_FAULTS, MINOR_FAULTS},
    },
    probe::{sched::SchedProbe, syscalls::SyscallsProbe},
};
use compose::Parts;
pub(in crate::session) use tops::cause;

/// What to account, and what to sample: both of the same target.
#[derive(Clone, Debug)]
pub struct StatOptions {
    /// Threads and calls.
    pub accounts: SyscallOptions,
    /// Samples: of `cpu` and `offcpu`.
    pub samples: RecordOptions,
}

/// A run in progress.
pub struct StatRun<'a> {
    accounts: Accounts<'a>,
    recording: Recording<'a>,
    followed: bool,
    begun_ns: u64,
}

/// The accounts of threads and calls.
struct Accounts<'a> {
    options: &'a SyscallOptions,
    kernel: Kernel,
    targets: Targets,
    threads: Threads,
    calls: CallAccounts,
    run_time: Option<RunTime>,
    notes: Vec<String>,
}

impl<'a> StatRun<'a> {
    /// Attaches everything. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// What cannot be attached.
    pub fn start(options: &'a StatOptions, begun_ns: u64) -> Result<Self, SessionError> {
        // Most of the start is the verifier's time, in both.
        let (recording, loaded) = thread::scope(|scope| {
            let loading = scope.spawn(|| Loaded::of(&options.accounts));
            let recording = Recording::attach(&options.samples, &cpus::online());
            let loaded = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (recording, loaded)
        });
        let (recording, accounts) = (recording?, Accounts::attach(&options.accounts, loaded?, begun_ns)?);
        Ok(Self { accounts, recording, followed: options.samples.filter.by_process != 0, begun_ns })
    }
}

/// What the accounts are kept by, before it is attached.
struct Loaded {
    kernel: Kernel,
    counters: Counters,
    room: Room,
    notes: Vec<String>,
}

impl Loaded {
    fn of(options: &SyscallOptions) -> Result<Self, SessionError> {
        let account = &options.account;
        let mut notes = account.notes.clone();
        let (registers, offsets) = sched::registers(account, &mut notes);
        let helpers = registers | syscalls::helpers(&options.force_fallback, &mut notes);
        let names = [&DEFAULT[..], &[MINOR_FAULTS, MAJOR_FAULTS]].concat();
        let (counters, errors) = Counters::open_available(&names, &cpus::online());
        notes.extend(errors.iter().map(|error| format!("{error}: not counted")));
        let room = syscalls::room(options.accounts);
        let mut kernel = Kernel::load(&LoadOptions {
            filter: account.filter,
            helpers,
            sched: Some(Threads::room(account, counters.names().len())),
            calls: Some(CallOptions { offsets: account.sched_offsets, room }),
            log: account.log,
            ..LoadOptions::new(offsets)
        })?;
        SchedProbe::load(&mut kernel)?;
        SyscallsProbe::load(&mut kernel, options.depth)?;
        Ok(Self { kernel, counters, room, notes })
    }
}

impl<'a> Accounts<'a> {
    fn attach(options: &'a SyscallOptions, loaded: Loaded, begun_ns: u64) -> Result<Self, SessionError> {
        let account = &options.account;
        let Loaded { mut kernel, counters, room, mut notes } = loaded;
        let mut targets = kernel.targets()?;
        if account.filter.follow_children != 0 {
            kernel.follow_children()?;
        }
        targets.add_all(&account.targets)?;
        let (run_time, note) = account.ebpf_cost.then(RunTime::enable).unzip();
        notes.extend(note.flatten());
        let threads = Threads::open(&mut kernel, account, counters, begun_ns)?;
        notes.extend(threads.probe.notes().iter().cloned());
        let calls = CallAccounts::open(&mut kernel, room, options.depth, options.by)?;
        Ok(Self { options, kernel, targets, threads, calls, run_time, notes })
    }

    fn losses(&self) -> Result<Losses, SessionError> {
        let mut losses = self.threads.losses()?;
        // Both count in the same places of the object.
        losses.counters.extend(self.calls.losses(&self.kernel)?.counters);
        Ok(losses)
    }

    /// Kernel memory, bytes.
    fn memory(&self) -> u64 {
        self.kernel.map_memory() + self.threads.memory() + self.calls.memory() + self.targets.map_memory()
    }
}

impl Kept for Accounts<'_> {
    fn shared(&mut self) -> Shared<'_> {
        Shared { account: &self.options.account, kernel: &mut self.kernel, targets: Some(&mut self.targets) }
    }

    fn take_ended(&mut self) -> Result<(), SessionError> {
        self.threads.take_ended();
        self.calls.take_ended(monotonic_ns())
    }

    async fn take_ready(&mut self) -> Result<(), SessionError> {
        self.threads.take_ready().await
    }
}

impl Spans for StatRun<'_> {
    type Span = Stat;

    fn add_targets(&mut self, pids: &[u32]) -> Result<(), SessionError> {
        self.accounts.targets.add_all(pids)?;
        self.recording.add_targets(pids)
    }

    fn begin(&mut self) -> Result<(), SessionError> {
        self.recording.begin(self.begun_ns)?;
        self.accounts.threads.enable(&mut self.accounts.kernel)?;
        Ok(())
    }

    /// There are no intervals: `each` is given nothing.
    async fn run<E: From<SessionError>>(
        &mut self,
        ended: impl Future<Output = Stop>,
        _each: impl FnMut(Stat) -> Result<(), E>,
    ) -> Result<Stop, E> {
        let (pids, followed) = (&self.accounts.options.account.targets, self.followed);
        self.recording.scan_existing(|pid| !followed || pids.contains(&pid))?;
        let stop = tokio::select! {
            stop = spans::keep::<_, SessionError>(&mut self.accounts, ended, |_| Ok(())) => stop?,
            stop = self.recording.run(std::future::pending(), |_| {}) => stop?,
        };
        Ok(stop)
    }

    fn finish(mut self) -> Result<Stat, SessionError> {
        let end_ns = self.accounts.threads.probe.disable()?;
        self.accounts.calls.probe.disable();
        self.recording.end()?;
        let Self { mut accounts, recording, .. } = self;
        let moment = accounts.threads.moment(end_ns)?;
        // Programs that were running have put in what they had.
        accounts.threads.take_ended();
        let calls =
            accounts.calls.totals(end_ns)?.rows(syscalls::totals::With { timed: true, histogram: false });
        let numbers = accounts.threads.numbers(&moment);
        let total = accounts.threads.sum(&moment);
        drop(moment);
        let losses = accounts.losses()?;
        let run_time = accounts.run_time.as_ref().map(|run_time| run_time.read(&accounts.kernel.ebpf));
        let memory = accounts.memory();
        let start_ns = accounts.threads.start_ns();
        let Accounts { options, notes, .. } = accounts;
        // Names come last, and take most of the memory: what the accounts had is given back.
        let profile = recording.finish(Stop::Signal)?.profile;
        let mut stat = Parts { total: &total, calls: &calls, numbers, profile: &profile }.stat();
        let of_accounts = OfAccounts {
            events: vec![options.account.event.to_owned()],
            duration_ns: end_ns - start_ns,
            notes,
            losses,
            ebpf: run_time.unwrap_or_default(),
            kernel_map_bytes: memory,
        };
        (stat.meta, stat.losses, stat.cost) = of_accounts.and_of_samples(&profile);
        Ok(stat)
    }
}
