//! The core: everything is recorded here, window by window, until a signal ends it.
//!
//! A recording that fails is begun again after a while; a window that cannot be kept is counted and the next one is tried.
//! What cannot be mended by waiting ends the daemon at its start: no permission, a store that another daemon writes to.

mod answers;

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    config::Config,
    control::{Command, Reply},
    governor::{Budget, Governor},
    http::Token,
    notify::{Notify, Tell, watchdog_interval},
    options::{self, Look},
    serving::{Serving, ServingError},
    state::{Phase, State},
    writer::{Done, WindowThread},
};
use crate::{
    export::Own,
    host::{btf::BtfError, cpus},
    model::when::unix_ns,
    session::{
        SessionError,
        continuous::{Continuous, ContinuousOptions},
        monotonic_ns,
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
    /// It is paused; who wants that is told then.
    Pause(Reply<()>),
    /// It is begun again: with another configuration, on other CPUs.
    Again,
}

/// What a configuration that was read again changes of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reload {
    /// Nothing.
    Elsewhere,
    /// How closely is looked: the window ends, because its values are of one rate.
    Closeness,
    /// It has to be begun again.
    Recording,
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
    /// Why the configuration of the last reload is not used: until another one is.
    refused: Option<String>,
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
            refused: None,
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
                Ok(Next::Pause(reply)) => {
                    self.set_phase(Phase::Paused);
                    _ = reply.send(Ok(()));
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
            offcpu: sampling.offcpu,
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
        continuous.set_closeness(self.closeness())?;
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
                Some(Event::Command(Command::Stop(reply))) => Some(Next::Pause(reply)),
                Some(Event::Command(Command::Flush(reply))) => {
                    self.flushed.insert(self.number + 1, reply);
                    None
                }
                Some(Event::Reload) => match self.reload() {
                    Reload::Elsewhere => continue,
                    Reload::Closeness => None,
                    Reload::Recording => Some(Next::Again),
                },
                Some(event) => {
                    self.handle(event);
                    continue;
                }
            };
            let raw = continuous.take()?;
            if is_typical {
                self.govern(&raw);
            }
            is_typical = true;
            self.window(raw);
            if let Some(next) = next {
                return Ok(next);
            }
            continuous.set_closeness(self.closeness())?;
            if cpus::online() != online || continuous.is_worn() {
                return Ok(Next::Again);
            }
            end = Instant::now() + self.config.window.length;
        }
    }

    /// Records nothing until it is told to, or until then. False: the daemon ends.
    async fn pause(&mut self, mut until: Option<Instant>) -> bool {
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
                Event::Command(Command::Stop(reply)) => {
                    // Also where it waits to begin again.
                    until = None;
                    self.set_phase(Phase::Paused);
                    _ = reply.send(Ok(()));
                }
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

#[cfg(test)]
mod tests;
