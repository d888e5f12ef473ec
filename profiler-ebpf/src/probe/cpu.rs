//! Probe `cpu`: who is on the CPU, and where.
//!
//! Hook: a perf_event per CPU (hardware cycles or the software cpu-clock). Yields counts keyed by process, thread,
//! kernel stack and user stack; samples of the idle task are recorded too (their kernel stack tells idling from an
//! interrupt that hit an idle CPU) and told apart in user space.

use aya_ebpf::{btf_maps::ProgramArray, macros::btf_map, programs::PerfEventContext};
use profiler_common::sample::What;

use crate::{sample::Probe, unwind::Slot};

#[btf_map]
static CPU_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The probe.
pub enum Cpu {}

impl Probe for Cpu {
    type Context = PerfEventContext;
    const WHAT: What = What::Tick;
    const SLOT: Slot = Slot::PerfEvent;
    const IDLE_TASK: bool = true;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &CPU_PROGRAMS
    }
}
