//! Who wakes a blocked task.
//!
//! Hook: raw tracepoint `sched_waking` (task), hit by the one that wakes it, with interrupts off and the task's `pi_lock`
//! held (`try_to_wake_up`, kernel/sched/core.c). It is kept until `sched_wakeup`, which may be hit on another CPU, ends the
//! wait. The lock lets only one wake a task until then, so that an entry has one writer at a time. The task may not have
//! left its CPU yet: its entry in `WAITS` is only looked at.
//!
//! Waits that will be counted without stacks are not worth the waker's.

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray, ProgramArray},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
    macros::btf_map,
    programs::RawTracePointContext,
};
use profiler_common::{
    loss::Loss,
    sched::{
        wait::{MAX_WAITS, State, Wait},
        waker::{Waker, Woken},
    },
    stack::EMPTY_STACK,
};

use super::WAIT_CONFIG;
use crate::{
    entry, loss,
    stack::{self, Side},
    task,
    unwind::{
        self, Slot,
        user::{self, Whose},
    },
};

/// Wakers of the tasks in `WAITS`, by the id of the one that is woken. Shrunk to one entry at load if nobody asks.
#[btf_map]
static WAKERS: HashMap<u32, Waker, MAX_WAITS> = HashMap::new();

/// What a new entry is made from: it is too large for a program's stack.
#[btf_map]
static NEW_WAKER: PerCpuArray<Waker, 1> = PerCpuArray::new();

/// The task whose waker's user stack is being walked on this CPU.
#[btf_map]
static WAKING: PerCpuArray<u32, 1> = PerCpuArray::new();

#[btf_map]
static OFFCPU_WAKER_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The waker of a task.
#[inline(always)]
fn find(tid: u32) -> Option<&'static mut Waker> {
    entry::find(&WAKERS, tid)
}

/// The current task, or an interrupt that it is hit by, wakes another one.
#[inline(always)]
pub fn waking(ctx: &RawTracePointContext) {
    let Some((_, woken)) = task::ids(ctx.arg(0)) else { return };
    let Some(wait) = super::find(woken) else { return };
    // SAFETY: the helper has no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if wait.state == State::Blocked as u32
        && now_ns.saturating_sub(wait.since_ns) < WAIT_CONFIG.load().min_block_ns
    {
        return;
    }
    let (Some(walk), Some(waking)) = (unwind::current(Slot::Tracepoint), WAKING.get_ptr_mut(0)) else {
        loss::count(Loss::NoScratch);
        return;
    };
    let found = entry::find_or_insert(&WAKERS, &NEW_WAKER, woken, Loss::WaitsFull);
    let Some(waker) = found else { return };
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    waker.pid = pid;
    waker.comm = bpf_get_current_comm().unwrap_or_default();
    waker.at_ns = now_ns;
    waker.kernel_stack = unwind::kernel::capture(ctx, &mut waker.kernel_memo, walk, now_ns);
    (waker.user_stack, waker.incarnation) = (EMPTY_STACK, 0);
    waker.is_new = 1;
    if tid == 0 {
        return;
    }
    waker.incarnation = task::incarnation();
    // SAFETY: this CPU's, and the tracepoint is not hit again meanwhile.
    unsafe { *waking = woken };
    let whose = Whose { pid, incarnation: waker.incarnation, at_ns: now_ns };
    waker.user_stack = user::capture(ctx, walk, &whose, &waker.memo, &OFFCPU_WAKER_PROGRAMS);
}

/// Walks that stack on.
#[inline(always)]
pub fn walk(ctx: &RawTracePointContext) {
    let Some(walk) = unwind::current(Slot::Tracepoint) else { return };
    unwind::go_on::<true, _>(ctx, walk, &OFFCPU_WAKER_PROGRAMS);
    walked();
}

/// Keeps that stack, which has been walked.
#[inline(always)]
pub fn walked() {
    let (Some(walk), Some(waking)) = (unwind::current(Slot::Tracepoint), WAKING.get_ptr(0)) else {
        loss::count(Loss::NoScratch);
        return;
    };
    // SAFETY: as in `waking`, whose tail calls lead here.
    if let Some(waker) = find(unsafe { *waking }) {
        waker.user_stack = user::walked(walk, &mut waker.memo);
    }
}

/// The name that a wait is counted with in the place of its user stack, if its waker is known.
#[inline(always)]
pub fn joined(wait: &Wait, tid: u32) -> u64 {
    let Some(waker) = find(tid) else { return wait.user_stack };
    if waker.is_new == 0 {
        return wait.user_stack;
    }
    waker.is_new = 0;
    let Some(walk) = unwind::current(Slot::Tracepoint) else {
        loss::count(Loss::NoScratch);
        return wait.user_stack;
    };
    Woken::write(wait.user_stack, waker, &mut walk.stack);
    stack::keep(Side::Woken, &walk.stack)
}

/// Forgets a wake-up that ended no wait.
#[inline(always)]
pub fn forget(tid: u32) {
    if let Some(waker) = find(tid) {
        waker.is_new = 0;
    }
}

/// A task ends.
#[inline(always)]
pub fn remove(tid: u32) {
    // It need not be there.
    _ = WAKERS.remove(tid);
}
