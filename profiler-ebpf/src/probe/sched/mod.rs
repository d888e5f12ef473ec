//! Probe `sched`: exact accounting of threads (on the CPU, waiting for one, blocked and why) and of CPUs.
//!
//! Hooks: BTF tracepoints `sched_switch`, `sched_waking`, `sched_wakeup`, `sched_wakeup_new`, `sched_migrate_task`,
//! `sched_process_exec`, `task_rename`; raw tracepoints `irq_handler_entry/exit`, `softirq_entry/exit` and, on x86-64,
//! `local_timer_entry/exit` (the timer's interrupt has no handler there that the others would tell of). A task iterator
//! puts in the threads that exist at the start.
//!
//! A switch closes what the task that leaves did since it came, and the wait of the one that comes; a wake-up closes
//! what the task was blocked for. Every event reads the clock once. The tracepoints of one task come one at a time, with
//! interrupts off and a run queue's lock held, so that accounts need no atomics and no copies for each CPU; a wake-up
//! comes behind the switch that it ends the wait of (`try_to_wake_up`, kernel/sched/core.c, waits for `on_cpu`, or leaves
//! the wake-up to the CPU that is switching).
//!
//! Should an event not be seen all the same (some kernels run no programs while a protected task is the current one), it
//! is counted, and time that cannot be told whose it is stays visible as unknown.

mod accounts;
mod counters;
mod cpus;

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::Array,
    helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns},
    macros::btf_map,
    programs::BtfTracePointContext,
};
use profiler_common::{
    Comm,
    loss::Loss,
    probe::sched::{
        COUNTERS, Cpu, Gate, IN_CGROUP, State, Thread, UNINTERRUPTIBLE, log2_bucket, wait_bucket,
    },
    sched::cause::{Cause, DEAD, is_uninterruptible},
};

use self::accounts::{Maker, account, account_or_new, end, is_wanted, make};
use self::cpus::{close_slice, cpu};
pub use self::{
    accounts::seed,
    cpus::{hardirq_entry, hardirq_exit, irq_ns, softirq_entry, softirq_exit},
};
use crate::{
    filter::{self, filter_member},
    loss,
    probe::syscalls,
    sched::{
        blocked,
        member::{get, given_name, sched_offset},
    },
    task::task_offset,
};

/// What user space sets, by [`Gate`].
#[btf_map]
static GATES: Array<u64, { Gate::COUNT }> = Array::new();

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// What user space has set.
#[inline(always)]
pub fn gate(gate: Gate) -> u64 {
    // SAFETY: a word of an array, read whole.
    GATES.get_ptr(gate as u32).map_or(0, |word| unsafe { word.read_volatile() })
}

/// `a - b`; 0 if the clock of another CPU was a little ahead.
#[inline(always)]
fn since(now: u64, then: u64) -> u64 {
    now.saturating_sub(then)
}

/// The same number, of which the compiler knows nothing any more: it would leave out the check of an index whose bounds
/// it can derive, and the verifier cannot.
#[inline(always)]
fn opaque(index: usize) -> usize {
    // SAFETY: a local number.
    unsafe { (&raw const index).read_volatile() }
}

/// `sched_switch(preempt, prev, next)`.
#[inline(always)]
pub fn switch(ctx: &BtfTracePointContext) {
    let start = gate(Gate::Start);
    let Some(cpu) = cpu() else { return };
    if start == 0 {
        return;
    }
    let now = now();
    let (preempted, prev, next): (u64, *const u8, *const u8) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let leaves_idle = get::<true, u32>(prev, task_offset!(pid)) == 0;
    let enters_idle = get::<true, u32>(next, task_offset!(pid)) == 0;
    let counted = counters::advance(cpu, prev as u64);
    let irq = close_slice(cpu, start, now, prev as u64, leaves_idle);
    cpu.current = next as u64;
    cpu.idle = enters_idle as u64;
    if !leaves_idle {
        let mut thread = account_or_new(prev, State::Running, now);
        in_call(thread.as_deref_mut(), |hint| syscalls::leaves(hint, prev as u64, || now));
        if let Some(thread) = thread {
            leave(thread, prev, preempted as u8 != 0, Slice { irq, counted }, now);
        }
    }
    if !enters_idle {
        let mut thread = account_or_new(next, State::Runnable, now);
        in_call(thread.as_deref_mut(), |hint| syscalls::comes(hint, next as u64, || now));
        if let Some(thread) = thread {
            enter(thread, cpu, now);
        }
    }
}

/// Tells the accounts of system calls, if there are any. `tell` is given where the task's was last found, and gives where it is.
#[inline(always)]
fn in_call(thread: Option<&mut Thread>, tell: impl FnOnce(u32) -> u32) {
    if !syscalls::are_of_threads() {
        return;
    }
    match thread {
        Some(thread) => thread.caller = tell(thread.caller),
        None => _ = tell(0),
    }
}

/// What was on a CPU since its last switch, besides the thread.
struct Slice {
    /// Time that interrupts took.
    irq: u64,
    /// What the performance counters counted.
    counted: [u64; COUNTERS],
}

