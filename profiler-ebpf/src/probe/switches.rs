//! Probe `context-switches`: who leaves the CPU, and where.
//!
//! Hook: the raw tracepoint `sched_switch` (preempt, prev, next), which is hit while the task that leaves is still the
//! current one (`__schedule`, kernel/sched/core.c), with interrupts off. Yields counts keyed as those of the `cpu` probe,
//! one for each switch away from a task. The idle task is left out: it leaves when there is work, which is no event of
//! anybody's.

use aya_ebpf::{btf_maps::ProgramArray, macros::btf_map, programs::RawTracePointContext};
use profiler_common::sample::What;

use crate::{sample::Probe, unwind::Slot};

#[btf_map]
static SWITCHES_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The probe.
pub enum Switches {}

impl Probe for Switches {
    type Context = RawTracePointContext;
    const WHAT: What = What::Switch;
    const SLOT: Slot = Slot::Tracepoint;
    const IDLE_TASK: bool = false;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &SWITCHES_PROGRAMS
    }
}
