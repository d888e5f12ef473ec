//! What calls take from the accounts of threads and CPUs (`probe::sched`), if those are kept too (`profiler stat`): when
//! they begin and end, and the time of interrupts. So what is known of calls is a part of what is known of threads.

use aya_ebpf::Global;
use profiler_common::probe::{sched::Gate, syscalls::Caller};

use crate::probe::sched;

/// 1: threads are accounted too.
#[unsafe(no_mangle)]
static CALLS_OF_THREADS: Global<u32> = Global::new(0);

/// Whether threads are accounted too, whose switches tell of the time off the CPU.
#[inline(always)]
pub fn are_accounted() -> bool {
    CALLS_OF_THREADS.load() != 0
}

/// Whether calls are accounted now.
#[inline(always)]
pub fn is_open() -> bool {
    !are_accounted() || sched::gate(Gate::Start) != 0
}

/// What interrupts have taken from this CPU so far, ns; 0 if that is not accounted.
#[inline(always)]
fn irq_ns() -> u64 {
    if are_accounted() { sched::irq_ns() } else { 0 }
}

/// The thread enters a call.
#[inline(always)]
pub fn entered(caller: &mut Caller) {
    caller.irq_ns = 0;
    caller.irq_at_ns = irq_ns();
}

/// The thread comes to a CPU inside of a call.
#[inline(always)]
pub fn came(caller: &mut Caller) {
    caller.irq_at_ns = irq_ns();
}

/// The thread leaves the CPU inside of a call, or the call.
#[inline(always)]
pub fn left(caller: &mut Caller) {
    caller.irq_ns += irq_ns().saturating_sub(caller.irq_at_ns);
}
