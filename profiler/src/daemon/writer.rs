//! The thread that makes windows of what the core took out of the kernel's maps, keeps them in the store, and counts them for
//! /metrics. Names are read here: it may take as long as it does, the core goes on meanwhile.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::mpsc::UnboundedSender;

use super::state::State;
use crate::{
    host::heap,
    model::{Cost, window::Window},
    session::continuous::{Jvms, NameCache, RawWindow},
    store::{Limits, StoreError, Writer},
};

/// Windows that wait to be made; with each of them, what was taken of some seconds is in memory.
const WAITING: usize = 3;
/// Maintenance steps after a window at most: each is bounded, and the rest is done after the next windows.
const STEPS: usize = 4;

/// What the thread is told.
enum Job {
    Window(Box<RawWindow>),
    Limits(Limits),
    MaxSeries(usize),
    /// Memory is short: what is only kept to be faster is to go.
    Trim,
}

/// What became of a window.
#[derive(Debug)]
pub struct Done {
    /// Its number.
    pub number: u64,
    /// Its end, ns since the Unix epoch.
    pub end_unix_ns: u64,
    /// Why the store does not have it.
    pub problem: Option<StoreError>,
    /// What the store has to tell.
    pub notes: Vec<String>,
    /// Size of the store, bytes.
    pub store_bytes: u64,
    /// What was used in it.
    pub cost: Cost,
    /// What was lost in it, by cause.
    pub losses: BTreeMap<String, u64>,
    /// Series that it has.
    pub series: usize,
}

/// The thread.
pub struct WindowThread {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// What it is still to be told: windows waited when it was set.
    limits: Option<Limits>,
    max_series: Option<usize>,
}

impl WindowThread {
    /// Starts it. `done` is told of each window.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(
        store: Writer,
        state: Arc<State>,
        max_series: usize,
        done: UnboundedSender<Done>,
    ) -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(WAITING);
        let worker = Worker { store, state, max_series, done };
        let thread =
            thread::Builder::new().name("windows".to_owned()).spawn(move || worker.run(&receiver))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), limits: None, max_series: None })
    }

    /// Gives it a window. False: too many wait already, and this one is lost.
    pub fn window(&self, window: RawWindow) -> bool {
        self.send(Job::Window(Box::new(window)))
    }

    /// The store keeps so much from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = Some(limits);
        self.send_settings();
    }

    /// Windows have so many series from now on.
    pub fn set_max_series(&mut self, max_series: usize) {
        self.max_series = Some(max_series);
        self.send_settings();
    }

    /// Tells it what was set while too many windows waited. To be called when one of them is done.
    pub fn send_settings(&mut self) {
        self.limits = self.limits.filter(|limits| !self.send(Job::Limits(*limits)));
        self.max_series = self.max_series.filter(|max_series| !self.send(Job::MaxSeries(*max_series)));
    }

    /// Gives memory back.
    pub fn trim(&self) {
        _ = self.send(Job::Trim);
    }

    fn send(&self, job: Job) -> bool {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// Waits until all windows are written.
    pub fn finish(mut self) {
        self.jobs = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Worker {
    store: Writer,
    state: Arc<State>,
    max_series: usize,
    done: UnboundedSender<Done>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let (mut cache, mut jvms) = (NameCache::default(), Jvms::default());
        for job in jobs {
            match job {
                Job::Limits(limits) => self.store.set_limits(limits),
                Job::MaxSeries(max_series) => self.max_series = max_series,
                // The heap's free part goes back behind the window that comes next.
                Job::Trim => cache.trim(),
                Job::Window(raw) => {
                    let window = raw.build(&mut cache, &mut jvms, self.max_series);
                    let done = self.keep(window);
                    // Nobody listens any more: the daemon ends, and the window is written.
                    _ = self.done.send(done);
                    // Some milliseconds: what a window leaves free is up to as much again as what is used.
                    heap::trim();
                }
            }
        }
    }

    fn keep(&mut self, window: Window) -> Done {
        let problem = self.store.append(&window).err();
        self.state.window(&window, problem.is_none());
        let mut notes: Vec<String> = self.store.take_notes().iter().map(ToString::to_string).collect();
        // Room is made also where there is none for the window.
        for _ in 0..STEPS {
            match self.store.maintain() {
                Ok(maintained) if maintained.more => {}
                Ok(_) => break,
                Err(error) => {
                    notes.push(format!("the history cannot be kept within its limits: {error}"));
                    break;
                }
            }
        }
        Done {
            number: window.number,
            end_unix_ns: window.start_unix_ns.saturating_add(window.duration_ns),
            problem,
            notes,
            store_bytes: self.store.bytes(),
            series: window.accounts.len(),
            cost: window.profile.cost,
            losses: window.profile.losses.counters,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_set_while_windows_wait_is_told_later() {
        let (jobs, receiver) = sync_channel(1);
        let mut thread = WindowThread { jobs: Some(jobs), thread: None, limits: None, max_series: None };
        thread.trim();
        let limits = Limits { max_age: Duration::from_secs(60), max_bytes: 1 << 20 };
        thread.set_limits(Limits { max_bytes: 1, ..limits });
        thread.set_limits(limits);
        thread.set_max_series(7);
        assert!(matches!(receiver.try_recv(), Ok(Job::Trim)));
        thread.send_settings();
        assert!(matches!(receiver.try_recv(), Ok(Job::Limits(told)) if told == limits));
        thread.send_settings();
        assert!(matches!(receiver.try_recv(), Ok(Job::MaxSeries(7))));
        thread.send_settings();
        assert!(receiver.try_recv().is_err(), "it was told already");
    }
}
