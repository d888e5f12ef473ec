//! The eBPF side of `profiler`: one object, sources cut by probe.
//!
//! A probe's program filters (`filter`), captures (`stack`, `unwind`), aggregates into the current generation of its maps
//! (`sample`), and counts what it could not keep (`loss`). Entry points are declared here, one line each, so that this file is the list
//! of everything that can run in the kernel; programs of probes that were not asked for are never loaded.

#![no_std]
#![no_main]

mod filter;
mod loss;
mod probe;
mod registers;
mod sample;
mod sched;
mod stack;
mod task;
mod unwind;

use aya_ebpf::{
    macros::{perf_event, raw_tracepoint},
    programs::{PerfEventContext, RawTracePointContext},
};

use probe::{cpu::Cpu, offcpu, switches::Switches};

/// On-CPU sample of one CPU's timer (or cycle counter). What programs of this kind return means nothing to the kernel:
/// no perf output is asked for.
#[perf_event]
pub fn cpu_sample(ctx: PerfEventContext) -> u32 {
    sample::take::<Cpu>(&ctx);
    0
}

/// Walks the user stack of such a sample, some frames of it.
#[perf_event]
pub fn cpu_walk(ctx: PerfEventContext) -> u32 {
    sample::walk::<Cpu>(&ctx);
    0
}

/// Counts such a sample when its user stack has been walked.
#[perf_event]
pub fn cpu_count(ctx: PerfEventContext) -> u32 {
    sample::walked::<Cpu>(&ctx);
    0
}

/// `sched_switch(preempt, prev, next)`: a task leaves the CPU.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn switches_sample(ctx: RawTracePointContext) -> i32 {
    sample::take::<Switches>(&ctx);
    0
}

/// Walks the user stack of such a task, some frames of it.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn switches_walk(ctx: RawTracePointContext) -> i32 {
    sample::walk::<Switches>(&ctx);
    0
}

/// Counts such a switch when the task's user stack has been walked.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn switches_count(ctx: RawTracePointContext) -> i32 {
    sample::walked::<Switches>(&ctx);
    0
}

/// `sched_switch(preempt, prev, next)`: a task gets the CPU, another one leaves it.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn offcpu_switch(ctx: RawTracePointContext) -> i32 {
    offcpu::switched(&ctx);
    0
}

/// Walks the user stack of the task that leaves, some frames of it.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn offcpu_walk(ctx: RawTracePointContext) -> i32 {
    offcpu::walk(&ctx);
    0
}

/// Keeps that stack when it has been walked.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn offcpu_keep(_ctx: RawTracePointContext) -> i32 {
    offcpu::walked();
    0
}

/// `sched_wakeup(task)`: a task can run again.
#[raw_tracepoint(tracepoint = "sched_wakeup")]
pub fn offcpu_woken(ctx: RawTracePointContext) -> i32 {
    offcpu::woken(&ctx);
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: the program's mappings and tables will be needed.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn unwind_exec(_ctx: RawTracePointContext) -> i32 {
    probe::process::executed()
}

/// `sched_process_free(task)`: the process's mappings are not needed any more.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn unwind_free(ctx: RawTracePointContext) -> i32 {
    probe::process::gone(&ctx)
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
