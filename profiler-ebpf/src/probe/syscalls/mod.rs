//! Probe `syscalls`: accounts of system calls by thread and number.
//!
//! Hooks: raw tracepoints `sys_enter`, `sys_exit`; `sched_switch`, which tells how long a thread was off the CPU inside of
//! a call; `sched_process_exit`, `sched_process_exec`, `task_rename`. If calls are only counted, neither `sys_exit` nor
//! `sched_switch` is attached, and no clock is read.
//!
//! A call costs no look-up in a hash map as long as the thread that makes it is the one that the CPU saw last: the CPU
//! remembers that one's place. The rest are look-ups in arrays, which the verifier inlines. The kernel runs the programs
//! of these tracepoints with preemption off (`__DO_TRACE`, include/linux/tracepoint.h; `__bpf_trace_sys_enter` since
//! 6.13), and a thread is on one CPU at a time: each account has one writer.
//!
//! What has no account of its own, because a slab is full, is summed up by number for each CPU.

mod callers;
mod slabs;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{HashMap, PerCpuArray},
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::btf_map,
    programs::RawTracePointContext,
};
use profiler_common::{
    hist,
    loss::Loss,
    probe::syscalls::{
        COMPAT, Call, Caller, ErrorKey, OTHERS, Other, PerCpu, Slab, errno, is_sigreturn, other_key, other_place,
    },
};

pub use self::callers::{executed, exited, renamed};
use self::callers::{Found, find, find_or_make};
use crate::{
    filter::{self, filter_member},
    loss,
    sched::member::{get, sched_offset},
    task,
};

/// Sums of what has no account of its own, by `other_place`.
#[btf_map]
static OTHER_CALLS: PerCpuArray<Other, OTHERS> = PerCpuArray::new();

/// Number of errors by call and error number.
#[btf_map]
static CALL_ERRORS: HashMap<ErrorKey, u64, 16384> = HashMap::new();

#[cfg(bpf_target_arch = "x86_64")]
use profiler_common::probe::syscalls::SIGRETURN_X86_64 as SIGRETURN;
#[cfg(bpf_target_arch = "aarch64")]
use profiler_common::probe::syscalls::SIGRETURN_AARCH64 as SIGRETURN;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether the current call is one of a 32-bit program: `TS_COMPAT` (arch/x86/include/asm/thread_info.h), which the entry
/// sets, or `TIF_32BIT` (arch/arm64/include/asm/thread_info.h), which the thread has.
#[inline(always)]
fn is_compat<const TYPED: bool>(task: *const u8) -> bool {
    #[cfg(bpf_target_arch = "x86_64")]
    return get::<TYPED, u32>(task, sched_offset!(thread_status)) & 0x2 != 0;
    #[cfg(bpf_target_arch = "aarch64")]
    return get::<TYPED, u64>(task, sched_offset!(thread_status)) & (1 << 22) != 0;
}

/// `sys_enter(registers, number)`. `TIMED`: the call's end is of interest.
#[inline(always)]
pub fn enter<const TIMED: bool>(ctx: &RawTracePointContext) {
    let number = ctx.arg::<u64>(1) as u32;
    task::with_current(
        |task| entered::<TIMED, true>(task, number),
        |task| entered::<TIMED, false>(task, number),
    );
}

#[inline(always)]
fn entered<const TIMED: bool, const TYPED: bool>(task: *const u8, number: u32) {
    let cgroup = filter_member!(cgroup_id);
    if cgroup != 0 && !filter::in_cgroup(cgroup, filter_member!(cgroup_level)) {
        return;
    }
    let Some(cpu) = slabs::cpu() else { return };
    let number = number & !COMPAT | if is_compat::<TYPED>(task) { COMPAT } else { 0 };
    let caller = match find_or_make::<TYPED>(cpu, task) {
        Found::Unwanted => return,
        Found::Unknown => {
            loss::count(Loss::CallersFull);
            return count_other(number);
        }
        Found::Caller(caller) => caller,
    };
    let (place, call) = callers::call(cpu, caller, number);
    match call {
        Some(call) => call.count += 1,
        None => {
            loss::count(Loss::CallsFull);
            count_other(number);
        }
    }
    if TIMED {
        caller.call = place;
        caller.number = number;
        caller.off_ns = 0;
        caller.left_ns = 0;
        caller.since_ns = now();
    }
}

#[inline(always)]
fn other(number: u32) -> Option<&'static mut Other> {
    // SAFETY: it is this CPU's, and programs of these tracepoints run one after the other (see the module).
    OTHER_CALLS.get_ptr_mut(other_place(number)).map(|other| unsafe { &mut *other })
}

