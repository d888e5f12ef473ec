//! Probe `offcpu` and `runq`, user side: raw tracepoints that are hit each time a task leaves a CPU and each time one is
//! woken or made. One probe for both events: a task's wait for a CPU begins where its being blocked ends.

use profiler_common::{
    probe::offcpu::{MADE, PROGRAMS, WAKERS, WOKEN},
    sample::What,
};

use super::{Amount, Event, ProbeSpec, SampleTypeSpec, switches};
use crate::{
    bpf::{
        BpfError,
        load::{Attached, Kernel},
        samples::{Samples, Sizing},
    },
    model::Unit,
};

const HOOKS: &[&str] =
    &["raw tracepoints: sched_switch, sched_wakeup, sched_wakeup_new; with --wakers: sched_waking"];

/// The registry entry of `offcpu`.
pub const SPEC: ProbeSpec = ProbeSpec {
    event: Event::OffCpu,
    name: "offcpu",
    summary: "time blocked, by cause and by the stack that the task left the CPU with",
    hooks: HOOKS,
    hooked: switches::SPEC.hooked,
    sample_types: &[
        SampleTypeSpec {
            name: "offcpu",
            unit: Unit::Nanoseconds,
            what: What::Blocked,
            amount: Amount::Time,
            summary: "time from leaving the CPU to the wake-up",
        },
        SampleTypeSpec {
            name: "blocks",
            unit: Unit::Count,
            what: What::Blocked,
            amount: Amount::Count,
            summary: "times that a task was blocked",
        },
    ],
    programs: PROGRAMS,
    minimum_kernel: (5, 8),
    requires: &["perf-events", "bpf", "btf"],
};

/// The registry entry of `runq`.
pub const RUN_QUEUE: ProbeSpec = ProbeSpec {
    event: Event::RunQueue,
    name: "runq",
    summary: "time waiting for a CPU, by the stack that waited",
    sample_types: &[
        SampleTypeSpec {
            name: "runq",
            unit: Unit::Nanoseconds,
            what: What::Queued,
            amount: Amount::Time,
            summary: "time from the wake-up, or from losing the CPU, to getting one",
        },
        SampleTypeSpec {
            name: "runq-waits",
            unit: Unit::Count,
            what: What::Queued,
            amount: Amount::Count,
            summary: "times that a task waited for a CPU",
        },
    ],
    ..SPEC
};

/// As for the switches that they begin with.
pub fn sizing(cpus: usize) -> Sizing {
    switches::sizing(cpus)
}

/// The attached probe.
pub struct OffcpuProbe {
    wakers: bool,
    queued: bool,
    attached: Vec<Attached>,
}

impl OffcpuProbe {
    /// Loads the programs; they are not attached yet. `wakers`: those too that tell who wakes; `queued`: those too that tell what
    /// waits for its first CPU.
    pub fn open(kernel: &mut Kernel, wakers: bool, queued: bool) -> Result<Self, BpfError> {
        kernel.load_program(PROGRAMS.sample)?;
        kernel.load_program(WOKEN)?;
        if queued {
            kernel.load_program(MADE)?;
        }
        if wakers {
            kernel.load_program(WAKERS.sample)?;
        }
        Ok(Self { wakers, queued, attached: Vec::new() })
    }

    /// Attaches the programs; what tells of wake-ups first, so that no wait is without its end.
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<(), BpfError> {
        self.attached.push(kernel.attach(WOKEN, "sched_wakeup")?);
        if self.queued {
            self.attached.push(kernel.attach(MADE, "sched_wakeup_new")?);
        }
        if self.wakers {
            self.attached.push(kernel.attach(WAKERS.sample, "sched_waking")?);
        }
        self.attached.push(kernel.attach(PROGRAMS.sample, switches::TRACEPOINT)?);
        Ok(())
    }

    /// Whether they are attached.
    pub const fn is_enabled(&self) -> bool {
        !self.attached.is_empty()
    }

    /// Detaches the programs and waits until they run nowhere.
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), BpfError> {
        self.attached.clear();
        samples.wait_for_programs()
    }
}
