//! A recording that has no end: taken out interval by interval, so that memory is that of what is going on.

use profiler_common::{
    stack::MAX_FRAMES,
    tuning::{NO_STACKS, Tuning},
};

use super::Recording;
use crate::{
    bpf::{load::Kernel, tuning::Tuner},
    model::window::Rates,
    perf::clock::monotonic_ns,
    probe::Probe,
    session::{
        SessionError,
        build::{BuildOptions, Taken},
        collect::Collector,
        continuous::places::Places,
        unwinding::Unwinding,
    },
};

/// What only recordings without end have.
pub(super) struct Endless {
    /// Where processes belong.
    pub places: Places,
    tuner: Tuner,
    frequency_hz: u64,
}

/// How closely it is looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closeness {
    /// Samples per second and CPU.
    pub frequency_hz: u64,
    /// What the programs read.
    pub tuning: Tuning,
}

impl Closeness {
    /// As windows say it. `blocked`: blocked times are recorded by stack.
    pub fn rates(&self, blocked: bool) -> Rates {
        let blocked_every = match self.tuning.blocked_every {
            0 => 1,
            NO_STACKS => 0,
            every => every,
        };
        Rates {
            frequency_hz: self.frequency_hz,
            min_block_ns: blocked.then_some(self.tuning.min_block_ns),
            blocked_every: if blocked { blocked_every } else { 0 },
            stack_depth: if self.tuning.depth == 0 { MAX_FRAMES as u32 } else { self.tuning.depth },
        }
    }
}

impl Recording<'_> {
    /// It has no end: where processes belong is noted, and how closely it is looked can change.
    ///
    /// # Errors
    /// The map is missing.
    pub fn make_endless(&mut self) -> Result<(), SessionError> {
        let (places, tuner) = (Places::default(), Tuner::new(&mut self.kernel.ebpf)?);
        self.endless = Some(Endless { places, tuner, frequency_hz: self.options.frequency_hz });
        Ok(())
    }

    /// Where processes belong, if it has no end.
    pub fn places(&mut self) -> Option<&mut Places> {
        self.endless.as_mut().map(|endless| &mut endless.places)
    }

    /// Looks so closely from now on. To be called right behind [`Recording::take_interval`]: values of samples are those of one
    /// rate.
    ///
    /// # Errors
    /// The kernel refuses the rate.
    pub fn set_closeness(&mut self, closeness: Closeness) -> Result<(), SessionError> {
        let Some(endless) = &mut self.endless else { return Ok(()) };
        endless.tuner.set(closeness.tuning)?;
        let changes_frequency = endless.frequency_hz != closeness.frequency_hz;
        endless.frequency_hz = closeness.frequency_hz;
        let has_stacks = closeness.tuning.blocked_every != NO_STACKS;
        let mut left_out = false;
        for probe in &mut self.probes {
            match probe {
                Probe::Cpu(probe) if changes_frequency => probe.set_frequency(closeness.frequency_hz)?,
                Probe::Offcpu(probe) if has_stacks && !probe.is_enabled() => {
                    probe.enable(&mut self.kernel)?;
                }
                Probe::Offcpu(probe) if !has_stacks && probe.is_enabled() => {
                    probe.disable(&mut self.samples)?;
                    left_out = true;
                }
                _ => {}
            }
        }
        if left_out { self.end_waits() } else { Ok(()) }
    }

    /// Blocked times are not looked at from now on: those that go on are counted as far as they came.
    fn end_waits(&mut self) -> Result<(), SessionError> {
        self.end_window()?;
        let window = self.samples.end_delayed(monotonic_ns())?;
        self.add(&window);
        Ok(())
    }

    /// Whether a process has the library of a JVM mapped.
    pub fn is_jvm(&mut self, pid: u32) -> bool {
        let mappings = self.symbolizer.code_mappings(pid).unwrap_or_default();
        self.symbolizer.is_jvm(&mappings)
    }

    /// Whether a table of what was there once is nearly full: it should be begun again.
    pub fn is_worn(&self) -> bool {
        self.symbolizer.is_worn() || self.unwinding.as_ref().is_some_and(Unwinding::is_worn)
    }

    /// The object.
    pub(in crate::session) const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Limitations that showed up so far.
    pub(in crate::session) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What drives the samples of `cpu`.
    pub(in crate::session) fn sampler(&self) -> Option<&'static str> {
        self.probes.iter().find_map(|probe| match probe {
            Probe::Cpu(probe) => Some(probe.sampler().clock().name()),
            _ => None,
        })
    }

    /// What was recorded since the last such call, or since the beginning, taken out: there is no whole at the end. To be named
    /// elsewhere.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn take_interval(&mut self) -> Result<Taken, SessionError> {
        self.end_window()?;
        let frequency_hz =
            self.endless.as_ref().map_or(self.options.frequency_hz, |endless| endless.frequency_hz);
        let collector = Collector::new(self.sizing.longest_window_ns);
        self.collected_from_ns = self.window_start_ns;
        Ok(Taken {
            collector: std::mem::replace(&mut self.collector, collector),
            frames: self.symbolizer.take_interval(),
            options: BuildOptions::at(self.options, frequency_hz),
        })
    }
}
