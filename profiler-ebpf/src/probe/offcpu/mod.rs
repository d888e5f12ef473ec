//! Probe `offcpu` and `runq`: who is off the CPU, for how long, where and why.
//!
//! Hooks, all with interrupts off and the run queue locked:
//! - raw tracepoint `sched_switch` (preempt, prev, next), hit while the task that leaves is still the current one
//!   (`__schedule`, kernel/sched/core.c): its stacks are captured and its state is kept ([`WAITS`]); the wait of the one
//!   that comes is over and counted.
//! - raw tracepoint `sched_wakeup` (task), hit when the task has been put into a run queue (`ttwu_do_wakeup`): it was
//!   blocked until now. Not `sched_waking`, which can be hit before the task has left.
//! - raw tracepoint `sched_wakeup_new` (task), the same for a task that was just made (`wake_up_new_task`), hit while its
//!   maker is the current one: it waits for its first CPU from now on.
//!
//! Yields counts keyed as those of the `cpu` probe, with durations; under `What::Blocked` and `What::Queued`, by cause.
//!
//! A task's entry is written by one program at a time: by the CPU that it leaves, by the one that wakes it (which waits
//! until the first is done with it), by the one that it gets; each holds the lock of the run queue that the task is in.
//! [`wakers`] keeps who woke it beside that.

pub mod wakers;

use aya_ebpf::{
    Global,
    btf_maps::{HashMap, PerCpuArray, ProgramArray},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    },
    macros::btf_map,
    programs::RawTracePointContext,
};
use profiler_common::{
    loss::Loss,
    sample::{CountKey, Seen, What},
    sched::{
        cause::{DEAD, is_uninterruptible},
        wait::{Detail, MAX_WAITS, Place, Queue, State, Wait, WaitConfig},
    },
    stack::EMPTY_STACK,
};

use crate::{
    entry, filter, loss, sample,
    sched::blocked,
    task, tuning,
    unwind::{
        self, Slot,
        user::{self, Whose},
    },
};

/// What is asked for. Its parts are constants for the verifier.
#[unsafe(no_mangle)]
static WAIT_CONFIG: Global<WaitConfig> =
    Global::new(WaitConfig { min_block_ns: 0, blocked: 1, queued: 1, wakers: 0, guess_short: 0 });

/// 1: which blocked times are short is guessed. Never of a copy of all: verifiers before 5.16 forget of a word of 4 bytes on the
/// stack that it was constant, and would follow all that is behind it where nothing is guessed too.
#[inline(always)]
fn is_guessed() -> bool {
    let config = (&raw const WAIT_CONFIG).cast::<WaitConfig>();
    // SAFETY: a member of a global that is initialized and never written; volatile because the loader replaces what the
    // compiler sees.
    unsafe { (&raw const (*config).guess_short).read_volatile() != 0 }
}

/// Tasks that have left a CPU once, by thread id, until they end.
#[btf_map]
static WAITS: HashMap<u32, Wait, MAX_WAITS> = HashMap::new();

/// What a new entry is made from: it is too large for a program's stack.
#[btf_map]
static NEW_WAIT: PerCpuArray<Wait, 1> = PerCpuArray::new();

#[btf_map]
static OFFCPU_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// A task's entry.
#[inline(always)]
fn find(tid: u32) -> Option<&'static mut Wait> {
    entry::find(&WAITS, tid)
}

/// A task's entry, made if there is none.
#[inline(always)]
fn find_or_insert(tid: u32) -> Option<&'static mut Wait> {
    entry::find_or_insert(&WAITS, &NEW_WAIT, tid, Loss::WaitsFull)
}

/// A task leaves the CPU for another one.
#[inline(always)]
pub fn switched(ctx: &RawTracePointContext) {
    // SAFETY: the helper has no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // Where it is guessed, waits for a CPU are not counted, and what was blocked is at its wake-up.
    if !is_guessed()
        && let Some((_, tid)) = task::ids(ctx.arg(2))
        && tid != 0
    {
        came(tid, now_ns);
    }
    let preempt: u64 = ctx.arg(0);
    left(ctx, preempt & 1 != 0, now_ns);
}

