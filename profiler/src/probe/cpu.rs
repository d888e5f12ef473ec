//! Probe `cpu`, user side: sampling events on every CPU, counts and stacks drained window by window.
//!
//! The kernel side (`profiler-ebpf/src/probe/cpu.rs`) writes counts keyed by stack hashes, and each stack once per
//! generation. Counts are rotated before stacks, so the stack of a drained count is in the stacks drained with it or in
//! those drained one window earlier; older ones can be forgotten.

use std::{collections::HashMap, io, mem, os::fd::OwnedFd, rc::Rc};

use aya::maps::{MapData, ProgramArray};
use profiler_common::{
    loss::Loss,
    probe::cpu::{CountKey, CountValue, Seen},
    stack::{EMPTY_STACK, MAX_FRAMES, RawStack, WalkEnd},
};

use super::{ProbeSpec, SampleTypeSpec};
use crate::{
    bpf::{
        BpfError,
        generation::Generations,
        load::Kernel,
        stats::{Counters, map_memory},
    },
    model::Unit,
    perf::sampler::Sampler,
};

/// The probe's registry entry.
pub const SPEC: ProbeSpec = ProbeSpec {
    name: "cpu",
    summary: "time on the CPU, by stack",
    hooks: &["perf_event: cycles or cpu-clock, each CPU"],
    sample_types: &[
        SampleTypeSpec { name: "samples", unit: Unit::Count, summary: "timer samples" },
        SampleTypeSpec { name: "cpu", unit: Unit::Nanoseconds, summary: "samples x sampling period" },
    ],
    minimum_kernel: (5, 8),
    requires: &["perf-events", "bpf"],
};

/// Fewest map entries of a generation: room for a burst even at very low rates.
const MIN_ENTRIES: u64 = 256;
/// Most map entries of a generation: 32 MiB of stacks. Beyond it the window is made shorter instead.
pub const MAX_ENTRIES: u64 = 32 * 1024;

/// A failure to set the probe up or to read it.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// eBPF side.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// perf_event_open(2) or its ioctls.
    #[error("cannot sample at {frequency_hz} Hz: {source}")]
    Perf {
        /// The frequency asked for.
        frequency_hz: u64,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// A captured stack: absolute addresses, leaf first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedStack {
    /// Addresses.
    pub frames: Box<[u64]>,
    /// Why the walk ended.
    pub end: WalkEnd,
}

/// What was drained in one window.
#[derive(Debug, Default)]
pub struct Window {
    /// Counts.
    pub counts: Vec<(CountKey, CountValue)>,
    stacks: Rc<HashMap<u64, CapturedStack>>,
    older_stacks: Rc<HashMap<u64, CapturedStack>>,
}

impl Window {
    /// The stack of that name; `None` if it is empty by nature or was lost (see [`Window::is_lost`]).
    pub fn stack(&self, hash: u64) -> Option<&CapturedStack> {
        self.stacks.get(&hash).or_else(|| self.older_stacks.get(&hash))
    }

    /// True if there was a stack of that name, but it is not to be had.
    pub fn is_lost(&self, hash: u64) -> bool {
        hash != EMPTY_STACK && self.stack(hash).is_none()
    }
}

/// How large the maps are, and how often they are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Entries of one generation of counts.
    pub counts: u32,
    /// Entries of one generation of stacks.
    pub stacks: u32,
    /// Length of a window, ns.
    pub window_ns: u64,
}

impl Sizing {
    /// Sizes for a sampling rate: a generation has room for every sample of two windows having stacks of its own, so
    /// that it cannot be full unless a drain is late by a whole window.
    pub fn new(frequency_hz: u64, cpus: usize) -> Self {
        let per_second = frequency_hz.saturating_mul(cpus as u64).max(1);
        let room = MAX_ENTRIES / 4;
        // One second, or what fills half of the largest map; at least 20 ms.
        let window_ns = (room.saturating_mul(1_000_000_000) / per_second).clamp(20_000_000, 1_000_000_000);
        let samples = per_second.saturating_mul(2 * window_ns).div_ceil(1_000_000_000);
        Self {
            counts: samples.clamp(MIN_ENTRIES, MAX_ENTRIES) as u32,
            stacks: (2 * samples).clamp(MIN_ENTRIES, MAX_ENTRIES) as u32,
            window_ns,
        }
    }
}

/// The programs that walk user stacks by tables; they can be called as long as this exists.
pub struct WalkPrograms {
    _calls: ProgramArray<MapData>,
}

impl WalkPrograms {
    /// Loads them.
    pub fn load(kernel: &mut Kernel) -> Result<Self, BpfError> {
        Ok(Self { _calls: kernel.tail_calls("CPU_PROGRAMS", &["cpu_walk", "cpu_count"])? })
    }
}

