//! The eBPF side of `profiler`: one object, sources cut by probe.
//!
//! A probe's program filters (`filter`), captures (`stack`), aggregates into the current generation of its maps, and
//! counts what it could not keep (`loss`). Entry points are declared here, one line each, so that this file is the list
//! of everything that can run in the kernel; programs of probes that were not asked for are never loaded.

#![no_std]
#![no_main]

mod filter;
mod loss;
mod probe;
mod registers;
mod stack;
mod task;

use aya_ebpf::{
    macros::{perf_event, raw_tracepoint},
    programs::{PerfEventContext, RawTracePointContext},
};

/// On-CPU sample of one CPU's timer (or cycle counter).
#[perf_event]
pub fn cpu_sample(ctx: PerfEventContext) -> u32 {
    probe::cpu::sample(&ctx)
}

/// `sched_process_fork(parent, child)`: children of targets become targets.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn follow_fork(ctx: RawTracePointContext) -> i32 {
    probe::process::fork(&ctx)
}

/// `sched_process_free(task)`: a target's id can be used again by another process from now on.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn follow_free(ctx: RawTracePointContext) -> i32 {
    probe::process::free(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects programs that can get here; the object must still link.
    loop {}
}

/// Helpers marked GPL-only need a licence the kernel counts as compatible; the sources are MIT OR Apache-2.0 otherwise.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
