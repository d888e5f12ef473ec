//! When process events are read: as rarely as is early enough.

use std::time::Duration;

use tokio::time::Instant;

use crate::perf::clock::monotonic_ns;

/// Process events are read at most this often: the first one after a pause at once, those of an exec storm with 50
/// wake-ups a second. (200 cost 0.3 % of a core more, and short-lived processes' files are mostly known by then.)
const EVENT_PACE: Duration = Duration::from_millis(20);

/// The first multiple of `every` on the clock that is at least so far away: what has to be done from time to time is done at the
/// same times by all of a process, which wake it once.
pub fn multiple(every: Duration, away: Duration) -> Instant {
    Instant::now() + to_multiple(monotonic_ns(), every, away)
}

fn to_multiple(now_ns: u64, every: Duration, away: Duration) -> Duration {
    let (every_ns, away_ns) = (every.as_nanos() as u64, away.as_nanos() as u64);
    Duration::from_nanos((now_ns + away_ns).next_multiple_of(every_ns) - now_ns)
}

/// After a process mapped a file where another one was, events are read at [`EVENT_PACE`] for this long: one that does
/// so again and again is walked by what was there before until the kernel side is told, and a single mapping's record
/// does not wake the reader.
const REPLACING: Duration = Duration::from_secs(5);

/// The pace of reading.
pub struct Pace {
    next: Instant,
    /// What a process does first comes in a burst that the side band does not tell the end of.
    burst: bool,
    /// `Symbolizer::replacements`, and when it last grew.
    replacements: u64,
    replaced: Option<Instant>,
}

impl Pace {
    /// Nothing was read yet.
    pub fn new() -> Self {
        Self { next: Instant::now(), burst: false, replacements: 0, replaced: None }
    }

    /// Events are not to be read before this time.
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// Whether there may be events that wake nobody. `replacements`: mappings that took the place of others until now.
    pub fn is_more_expected(&mut self, replacements: u64) -> bool {
        if std::mem::replace(&mut self.replacements, replacements) != replacements {
            self.replaced = Some(Instant::now());
        }
        self.burst || self.replaced.is_some_and(|at| at.elapsed() < REPLACING)
    }

    /// So many events were read now.
    pub fn read(&mut self, count: usize) {
        self.burst = count > 0;
        self.next = multiple(EVENT_PACE, EVENT_PACE / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_from_time_to_time_is_done_at_the_same_times() {
        let to = |now_ms: u64, away| {
            let ms = Duration::from_millis;
            to_multiple(now_ms * 1_000_000, ms(20), ms(away)).as_millis()
        };
        assert_eq!([to(100, 10), to(109, 10), to(110, 10), to(111, 10), to(119, 1)], [20, 11, 10, 29, 1]);
    }

    #[test]
    fn bursts_and_replacements_are_read_on() {
        let mut pace = Pace::new();
        assert!(!pace.is_more_expected(0));
        pace.read(1);
        assert!(pace.is_more_expected(0) && pace.next() > Instant::now());
        pace.read(0);
        assert!(!pace.is_more_expected(0));
        assert!(pace.is_more_expected(1));
        pace.read(0);
        assert!(pace.is_more_expected(1), "for a while");
    }
}
