//! What the servers see of the daemon, and what the core tells them.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::mpsc;

use super::control::Command;
use crate::{
    export::{Own, Registry},
    model::{
        when::unix_ns,
        window::{Rates, Window},
    },
};

/// Commands that wait for the core.
const MAX_COMMANDS: usize = 16;

/// Windows without which the daemon is not ready.
const READY_WINDOWS: u32 = 3;

/// What the daemon does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Probes are being attached.
    #[default]
    Starting,
    /// It records.
    Recording,
    /// It was told to stop recording.
    Paused,
    /// It ends.
    Stopping,
}

/// How it is, as the core says after each window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it does.
    pub phase: Phase,
    /// How closely is looked now.
    pub rates: Rates,
    /// Why the governor is where it is, in words; `None`: everything is as configured.
    pub governor: Option<String>,
    /// The last thing that failed, in words: the store's error, a configuration that was not used.
    pub trouble: Option<String>,
    /// Number of the last window.
    pub last_window: u64,
    /// Cost, losses, windows, store.
    pub own: Own,
}

/// What servers share; made by the core, which keeps the other end of the commands.
#[derive(Debug)]
pub struct State {
    /// The numbers of /metrics.
    pub registry: Registry,
    /// Directory of the store.
    pub store: PathBuf,
    /// To the core.
    pub commands: mpsc::Sender<Command>,
    window_length: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    status: Status,
    /// When the last window was written, or the daemon was started.
    progress: Instant,
    /// A window was written.
    any: bool,
}

impl State {
    /// With the store's directory, the length of windows and the most series of /metrics; gives the core's end of the
    /// commands too.
    pub fn new(
        store: PathBuf,
        window_length: Duration,
        max_series: usize,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let inner = Inner { status: Status::default(), progress: Instant::now(), any: false };
        let registry = Registry::new(max_series, unix_ns());
        (Self { registry, store, commands, window_length, inner: Mutex::new(inner) }, receiver)
    }

    /// The core says how it is.
    pub fn publish(&self, status: Status) {
        self.registry.set_own(status.own.clone());
        self.lock().status = status;
    }

    /// A window is over: its numbers are on /metrics from now on. `written`: the store has it.
    pub fn window(&self, window: &Window, written: bool) {
        self.registry.add(window);
        if written {
            let mut inner = self.lock();
            (inner.progress, inner.any) = (Instant::now(), true);
        }
    }

    /// What the core said last.
    pub fn status(&self) -> Status {
        self.lock().status.clone()
    }

    /// Whether windows are written as they should, at that time.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn ready(&self, now: Instant) -> Result<(), String> {
        let inner = self.lock();
        match inner.status.phase {
            Phase::Starting => return Err("starting".to_owned()),
            Phase::Paused => return Err("recording is paused; `profiler ctl start` resumes it".to_owned()),
            Phase::Stopping => return Err("stopping".to_owned()),
            Phase::Recording => {}
        }
        let since = now.saturating_duration_since(inner.progress);
        if inner.any && since <= self.window_length * READY_WINDOWS {
            return Ok(());
        }
        let trouble = inner.status.trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
        match inner.any {
            true => Err(format!("the last window was written {} s ago{trouble}", since.as_secs())),
            false => Err(format!("no window has been written yet{trouble}")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_who_wrote_a_window_lately() {
        let (state, _commands) = State::new("/".into(), Duration::from_secs(10), 10);
        let now = Instant::now();
        assert_eq!(state.ready(now).unwrap_err(), "starting");
        state.publish(Status {
            phase: Phase::Recording,
            trouble: Some("disk full".into()),
            ..Status::default()
        });
        assert_eq!(state.ready(now).unwrap_err(), "no window has been written yet: disk full");
        state.window(&Window::default(), false);
        assert!(state.ready(now).is_err(), "not written");
        state.window(&Window::default(), true);
        assert_eq!(state.ready(Instant::now()), Ok(()));
        let later = state.ready(now + Duration::from_secs(100)).unwrap_err();
        assert!(
            later.starts_with("the last window was written ") && later.ends_with(" s ago: disk full"),
            "{later}"
        );
        state.publish(Status { phase: Phase::Paused, ..Status::default() });
        assert!(state.ready(now).unwrap_err().contains("profiler ctl start"));
    }
}
