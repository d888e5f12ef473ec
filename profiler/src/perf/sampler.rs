//! The timer that drives the `cpu` probe: one sampling event per CPU, hardware cycles where there is a PMU, else the
//! software cpu-clock (an hrtimer).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use perf_event_open_sys::{
    bindings::{
        PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_SW_CPU_CLOCK, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_HARDWARE,
        PERF_TYPE_SOFTWARE, perf_event_attr,
    },
    ioctls, perf_event_open,
};

const NO_COUNTER: &str = "no hardware cycle counter (PMU) on this machine";

/// What makes the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Hardware cycles (sampled by frequency).
    Cycles,
    /// Software cpu-clock: a timer with a fixed period.
    CpuClock,
}

impl Clock {
    /// The event's name, as perf names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cycles => "cycles",
            Self::CpuClock => "cpu-clock",
        }
    }

    fn attr(self, frequency_hz: u64) -> perf_event_attr {
        let mut attr = attr();
        (attr.type_, attr.config) = match self {
            Self::Cycles => (PERF_TYPE_HARDWARE, u64::from(PERF_COUNT_HW_CPU_CYCLES)),
            Self::CpuClock => (PERF_TYPE_SOFTWARE, u64::from(PERF_COUNT_SW_CPU_CLOCK)),
        };
        attr.set_freq(1);
        attr.__bindgen_anon_1.sample_freq = frequency_hz;
        attr
    }
}

/// An attribute block of this library's size, disabled until told otherwise.
pub(super) fn attr() -> perf_event_attr {
    let mut attr = perf_event_attr::default();
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.set_disabled(1);
    attr
}

/// Opens an event for all processes on one CPU.
pub(super) fn open(attr: &mut perf_event_attr, cpu: u32) -> io::Result<OwnedFd> {
    // SAFETY: attr is a valid perf_event_attr with its size set.
    let fd = unsafe { perf_event_open(attr, -1, cpu as i32, -1, u64::from(PERF_FLAG_FD_CLOEXEC) as _) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new file descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is wanted of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Samples per second and CPU.
    pub frequency_hz: u64,
    /// By this clock only; `None`: by the cycle counter if there is one.
    pub clock: Option<Clock>,
}

/// The sampling events of all CPUs.
pub struct Sampler {
    clock: Clock,
    fallback_reason: Option<String>,
    events: Vec<OwnedFd>,
}

impl Sampler {
    /// Opens the events, disabled, and attaches the program. A CPU that goes offline meanwhile is skipped.
    ///
    /// # Errors
    /// What `perf_event_open(2)` says of the clock; `EINVAL` mostly means a frequency above
    /// `kernel.perf_event_max_sample_rate`.
    pub fn open(cpus: &[u32], timer: Timer, program: impl AsFd) -> io::Result<Self> {
        let frequency_hz = timer.frequency_hz;
        let (clock, fallback_reason, first) = Self::choose(cpus[0], timer)?;
        let mut events = vec![first];
        for &cpu in &cpus[1..] {
            match open(&mut clock.attr(frequency_hz), cpu) {
                Ok(event) => events.push(event),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        for event in &events {
            // SAFETY: both are open descriptors; the ioctl takes the program's number by value.
            check(unsafe { ioctls::SET_BPF(event.as_raw_fd(), program.as_fd().as_raw_fd() as u32) })?;
        }
        Ok(Self { clock, fallback_reason, events })
    }

    fn choose(cpu: u32, timer: Timer) -> io::Result<(Clock, Option<String>, OwnedFd)> {
        let Timer { frequency_hz, clock: wanted } = timer;
        let reason = if wanted == Some(Clock::CpuClock) {
            "the timer was chosen".to_owned()
        } else {
            match open(&mut Clock::Cycles.attr(frequency_hz), cpu) {
                Ok(event) => return Ok((Clock::Cycles, None, event)),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => NO_COUNTER.to_owned(),
                Err(error) if wanted.is_some() => return Err(error),
                Err(error) => format!("hardware cycles cannot be sampled: {error}"),
            }
        };
        if wanted == Some(Clock::Cycles) {
            return Err(io::Error::other(format!("{reason}; the cpu-clock is on any")));
        }
        let event = open(&mut Clock::CpuClock.attr(frequency_hz), cpu)?;
        Ok((Clock::CpuClock, Some(reason), event))
    }

    /// Starts sampling on all CPUs.
    pub fn enable(&self) -> io::Result<()> {
        for event in &self.events {
            // SAFETY: an open perf event; the argument is a flag word.
            check(unsafe { ioctls::ENABLE(event.as_raw_fd(), 0) })?;
        }
        Ok(())
    }

    /// Stops sampling on all CPUs. When it returns, no program runs any more: disabling an event of another CPU is done
    /// on that CPU (`perf_event_disable`, kernel/events/core.c).
    pub fn disable(&self) -> io::Result<()> {
        for event in &self.events {
            // SAFETY: as above.
            check(unsafe { ioctls::DISABLE(event.as_raw_fd(), 0) })?;
        }
        Ok(())
    }

    /// Samples so often from now on.
    ///
    /// # Errors
    /// `EINVAL`: above `kernel.perf_event_max_sample_rate`.
    pub fn set_frequency(&self, frequency_hz: u64) -> io::Result<()> {
        // The timer has a period, whatever it was opened with (`perf_swevent_init_hrtimer` in kernel/events/core.c).
        let value = match self.clock {
            Clock::Cycles => frequency_hz,
            Clock::CpuClock => 1_000_000_000 / frequency_hz.max(1),
        };
        for event in &self.events {
            // The kernel takes a pointer (`_perf_ioctl`), the wrapper a number.
            let address = (&raw const value).expose_provenance() as u64;
            // SAFETY: an open perf event; the argument leads to a number that outlives the call.
            check(unsafe { ioctls::PERIOD(event.as_raw_fd(), address) })?;
        }
        Ok(())
    }

    /// What drives the samples.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Why it is not the hardware's cycle counter.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.fallback_reason.as_deref()
    }

    /// CPUs that are sampled.
    pub fn cpus(&self) -> usize {
        self.events.len()
    }
}

pub(super) fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
