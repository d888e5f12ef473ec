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
    accounts::{Accounts, Loaded},
    spans::{self, Spans},
    syscalls::SyscallOptions,
    together::OfAccounts,
};
use crate::{
    host::cpus,
    model::stat::Stat,
    perf::counters::{DEFAULT, MAJOR_FAULTS, MINOR_FAULTS},
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

impl<'a> StatRun<'a> {
    /// Attaches everything. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// What cannot be attached.
    pub fn start(options: &'a StatOptions, begun_ns: u64) -> Result<Self, SessionError> {
        let counters = [&DEFAULT[..], &[MINOR_FAULTS, MAJOR_FAULTS]].concat();
        // Most of the start is the verifier's time, in both.
        let (recording, loaded) = thread::scope(|scope| {
            let loading = scope.spawn(|| Loaded::of(&options.accounts, true, &counters));
            let recording = Recording::attach(&options.samples, &cpus::online());
            let loaded = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (recording, loaded)
        });
        let (recording, accounts) = (recording?, Accounts::attach(&options.accounts, loaded?, begun_ns)?);
        Ok(Self { accounts, recording, followed: options.samples.filter.by_process != 0, begun_ns })
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
        if let Some(calls) = &mut self.accounts.calls {
            calls.probe.disable();
        }
        self.recording.end()?;
        let Self { mut accounts, recording, .. } = self;
        let moment = accounts.threads.moment(end_ns)?;
        // Programs that were running have put in what they had.
        accounts.threads.take_ended();
        let calls = accounts.calls_until(end_ns)?;
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
