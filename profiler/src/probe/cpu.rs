//! Probe `cpu`, user side: sampling events on every CPU.

use std::os::fd::OwnedFd;

use profiler_common::{probe::cpu::PROGRAMS, sample::What};

use super::{Amount, Event, ProbeError, ProbeSpec, SampleTypeSpec};
use crate::{
    bpf::{
        load::Kernel,
        samples::{MAX_ENTRIES, MIN_ENTRIES, MIN_WINDOW_NS, Sizing},
    },
    model::Unit,
    perf::sampler::{Sampler, Timer},
};

/// The probe's registry entry.
pub const SPEC: ProbeSpec = ProbeSpec {
    event: Event::Cpu,
    name: "cpu",
    summary: "time on the CPU, by stack",
    hooks: &["perf_event: cycles or cpu-clock (`--sampler`), each CPU"],
    hooked: None,
    sample_types: &[
        SampleTypeSpec {
            name: "samples",
            unit: Unit::Count,
            what: What::Tick,
            amount: Amount::Count,
            summary: "timer samples",
        },
        SampleTypeSpec {
            name: "cpu",
            unit: Unit::Nanoseconds,
            what: What::Tick,
            amount: Amount::Periods,
            summary: "samples x sampling period",
        },
    ],
    programs: PROGRAMS,
    minimum_kernel: (5, 8),
    requires: &["perf-events", "bpf"],
};

/// Sizes for a sampling rate: a generation has room for every sample of two windows having stacks of its own, so that
/// it cannot be full unless a drain is late by a whole window.
pub fn sizing(frequency_hz: u64, cpus: usize) -> Sizing {
    let per_second = frequency_hz.saturating_mul(cpus as u64).max(1);
    let room = MAX_ENTRIES / 4;
    // One second, or what fills half of the largest map.
    let window_ns = (room.saturating_mul(1_000_000_000) / per_second).clamp(MIN_WINDOW_NS, 1_000_000_000);
    let samples = per_second.saturating_mul(2 * window_ns).div_ceil(1_000_000_000);
    Sizing {
        counts: samples.clamp(MIN_ENTRIES, MAX_ENTRIES) as u32,
        stacks: (2 * samples).clamp(MIN_ENTRIES, MAX_ENTRIES) as u32,
        first_window_ns: window_ns,
        longest_window_ns: window_ns,
    }
}

/// The attached probe.
pub struct CpuProbe {
    sampler: Sampler,
    frequency_hz: u64,
    _program: OwnedFd,
}

impl CpuProbe {
    /// Loads the program and attaches it to sampling events that are still disabled.
    pub fn open(kernel: &mut Kernel, cpus: &[u32], timer: Timer) -> Result<Self, ProbeError> {
        let frequency_hz = timer.frequency_hz;
        let program = kernel.load_and_share(PROGRAMS.sample)?;
        let sampler = Sampler::open(cpus, timer, &program)
            .map_err(|source| ProbeError::Sampler { frequency_hz, source })?;
        Ok(Self { sampler, frequency_hz, _program: program })
    }

    /// Starts sampling.
    pub fn enable(&self) -> Result<(), ProbeError> {
        let frequency_hz = self.frequency_hz;
        self.sampler.enable().map_err(|source| ProbeError::Sampler { frequency_hz, source })
    }

    /// Stops sampling. When it returns, no program runs any more.
    pub fn disable(&self) -> Result<(), ProbeError> {
        let frequency_hz = self.frequency_hz;
        self.sampler.disable().map_err(|source| ProbeError::Sampler { frequency_hz, source })
    }

    /// Samples so often from now on.
    pub fn set_frequency(&mut self, frequency_hz: u64) -> Result<(), ProbeError> {
        self.sampler
            .set_frequency(frequency_hz)
            .map_err(|source| ProbeError::Sampler { frequency_hz, source })?;
        self.frequency_hz = frequency_hz;
        Ok(())
    }

    /// The sampling events.
    pub const fn sampler(&self) -> &Sampler {
        &self.sampler
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_room_for_two_windows_of_distinct_stacks() {
        for hz in [1, 19, 99, 999, 10_000] {
            for cpus in [1, 2, 16, 128, 512] {
                let sizing = sizing(hz, cpus);
                let samples = hz * cpus as u64 * 2 * sizing.longest_window_ns / 1_000_000_000;
                assert!(
                    u64::from(sizing.counts) >= samples.min(MAX_ENTRIES),
                    "{hz} Hz, {cpus} CPUs: {sizing:?}"
                );
                assert!(u64::from(sizing.stacks) <= MAX_ENTRIES);
            }
        }
        let second = 1_000_000_000;
        let expected =
            Sizing { counts: 396, stacks: 792, first_window_ns: second, longest_window_ns: second };
        assert_eq!(sizing(99, 2), expected);
    }
}
