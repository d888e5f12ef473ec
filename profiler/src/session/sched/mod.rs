//! Accounting from attach to rows: threads and CPUs, for the whole run and for each interval.
//!
//! Order of the start: programs, targets, then the gate is opened and the threads that exist are put in; only then a
//! stopped command is released. At the end the gate is closed before anything is read.

pub(in crate::session) mod account;
mod counters;
mod cpus;
mod ended;
pub(in crate::session) mod own;
pub(in crate::session) mod threads;

use std::{collections::HashMap, path::PathBuf, time::Duration};

use profiler_common::{
    filter::FilterConfig,
    probe::sched::Cpu,
    sched::offsets::SchedOffsets,
    task::{TASK_PT_REGS, TaskOffsets},
};

use super::{
    SessionError,
    spans::{Intervals, Kept, Shared},
};
use crate::{
    bpf::{
        load::{Kernel, LoadOptions},
        stats::RunTime,
        targets::Targets,
    },
    host::{
        cpu_times::{self, CpuTimes},
        cpus as host_cpus,
        features::Feature,
        kernel_stack,
    },
    model::{
        Cost,
        sched::{Accounts, Span},
        when::unix_ns,
    },
    perf::{clock::monotonic_ns, counters::Counters},
    probe::sched::SchedProbe,
};
use account::{Account, ThreadKey, rows};
use threads::{Moment, Threads};

/// Threads that can be accounted at a time: twice as many as there are, within these bounds.
const THREADS: std::ops::RangeInclusive<u64> = 16_384..=262_144;

/// What to account.
#[derive(Clone, Debug)]
pub struct AccountOptions {
    /// The event's name in reports.
    pub event: &'static str,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Give what happened in each such time too.
    pub interval: Option<Duration>,
    /// In-kernel filter.
    pub filter: FilterConfig,
    /// Processes to begin with, if the filter is by process.
    pub targets: Vec<u32>,
    /// The target in words.
    pub target_words: String,
    /// Offsets from BTF.
    pub offsets: TaskOffsets,
    /// Offsets from BTF.
    pub sched_offsets: SchedOffsets,
    /// The BTF file.
    pub btf: PathBuf,
    /// Performance counters to read at each switch. `None`: cycles and instructions where the machine counts them.
    pub counters: Option<Vec<&'static str>>,
    /// Count what each thread wakes: a program more at each wake-up.
    pub wakers: bool,
    /// Measure the run time of the eBPF programs, which adds to it.
    pub ebpf_cost: bool,
    /// Have the kernel side log.
    pub log: bool,
    /// The profiler's command line.
    pub command_line: Vec<String>,
    /// What was found out before that the reader should know.
    pub notes: Vec<String>,
}

/// Accounting in progress.
pub struct Accounting<'a> {
    options: &'a AccountOptions,
    kernel: Kernel,
    targets: Targets,
    threads: Threads,
    start_unix_ns: u64,
    ticks_at_start: HashMap<u32, CpuTimes>,
    last: Last,
    run_time: Option<RunTime>,
    cost: Cost,
    cpu_at_start: (u64, u64),
    notes: Vec<String>,
}

/// What the accounts are kept by, before it is attached.
pub struct Loaded {
    kernel: Kernel,
    counters: Counters,
    notes: Vec<String>,
}

impl Loaded {
    /// Loads it, with its programs: what takes most of the time of a start.
    pub fn of(options: &AccountOptions) -> Result<Self, SessionError> {
        let mut notes = options.notes.clone();
        let (helpers, offsets) = registers(options, &mut notes);
        let counters = counters::start(options, &mut notes)?;
        let room = Threads::room(options, counters.names().len());
        let mut kernel = Kernel::load(&LoadOptions {
            filter: options.filter,
            helpers,
            sched: Some(room),
            log: options.log,
            ..LoadOptions::new(offsets)
        })?;
        SchedProbe::load(&mut kernel, options.wakers)?;
        Ok(Self { kernel, counters, notes })
    }
}

/// The state at the end of the last interval.
#[derive(Default)]
struct Last {
    number: u64,
    end_ns: u64,
    threads: HashMap<ThreadKey, Account>,
    cpus: Vec<Cpu>,
    ticks: HashMap<u32, CpuTimes>,
}

