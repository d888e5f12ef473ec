//! A timer of the kernel (timerfd_create(2)) for what is done some times in a second, always.
//!
//! Those of the runtime are in a wheel of 64 slots of a ms each, of 64 ms, ...: it wakes a thread once more for each timer that
//! goes from a coarse slot to a fine one, and once more for each that is set to be sooner than all others. For what is done
//! fifty times in a second that were as many wake-ups again.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::SessionError;
use crate::perf::clock::monotonic_ns;

/// A timer.
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
    /// When it is due, `CLOCK_MONOTONIC`, ns.
    at_ns: u64,
}

impl Timer {
    /// One that is due now.
    ///
    /// # Errors
    /// Those of timerfd_create(2).
    pub fn new() -> Result<Self, SessionError> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(io::Error::from);
        // SAFETY: the descriptor is owned by what registers it, and is what it is until then.
        let fd = fd.and_then(|fd| unsafe {
            AsyncFd::register_with_interest(fd, Interest::READABLE).map_err(io::Error::from)
        });
        Ok(Self { fd: fd.map_err(SessionError::Timer)?, at_ns: 0 })
    }

    /// Sets it to the first multiple of `every` on the clock that is at least so far away: what is done from time to time is done
    /// at the same times by all of a process, which wake it once.
    ///
    /// # Errors
    /// Those of timerfd_settime(2).
    pub fn set(&mut self, every: Duration, away: Duration) -> Result<(), SessionError> {
        self.at_ns = multiple(monotonic_ns(), every, away);
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec {
            tv_sec: (self.at_ns / 1_000_000_000) as i64,
            tv_nsec: (self.at_ns % 1_000_000_000) as i64,
        };
        let new = Itimerspec { it_interval: once, it_value: at };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &new)
            .map_err(|errno| SessionError::Timer(errno.into()))?;
        Ok(())
    }

    /// Waits until it is due. May be dropped and begun again.
    ///
    /// # Errors
    /// Those of waiting.
    pub async fn due(&self) -> Result<(), SessionError> {
        while monotonic_ns() < self.at_ns {
            self.fd.readable().await.map_err(SessionError::Timer)?.clear_ready();
        }
        Ok(())
    }
}

fn multiple(now_ns: u64, every: Duration, away: Duration) -> u64 {
    let (every_ns, away_ns) = (every.as_nanos() as u64, away.as_nanos() as u64);
    (now_ns + away_ns).next_multiple_of(every_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_is_done_from_time_to_time_is_done_at_the_same_times() {
        let at = |now_ms: u64, away| {
            let ms = Duration::from_millis;
            multiple(now_ms * MS, ms(20), ms(away)) / MS
        };
        assert_eq!(
            [at(100, 10), at(109, 10), at(110, 10), at(111, 10), at(119, 1)],
            [120, 120, 120, 140, 120]
        );
    }

    #[tokio::test]
    async fn it_is_due_when_it_was_set_to_and_not_before() {
        let mut timer = Timer::new().unwrap();
        timer.due().await.unwrap();
        for _ in 0..3 {
            timer.set(Duration::from_millis(20), Duration::from_millis(10)).unwrap();
            let at_ns = timer.at_ns;
            assert!(at_ns.is_multiple_of(20 * MS));
            // Whoever waits may stop waiting and begin again.
            assert!(tokio::time::timeout(Duration::ZERO, timer.due()).await.is_err());
            timer.due().await.unwrap();
            assert!(monotonic_ns() >= at_ns);
        }
    }
}