/// A task was put into a run queue.
#[inline(always)]
pub fn woken(ctx: &RawTracePointContext) {
    let Some((_, tid)) = task::ids(ctx.arg(0)) else { return };
    let Some(wait) = find(tid) else { return };
    // A task that had not left yet was not blocked.
    if wait.state != State::Blocked as u32 {
        if WAIT_CONFIG.load().wakers != 0 {
            wakers::forget(tid);
        }
        return;
    }
    // SAFETY: the helper has no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    count(wait, tid, now_ns.saturating_sub(wait.since_ns));
    if is_guessed() {
        wait.state = State::Running as u32;
        return;
    }
    wait.state = State::Queued as u32;
    wait.detail = Detail::queued(Queue::Woken).0;
    wait.since_ns = now_ns;
}

/// The current task has made another one, which was put into a run queue. It has not been anywhere yet: no stacks.
#[inline(always)]
pub fn made(ctx: &RawTracePointContext) {
    if WAIT_CONFIG.load().queued == 0 {
        return;
    }
    let task: *const u8 = ctx.arg(0);
    let Some((pid, tid)) = task::ids(task) else { return };
    // It has its maker's name, and is in its control group.
    let comm = bpf_get_current_comm().unwrap_or_default();
    if !filter::wanted(&filter::config(), pid, &comm) {
        return;
    }
    let Some(wait) = find_or_insert(tid) else { return };
    // SAFETY: the helper has no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    wait.incarnation = task::incarnation_of(task);
    (wait.since_ns, wait.left_ns) = (now_ns, now_ns);
    (wait.pid, wait.comm) = (pid, comm);
    (wait.kernel_stack, wait.user_stack) = (EMPTY_STACK, EMPTY_STACK);
    // Another task may have had the id before.
    (wait.switches, wait.run_delay_ns) = (0, 0);
    (wait.state, wait.detail) = (State::Queued as u32, Detail::queued(Queue::New).0);
}

/// A task gets a CPU.
#[inline(always)]
fn came(tid: u32, now_ns: u64) {
    let Some(wait) = find(tid) else { return };
    count(wait, tid, now_ns.saturating_sub(wait.since_ns));
    wait.state = State::Running as u32;
}

/// Programs do not run while some tasks are the current one (kernels that protect an agent): switches from such a task
/// and to it are not seen. A wait whose end was missed took what the kernel itself has added to the task's waits since;
/// anything else is lost, and counted as such. `switches`, `run_delay_ns`: the kernel's numbers now, as the task leaves a CPU.
#[inline(always)]
fn catch_up(wait: &mut Wait, tid: u32, switches: u64, run_delay_ns: u64) {
    if wait.switches == 0 {
        return;
    }
    let waited_ns = run_delay_ns.wrapping_sub(wait.run_delay_ns);
    let is_known = wait.state == State::Queued as u32 && run_delay_ns != 0;
    if is_known {
        count(wait, tid, waited_ns);
    }
    if WAIT_CONFIG.load().wakers != 0 && wait.state == State::Blocked as u32 {
        wakers::forget(tid);
    }
    let lost = u64::from(wait.state != State::Running as u32 && !is_known);
    // All of them are seen only where waits for a CPU are asked for.
    let unseen = if WAIT_CONFIG.load().queued != 0 { switches.wrapping_sub(wait.switches + 1) } else { 0 };
    if lost + unseen != 0 {
        loss::add(Loss::SwitchNotTraced, lost + unseen);
    }
}

/// Counts what a task has done, if it was waiting and that is asked for.
#[inline(always)]
fn count(wait: &mut Wait, tid: u32, ns: u64) {
    let config = WAIT_CONFIG.load();
    let is_blocked = wait.state == State::Blocked as u32;
    let is_queued = wait.state == State::Queued as u32;
    if !(is_blocked && config.blocked != 0 || is_queued && config.queued != 0) {
        return;
    }
    let what = if is_blocked { What::Blocked } else { What::Queued };
    let mut key = CountKey {
        pid: wait.pid,
        tid,
        incarnation: wait.incarnation,
        kernel_stack: wait.kernel_stack,
        user_stack: wait.user_stack,
        what: what as u32,
        detail: wait.detail,
    };
    if is_guessed() && is_blocked {
        let is_short = tuning::is_short(ns);
        if let Some(place) = wait.places.get_mut(Place::slot(wait.place)) {
            place.learn(wait.place, is_short);
        }
        if is_short {
            (key.kernel_stack, key.user_stack) = (EMPTY_STACK, EMPTY_STACK);
            key.detail = Detail(wait.detail).short().0;
        }
    } else if is_blocked && ns < config.min_block_ns && !Detail(wait.detail).is_not_sampled() {
        (key.kernel_stack, key.user_stack) = (EMPTY_STACK, EMPTY_STACK);
        key.detail = Detail(wait.detail).short().0;
    } else if is_blocked && config.wakers != 0 && !Detail(wait.detail).is_not_sampled() {
        key.user_stack = wakers::joined(wait, tid);
    }
    sample::add(&key, ns, wait.left_ns, &wait.comm);
}