impl<'a> Accounting<'a> {
    /// Attaches everything and starts. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    pub fn start(options: &'a AccountOptions, begun_ns: u64) -> Result<Self, SessionError> {
        Self::attach(options, Loaded::of(options)?, begun_ns)
    }

    /// The same with an object that is loaded already.
    pub fn attach(options: &'a AccountOptions, loaded: Loaded, begun_ns: u64) -> Result<Self, SessionError> {
        let Loaded { mut kernel, counters, mut notes } = loaded;
        let targets = kernel.targets_of(&options.filter, &options.targets)?;
        let mut threads = Threads::open(&mut kernel, options, counters, begun_ns)?;
        let run_time = RunTime::if_asked(options.ebpf_cost, &mut notes);
        let start_ns = threads.enable(&mut kernel)?;
        // Every CPU switches once: what it does is known from then on, and that of CPUs that stand still too.
        own::visit(&host_cpus::online());
        let ticks = own::ticks();
        notes.extend(threads.probe.notes().iter().cloned());
        Ok(Self {
            options,
            kernel,
            targets,
            threads,
            start_unix_ns: unix_ns(),
            ticks_at_start: ticks.clone(),
            last: Last { end_ns: start_ns, ticks, ..Last::default() },
            run_time,
            cost: Cost { start_ns: start_ns.saturating_sub(begun_ns), ..Cost::default() },
            cpu_at_start: super::cost::cpu_ns(),
            notes,
        })
    }

    fn since_last(&self, moment: &Moment) -> Accounts {
        let cpus = own::cpu_rows(&moment.cpus, &self.last.cpus, &moment.ticks, &self.last.ticks);
        let changed = moment.alive.iter().chain(self.threads.ended.of_interval());
        let (rows, _) = rows(changed, &self.last.threads, self.threads.probe.counters.names());
        Accounts { rows, cpus }
    }

    fn span(
        &self,
        number: Option<u64>,
        begin_ns: u64,
        end_ns: u64,
        accounts: Accounts,
    ) -> Result<Span, SessionError> {
        let meta = own::meta(
            self.options,
            "sched_switch",
            self.start_unix_ns + (begin_ns - self.threads.start_ns()),
            end_ns - begin_ns,
            &self.notes,
        );
        Ok(Span { number, meta, losses: self.threads.losses()?, cost: self.cost(), accounts })
    }

    fn cost(&self) -> Cost {
        let ebpf = self.run_time.as_ref().map(|run_time| run_time.read(&self.kernel.ebpf));
        Cost {
            kernel_map_bytes: self.kernel.map_memory() + self.threads.memory() + self.targets.map_memory(),
            ..super::cost::since(&self.cost, self.cpu_at_start, ebpf)
        }
    }
}

impl Kept for Accounting<'_> {
    fn shared(&mut self) -> Shared<'_> {
        Shared { account: self.options, kernel: &mut self.kernel, targets: Some(&mut self.targets) }
    }

    fn take_ended(&mut self) -> Result<(), SessionError> {
        self.threads.take_ended();
        Ok(())
    }

    async fn take_ready(&mut self) -> Result<(), SessionError> {
        self.threads.take_ready().await
    }
}

impl Intervals for Accounting<'_> {
    type Span = Span;

    fn interval(&mut self) -> Result<Span, SessionError> {
        let moment = self.threads.moment(monotonic_ns())?;
        let accounts = self.since_last(&moment);
        let (begin_ns, number) = (self.last.end_ns, self.last.number + 1);
        let key = |account: &Account| (account.pid, account.start_ns);
        let threads = moment.alive.into_iter().map(|account| (key(&account), account)).collect();
        self.last = Last { number, end_ns: moment.end_ns, threads, cpus: moment.cpus, ticks: moment.ticks };
        self.threads.ended.begin_interval();
        self.span(Some(number), begin_ns, moment.end_ns, accounts)
    }

    fn whole(mut self) -> Result<Span, SessionError> {
        let end_ns = self.threads.probe.disable()?;
        let cost = self.cost();
        self.last = Last::default();
        let moment = self.threads.moment(end_ns)?;
        // Programs that were running have put in what they had.
        self.threads.take_ended();
        let cpus = own::cpu_rows(&moment.cpus, &[], &moment.ticks, &self.ticks_at_start);
        let names = self.threads.probe.counters.names();
        let all = moment.alive.iter().chain(self.threads.ended.kept());
        let (mut rows, missing) = rows(all, &HashMap::new(), names);
        rows.extend(self.threads.ended.rest(names));
        let mut span = self.span(None, self.threads.start_ns(), end_ns, Accounts { rows, cpus })?;
        span.losses.counters.insert("waits_not_in_histograms".to_owned(), missing);
        span.cost = super::cost::finished(cost, end_ns);
        Ok(span)
    }
}

/// How the programs find the user registers of a task: by a helper, or by their place on the kernel stack.
pub(in crate::session) fn registers(options: &AccountOptions, notes: &mut Vec<String>) -> (u32, TaskOffsets) {
    let mut offsets = options.offsets;
    if Feature::TaskPtRegs.detect(0).is_ok() {
        return (TASK_PT_REGS, offsets);
    }
    match kernel_stack::user_registers_offset(&options.btf) {
        Ok(offset) => offsets.user_registers = offset,
        Err(error) => notes.push(format!("what threads are blocked by is not known: {error}")),
    }
    (0, offsets)
}
