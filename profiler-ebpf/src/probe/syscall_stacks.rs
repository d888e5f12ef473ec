//! Events `syscalls` and `syscall-time`: who makes system calls, and where, and how long they take.
//!
//! Hooks: raw tracepoints `sys_enter` (registers, number), at which the user stack is walked and the call counted;
//! `sys_exit` (registers, returned), if times are asked for; `sched_process_exit` (task). There is no kernel stack: at the entry
//! it has nothing but the entry. What the walk takes is not in the time.
//!
//! Threads are known by their `task_struct`: unlike the thread id, that stays the same when a thread executes a program in
//! its leader's place. An entry is written by its thread alone. The kernel does not run a program of these tracepoints
//! while it runs already on the same CPU, and the programs that go on with a walk run as a part of the one that began it:
//! the CPU's walk has one owner.

use aya_ebpf::{
    Global,
    bindings::BPF_ANY,
    btf_maps::{HashMap, PerCpuArray, ProgramArray},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task, bpf_ktime_get_ns},
    },
    macros::btf_map,
    programs::RawTracePointContext,
};
use profiler_common::{
    loss::Loss,
    probe::syscall_stacks::{CallStackConfig, Detail, InCall, MAX_IN_CALLS, NUMBERS, Wanted},
    sample::{CountKey, Seen, WALK, What},
    stack::{EMPTY_STACK, WalkEnd},
};

use super::syscalls::is_compat;
use crate::{
    filter, loss, sample,
    stack::{self, Side},
    task,
    unwind::{self, Slot, Walk},
};

/// What is asked for.
#[unsafe(no_mangle)]
static CALL_STACKS: Global<CallStackConfig> =
    Global::new(CallStackConfig { counted: Wanted::NONE, timed: Wanted::NONE });

/// Threads that make calls, by their `task_struct`.
#[btf_map]
static IN_CALLS: HashMap<u64, InCall, MAX_IN_CALLS> = HashMap::new();

/// What a new entry is made from: it is too large for a program's stack.
#[btf_map]
static NEW_IN_CALL: PerCpuArray<InCall, 1> = PerCpuArray::new();

#[btf_map]
static CALLSTACKS_PROGRAMS: ProgramArray<2> = ProgramArray::new();

const COUNTED: u32 = 1;
const TIMED: u32 = 2;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn current() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task() }
}

#[inline(always)]
fn find(task: u64) -> Option<&'static mut InCall> {
    // SAFETY: a map value stays valid memory while the program runs, and has one writer (see above).
    IN_CALLS.get_ptr_mut(task).map(|entry| unsafe { &mut *entry })
}

#[inline(always)]
fn find_or_insert(task: u64) -> Option<&'static mut InCall> {
    if let Some(entry) = find(task) {
        return Some(entry);
    }
    let new = NEW_IN_CALL.get_ptr(0)?;
    // SAFETY: nobody writes it.
    let new: &InCall = unsafe { &*new };
    if IN_CALLS.insert(task, new, BPF_ANY as u64).is_err() {
        loss::count(Loss::InCallsFull);
        return None;
    }
    find(task)
}

/// Whether one of the two kinds of calls that are asked for has that number.
macro_rules! is_wanted {
    ($kind:ident, $number:expr, $compat:expr) => {{
        let config = (&raw const CALL_STACKS).cast::<CallStackConfig>();
        // SAFETY: members of a global that is initialized and never written; volatile because the loader replaces what
        // the compiler sees.
        let (all, some) = unsafe {
            ((&raw const (*config).$kind.all).read_volatile(), (&raw const (*config).$kind.some).read_volatile())
        };
        let number = $number as usize;
        if all != 0 {
            true
        } else if some == 0 || number >= NUMBERS {
            false
        } else {
            let at = (number / 64) & (NUMBERS / 64 - 1);
            // SAFETY: as above, and within bounds.
            let word = unsafe {
                if $compat {
                    (&raw const (*config).$kind.compat[at]).read_volatile()
                } else {
                    (&raw const (*config).$kind.native[at]).read_volatile()
                }
            };
            word >> (number % 64) & 1 != 0
        }
    }};
}