/// The current task leaves the CPU.
#[inline(always)]
fn left(ctx: &RawTracePointContext, preempt: bool, now_ns: u64) {
    sample::seen(What::Blocked, Seen::Hits);
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    if tid == 0 {
        sample::seen(What::Blocked, Seen::IdleTask);
        return;
    }
    // What is left of the state: 0 if a signal came in time, or if the task only gives way.
    let state = if preempt { 0 } else { task::with_current(blocked::state::<true>, blocked::state::<false>) };
    if state & DEAD != 0 {
        // It need not be there.
        _ = WAITS.remove(tid);
        if WAIT_CONFIG.load().wakers != 0 {
            wakers::remove(tid);
        }
        return;
    }
    let config = WAIT_CONFIG.load();
    if state == 0 && config.queued == 0 {
        return;
    }
    let comm = bpf_get_current_comm().unwrap_or_default();
    if !filter::wanted(&filter::config(), pid, &comm) {
        sample::seen(What::Blocked, Seen::Filtered);
        return;
    }
    let Some(walk) = unwind::current(Slot::Tracepoint) else {
        loss::count(Loss::NoScratch);
        return;
    };
    let Some(wait) = find_or_insert(tid) else { return };
    let (doing, detail) = if state != 0 {
        let cause = task::with_current(
            |task| blocked::why::<true>(task, state),
            |task| blocked::why::<false>(task, state),
        );
        (State::Blocked, Detail::blocked(cause, is_uninterruptible(state)))
    } else {
        (State::Queued, Detail::queued(Queue::Preempted))
    };
    if is_guessed() {
        if wait.state == State::Blocked as u32 {
            loss::count(Loss::SwitchNotTraced);
        }
    } else {
        let switches = task::with_current(blocked::switches::<true>, blocked::switches::<false>);
        let run_delay_ns = task::with_current(blocked::run_delay_ns::<true>, blocked::run_delay_ns::<false>);
        catch_up(wait, tid, switches, run_delay_ns);
        (wait.switches, wait.run_delay_ns) = (switches, run_delay_ns);
    }
    wait.incarnation = task::incarnation();
    (wait.since_ns, wait.left_ns) = (now_ns, now_ns);
    (wait.pid, wait.comm) = (pid, comm);
    (wait.state, wait.detail) = (doing as u32, detail.0);
    if is_guessed() {
        wait.place = task::with_current(blocked::place::<true>, blocked::place::<false>);
    }
    if state != 0 && (is_expected_short(wait) || !tuning::has_stack()) {
        wait.detail = detail.not_sampled().0;
        (wait.kernel_stack, wait.user_stack) = (EMPTY_STACK, EMPTY_STACK);
        return;
    }
    wait.kernel_stack = unwind::kernel::capture(ctx, &mut wait.kernel_memo, walk, now_ns);
    wait.user_stack = EMPTY_STACK;
    let whose = Whose { pid, incarnation: wait.incarnation, at_ns: now_ns };
    wait.user_stack = user::capture(ctx, walk, &whose, &wait.memo, &OFFCPU_PROGRAMS);
}

/// Whether the blocked time that begins is taken for too short for a stack. One in 16 is looked at all the same, at random.
#[inline(always)]
fn is_expected_short(wait: &Wait) -> bool {
    const LOOK: u32 = 16;
    is_guessed()
        && wait.places.get(Place::slot(wait.place)).is_some_and(|place| place.is_short(wait.place))
        // SAFETY: the helper has no precondition.
        && unsafe { bpf_get_prandom_u32() } % LOOK != 0
}

/// Walks that stack on.
#[inline(always)]
pub fn walk(ctx: &RawTracePointContext) {
    let Some(walk) = unwind::current(Slot::Tracepoint) else { return };
    unwind::go_on::<true, _>(ctx, walk, &OFFCPU_PROGRAMS);
    walked();
}

/// Keeps that stack, which has been walked.
#[inline(always)]
pub fn walked() {
    let Some(walk) = unwind::current(Slot::Tracepoint) else {
        loss::count(Loss::NoScratch);
        return;
    };
    if let Some(wait) = find(bpf_get_current_pid_tgid() as u32) {
        wait.user_stack = user::walked(walk, &mut wait.memo);
    }
}
