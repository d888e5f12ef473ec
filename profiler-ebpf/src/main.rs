//! The eBPF side of `profiler`: one object, sources cut by probe.
//!
//! A probe's program filters (`filter`), captures (`stack`, `unwind`), aggregates into the current generation of its maps
//! (`sample`), and counts what it could not keep (`loss`). Entry points are declared here, in `hooks`, in `sockets` and in `network`, one
//! line each, so that these files are the list of everything that can run in the kernel; programs of probes that were not
//! asked for are never loaded.

#![no_std]
#![no_main]
// `atomic` adds to a word in one instruction. aya-ebpf needs it too.
#![feature(asm_experimental_arch)]

mod atomic;
mod drop;
mod entry;
mod filter;
mod hooks;
mod loss;
mod network;
mod probe;
mod registers;
mod sample;
mod sched;
mod sockets;
mod stack;
mod task;
mod tuning;
mod unwind;

use aya_ebpf::{
    macros::{btf_tracepoint, perf_event, raw_tracepoint},
    programs::{BtfTracePointContext, PerfEventContext, RawTracePointContext},
};

use probe::{
    cpu::Cpu,
    offcpu::{self, wakers},
    switches::Switches,
    syscall_stacks,
};

/// On-CPU sample of one CPU's timer (or cycle counter). What programs of this kind return means nothing to the kernel:
/// no perf output is asked for.
#[perf_event]
pub fn cpu_sample(ctx: PerfEventContext) -> u32 {
    sample::take::<Cpu>(&ctx);
    0
}

/// Walks the user stack of such a sample, some frames of it.
#[perf_event]
#[inline(always)]
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
#[inline(always)]
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
// It makes tail calls, which only whole programs may.
#[inline(always)]
pub fn offcpu_switch(ctx: RawTracePointContext) -> i32 {
    offcpu::switched(&ctx);
    0
}

/// Walks the user stack of the task that leaves, some frames of it.
#[raw_tracepoint(tracepoint = "sched_switch")]
#[inline(always)]
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

/// `sched_waking(task)`: a task is about to be woken, by the current one or by an interrupt.
#[raw_tracepoint(tracepoint = "sched_waking")]
pub fn offcpu_waking(ctx: RawTracePointContext) -> i32 {
    wakers::waking(&ctx);
    0
}

/// Walks the waker's user stack, some frames of it.
#[raw_tracepoint(tracepoint = "sched_waking")]
#[inline(always)]
pub fn offcpu_waker_walk(ctx: RawTracePointContext) -> i32 {
    wakers::walk(&ctx);
    0
}

/// Keeps that stack when it has been walked.
#[raw_tracepoint(tracepoint = "sched_waking")]
pub fn offcpu_waker_keep(_ctx: RawTracePointContext) -> i32 {
    wakers::walked();
    0
}

/// `sched_wakeup_new(task)`: a task was made and can run.
#[raw_tracepoint(tracepoint = "sched_wakeup_new")]
pub fn offcpu_made(ctx: RawTracePointContext) -> i32 {
    offcpu::made(&ctx);
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

/// `sched_switch(preempt, prev, next)`: accounts of two tasks and of the CPU.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    probe::sched::switch(&ctx);
    0
}

/// `sched_waking(task)`: who wakes.
#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking(_ctx: BtfTracePointContext) -> i32 {
    probe::sched::waking();
    0
}

/// `sched_wakeup(task)`: what a task waited for has come.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn sched_wakeup(ctx: BtfTracePointContext) -> i32 {
    probe::sched::wakeup(&ctx);
    0
}

/// `sched_wakeup_new(task)`: a new account.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    probe::sched::wakeup_new(&ctx);
    0
}

/// `sched_migrate_task(task, cpu)`.
#[btf_tracepoint(function = "sched_migrate_task")]
pub fn sched_migrate(ctx: BtfTracePointContext) -> i32 {
    probe::sched::migrate(&ctx);
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: a thread may have another id now.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_exec(ctx: BtfTracePointContext) -> i32 {
    probe::sched::exec(&ctx);
    0
}

/// `task_rename(task, comm)`.
#[btf_tracepoint(function = "task_rename")]
pub fn sched_rename(ctx: BtfTracePointContext) -> i32 {
    probe::sched::rename(&ctx);
    0
}

/// Does nothing at each call: what counting calls cannot cost less than (`cargo xtask bench`).
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn syscalls_nothing(_ctx: RawTracePointContext) -> i32 {
    0
}

/// `sys_enter(registers, number)`: a call is counted.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscalls_count(ctx: BtfTracePointContext) -> i32 {
    probe::syscalls::enter::<false>(&ctx);
    0
}