/// A call begins.
#[inline(always)]
pub fn entered(ctx: &RawTracePointContext) {
    sample::seen(What::Call, Seen::Hits);
    let number = ctx.arg::<u64>(1) as u32;
    let compat = task::with_current(is_compat::<true>, is_compat::<false>);
    let mut wanted = 0;
    if is_wanted!(counted, number, compat) {
        wanted |= COUNTED;
    }
    if is_wanted!(timed, number, compat) {
        wanted |= TIMED;
    }
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let comm = bpf_get_current_comm().unwrap_or_default();
    if wanted == 0 || !filter::wanted(&filter::config(), pid, &comm) {
        sample::seen(What::Call, Seen::Filtered);
        return;
    }
    let Some(walk) = unwind::current(Slot::Syscall) else {
        loss::count(Loss::NoScratch);
        return;
    };
    let Some(entry) = find_or_insert(current()) else { return };
    entry.incarnation = task::incarnation();
    entry.at_ns = now();
    (entry.since_ns, entry.user_stack) = (0, EMPTY_STACK);
    (entry.pid, entry.tid, entry.comm) = (pid, tid, comm);
    (entry.detail, entry.wanted) = (Detail::of(number, compat).0, wanted);
    walk_user(ctx, walk, entry);
}

#[inline(always)]
fn walk_user(ctx: &RawTracePointContext, walk: &mut Walk, entry: &mut InCall) {
    let end = match unwind::begin(walk, entry.pid, entry.incarnation, entry.at_ns) {
        Ok(()) => {
            if let Some(known) = walk.known(&entry.memo) {
                entry.user_stack = known;
                return begun(entry);
            }
            // SAFETY: nothing is owned that would have to be dropped.
            unsafe { CALLSTACKS_PROGRAMS.tail_call(ctx, WALK) };
            WalkEnd::TailCallFailed
        }
        Err(end) => end,
    };
    entry.user_stack = stack::capture(ctx, Side::User, end, &mut walk.stack);
    begun(entry);
}

/// Walks that stack on.
#[inline(always)]
pub fn walk(ctx: &RawTracePointContext) {
    let Some(walk) = unwind::current(Slot::Syscall) else { return };
    unwind::go_on::<true, _>(ctx, walk, &CALLSTACKS_PROGRAMS);
    walked();
}

/// Keeps that stack, which has been walked.
#[inline(always)]
pub fn walked() {
    let Some(walk) = unwind::current(Slot::Syscall) else {
        loss::count(Loss::NoScratch);
        return;
    };
    if let Some(entry) = find(current()) {
        entry.user_stack = stack::keep(Side::User, &walk.stack);
        if walk.stack.end == WalkEnd::Complete as u32 {
            walk.keep(&mut entry.memo, entry.user_stack);
        }
        begun(entry);
    }
}

#[inline(always)]
fn key(entry: &InCall, what: What) -> CountKey {
    CountKey {
        pid: entry.pid,
        tid: entry.tid,
        incarnation: entry.incarnation,
        kernel_stack: EMPTY_STACK,
        user_stack: entry.user_stack,
        what: what as u32,
        detail: entry.detail,
    }
}

/// The call's stack is known: its time begins.
#[inline(always)]
fn begun(entry: &mut InCall) {
    if entry.wanted & COUNTED != 0 {
        sample::add(&key(entry, What::Call), 0, entry.at_ns, &entry.comm);
    }
    if entry.wanted & TIMED != 0 {
        entry.since_ns = now();
    }
}

/// A call is over. New threads come out of one that they did not enter, and so do those that were in one at the start.
#[inline(always)]
pub fn returned() {
    let Some(entry) = find(current()) else { return };
    if entry.since_ns == 0 {
        return;
    }
    let ns = now().saturating_sub(entry.since_ns);
    entry.since_ns = 0;
    sample::add(&key(entry, What::CallTime), ns, entry.at_ns, &entry.comm);
}

/// A thread ends; the call that it is in does not return.
#[inline(always)]
pub fn ended(ctx: &RawTracePointContext) {
    // It need not be there.
    _ = IN_CALLS.remove(ctx.arg::<u64>(0));
}
