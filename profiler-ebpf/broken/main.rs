//! Deliberately broken programs, one per way in which a probe can be wrong on a kernel, and a sound one beside them.
//!
//! They prove that the real-kernel tests see such probes (`tests/harness`), and are in no product: only
//! `cargo xtask vm-test` builds them. All count the same system call of one process, for which the right answer is known.

#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext as _, Global,
    btf_maps::PerCpuArray,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task_btf},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};

/// The process whose calls are counted.
#[unsafe(no_mangle)]
static PROCESS: Global<u32> = Global::new(0);

/// The number of the system call.
#[unsafe(no_mangle)]
static CALL: Global<u64> = Global::new(0);

#[btf_map]
static CALLS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Counts a call, if `sys_enter(regs, number)` is of the process and the number.
#[inline(always)]
fn count(ctx: &RawTracePointContext) {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    if process != PROCESS.load() || ctx.arg::<u64>(1) != CALL.load() {
        return;
    }
    if let Some(calls) = CALLS.get_ptr_mut(0) {
        // SAFETY: the slot belongs to this CPU; a system call is not entered within another one.
        unsafe { *calls += 1 };
    }
}

/// Right: counts every call once.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sound(ctx: RawTracePointContext) -> i32 {
    count(&ctx);
    0
}

/// Loads and attaches, but nothing of this process ever has this number.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn never_fires(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u64>(1) == u64::MAX - 1 {
        count(&ctx);
    }
    0
}

/// Counts every call two times.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn fires_twice(ctx: RawTracePointContext) -> i32 {
    count(&ctx);
    count(&ctx);
    0
}

/// Right where it loads: kernels before 5.11 do not have the helper.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn too_new(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper has no precondition.
    if unsafe { bpf_get_current_task_btf() }.is_null() || ctx.as_ptr().is_null() {
        return 0;
    }
    count(&ctx);
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// As the profiler's own programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
