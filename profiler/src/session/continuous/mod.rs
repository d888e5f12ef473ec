//! Everything at once and without end, in windows: samples with their stacks, exact accounts of threads, system calls and
//! sockets of all processes. What the daemon runs on.
//!
//! A window is taken in two steps. [`Continuous::take`] reads the kernel's maps, some ms, where events are followed;
//! [`RawWindow::build`] names and sums up what it gave, elsewhere: that can take seconds the first time that a large program
//! is met. Nothing of a window is kept once it is taken, but the accounts of threads and sockets that there are.
//!
//! | object | programs | kept in the kernel |
//! |---|---|---|
//! | samples | timer, switches, wake-ups | counts by stack, unwind tables |
//! | accounts | switches, wake-ups, entry and exit of system calls | accounts by thread, by thread and call |
//! | sockets | sends, receives, changes of state | accounts by socket |

mod assemble;
pub(super) mod cost;
mod jvm;
mod measured;
pub(super) mod places;
mod processes;
mod raw;

use std::{
    collections::{HashMap, HashSet},
    fs,
    future::pending,
    sync::Arc,
    thread,
    time::Duration,
};

use profiler_common::{probe::sched::Cpu, tuning::Tuning};

use super::{
    RecordOptions, Recording, SessionError, Stop,
    accounts::{Accounts, Loaded},
    net::{NetAccounting, NetworkOptions},
    recording::Closeness,
    sched::{
        account::{Account, ThreadKey},
        own,
        threads::since_boot,
    },
    spans,
    syscalls::{SyscallOptions, totals::Totals},
};
pub use crate::symbolize::NameCache;
use crate::{
    bpf::stats,
    host::{cpu_times::CpuTimes, cpus},
    model::{Cost, Losses, Meta, when::unix_ns, window::Place},
    perf::clock::monotonic_ns,
};
use cost::Used;
pub use jvm::Jvms;
use measured::Measured;
use places::Places;
use processes::{Process, processes};
pub use raw::RawWindow;

/// What is looked at, of all processes and without end.
#[derive(Clone, Debug)]
pub struct ContinuousOptions {
    /// Threads, and system calls.
    pub accounts: SyscallOptions,
    /// Account system calls too.
    pub calls: bool,
    /// Account sockets.
    pub network: Option<NetworkOptions>,
    /// Samples: of `cpu` and `offcpu`, or one of them; `None`: none.
    pub samples: Option<RecordOptions>,
    /// Read what JVMs count of themselves.
    pub jvms: bool,
    /// How long windows are going to be.
    pub window: Duration,
}

/// All of it in progress.
pub struct Continuous<'a> {
    options: &'a ContinuousOptions,
    recording: Option<Recording<'a>>,
    accounts: Accounts<'a>,
    network: Option<NetAccounting<'a>>,
    /// Where processes belong, if no recording notes it.
    places: Places,
    last: Last,
    /// The processes that are JVMs, by id and start.
    are_jvms: HashSet<(u32, u64)>,
    measured: Measured,
    boot_id: String,
    closeness: Closeness,
}

/// The state at the end of the last window.
#[derive(Default)]
struct Last {
    end_ns: u64,
    end_boot_ns: u64,
    threads: HashMap<ThreadKey, Account>,
    calls: Totals,
    cpus: Vec<Cpu>,
    ticks: HashMap<u32, CpuTimes>,
    losses: Losses,
    used: Used,
}

