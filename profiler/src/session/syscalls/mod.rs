//! Accounting of system calls from attach to rows, for the whole run and for each interval.
//!
//! Order of the start: targets, then the programs, the one of the entry last; only then a stopped command is released.
//! At the end all are detached before anything is read.

pub(in crate::session) mod called;
pub(in crate::session) mod calls;
pub(in crate::session) mod totals;

use super::{
    SessionError,
    sched::{AccountOptions, own},
    spans::{Intervals, Kept, Shared},
};
use crate::{
    bpf::{
        calls::Room,
        load::{CallOptions, Kernel, LoadOptions},
        stats::RunTime,
        targets::Targets,
    },
    host::features::{Fallback, Feature, Reason},
    model::{
        Cost,
        syscalls::{By, Row, Span},
        when::unix_ns,
    },
    perf::clock::monotonic_ns,
    probe::syscalls::Depth,
};
use calls::CallAccounts;
use profiler_common::task::TASK_BTF;
use totals::{Totals, With};

/// Threads that there is room for: twice as many as there are, within these bounds.
const CALLERS: std::ops::RangeInclusive<u64> = 4_096..=262_144;

/// Pairs of thread and system call for each thread: few threads use more than a dozen, and most of those of a machine do
/// not run.
const CALLS_PER_CALLER: u32 = 4;

/// Powers of two for each pair, of which a thread that lives long on a busy machine uses many.
const BLOCKS_PER_CALL: u32 = 4;

/// What to account.
#[derive(Clone, Debug)]
pub struct SyscallOptions {
    /// Of what, and when.
    pub account: AccountOptions,
    /// What rows are about.
    pub by: By,
    /// What is wanted of a call.
    pub depth: Depth,
    /// Give the histograms too.
    pub histogram: bool,
    /// Pairs of thread and system call that there is room for; `None`: as the number of threads says.
    pub accounts: Option<u32>,
    /// Kernel features that are not used even if they are there.
    pub force_fallback: Vec<Feature>,
}

/// Accounting in progress.
pub struct SyscallAccounting<'a> {
    options: &'a SyscallOptions,
    kernel: Kernel,
    targets: Targets,
    calls: CallAccounts,
    start_unix_ns: u64,
    last: Last,
    run_time: Option<RunTime>,
    cost: Cost,
    cpu_at_start: (u64, u64),
    notes: Vec<String>,
}

/// The state at the end of the last interval.
struct Last {
    number: u64,
    end_ns: u64,
    totals: Totals,
}

impl<'a> SyscallAccounting<'a> {
    /// Attaches everything and starts. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    pub fn start(options: &'a SyscallOptions, begun_ns: u64) -> Result<Self, SessionError> {
        let account = &options.account;
        let mut notes = account.notes.clone();
        let room = room(options.accounts);
        let mut kernel = Kernel::load(&LoadOptions {
            filter: account.filter,
            helpers: helpers(&options.force_fallback, &mut notes),
            calls: Some(CallOptions { offsets: account.sched_offsets, room }),
            log: account.log,
            ..LoadOptions::new(account.offsets)
        })?;
        let targets = kernel.targets_of(&account.filter, &account.targets)?;
        let run_time = RunTime::if_asked(account.ebpf_cost, &mut notes);
        let calls = CallAccounts::open(&mut kernel, room, options.depth, options.by)?;
        let start_ns = calls.probe.start_ns();
        Ok(Self {
            options,
            kernel,
            targets,
            calls,
            start_unix_ns: unix_ns(),
            last: Last { number: 0, end_ns: start_ns, totals: Totals::new(options.by, false) },
            run_time,
            cost: Cost { start_ns: start_ns.saturating_sub(begun_ns), ..Cost::default() },
            cpu_at_start: super::cost::cpu_ns(),
            notes,
        })
    }

    fn timed(&self) -> bool {
        self.options.depth == Depth::Timed
    }

    fn with(&self) -> With {
        With { timed: self.timed(), histogram: self.options.histogram }
    }

    fn span(
        &self,
        number: Option<u64>,
        begin_ns: u64,
        end_ns: u64,
        rows: Vec<Row>,
    ) -> Result<Span, SessionError> {
        let start_ns = self.start_unix_ns + (begin_ns - self.calls.probe.start_ns());
        let meta = own::meta(&self.options.account, "sys_enter", start_ns, end_ns - begin_ns, &self.notes);
        let timed = self.timed();
        Ok(Span { number, meta, losses: self.calls.losses(&self.kernel)?, cost: self.cost(), timed, rows })
    }

    fn cost(&self) -> Cost {
        let ebpf = self.run_time.as_ref().map(|run_time| run_time.read(&self.kernel.ebpf));
        Cost {
            kernel_map_bytes: self.kernel.map_memory() + self.calls.memory() + self.targets.map_memory(),
            ..super::cost::since(&self.cost, self.cpu_at_start, ebpf)
        }
    }
}

impl Kept for SyscallAccounting<'_> {
    fn shared(&mut self) -> Shared<'_> {
        Shared { account: &self.options.account, kernel: &mut self.kernel, targets: Some(&mut self.targets) }
    }

    fn take_ended(&mut self) -> Result<(), SessionError> {
        self.calls.take_if_due(monotonic_ns())
    }
}

impl Intervals for SyscallAccounting<'_> {
    type Span = Span;

    fn interval(&mut self) -> Result<Span, SessionError> {
        let end_ns = monotonic_ns();
        let totals = self.calls.totals(end_ns)?;
        let rows = totals.rows_since(&self.last.totals, self.with());
        let (begin_ns, number) = (self.last.end_ns, self.last.number + 1);
        self.last = Last { number, end_ns, totals };
        self.span(Some(number), begin_ns, end_ns, rows)
    }

    fn whole(mut self) -> Result<Span, SessionError> {
        let end_ns = self.calls.probe.disable();
        let cost = self.cost();
        let totals = self.calls.totals(end_ns)?;
        let rows = totals.rows(self.with());
        drop(totals);
        let mut span = self.span(None, self.calls.probe.start_ns(), end_ns, rows)?;
        span.cost = super::cost::finished(cost, end_ns);
        Ok(span)
    }
}

/// Room for accounts: of threads, and of so many pairs of thread and call if that is given.
pub(in crate::session) fn room(accounts: Option<u32>) -> Room {
    let threads = own::threads(CALLERS);
    let calls = accounts.unwrap_or(threads * CALLS_PER_CALLER);
    // A thread has one account at least.
    let callers = threads.max(calls / CALLS_PER_CALLER).min(calls);
    Room { callers, calls, blocks: calls.saturating_mul(BLOCKS_PER_CALL) }
}

/// The helpers that the programs may call.
pub(in crate::session) fn helpers(forced: &[Feature], notes: &mut Vec<String>) -> u32 {
    let reason = match Feature::TaskBtf.detect(0) {
        _ if forced.contains(&Feature::TaskBtf) => Reason::Forced,
        Ok(()) => return TASK_BTF,
        Err(errno) => Reason::Missing(errno),
    };
    let used = Fallback { feature: Feature::TaskBtf, reason };
    notes.push(format!("fallbacks for newer kernel features: {used}"));
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_is_asked_for() {
        let usual = room(None);
        assert!(
            usual.callers >= 4_096 && usual.calls == 4 * usual.callers && usual.blocks == 4 * usual.calls
        );
        assert_eq!(room(Some(64)), Room { callers: 64, calls: 64, blocks: 256 });
        assert!(room(Some(4_194_304)).callers >= 1_048_576);
    }
}
