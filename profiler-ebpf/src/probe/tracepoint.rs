//! Probe `tracepoint`: who hits a tracepoint of the user's choice, and where.
//!
//! Hook: any tracepoint that tracefs has, as perf attaches to it: the program is given the record of the hit, whose fields
//! the filter compares. The kernel runs no such program while another one runs on the same CPU (`trace_call_bpf`,
//! kernel/trace/bpf_trace.c) and counts those that it left out, so that all events share one slot. Yields counts keyed as
//! those of the `cpu` probe, of whoever is the current task: in an interrupt, of the interrupted one.

use aya_ebpf::{
    EbpfContext as _, Global, btf_maps::ProgramArray, helpers::generated::bpf_probe_read_kernel,
    macros::btf_map, programs::TracePointContext,
};
use profiler_common::{
    probe::tracepoint::{Condition, HookFilters, MAX_CONDITIONS, field, meets},
    sample::What,
};

use crate::{sample::Probe, unwind::Slot};

#[btf_map]
static TRACEPOINT_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// What hits must be, by the event's place.
#[unsafe(no_mangle)]
static HOOK_FILTERS: Global<HookFilters> = Global::new(HookFilters::NONE);

/// The probe, for the event at a place.
pub enum Tracepoint<const PLACE: usize> {}

impl<const PLACE: usize> Probe for Tracepoint<PLACE> {
    type Context = TracePointContext;
    const WHAT: What = What::HOOKS[PLACE];
    const SLOT: Slot = Slot::PerfTracepoint;
    const IDLE_TASK: bool = true;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &TRACEPOINT_PROGRAMS
    }

    #[inline(always)]
    fn wanted(ctx: &TracePointContext) -> bool {
        for i in 0..MAX_CONDITIONS {
            let filters = (&raw const HOOK_FILTERS).cast::<HookFilters>();
            // SAFETY: a member of a global that is initialized and never written.
            let condition = unsafe { (&raw const (*filters).of[PLACE].conditions[i]) };
            if !met(ctx, condition) {
                return false;
            }
        }
        true
    }
}

/// Whether the record meets the condition. Its members are constants for the verifier, so that what is not asked for is
/// not looked at.
#[inline(always)]
fn met(ctx: &TracePointContext, condition: *const Condition) -> bool {
    macro_rules! member {
        ($member:ident) => {
            // SAFETY: the caller's is a valid place; volatile because the loader replaces what the compiler sees.
            unsafe { (&raw const (*condition).$member).read_volatile() }
        };
    }
    let operator = member!(operator);
    if operator == 0 {
        return true;
    }
    let (size, signed) = (member!(size), member!(signed));
    let mut read = 0u64;
    let from = ctx.as_ptr().cast::<u8>().wrapping_add(member!(offset) as usize);
    // SAFETY: no more is written than there is room for; the helper checks the address and fails instead of faulting.
    if unsafe { bpf_probe_read_kernel((&raw mut read).cast(), size.min(8), from.cast()) } != 0 {
        return false;
    }
    meets(operator, signed, field(read, size, signed), member!(value))
}