impl<'a> Continuous<'a> {
    /// Attaches everything and starts. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// What cannot be attached.
    pub fn start(options: &'a ContinuousOptions, begun_ns: u64) -> Result<Self, SessionError> {
        // Most of the start is the verifier's time, in all of them.
        let (recording, loaded, network) = thread::scope(|scope| {
            let loading = scope.spawn(|| Loaded::of(&options.accounts, options.calls, &[]));
            let samples = options.samples.as_ref();
            let recording = samples.map(|samples| Recording::attach(samples, &cpus::online())).transpose();
            let network = options.network.as_ref().map(|network| NetAccounting::start(network, begun_ns));
            let loaded = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (recording, loaded, network.transpose())
        });
        let (mut recording, network) = (recording?, network?);
        let mut accounts = Accounts::attach(&options.accounts, loaded?, begun_ns)?;
        if let Some(recording) = &mut recording {
            recording.make_endless()?;
            recording.begin(begun_ns)?;
        }
        accounts.threads.enable(&mut accounts.kernel)?;
        // Every CPU switches once: what it does is known from then on, and that of CPUs that stand still too.
        own::visit(&cpus::online());
        if let Some(recording) = &mut recording {
            recording.scan_existing(|_| true)?;
        }
        let objects =
            [recording.as_ref().map(Recording::kernel), network.as_ref().map(NetAccounting::kernel)];
        let objects = objects.into_iter().flatten().chain([&accounts.kernel]);
        let programs = objects.flat_map(|kernel| stats::programs(&kernel.ebpf)).collect();
        let switches = accounts.threads.probe.accounts.switches()?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut continuous = Self {
            options,
            recording,
            accounts,
            network,
            places: Places::default(),
            last: Last::default(),
            are_jvms: HashSet::new(),
            measured: Measured::of(programs, switches, options.window),
            boot_id: boot_id.trim().to_owned(),
            closeness: Closeness {
                frequency_hz: options.samples.as_ref().map_or(0, |samples| samples.frequency_hz),
                tuning: Tuning::default(),
            },
        };
        // What was until now is of no window.
        drop(continuous.take()?);
        Ok(continuous)
    }

    /// Goes on until it is dropped: follows events, drains maps, measures its own cost.
    ///
    /// # Errors
    /// What cannot be read any more.
    pub async fn run(&mut self) -> Result<Stop, SessionError> {
        let Self { recording, accounts, network, measured, .. } = self;
        let recording = async {
            match recording {
                Some(recording) => recording.run(pending(), |_| {}).await,
                None => pending().await,
            }
        };
        let network = async {
            match network {
                Some(network) => spans::keep::<_, SessionError>(network, pending(), |_| Ok(())).await,
                None => pending().await,
            }
        };
        tokio::select! {
            stop = recording => stop,
            stop = spans::keep::<_, SessionError>(accounts, pending(), |_| Ok(())) => stop,
            stop = network => stop,
            () = measured.run() => pending().await,
        }
    }

