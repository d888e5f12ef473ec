//! Probe `context-switches`, user side: a raw tracepoint that is hit each time a task leaves a CPU.

use profiler_common::{probe::switches::PROGRAMS, sample::What};

use super::{Amount, Event, ProbeSpec, SampleTypeSpec};
use crate::{
    bpf::{
        BpfError,
        load::{Attached, Kernel},
        samples::{MAX_ENTRIES, MIN_WINDOW_NS, Samples, Sizing},
    },
    model::Unit,
};

/// The tracepoint.
pub const TRACEPOINT: &str = "sched_switch";

/// The probe's registry entry.
pub const SPEC: ProbeSpec = ProbeSpec {
    event: Event::ContextSwitches,
    name: "context-switches",
    summary: "switches away from a task, by the stack that it left with",
    hooks: &["raw tracepoint: sched_switch"],
    // kernel/sched/core.c, the only caller of the tracepoint.
    hooked: Some("__schedule"),
    sample_types: &[SampleTypeSpec {
        name: "context-switches",
        unit: Unit::Count,
        what: What::Switch,
        amount: Amount::Count,
        summary: "times that a task left a CPU, because it waits or because another one is to run",
    }],
    programs: PROGRAMS,
    minimum_kernel: (5, 8),
    requires: &["perf-events", "bpf", "btf"],
};

/// Entries of a generation for each CPU. Stacks are 1 KiB each, counts a tenth of it.
const STACKS_PER_CPU: u64 = 4096;
const COUNTS_PER_STACK: u64 = 2;

/// How many switches there will be is not known, 100,000 a second are possible. But a thread leaves the CPU in few
/// places, so distinct stacks are far fewer, unless the kernel's walk picks up what is no frame. The first window is as
/// short as can be, the next ones as long as suits what it yields ([`Sizing::next_window_ns`]), a quarter of a second at
/// most: a workload that begins to switch meanwhile finds room for 16,000 distinct stacks a second on each CPU.
pub fn sizing(cpus: usize) -> Sizing {
    let stacks = (STACKS_PER_CPU * cpus as u64).clamp(2 * STACKS_PER_CPU, MAX_ENTRIES);
    Sizing {
        counts: (COUNTS_PER_STACK * stacks) as u32,
        stacks: stacks as u32,
        first_window_ns: MIN_WINDOW_NS,
        longest_window_ns: 250_000_000,
    }
}

/// The attached probe.
pub struct SwitchesProbe {
    attached: Option<Attached>,
}

impl SwitchesProbe {
    /// Loads the program; it is not attached yet.
    pub fn open(kernel: &mut Kernel) -> Result<Self, BpfError> {
        kernel.load_program(PROGRAMS.sample)?;
        Ok(Self { attached: None })
    }

    /// Attaches the program.
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<(), BpfError> {
        self.attached = Some(kernel.attach(PROGRAMS.sample, TRACEPOINT)?);
        Ok(())
    }

    /// Detaches the program and waits until it runs nowhere: detaching a tracepoint does not.
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), BpfError> {
        drop(self.attached.take());
        samples.wait_for_programs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounded() {
        assert_eq!([1, 2, 3, 512].map(|cpus| sizing(cpus).stacks), [8192, 8192, 12_288, 32_768]);
        assert_eq!(sizing(2).counts, 16_384);
    }
}
