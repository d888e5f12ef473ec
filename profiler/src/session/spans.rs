//! What the commands that show spans of time have in common: account until something ends it, give each interval, give
//! the whole run at the end.

use std::time::Duration;

use tokio::time::Instant;

use super::{SessionError, Stop, recording::at, sched::AccountOptions, timer::Timer};
use crate::bpf::{load::Kernel, targets::Targets};

/// How often what ended is taken out of the kernel.
const TAKE_INTERVAL: Duration = Duration::from_millis(100);

/// What accounts are of, and where they are.
pub struct Shared<'a> {
    /// Of what, and when.
    pub account: &'a AccountOptions,
    /// The object.
    pub kernel: &'a mut Kernel,
    /// The processes that are looked at; `None`: the accounts are nobody's.
    pub targets: Option<&'a mut Targets>,
}

/// Accounts that an object keeps in the kernel.
pub trait Kept {
    /// What they are of, and where they are.
    fn shared(&mut self) -> Shared<'_>;

    /// Takes the accounts out of what ended.
    ///
    /// # Errors
    /// Those of the maps.
    fn take_ended(&mut self) -> Result<(), SessionError>;

    /// Takes out what is not to wait until it is time, when there is something. May be dropped and begun again.
    fn take_ready(&mut self) -> impl Future<Output = Result<(), SessionError>> {
        std::future::pending()
    }
}

/// Accounts until something ends it. `each` is called at the end of every interval.
///
/// # Errors
/// Those of the accounting and of `each`.
pub async fn keep<A: Kept, E: From<SessionError>>(
    accounts: &mut A,
    ended: impl Future<Output = Stop>,
    mut each: impl FnMut(&mut A) -> Result<(), E>,
) -> Result<Stop, E> {
    let AccountOptions { duration, interval, filter, .. } = *accounts.shared().account;
    let deadline = duration.map(|duration| Instant::now() + duration);
    let mut interval_end = interval.map(|interval| Instant::now() + interval);
    let mut timer = Timer::new()?;
    tokio::pin!(ended);
    loop {
        tokio::select! {
            stop = &mut ended => return Ok(stop),
            () = at(deadline) => return Ok(Stop::Duration),
            ready = accounts.take_ready() => ready?,
            due = timer.due() => {
                due?;
                timer.set(TAKE_INTERVAL, Duration::ZERO)?;
                accounts.take_ended()?;
                let Shared { kernel, targets, .. } = accounts.shared();
                kernel.flush_log();
                if filter.by_process != 0
                    && let Some(targets) = targets
                    && !targets.any_left().map_err(SessionError::from)?
                {
                    return Ok(Stop::TargetsGone);
                }
            }
            () = at(interval_end) => {
                interval_end = interval_end.zip(interval).map(|(end, interval)| end + interval);
                each(accounts)?;
            }
        }
    }
}

/// Accounting in progress.
pub trait Spans: Sized {
    /// What happened in a span of time.
    type Span;

    /// Adds processes that became targets between choosing and attaching (children of the first ones).
    ///
    /// # Errors
    /// Those of the map.
    fn add_targets(&mut self, pids: &[u32]) -> Result<(), SessionError>;

    /// Begins, if so far all was only prepared. What is between this and a command's first instruction counts as the
    /// command's.
    ///
    /// # Errors
    /// Those of the accounting.
    fn begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    /// Accounts until something ends it. `each` is given every interval.
    ///
    /// # Errors
    /// Those of the accounting and of `each`.
    fn run<E: From<SessionError>>(
        &mut self,
        ended: impl Future<Output = Stop>,
        each: impl FnMut(Self::Span) -> Result<(), E>,
    ) -> impl Future<Output = Result<Stop, E>>;

    /// Stops, and gives the whole run.
    ///
    /// # Errors
    /// Those of reading what was accounted.
    fn finish(self) -> Result<Self::Span, SessionError>;
}

/// Accounts whose spans are the intervals, and the whole run.
pub trait Intervals: Kept + Sized {
    /// What happened in one.
    type Span;

    /// What happened since the last one.
    ///
    /// # Errors
    /// Those of reading what was accounted.
    fn interval(&mut self) -> Result<Self::Span, SessionError>;

    /// Stops, and gives the whole run.
    ///
    /// # Errors
    /// Those of reading what was accounted.
    fn whole(self) -> Result<Self::Span, SessionError>;
}

impl<A: Intervals> Spans for A {
    type Span = A::Span;

    fn add_targets(&mut self, pids: &[u32]) -> Result<(), SessionError> {
        match self.shared().targets {
            Some(targets) => Ok(targets.add_all(pids)?),
            None => Ok(()),
        }
    }

    async fn run<E: From<SessionError>>(
        &mut self,
        ended: impl Future<Output = Stop>,
        mut each: impl FnMut(A::Span) -> Result<(), E>,
    ) -> Result<Stop, E> {
        keep(self, ended, |accounts| each(accounts.interval()?)).await
    }

    fn finish(self) -> Result<A::Span, SessionError> {
        self.whole()
    }
}
