//! The kernel stack of a task that is about to leave the CPU, walked only if it is not the one that the task had before
//! (`profiler_common::unwind::kernel`).
//!
//! What a raw tracepoint's program is given are its arguments, which the caller has on the stack (`bpf_trace_run3`,
//! kernel/trace/bpf_trace.c): from there on outwards everything belongs to the callers of the hook, or to that function,
//! whose frame is not shown.

use core::hint::black_box;

use aya_ebpf::{
    EbpfContext, btf_maps::PerCpuArray, helpers::generated::bpf_probe_read_kernel, macros::btf_map,
    programs::RawTracePointContext,
};
use profiler_common::{
    stack::WalkEnd,
    unwind::{
        Arch,
        kernel::{KernelMemo, MAX_WORDS, Words},
    },
};

use super::{ARCH, Walk};
use crate::{
    stack::{self, Side},
    task,
};

/// The current task's stack.
#[btf_map]
static KERNEL_WORDS: PerCpuArray<Words, 1> = PerCpuArray::new();

/// The name of the current task's kernel stack. For tracepoints that are hit with interrupts off.
#[inline(always)]
pub fn capture(ctx: &RawTracePointContext, memo: &mut KernelMemo, walk: &mut Walk, now_ns: u64) -> u64 {
    let words = if matches!(ARCH, Arch::X86_64) { begin(ctx) } else { None };
    let Some((words, depth)) = words else {
        return stack::capture(ctx, Side::Kernel, WalkEnd::Ended, &mut walk.stack);
    };
    let count = memo.count(now_ns);
    if count != 0
        && count <= depth
        && read(words, count)
        && let Some(known) = memo.stack(words)
    {
        return known;
    }
    let name = stack::capture(ctx, Side::Kernel, WalkEnd::Ended, &mut walk.stack);
    let count = depth.min(MAX_WORDS as u64);
    if read(words, count) {
        memo.keep(name, &walk.stack, words, depth, now_ns);
    }
    name
}

/// Where the stack begins and ends, and the words between. `None` if it is another one than the task's.
#[inline(always)]
fn begin(ctx: &RawTracePointContext) -> Option<(&'static mut Words, u64)> {
    let top = task::user_registers()?;
    let words = KERNEL_WORDS.get_ptr_mut(0)?;
    // SAFETY: this CPU's memory, and the tracepoint is not hit again meanwhile.
    let words = unsafe { &mut *words };
    // By way of memory: verifiers do not calculate with addresses of contexts and of registers.
    // SAFETY: members of that; volatile, or the compiler would see through it.
    unsafe {
        (&raw mut words.sp).write_volatile(ctx.as_ptr() as u64);
        (&raw mut words.top).write_volatile(top as u64);
        words.sp = (&raw const words.sp).read_volatile();
        words.top = (&raw const words.top).read_volatile();
    }
    let depth = words.depth()?;
    let entry = words.top.wrapping_sub(8) as *const u64;
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    words.entry = unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(entry) }.ok()?;
    Some((words, depth))
}

/// Reads the first words of the stack.
#[inline(always)]
fn read(words: &mut Words, count: u64) -> bool {
    // The number that is compared is to be the one that is used, whatever the compiler knows of it.
    let count = black_box(count);
    if count > MAX_WORDS as u64 {
        return false;
    }
    // SAFETY: the buffer has MAX_WORDS; the helper checks the address itself and fails instead of faulting.
    let failed = unsafe {
        bpf_probe_read_kernel((&raw mut words.words).cast(), count as u32 * 8, words.sp as *const _)
    };
    failed == 0
}
