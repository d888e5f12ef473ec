//! Probe `kprobe`: who comes to a place in the kernel's code, and from where.
//!
//! Hook: an instruction of the kernel's, or the return from a function (kprobe, kretprobe), as perf attaches to it. The
//! kernel runs the program by the same function as those of tracepoints (`kprobe_perf_func`, kernel/trace/trace_kprobe.c,
//! calls `trace_call_bpf`, kernel/trace/bpf_trace.c): not while any other such program runs on the CPU, whichever of the
//! two kinds they are, also in an interrupt. So both share one slot, and those left out are counted. Yields counts keyed as
//! those of the `cpu` probe, of whoever is the current task: in an interrupt, of the interrupted one. The kernel stack
//! begins at the hooked instruction, with the registers that the kernel saved there.

use aya_ebpf::{btf_maps::ProgramArray, macros::btf_map, programs::ProbeContext};
use profiler_common::sample::What;

use crate::{sample::Probe, unwind::Slot};

#[btf_map]
static KPROBE_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The probe, for the event at a place.
pub enum Kprobe<const PLACE: usize> {}

impl<const PLACE: usize> Probe for Kprobe<PLACE> {
    type Context = ProbeContext;
    const WHAT: What = What::HOOKS[PLACE];
    const SLOT: Slot = Slot::PerfTracepoint;
    const IDLE_TASK: bool = true;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &KPROBE_PROGRAMS
    }
}
