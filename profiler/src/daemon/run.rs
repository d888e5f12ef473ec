//! The core: everything is recorded here, window by window, until a signal ends it.
//!
//! A recording that fails is begun again after a while; a window that cannot be kept is counted and the next one is tried.
//! What cannot be mended by waiting ends the daemon at its start: no permission, a store that another daemon writes to.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    config::Config,
    control::{Command, Reply},
    demand,
    governor::{Budget, Governor, Use, time_of},
    http::Token,
    notify::{Notify, Tell, watchdog_interval},
    options::{self, Look},
    serving::{Serving, ServingError},
    state::{Phase, State, Status, unix_ns},
    writer::{Done, WindowThread},
};
use crate::{
    export::Own,
    host::{btf::BtfError, cpus},
    model::Cost,
    perf::clock::monotonic_ns,
    session::{
        SessionError,
        continuous::{Continuous, ContinuousOptions, RawWindow},
    },
    store::{Limits, StoreError, Writer},
};

/// How long it is waited after a failure, and at most: it doubles.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing can be recorded.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The kernel does not tell what is needed.
    #[error("processes cannot be accounted: {0}")]
    Types(#[from] BtfError),
    /// Nothing can be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// Signals, threads.
    #[error("{what}: {source}")]
    Io {
        /// What failed.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

/// Runs until a signal ends it. `token`: what HTTP asks for; `log`: have the kernel side log.
///
/// # Errors
/// What cannot be started.
pub fn run(config: Config, token: Option<Token>, log: bool) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot start the event loop"))?;
    runtime.block_on(async {
        // Handlers first: from here on a signal ends it and loses nothing.
        let signals = Signals::new().map_err(failed("cannot wait for signals"))?;
        let mut core = Core::new(config, log, signals)?;
        let serving = Serving::start(&core.config, token, Arc::clone(&core.state))?;
        let ended = core.run().await;
        core.tell(&[Tell::Stopping]);
        core.finish().await;
        drop(serving);
        ended
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// What happens while a window goes on.
enum Event {
    End,
    Reload,
    Command(Command),
    Done(Box<Done>),
    Watchdog,
}

/// Why a recording is over.
enum Next {
    /// The daemon ends.
    End,
    /// It is paused.
    Pause,
    /// It is begun again: with another configuration, on other CPUs.
    Again,
}

struct Core {
    config: Config,
    log: bool,
    state: Arc<State>,
    commands: Receiver<Command>,
    signals: Signals,
    thread: Option<WindowThread>,
    done: UnboundedReceiver<Done>,
    governor: Governor,
    notify: Notify,
    watchdog: Option<Interval>,
    phase: Phase,
    own: Own,
    trouble: Option<String>,
    /// Number of the last window that was taken.
    number: u64,
    /// Who waits for a window to be written.
    flushed: HashMap<u64, Reply<u64>>,
}

impl Core {
    fn new(config: Config, log: bool, signals: Signals) -> Result<Self, RunError> {
        let store = Writer::open(&config.store.directory, limits(&config))?;
        let length = config.window.length;
        let (state, commands) =
            State::new(config.store.directory.clone(), length, to_usize(config.metrics.max_series));
        let (state, (sender, done)) = (Arc::new(state), unbounded_channel());
        let max_series = to_usize(config.window.max_series);
        let thread = WindowThread::start(store, Arc::clone(&state), max_series, sender)
            .map_err(failed("cannot start a thread"))?;
        let watchdog = watchdog_interval().map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Ok(Self {
            governor: Governor::new(budget(&config), config.sampling.frequency_hz, depth(&config)),
            own: Own { started_unix_ns: unix_ns(), ..Own::default() },
            notify: Notify::of_process().map_err(failed("NOTIFY_SOCKET"))?,
            config,
            log,
            state,
            commands,
            signals,
            thread: Some(thread),
            done,
            watchdog,
            phase: Phase::Starting,
            trouble: None,
            number: 0,
            flushed: HashMap::new(),
        })
    }

    async fn run(&mut self) -> Result<(), RunError> {
        let mut retry = RETRY.0;
        let mut is_first = true;
        loop {
            let options = self.options()?;
            let began = self.number;
            match self.record(&options, is_first).await {
                Ok(Next::End) => return Ok(()),
                Ok(Next::Again) => retry = RETRY.0,
                Ok(Next::Pause) => {
                    if !self.pause(None).await {
                        return Ok(());
                    }
                }
                Err(error) if is_first && self.number == 0 => return Err(error.into()),
                Err(error) => {
                    if self.number != began {
                        retry = RETRY.0;
                    }
                    self.trouble(format!(
                        "recording failed, it is begun again in {} s: {error}",
                        retry.as_secs()
                    ));
                    if !self.pause(Some(Instant::now() + retry)).await {
                        return Ok(());
                    }
                    retry = (retry * 2).min(RETRY.1);
                }
            }
            is_first = false;
        }
    }

    fn options(&self) -> Result<ContinuousOptions, RunError> {
        let Config { window, sampling, accounts, budget, .. } = &self.config;
        let look = Look {
            frequency_hz: sampling.frequency_hz,
            min_block: sampling.offcpu.then_some(sampling.min_block),
            calls: accounts.syscalls,
            network: accounts.network,
            jvms: accounts.jvm,
            // A quarter: the rest is for maps, names and the heap.
            unwind_memory: (budget.memory / 4).clamp(8 << 20, 64 << 20),
            window: window.length,
            log: self.log,
        };
        Ok(options::continuous(&look)?)
    }

    /// Records until something ends it.
    async fn record(&mut self, options: &ContinuousOptions, is_first: bool) -> Result<Next, SessionError> {
        let online = cpus::online();
        let mut continuous = Continuous::start(options, monotonic_ns())?;
        continuous.set_closeness(self.governor.closeness())?;
        self.set_phase(Phase::Recording);
        if is_first {
            self.tell(&[Tell::Ready]);
        }
        // What the start cost is no measure of what goes on.
        let mut is_typical = false;
        let mut end = Instant::now() + self.config.window.length;
        loop {
            let event = tokio::select! {
                stopped = continuous.run() => {
                    stopped?;
                    return Ok(Next::Again);
                }
                () = sleep_until(end) => None,
                event = self.next() => Some(event),
            };
            let next = match event {
                None => None,
                Some(Event::End) => Some(Next::End),
                Some(Event::Command(Command::Stop(reply))) => {
                    _ = reply.send(Ok(()));
                    Some(Next::Pause)
                }
                Some(Event::Command(Command::Flush(reply))) => {
                    self.flushed.insert(self.number + 1, reply);
                    None
                }
                Some(Event::Reload) => {
                    if !self.reload() {
                        continue;
                    }
                    Some(Next::Again)
                }
                Some(event) => {
                    self.handle(event);
                    continue;
                }
            };
            let raw = continuous.take()?;
            let changed = is_typical && self.govern(&raw);
            is_typical = true;
            self.window(raw);
            if let Some(next) = next {
                return Ok(next);
            }
            if changed {
                continuous.set_closeness(self.governor.closeness())?;
            }
            if cpus::online() != online || continuous.is_worn() {
                return Ok(Next::Again);
            }
            end = Instant::now() + self.config.window.length;
        }
    }

    /// Records nothing until it is told to, or until then. False: the daemon ends.
    async fn pause(&mut self, until: Option<Instant>) -> bool {
        if until.is_none() {
            self.set_phase(Phase::Paused);
        }
        loop {
            let event = tokio::select! {
                () = crate::session::at(until) => return true,
                event = self.next() => event,
            };
            match event {
                Event::End => return false,
                Event::Command(Command::Start(reply)) => {
                    _ = reply.send(Ok(()));
                    return true;
                }
                Event::Command(Command::Flush(reply)) => {
                    _ = reply.send(Err("nothing is being recorded".to_owned()));
                }
                Event::Command(Command::Stop(reply)) => _ = reply.send(Ok(())),
                Event::Reload => _ = self.reload(),
                event => self.handle(event),
            }
        }
    }

    /// What comes next.
    async fn next(&mut self) -> Event {
        let Self { signals, commands, done, watchdog, .. } = self;
        let tick = async {
            match watchdog {
                Some(watchdog) => _ = watchdog.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signals.terminate.recv() => Event::End,
            _ = signals.interrupt.recv() => Event::End,
            _ = signals.hang_up.recv() => Event::Reload,
            Some(command) = commands.recv() => Event::Command(command),
            Some(done) = done.recv() => Event::Done(Box::new(done)),
            () = tick => Event::Watchdog,
        }
    }

    /// What is the same whatever goes on.
    fn handle(&mut self, event: Event) {
        match event {
            Event::Done(done) => self.done(*done),
            Event::Watchdog => self.tell(&[Tell::Watchdog]),
            Event::Command(Command::Profile(request, reply)) => {
                demand::start(request, self.governor.closeness().frequency_hz, reply);
            }
            // It records already.
            Event::Command(Command::Start(reply)) => _ = reply.send(Ok(())),
            Event::Command(Command::Stop(_) | Command::Flush(_)) | Event::End | Event::Reload => {}
        }
    }

    /// Takes in what the window cost. True if it is to be looked more or less closely from now on.
    fn govern(&mut self, raw: &RawWindow) -> bool {
        let cost = raw.cost();
        let memory = memory(cost);
        let used = Use {
            cpu_ns: cost.user_cpu_ns + cost.system_cpu_ns + cost.ebpf_run_ns,
            of_ns: time_of(cpus::online().len(), raw.duration()),
            memory,
        };
        if memory > self.config.budget.memory / 100 * 85
            && let Some(thread) = &self.thread
        {
            thread.trim();
        }
        let changed = self.governor.window(used);
        if changed {
            log::warn!("{}", self.governor.why().unwrap_or("looking as closely as configured again"));
        }
        changed
    }

    /// Passes a window on.
    fn window(&mut self, mut raw: RawWindow) {
        self.number += 1;
        raw.set_number(self.number);
        if self.governor.step() != 0
            && let Some(why) = self.governor.why()
        {
            raw.note(why.to_owned());
        }
        let is_passed_on = self.thread.as_ref().is_some_and(|thread| thread.window(raw));
        if !is_passed_on {
            self.own.windows_not_kept += 1;
            self.trouble(format!("window {} is lost: those before it are still being written", self.number));
            if let Some(reply) = self.flushed.remove(&self.number) {
                _ = reply.send(Err("the window is lost: those before it are still being written".to_owned()));
            }
        }
    }

    /// A window was made, and kept or not.
    fn done(&mut self, done: Done) {
        let Done { number, end_unix_ns, problem, notes, store_bytes, window } = done;
        notes.iter().for_each(|note| log::warn!("{note}"));
        let reply = self.flushed.remove(&number);
        match &problem {
            None => {
                self.own.windows_written += 1;
                self.own.last_window_unix_ns = end_unix_ns;
                self.trouble = None;
            }
            Some(error) => {
                self.own.windows_not_kept += 1;
                self.trouble(format!("window {number} is not kept: {error}"));
            }
        }
        if let Some(reply) = reply {
            _ = reply.send(problem.map_or(Ok(number), |error| Err(error.to_string())));
        }
        let cost = &window.profile.cost;
        let own = &mut self.own;
        own.ebpf_run_ns += cost.ebpf_run_ns;
        own.ebpf_runs += cost.ebpf_runs;
        own.user_cpu_ns += cost.user_cpu_ns;
        own.system_cpu_ns += cost.system_cpu_ns;
        own.rss_bytes = cost.recording_peak_rss_bytes;
        own.map_bytes = cost.kernel_map_bytes;
        for (cause, count) in &window.profile.losses.counters {
            *own.losses.entry(cause.clone()).or_default() += count;
        }
        own.store_bytes = store_bytes;
        self.publish();
        log::debug!("window {number}: {} series, {store_bytes} bytes kept", window.accounts.len());
    }

    /// Reads the configuration again. True if the recording has to be begun again for it.
    fn reload(&mut self) -> bool {
        self.tell(&[Tell::Reloading { monotonic_ns: monotonic_ns() }]);
        let is_again = match self.config.reload() {
            Ok(changes) => {
                for change in &changes.pending {
                    log::warn!(
                        "{} = {}: takes effect when the daemon is started again",
                        change.setting,
                        change.new
                    );
                }
                for change in &changes.applied {
                    log::warn!("{}: {} instead of {}", change.setting, change.new, change.old);
                }
                let is_again = changes.config.sampling != self.config.sampling;
                self.config = changes.config;
                self.configure();
                is_again
            }
            Err(error) => {
                self.trouble(format!("the configuration is not used, the one before is: {error}"));
                false
            }
        };
        self.tell(&[Tell::Ready]);
        is_again
    }

    fn configure(&mut self) {
        let config = &self.config;
        self.governor.configure(budget(config), config.sampling.frequency_hz, depth(config));
        if let Some(thread) = &self.thread {
            thread.set_limits(limits(config));
            thread.set_max_series(to_usize(config.window.max_series));
        }
        self.publish();
    }

    fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.publish();
    }

    fn trouble(&mut self, what: String) {
        log::warn!("{what}");
        self.trouble = Some(what);
        self.publish();
    }

    /// Says how it is.
    fn publish(&mut self) {
        self.own.governor_step = self.governor.step() as u64;
        self.own.governor_changes = self.governor.changes();
        self.own.frequency_hz = self.governor.closeness().frequency_hz;
        self.own.recording = self.phase == Phase::Recording;
        self.state.publish(Status {
            phase: self.phase,
            rates: options::rates(&self.config, self.governor.closeness()),
            governor: self.governor.why().map(str::to_owned),
            trouble: self.trouble.clone(),
            last_window: self.number,
            own: self.own.clone(),
        });
    }

    fn tell(&self, what: &[Tell<'_>]) {
        if let Err(error) = self.notify.tell(what) {
            log::debug!("systemd cannot be told: {error}");
        }
    }

    /// Waits until what was taken is written.
    async fn finish(&mut self) {
        self.set_phase(Phase::Stopping);
        if let Some(thread) = self.thread.take() {
            thread.finish();
        }
        while let Ok(done) = self.done.try_recv() {
            self.done(done);
        }
    }
}

/// Memory of this process and of the kernel for it, bytes.
const fn memory(cost: &Cost) -> u64 {
    cost.recording_peak_rss_bytes + cost.kernel_map_bytes
}

const fn limits(config: &Config) -> Limits {
    Limits { max_age: config.store.max_age, max_bytes: config.store.max_bytes }
}

const fn budget(config: &Config) -> Budget {
    Budget { cpu_percent: config.budget.cpu_percent, memory: config.budget.memory }
}

fn depth(config: &Config) -> u32 {
    u32::try_from(config.sampling.stack_depth).unwrap_or(u32::MAX)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