/// The same: it is timed too.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscalls_enter(ctx: BtfTracePointContext) -> i32 {
    probe::syscalls::enter::<true>(&ctx);
    0
}

/// `sys_exit(registers, returned)`: a call is over.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscalls_exit(ctx: RawTracePointContext) -> i32 {
    probe::syscalls::exit(&ctx);
    0
}

/// `sched_switch(preempt, prev, next)`: time off the CPU inside of a call.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn syscalls_switch(ctx: RawTracePointContext) -> i32 {
    probe::syscalls::switched(&ctx);
    0
}

/// `sched_process_exit(task)`: a thread makes no calls any more.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn syscalls_end(ctx: RawTracePointContext) -> i32 {
    probe::syscalls::exited(&ctx);
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: a thread may have another id now.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn syscalls_exec(ctx: RawTracePointContext) -> i32 {
    probe::syscalls::executed(&ctx);
    0
}

/// `task_rename(task, comm)`.
#[raw_tracepoint(tracepoint = "task_rename")]
pub fn syscalls_rename(ctx: RawTracePointContext) -> i32 {
    probe::syscalls::renamed(&ctx);
    0
}

/// `sys_enter(registers, number)`: a call is made.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn callstacks_enter(ctx: RawTracePointContext) -> i32 {
    syscall_stacks::entered(&ctx);
    0
}

/// Walks the user stack that made it, some frames of it.
#[raw_tracepoint(tracepoint = "sys_enter")]
#[inline(always)]
pub fn callstacks_walk(ctx: RawTracePointContext) -> i32 {
    syscall_stacks::walk(&ctx);
    0
}

/// Keeps that stack when it has been walked.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn callstacks_keep(_ctx: RawTracePointContext) -> i32 {
    syscall_stacks::walked();
    0
}

/// `sys_exit(registers, returned)`: the call is over.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn callstacks_exit(_ctx: RawTracePointContext) -> i32 {
    syscall_stacks::returned();
    0
}

/// `sched_process_exit(task)`: a thread makes no calls any more.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn callstacks_end(ctx: RawTracePointContext) -> i32 {
    syscall_stacks::ended(&ctx);
    0
}

/// Task iterator: an account for each task that exists at the start.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn sched_seed(ctx: &IteratorContext) -> i32 {
    // SAFETY: a member of the kernel's context, read in one load as the verifier wants it.
    let task = unsafe { (&raw const ctx.task).read_volatile() };
    if !task.is_null() {
        probe::sched::seed(task);
    }
    0
}

/// `struct bpf_iter__task` (kernel/bpf/task_iter.c).
#[repr(C)]
pub struct IteratorContext {
    meta: *const u8,
    /// Null at the end.
    task: *const u8,
}

/// A handler of an interrupt begins. Attached to `local_timer_entry` too.
#[raw_tracepoint(tracepoint = "irq_handler_entry")]
pub fn sched_hardirq_entry(_ctx: RawTracePointContext) -> i32 {
    probe::sched::hardirq_entry();
    0
}

/// It ends. Attached to `local_timer_exit` too.
#[raw_tracepoint(tracepoint = "irq_handler_exit")]
pub fn sched_hardirq_exit(_ctx: RawTracePointContext) -> i32 {
    probe::sched::hardirq_exit();
    0
}

/// A soft interrupt begins.
#[raw_tracepoint(tracepoint = "softirq_entry")]
pub fn sched_softirq_entry(_ctx: RawTracePointContext) -> i32 {
    probe::sched::softirq_entry();
    0
}

/// It ends.
#[raw_tracepoint(tracepoint = "softirq_exit")]
pub fn sched_softirq_exit(_ctx: RawTracePointContext) -> i32 {
    probe::sched::softirq_exit();
    0
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