    /// Ends the window: what happened since the last such call, or since the start.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn take(&mut self) -> Result<RawWindow, SessionError> {
        // Samples have ends of their own. What follows is exact, and is read at once.
        let taken = self.recording.as_mut().map(Recording::take_interval).transpose()?;
        let (end_ns, end_unix_ns) = (monotonic_ns(), unix_ns());
        let moment = self.accounts.threads.moment(end_ns)?;
        let (ended, rest) = self.accounts.threads.ended.take_interval();
        let processes = processes(&moment.alive, &ended, &self.last.threads);
        let last_calls = &mut self.last.calls;
        let calls = self.accounts.calls.as_mut().map(|calls| calls.take_interval(end_ns, last_calls));
        let calls = calls.transpose()?.unwrap_or_default();
        let net = self.network.as_mut().map(NetAccounting::take_interval).transpose()?.unwrap_or_default();
        let cpus = own::cpu_rows(&moment.cpus, &self.last.cpus, &moment.ticks, &self.last.ticks);
        let waits = self.options.samples.as_ref().and_then(|samples| samples.waits);
        let losses = self.losses()?;
        self.measured.end_window();
        let used = self.used();
        let mut raw = RawWindow {
            start_unix_ns: end_unix_ns.saturating_sub(end_ns.saturating_sub(self.last.end_ns)),
            start_boot_ns: self.last.end_boot_ns,
            duration_ns: end_ns.saturating_sub(self.last.end_ns),
            number: 0,
            boot_id: self.boot_id.clone(),
            rates: self.closeness.rates(waits.is_some()),
            taken,
            meta: Meta::default(),
            losses: since(&losses, &self.last.losses),
            cost: used.since(&self.last.used, &self.measured),
            memory: used.memory(),
            processes,
            rest: rest.map(|rest| rest.row(None, None, &Default::default(), &[])),
            calls,
            net,
            cpus: cpus.into_iter().next().unwrap_or_default(),
            places: HashMap::new(),
            jvm_pids: Vec::new(),
        };
        raw.meta = self.meta(&raw);
        raw.jvm_pids = self.jvm_pids(&raw.processes);
        raw.places = self.places_of(&raw);
        let key = |account: &Account| (account.pid, account.start_ns);
        self.last.threads = moment.alive.into_iter().map(|account| (key(&account), account)).collect();
        (self.last.cpus, self.last.ticks) = (moment.cpus, moment.ticks);
        (self.last.losses, self.last.used) = (losses, used);
        self.last.end_ns = end_ns;
        self.last.end_boot_ns = since_boot(end_ns);
        self.measured.begin_window();
        Ok(raw)
    }

    /// Whether so much was seen meanwhile that it should be begun again: tables of what was there once do not shrink.
    pub fn is_worn(&self) -> bool {
        self.recording.as_ref().is_some_and(Recording::is_worn)
    }

    /// Looks so closely from now on. To be called right behind [`Continuous::take`].
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn set_closeness(&mut self, closeness: Closeness) -> Result<(), SessionError> {
        if closeness == self.closeness {
            return Ok(());
        }
        if let Some(recording) = &mut self.recording {
            recording.set_closeness(closeness)?;
        }
        self.closeness = closeness;
        Ok(())
    }

    fn meta(&self, raw: &RawWindow) -> Meta {
        let account = &self.options.accounts.account;
        let mut notes = self.accounts.notes.clone();
        let recording = self.recording.as_ref().map_or(&[][..], Recording::notes);
        let network = self.network.as_ref().map_or(&[][..], NetAccounting::notes);
        for note in recording.iter().chain(network) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        notes.extend(self.measured.problem().map(str::to_owned));
        let sampler = self.recording.as_ref().and_then(Recording::sampler).unwrap_or("sched_switch");
        let events = self.options.samples.iter().flat_map(|samples| &samples.events);
        Meta {
            events: events.map(|chosen| chosen.name()).collect(),
            frequency_hz: raw.rates.frequency_hz,
            window_ns: raw.duration_ns,
            ..own::meta(account, sampler, raw.start_unix_ns, raw.duration_ns, &notes)
        }
    }

    /// What was lost since the start.
    fn losses(&self) -> Result<Losses, SessionError> {
        let mut losses = self.accounts.losses()?;
        let recording = self.recording.as_ref().map(Recording::losses).transpose()?.unwrap_or_default();
        let network = self.network.as_ref().map(NetAccounting::losses).transpose()?.unwrap_or_default();
        losses.lost_sample_causes.clone_from(&recording.lost_sample_causes);
        losses.count_all(&recording.counters);
        losses.count_all(&network.counters);
        Ok(losses)
    }

    /// What was used since the start.
    fn used(&self) -> Used {
        let recording = self.recording.as_ref().map(Recording::recording_cost).unwrap_or_default();
        let network = self.network.as_ref().map_or(0, NetAccounting::memory);
        let kernel_map_bytes = recording.kernel_map_bytes + network + self.accounts.memory();
        Used::now(Cost { kernel_map_bytes, ..recording })
    }

    /// The processes that are JVMs.
    fn jvm_pids(&mut self, processes: &[Process]) -> Vec<(u32, u64)> {
        if !self.options.jvms {
            return Vec::new();
        }
        let Some(recording) = &mut self.recording else { return Vec::new() };
        let mut jvms = HashSet::new();
        for process in processes.iter().filter(|process| process.is_alive) {
            let key = (process.pid, process.start_ns);
            // One that is none can become one: a script that executes it.
            if self.are_jvms.contains(&key) || process.row.cpu_ns != 0 && recording.is_jvm(process.pid) {
                jvms.insert(key);
            }
        }
        self.are_jvms = jvms;
        self.are_jvms.iter().copied().collect()
    }

    /// Where the processes of a window belong.
    fn places_of(&mut self, raw: &RawWindow) -> HashMap<u32, Arc<Place>> {
        let places = self.recording.as_mut().and_then(Recording::places).unwrap_or(&mut self.places);
        let ran = raw.processes.iter().filter(|process| process.has_run()).map(|process| process.pid);
        let called = raw.calls.iter().filter_map(|called| called.pid);
        let sent = raw.net.iter().filter_map(|row| row.pid);
        let jvms = raw.jvm_pids.iter().map(|(pid, _)| *pid);
        let mut found = HashMap::with_capacity(raw.processes.len());
        for pid in ran.chain(called).chain(sent).chain(jvms) {
            found.entry(pid).or_insert_with(|| places.of(pid));
        }
        places.window_ended();
        found
    }
}

/// What was lost since an earlier moment.
fn since(now: &Losses, before: &Losses) -> Losses {
    let added = |(cause, &count): (&String, &u64)| {
        (cause.clone(), count.saturating_sub(before.counters.get(cause).copied().unwrap_or(0)))
    };
    Losses { counters: now.counters.iter().map(added).collect(), ..now.clone() }
}
