//! Probe `cpu`: who is on the CPU, and where.
//!
//! Hook: a perf_event per CPU (hardware cycles or the software cpu-clock). Yields counts keyed by process, thread,
//! kernel stack and user stack; samples of the idle task are recorded too (their kernel stack tells idling from an
//! interrupt that hit an idle CPU) and told apart in user space.

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{ArrayOfMaps, HashMap, PerCpuArray, ProgramArray},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    },
    macros::btf_map,
    programs::PerfEventContext,
};
use aya_log_ebpf::debug;
use profiler_common::{
    filter::{MODE_KERNEL, MODE_USER},
    loss::Loss,
    Comm,
    probe::cpu::{CountKey, CountValue, Seen},
    stack::{EMPTY_STACK, WalkEnd},
};

use crate::{
    filter, loss, registers,
    stack::{self, Side},
    task,
    unwind::{self, Slot},
};

/// Slot 0: the current generation of counts.
#[btf_map]
static COUNTS: ArrayOfMaps<HashMap<CountKey, CountValue, 1>, 1> = ArrayOfMaps::new();

/// A sample whose user stack is being walked.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pending {
    key: CountKey,
    comm: Comm,
}

#[btf_map]
static PENDING: PerCpuArray<Pending, 1> = PerCpuArray::new();

/// Where a walk goes on: `cpu_walk` and `cpu_count`.
#[btf_map]
static CPU_PROGRAMS: ProgramArray<2> = ProgramArray::new();
/// Index of the program that walks.
const WALK: u32 = 0;
/// Index of the program that counts what was walked.
const COUNT: u32 = 1;

#[btf_map]
static SEEN: PerCpuArray<u64, { Seen::COUNT }> = PerCpuArray::new();

#[inline(always)]
fn seen(what: Seen) {
    if let Some(slot) = SEEN.get_ptr_mut(what as u32) {
        // SAFETY: the slot belongs to this CPU, and the sampling event does not interrupt itself.
        unsafe { *slot += 1 };
    }
}

/// Records one sample. The return value means nothing to the kernel (no perf output is asked for).
#[inline(always)]
pub fn sample(ctx: &PerfEventContext) -> u32 {
    seen(Seen::Ticks);
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let config = filter::config();
    let comm = bpf_get_current_comm().unwrap_or_default();
    if !filter::wanted(&config, pid, &comm) {
        seen(Seen::Filtered);
        return 0;
    }
    if tid == 0 {
        seen(Seen::IdleTask);
    }
    let (Some(walk), Some(pending)) = (unwind::current(Slot::PerfEvent), PENDING.get_ptr_mut(0)) else {
        loss::count(Loss::NoScratch);
        return 0;
    };
    let kernel_stack = stack::capture(ctx, Side::Kernel, WalkEnd::Ended, &mut walk.stack);
    // A sample that hit user mode has no kernel frames.
    let in_kernel = kernel_stack != EMPTY_STACK;
    if (config.mode == MODE_USER && in_kernel) || (config.mode == MODE_KERNEL && !in_kernel) {
        seen(Seen::Filtered);
        return 0;
    }
    // SAFETY: the helper has no precondition.
    let incarnation =
        if tid == 0 { u64::from(unsafe { bpf_get_smp_processor_id() }) } else { task::incarnation() };
    let key = CountKey { pid, tid, incarnation, kernel_stack, user_stack: EMPTY_STACK };
    if tid == 0 {
        count(ctx, &key, comm);
        return 0;
    }
    let end = match unwind::begin(walk, pid, incarnation) {
        Ok(()) => {
            // SAFETY: this CPU's memory; the sampling event does not interrupt itself.
            unsafe { *pending = Pending { key, comm } };
            // SAFETY: nothing is owned that would have to be dropped.
            unsafe { CPU_PROGRAMS.tail_call(ctx, WALK) };
            WalkEnd::TailCallFailed
        }
        Err(end) => end,
    };
    let user_stack = stack::capture(ctx, Side::User, end, &mut walk.stack);
    if user_stack != EMPTY_STACK {
        debug!(
            ctx,
            "task pid {} incarnation {} leaf {:x} pc {:x}",
            pid,
            incarnation,
            walk.stack.frames[0],
            registers::user().unwrap_or_default().pc
        );
    }
    count(ctx, &CountKey { user_stack, ..key }, comm);
    0
}

/// Walks the user stack of the pending sample on.
#[inline(always)]
pub fn walk(ctx: &PerfEventContext) -> u32 {
    let Some(walk) = unwind::current(Slot::PerfEvent) else { return 0 };
    let next = match unwind::go_on(walk) {
        None => WALK,
        Some(end) => {
            walk.stack.end = end as u32;
            COUNT
        }
    };
    // SAFETY: nothing is owned that would have to be dropped.
    unsafe { CPU_PROGRAMS.tail_call(ctx, next) };
    if next == WALK {
        walk.stack.end = WalkEnd::TailCallFailed as u32;
    }
    walked(ctx)
}

/// Counts the pending sample, whose user stack has been walked.
#[inline(always)]
pub fn walked(ctx: &PerfEventContext) -> u32 {
    let (Some(walk), Some(pending)) = (unwind::current(Slot::PerfEvent), PENDING.get_ptr_mut(0)) else {
        loss::count(Loss::NoScratch);
        return 0;
    };
    if walk.stack.end == WalkEnd::Truncated as u32 {
        loss::count(Loss::UserStackTruncated);
    }
    // SAFETY: as in `sample`, whose tail calls lead here.
    let pending = unsafe { &mut *pending };
    pending.key.user_stack = stack::keep(Side::User, &walk.stack);
    count(ctx, &pending.key, pending.comm);
    0
}

#[inline(always)]
fn count(ctx: &PerfEventContext, key: &CountKey, comm: Comm) {
    let CountKey { pid, tid, kernel_stack, user_stack, .. } = *key;
    debug!(ctx, "sample pid {} tid {} kernel {:x} user {:x}", pid, tid, kernel_stack, user_stack);
    let Some(counts) = COUNTS.get(0) else {
        loss::count(Loss::NoScratch);
        return;
    };
    if let Some(value) = counts.get_ptr_mut(key) {
        // SAFETY: a map value stays valid memory while the program runs. No other CPU writes it at the same time: a key
        // names one thread, which runs on one CPU, or one CPU's idle task.
        unsafe { (*value).count += 1 };
        return;
    }
    // SAFETY: the helper has no precondition.
    let first_ns = unsafe { bpf_ktime_get_ns() };
    if counts.insert(key, CountValue { count: 1, first_ns, comm }, BPF_ANY as u64).is_err() {
        loss::count(Loss::CountsFull);
    }
}
