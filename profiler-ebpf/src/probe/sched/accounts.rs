//! The accounts of tasks: found, made, put in for those that exist at the start, handed over at the end.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::{HashMap, PerCpuArray, RingBuf},
    helpers::generated::bpf_ringbuf_query,
    macros::btf_map,
};
use profiler_common::{
    Comm,
    loss::Loss,
    probe::sched::{Gate, KEPT, State, Thread, UNINTERRUPTIBLE},
    sched::cause::{Cause, is_uninterruptible},
};

use super::{GATES, gate};
use crate::{
    filter::{self, filter_member},
    loss,
    sched::{
        blocked,
        member::{get, probe, sched_offset},
    },
    task::task_offset,
};

/// Accounts by task. Shrunk to one entry at load if the scheduler is not looked at.
#[btf_map]
static THREADS: HashMap<u64, Thread, 16384> = HashMap::new();

/// Where new accounts are made: for events, and for the iterator, which events interrupt. Members that are not set for
/// each new account stay 0.
#[btf_map]
static NEW_THREADS: PerCpuArray<Thread, 2> = PerCpuArray::new();

/// Bytes of accounts that user space has not read yet.
const ENDED_BYTES: usize = 1024 * 1024;

/// Accounts of threads that ended. User space looks every now and then; it is woken when a quarter is full.
#[btf_map]
static ENDED: RingBuf<Thread, ENDED_BYTES> = RingBuf::new();

/// Place of a new account in `NEW_THREADS`.
#[derive(Clone, Copy)]
pub enum Maker {
    /// For an event.
    Event = 0,
    /// For the iterator.
    Iterator = 1,
}

/// The account of a task.
#[inline(always)]
pub fn account(task: *const u8) -> Option<&'static mut Thread> {
    // SAFETY: one writer for each member at a time, see the module; entries are preallocated, and removed only when the
    // task is gone.
    THREADS.get_ptr_mut(task as u64).map(|thread| unsafe { &mut *thread })
}

/// Whether the task's process is looked at.
#[inline(always)]
pub fn is_wanted(task: *const u8) -> bool {
    filter_member!(by_process) == 0 || filter::is_target(get::<true, u32>(task, task_offset!(tgid)))
}

/// The account of a task; a new one if there is none, in the state that it must have been in.
#[inline(always)]
pub fn account_or_new(task: *const u8, state: State, now: u64) -> Option<&'static mut Thread> {
    if let Some(thread) = account(task) {
        return Some(thread);
    }
    if !is_wanted(task) {
        return None;
    }
    let unseen = gate(Gate::Unseen);
    let born = if unseen != 0 { unseen } else { now };
    let cause =
        if state as u8 == State::Blocked as u8 { blocked::why::<true>(task, 1) } else { Cause::Unknown };
    make(Maker::Event, task, state, cause, 0, born, BPF_NOEXIST as u64);
    account(task)
}

/// Makes an account.
#[inline(always)]
pub fn make(maker: Maker, task: *const u8, state: State, cause: Cause, flags: u8, born: u64, how: u64) {
    let Some(new) = NEW_THREADS.get_ptr_mut(maker as u32) else { return };
    // SAFETY: it is this CPU's, and nothing else of the same kind interrupts: events come with interrupts off, and there
    // is one iterator.
    let new = unsafe { &mut *new };
    new.born_ns = born;
    new.since_ns = born;
    new.voluntary_before = get::<true, u64>(task, sched_offset!(nvcsw));
    new.voluntary_after = new.voluntary_before;
    new.start_ns = get::<true, u64>(task, task_offset!(start_boottime));
    new.tgid = get::<true, u32>(task, task_offset!(tgid));
    new.tid = get::<true, u32>(task, task_offset!(pid));
    new.state = state as u8;
    new.cause = cause as u8;
    new.flags = flags;
    new.comm = comm(task);
    // By reference: a copy does not fit on the stack.
    let new: &Thread = new;
    let result = THREADS.insert(task as u64, new, how);
    // ENOMEM or E2BIG: full. EEXIST: the account was made meanwhile, which is as well.
    if let Err(error) = result
        && error != -EEXIST
    {
        loss::count(Loss::ThreadsFull);
        if let Some(unseen) = GATES.get_ptr_mut(Gate::Unseen as u32) {
            // What such a thread did is not known: when there is room again, it is accounted from then on.
            // SAFETY: a word of an array, written whole.
            unsafe { unseen.write_volatile(0) };
        }
    }
}

const EEXIST: i32 = 17;

#[inline(always)]
fn comm(task: *const u8) -> Comm {
    probe(task.wrapping_add(sched_offset!(comm) as usize).cast::<Comm>()).unwrap_or_default()
}

/// A thread has left the CPU for good: its account goes to user space. If there is no room, it stays where it is and
/// user space finds it there.
#[inline(always)]
pub fn end(thread: &mut Thread, task: *const u8) {
    thread.state = State::Ended as u8;
    // SAFETY: the helper takes any ring and any flag.
    let unread = unsafe { bpf_ringbuf_query((&raw const ENDED).cast_mut().cast(), BPF_RB_AVAIL_DATA.into()) };
    let wake = if unread > ENDED_BYTES as u64 / 4 { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    let account: &Thread = thread;
    if ENDED.output(account, wake.into()).is_ok() {
        // It was there.
        _ = THREADS.remove(task as u64);
    } else {
        thread.flags |= KEPT;
    }
}

/// Task iterator: puts in a thread that exists at the start. A thread that an event has put in already stays.
#[inline(always)]
pub fn seed(task: *const u8) {
    let start = gate(Gate::Start);
    if start == 0 || get::<true, u32>(task, task_offset!(pid)) == 0 || !is_wanted(task) {
        return;
    }
    let state = blocked::state::<true>(task);
    if get::<true, u32>(task, sched_offset!(exit_state)) != 0 {
        return;
    }
    // Small numbers, in a word before Linux 7.3 and in a byte since: both architectures have the low byte first.
    let (state, cause, flags) = if get::<true, u8>(task, sched_offset!(on_cpu)) != 0 {
        (State::Running, Cause::Unknown, 0)
    } else if get::<true, u8>(task, sched_offset!(on_rq)) != 0 && state == 0 {
        (State::Runnable, Cause::Unknown, 0)
    } else {
        let flags = if is_uninterruptible(state) { UNINTERRUPTIBLE } else { 0 };
        (State::Blocked, blocked::why::<true>(task, state), flags)
    };
    make(Maker::Iterator, task, state, cause, flags, start, BPF_NOEXIST as u64);
}