/// The attached probe.
pub struct CpuProbe {
    counts: Generations<CountKey, CountValue>,
    stacks: Generations<u64, RawStack>,
    seen: Counters,
    losses: Counters,
    sampler: Sampler,
    last_stacks: Rc<HashMap<u64, CapturedStack>>,
    frequency_hz: u64,
    _program: OwnedFd,
    _walk: Option<WalkPrograms>,
}

impl CpuProbe {
    /// Makes the maps, loads the program and attaches it to sampling events that are still disabled.
    /// `walk`: what walks user stacks by tables, if the object was loaded to.
    pub fn open(
        kernel: &mut Kernel,
        cpus: &[u32],
        frequency_hz: u64,
        sizing: Sizing,
        walk: Option<WalkPrograms>,
    ) -> Result<Self, CpuError> {
        let counts = Generations::new(&mut kernel.ebpf, "COUNTS", sizing.counts)?;
        let stacks = Generations::new(&mut kernel.ebpf, "STACKS", sizing.stacks)?;
        let seen = Counters::new(&mut kernel.ebpf, "SEEN")?;
        let losses = Counters::new(&mut kernel.ebpf, "LOSSES")?;
        let program = kernel.load_perf_event("cpu_sample")?;
        let sampler = Sampler::open(cpus, frequency_hz, &program)
            .map_err(|source| CpuError::Perf { frequency_hz, source })?;
        let last_stacks = Rc::default();
        Ok(Self {
            counts,
            stacks,
            seen,
            losses,
            sampler,
            last_stacks,
            frequency_hz,
            _program: program,
            _walk: walk,
        })
    }

    /// Starts sampling.
    pub fn enable(&self) -> Result<(), CpuError> {
        let frequency_hz = self.frequency_hz;
        self.sampler.enable().map_err(|source| CpuError::Perf { frequency_hz, source })
    }

    /// Stops sampling; what was sampled until now is then read by [`CpuProbe::finish`].
    pub fn disable(&self) -> Result<(), CpuError> {
        let frequency_hz = self.frequency_hz;
        self.sampler.disable().map_err(|source| CpuError::Perf { frequency_hz, source })
    }

    /// Ends a window while sampling goes on.
    pub fn rotate(&mut self) -> Result<Window, CpuError> {
        let mut counts = Vec::new();
        self.counts.rotate(|key, value| counts.push((*key, *value)))?;
        let mut stacks = HashMap::new();
        self.stacks.rotate(|hash, stack| _ = stacks.insert(*hash, captured(stack)))?;
        Ok(self.window(counts, stacks))
    }

    /// Reads the last window, after [`CpuProbe::disable`].
    pub fn finish(&mut self) -> Result<Window, CpuError> {
        let mut counts = Vec::new();
        self.counts.finish(|key, value| counts.push((*key, *value)))?;
        let mut stacks = HashMap::new();
        self.stacks.finish(|hash, stack| _ = stacks.insert(*hash, captured(stack)))?;
        Ok(self.window(counts, stacks))
    }

    fn window(&mut self, counts: Vec<(CountKey, CountValue)>, stacks: HashMap<u64, CapturedStack>) -> Window {
        let stacks = Rc::new(stacks);
        let older_stacks = mem::replace(&mut self.last_stacks, Rc::clone(&stacks));
        Window { counts, stacks, older_stacks }
    }

    /// Ticks by what became of them.
    pub fn seen(&self, what: Seen) -> Result<u64, CpuError> {
        Ok(self.seen.sum(what as u32)?)
    }

    /// The kernel side's loss counters.
    pub fn losses(&self) -> Result<Vec<(Loss, u64)>, CpuError> {
        Loss::ALL.into_iter().map(|loss| Ok((loss, self.losses.sum(loss as u32)?))).collect()
    }

    /// The sampling events.
    pub const fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Kernel memory of the probe's generations, bytes.
    pub fn map_memory(&self) -> u64 {
        self.counts.fds().chain(self.stacks.fds()).map(map_memory).sum()
    }
}

fn captured(stack: &RawStack) -> CapturedStack {
    let len = (stack.len as usize).min(MAX_FRAMES);
    CapturedStack {
        frames: stack.frames[..len].into(),
        end: WalkEnd::from_u32(stack.end).unwrap_or(WalkEnd::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_room_for_two_windows_of_distinct_stacks() {
        for hz in [1, 19, 99, 999, 10_000] {
            for cpus in [1, 2, 16, 128, 512] {
                let sizing = Sizing::new(hz, cpus);
                let samples = hz * cpus as u64 * 2 * sizing.window_ns / 1_000_000_000;
                assert!(
                    u64::from(sizing.counts) >= samples.min(MAX_ENTRIES),
                    "{hz} Hz, {cpus} CPUs: {sizing:?}"
                );
                assert!(u64::from(sizing.stacks) <= MAX_ENTRIES);
            }
        }
        assert_eq!(Sizing::new(99, 2), Sizing { counts: 396, stacks: 792, window_ns: 1_000_000_000 });
    }
}