/// A thread leaves the CPU.
#[inline(always)]
fn leave(thread: &mut Thread, task: *const u8, preempted: bool, on_cpu: Slice, now: u64) {
    let slice = since(now, thread.since_ns);
    if thread.state == State::Running as u8 {
        let irq = if on_cpu.irq < slice { on_cpu.irq } else { slice };
        for (sum, counted) in thread.counters.iter_mut().zip(on_cpu.counted) {
            *sum += counted;
        }
        thread.cpu_ns += slice - irq;
        thread.irq_ns += irq;
    } else {
        // It was not seen to come.
        thread.unknown_ns += slice;
    }
    thread.since_ns += slice;
    thread.switches += 1;
    thread.voluntary_after = get::<true, u64>(task, sched_offset!(nvcsw));
    let mut flags = 0;
    let cgroup = filter_member!(cgroup_id);
    if cgroup != 0 && filter::in_cgroup(cgroup, filter_member!(cgroup_level)) {
        flags |= IN_CGROUP;
    }
    let state = blocked::state::<true>(task);
    if thread.switches == 1 && thread.voluntary_before == thread.voluntary_after && !preempted && state != 0 {
        // The account was made at this switch, which the kernel has counted already.
        thread.voluntary_before -= 1;
    }
    if preempted || state == 0 {
        thread.state = State::Runnable as u8;
    } else if state & DEAD != 0 {
        thread.flags = flags;
        return end(thread, task);
    } else {
        thread.state = State::Blocked as u8;
        thread.cause = blocked::why::<true>(task, state) as u8;
        if is_uninterruptible(state) {
            flags |= UNINTERRUPTIBLE;
        }
    }
    thread.flags = flags;
}

/// A thread comes to the CPU.
#[inline(always)]
fn enter(thread: &mut Thread, cpu: &mut Cpu, now: u64) {
    let wait = since(now, thread.since_ns);
    if thread.state == State::Blocked as u8 {
        loss::count(Loss::WakeupsMissed);
        unblock(thread, wait);
    } else if thread.state == State::Running as u8 {
        // It was not seen to leave.
        thread.unknown_ns += wait;
    } else {
        thread.run_queue_ns += wait;
        thread.run_queue_count += 1;
        if wait > thread.run_queue_max_ns {
            thread.run_queue_max_ns = wait;
        }
        if let Some(bucket) = thread.waits.get_mut(opaque(wait_bucket(wait)))
            && *bucket != u32::MAX
        {
            *bucket += 1;
        }
        if let Some(bucket) = cpu.waits.get_mut(opaque(log2_bucket(wait))) {
            *bucket += 1;
        }
    }
    thread.since_ns += wait;
    thread.state = State::Running as u8;
}

/// Closes a blocked time.
#[inline(always)]
fn unblock(thread: &mut Thread, blocked: u64) {
    if let Some(sum) = thread.blocked_ns.get_mut(opaque(thread.cause as usize)) {
        *sum += blocked;
    }
    if thread.flags & UNINTERRUPTIBLE != 0 {
        thread.uninterruptible_ns += blocked;
    }
}

/// `sched_wakeup(task)`: it can run.
#[inline(always)]
pub fn wakeup(ctx: &BtfTracePointContext) {
    if gate(Gate::Start) == 0 {
        return;
    }
    let task: *const u8 = ctx.arg(0);
    let now = now();
    let Some(thread) = account_or_new(task, State::Blocked, now) else { return };
    thread.wakeups_got += 1;
    // Else it was woken before it had left the CPU, or while it waited for one.
    if thread.state == State::Blocked as u8 {
        let blocked = since(now, thread.since_ns);
        unblock(thread, blocked);
        thread.since_ns += blocked;
        thread.state = State::Runnable as u8;
    }
}

/// `sched_waking(task)`: the current thread wakes it, unless an interrupt does that hit it.
#[inline(always)]
pub fn waking() {
    if gate(Gate::Start) == 0 {
        return;
    }
    if let Some(cpu) = cpu()
        && cpu.hardirq_since_ns == 0
        && cpu.softirq_since_ns == 0
        // SAFETY: the helper has no precondition.
        && let Some(thread) = account(unsafe { bpf_get_current_task() } as *const u8)
    {
        thread.wakeups_given += 1;
    }
}

/// `sched_wakeup_new(task)`: a thread was made.
#[inline(always)]
pub fn wakeup_new(ctx: &BtfTracePointContext) {
    let task: *const u8 = ctx.arg(0);
    if gate(Gate::Start) == 0 || !is_wanted(task) {
        return;
    }
    if account(task).is_some() {
        // The address was another thread's, which ended and did not fit into the ring.
        loss::count(Loss::EndedThreads);
    }
    make(Maker::Event, task, State::Runnable, Cause::Unknown, 0, now(), BPF_ANY as u64);
}

/// `sched_migrate_task(task, cpu)`.
#[inline(always)]
pub fn migrate(ctx: &BtfTracePointContext) {
    if gate(Gate::Start) != 0
        && let Some(thread) = account(ctx.arg(0))
    {
        thread.migrations += 1;
    }
}

/// `sched_process_exec(task, ...)`: a thread that is not its process's first takes that one's id.
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) {
    let task: *const u8 = ctx.arg(0);
    if let Some(thread) = account(task) {
        thread.tid = get::<true, u32>(task, task_offset!(pid));
        thread.tgid = get::<true, u32>(task, task_offset!(tgid));
    }
}

/// `task_rename(task, comm)`: the name that it gets now.
#[inline(always)]
pub fn rename(ctx: &BtfTracePointContext) {
    if let Some(thread) = account(ctx.arg(0))
        && let Some(comm) = given_name(ctx.arg::<*const Comm>(1))
    {
        thread.comm = comm;
    }
}
