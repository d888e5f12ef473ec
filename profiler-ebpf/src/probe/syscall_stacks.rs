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
    sample::{CountKey, Seen, What},
    stack::EMPTY_STACK,
};

use super::syscalls::is_compat;
use crate::{
    entry, filter, loss, sample, task,
    unwind::{
        self, Slot,
        user::{self, Whose},
    },
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
    entry::find(&IN_CALLS, task)
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
    let found = entry::find_or_insert(&IN_CALLS, &NEW_IN_CALL, current(), Loss::InCallsFull);
    let Some(entry) = found else { return };
    entry.incarnation = task::incarnation();
    entry.at_ns = now();
    (entry.since_ns, entry.user_stack) = (0, EMPTY_STACK);
    (entry.pid, entry.tid, entry.comm) = (pid, tid, comm);
    (entry.detail, entry.wanted) = (Detail::of(number, compat).0, wanted);
    let whose = Whose { pid, incarnation: entry.incarnation, at_ns: entry.at_ns };
    entry.user_stack = user::capture(ctx, walk, &whose, &entry.memo, &CALLSTACKS_PROGRAMS);
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
        entry.user_stack = user::walked(walk, &mut entry.memo);
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