#[inline(always)]
fn count_other(number: u32) {
    if let Some(other) = other(number) {
        other.count += 1;
    }
}

/// `sys_exit(registers, returned)`. A new thread comes out of a call that it never entered, and so do the threads that
/// were in one at the start.
#[inline(always)]
pub fn exit(ctx: &RawTracePointContext) {
    let returned = ctx.arg::<u64>(1) as i64;
    task::with_current(|task| exited_call(task as u64, returned), |task| exited_call(task as u64, returned));
}

#[inline(always)]
fn exited_call(task: u64, returned: i64) {
    let Some(cpu) = slabs::cpu() else { return };
    let Some(caller) = find(cpu, task) else { return };
    let since = caller.since_ns;
    if since == 0 {
        return;
    }
    let now = now();
    caller.since_ns = 0;
    if caller.left_ns != 0 {
        // It was not seen to come back.
        loss::count(Loss::SwitchesMissed);
        caller.off_ns += now.saturating_sub(caller.left_ns);
        caller.left_ns = 0;
    }
    let ns = now.saturating_sub(since);
    let off_ns = if caller.off_ns < ns { caller.off_ns } else { ns };
    let error = if is_sigreturn(caller.number, SIGRETURN) { None } else { errno(returned) };
    let key = match slabs::call(caller.call) {
        Some(call) if caller.call != 0 => {
            returned_to(cpu, call, ns, off_ns, error.is_some());
            caller.call
        }
        _ => {
            if let Some(other) = other(caller.number) {
                other.returned += 1;
                other.errors += u64::from(error.is_some());
                other.total_ns += ns;
                other.off_ns += off_ns;
                if ns > other.max_ns {
                    other.max_ns = ns;
                }
            }
            // SAFETY: the helper has no precondition.
            other_key(caller.number, unsafe { bpf_get_smp_processor_id() })
        }
    };
    if let Some(errno) = error {
        count_error(ErrorKey { call: key, errno });
    }
}

/// A call that has an account returned.
#[inline(always)]
fn returned_to(cpu: &mut PerCpu, call: &mut Call, ns: u64, off_ns: u64, failed: bool) {
    call.returned += 1;
    call.errors += u64::from(failed);
    call.total_ns += ns;
    call.off_ns += off_ns;
    if ns > call.max_ns {
        call.max_ns = ns;
    }
    let (block, bucket) = hist::place(ns);
    let Some(slot) = call.blocks.get_mut(opaque(block)) else { return };
    if *slot == 0 {
        // User space sees from the sums if there is none left.
        *slot = slabs::take(cpu, Slab::Blocks);
        if *slot == 0 {
            return;
        }
    }
    if let Some(block) = slabs::block(*slot)
        && let Some(number) = block.get_mut(opaque(bucket))
        && *number != u32::MAX
    {
        *number += 1;
    }
}

/// The same number, of which the compiler knows nothing any more: it would leave out the check of an index whose bounds
/// it can derive, and the verifier cannot.
#[inline(always)]
fn opaque(index: usize) -> usize {
    // SAFETY: a local number.
    unsafe { (&raw const index).read_volatile() }
}

/// Counts an error.
#[inline(always)]
fn count_error(key: ErrorKey) {
    if CALL_ERRORS.get_ptr(key).is_none() {
        // ENOMEM or E2BIG: full, which is counted below.
        _ = CALL_ERRORS.insert(key, 0, BPF_NOEXIST as u64);
    }
    match CALL_ERRORS.get_ptr_mut(key) {
        // SAFETY: one writer, the call's thread or the CPU; entries are removed only when their thread is gone.
        Some(number) => unsafe { *number += 1 },
        None => loss::count(Loss::ErrorsFull),
    }
}

/// `sched_switch(preempt, prev, next)`.
#[inline(always)]
pub fn switched(ctx: &RawTracePointContext) {
    let (prev, next): (u64, u64) = (ctx.arg(1), ctx.arg(2));
    let Some(cpu) = slabs::cpu() else { return };
    if let Some(caller) = find(cpu, prev)
        && caller.since_ns != 0
    {
        let now = now();
        came_back(caller, now, true);
        caller.left_ns = now;
    }
    if let Some(caller) = find(cpu, next)
        && caller.left_ns != 0
    {
        came_back(caller, now(), false);
    }
}

/// Closes the time off the CPU of a thread that is inside of a call. `missed`: it was not seen to come back.
#[inline(always)]
fn came_back(caller: &mut Caller, now: u64, missed: bool) {
    if caller.left_ns != 0 {
        caller.off_ns += now.saturating_sub(caller.left_ns);
        caller.left_ns = 0;
        if missed {
            loss::count(Loss::SwitchesMissed);
        }
    }
}
