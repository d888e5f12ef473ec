//! What the commands that show spans of time have in common: account until something ends it, give each interval, give
//! the whole run at the end.

use super::{SessionError, Stop};

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
