//! When process events are read: as rarely as is early enough.

use std::time::{Duration, Instant};

use super::{SessionError, timer::Timer};

/// Process events are read at most this often: the first one after a pause at once, those of an exec storm with 50
/// wake-ups a second. (200 cost 0.3 % of a core more, and short-lived processes' files are mostly known by then.)
const EVENT_PACE: Duration = Duration::from_millis(20);

/// After a process mapped a file where another one was, events are read at [`EVENT_PACE`] for this long: one that does
/// so again and again is walked by what was there before until the kernel side is told, and a single mapping's record
/// does not wake the reader.
const REPLACING: Duration = Duration::from_secs(5);

/// The pace of reading.
pub struct Pace {
    timer: Timer,
    /// What a process does first comes in a burst that the side band does not tell the end of.
    burst: bool,
    /// `Symbolizer::replacements`, and when it last grew.
    replacements: u64,
    replaced: Option<Instant>,
}

impl Pace {
    /// Nothing was read yet.
    ///
    /// # Errors
    /// There cannot be a timer.
    pub fn new() -> Result<Self, SessionError> {
        Ok(Self { timer: Timer::new()?, burst: false, replacements: 0, replaced: None })
    }

    /// Waits until events may be read again. May be dropped and begun again.
    ///
    /// # Errors
    /// Those of the timer.
    pub async fn next(&self) -> Result<(), SessionError> {
        self.timer.due().await
    }

    /// Whether there may be events that wake nobody. `replacements`: mappings that took the place of others until now.
    pub fn is_more_expected(&mut self, replacements: u64) -> bool {
        if std::mem::replace(&mut self.replacements, replacements) != replacements {
            self.replaced = Some(Instant::now());
        }
        self.burst || self.replaced.is_some_and(|at| at.elapsed() < REPLACING)
    }

    /// So many events were read now.
    ///
    /// # Errors
    /// Those of the timer.
    pub fn read(&mut self, count: usize) -> Result<(), SessionError> {
        self.burst = count > 0;
        self.timer.set(EVENT_PACE, EVENT_PACE / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bursts_and_replacements_are_read_on() {
        let mut pace = Pace::new().unwrap();
        assert!(!pace.is_more_expected(0));
        pace.next().await.unwrap();
        pace.read(1).unwrap();
        assert!(pace.is_more_expected(0));
        assert!(tokio::time::timeout(Duration::ZERO, pace.next()).await.is_err());
        pace.read(0).unwrap();
        assert!(!pace.is_more_expected(0));
        assert!(pace.is_more_expected(1));
        pace.read(0).unwrap();
        assert!(pace.is_more_expected(1), "for a while");
    }
}
