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

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns, bpf_ringbuf_query},
    macros::btf_map,
    programs::BtfTracePointContext,
};
use profiler_common::{
    Comm,
    loss::Loss,
    probe::sched::{Cpu, Gate, IN_CGROUP, KEPT, State, Thread, UNINTERRUPTIBLE, log2_bucket, wait_bucket},
    sched::cause::{Cause, DEAD, is_uninterruptible},
};

use crate::{
    filter, loss,
    sched::{
        blocked,
        member::{get, probe, sched_offset},
    },
    task::{self, task_offset},
};

/// Accounts by task. Shrunk to one entry at load if the scheduler is not looked at.
#[btf_map]
static THREADS: HashMap<u64, Thread, 16384> = HashMap::new();

/// Accounts of CPUs.
#[btf_map]
static CPUS: PerCpuArray<Cpu, 1> = PerCpuArray::new();

/// What user space sets, by [`Gate`].
#[btf_map]
static GATES: Array<u64, { Gate::COUNT }> = Array::new();

/// Where new accounts are made: for events, and for the iterator, which events interrupt. Members that are not set for
/// each new account stay 0.
#[btf_map]
static NEW_THREADS: PerCpuArray<Thread, 2> = PerCpuArray::new();

/// Bytes of accounts that user space has not read yet.
const ENDED_BYTES: usize = 1024 * 1024;

/// Accounts of threads that ended. User space looks every now and then; it is woken when a quarter is full.
#[btf_map]
static ENDED: RingBuf<Thread, ENDED_BYTES> = RingBuf::new();

/// `BPF_RB_*`, include/uapi/linux/bpf.h.
const RB_AVAIL_DATA: u64 = 0;
const RB_NO_WAKEUP: u64 = 1;
const RB_FORCE_WAKEUP: u64 = 2;

/// Place of a new account in `NEW_THREADS`.
#[derive(Clone, Copy)]
enum Maker {
    Event = 0,
    Iterator = 1,
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn gate(gate: Gate) -> u64 {
    // SAFETY: a word of an array, read whole.
    GATES.get_ptr(gate as u32).map_or(0, |word| unsafe { word.read_volatile() })
}

/// This CPU's account.
#[inline(always)]
fn cpu() -> Option<&'static mut Cpu> {
    // SAFETY: it is this CPU's. Interrupts may come in between on purpose, see `softirq_entry`.
    CPUS.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}

#[inline(always)]
fn account(task: *const u8) -> Option<&'static mut Thread> {
    // SAFETY: one writer for each member at a time, see the module; entries are preallocated, and removed only when the
    // task is gone.
    THREADS.get_ptr_mut(task as u64).map(|thread| unsafe { &mut *thread })
}

/// Whether the task's process is looked at.
#[inline(always)]
fn is_wanted(task: *const u8) -> bool {
    filter::config().by_process == 0 || filter::is_target(get::<true, u32>(task, task_offset!(tgid)))
}

/// The account of a task; a new one if there is none, in the state that it must have been in.
#[inline(always)]
fn account_or_new(task: *const u8, state: State, now: u64) -> Option<&'static mut Thread> {
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
fn make(maker: Maker, task: *const u8, state: State, cause: Cause, flags: u8, born: u64, how: u64) {
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
    let result = THREADS.insert(task as u64, &*new, how);
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

/// `a - b`; 0 if the clock of another CPU was a little ahead.
#[inline(always)]
fn since(now: u64, then: u64) -> u64 {
    if now > then { now - then } else { 0 }
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
    let irq = close_slice(cpu, start, now, prev as u64, leaves_idle);
    cpu.current = next as u64;
    cpu.idle = enters_idle as u64;
    if !leaves_idle && let Some(thread) = account_or_new(prev, State::Running, now) {
        leave(thread, prev, preempted as u8 != 0, irq, now);
    }
    if !enters_idle && let Some(thread) = account_or_new(next, State::Runnable, now) {
        enter(thread, cpu, now);
    }
}

/// Closes what the CPU did since the last switch; gives the time of it that interrupts took.
#[inline(always)]
fn close_slice(cpu: &mut Cpu, start: u64, now: u64, prev: u64, leaves_idle: bool) -> u64 {
    if cpu.softirq_since_ns != 0 {
        // Only where soft interrupts can be switched away from (PREEMPT_RT).
        close_softirq(cpu, now);
    }
    let begun = if cpu.since_ns == 0 { start } else { cpu.since_ns };
    let slice = since(now, begun);
    let irq_total = cpu.hardirq_ns + cpu.softirq_ns;
    let irq = irq_total - cpu.irq_at_ns;
    let irq = if irq < slice { irq } else { slice };
    let is_expected = cpu.since_ns == 0 || cpu.current == prev;
    if !is_expected {
        loss::count(Loss::SwitchesMissed);
    }
    if !is_expected && (cpu.idle != 0) != leaves_idle {
        cpu.unknown_ns += slice - irq;
    } else if leaves_idle {
        cpu.idle_ns += slice - irq;
    } else {
        cpu.busy_ns += slice - irq;
        if let Some(bucket) = cpu.slices.get_mut(opaque(log2_bucket(slice))) {
            *bucket += 1;
        }
    }
    cpu.irq_at_ns = irq_total;
    cpu.since_ns = begun + slice;
    cpu.switches += 1;
    irq
}

/// A thread leaves the CPU.
#[inline(always)]
fn leave(thread: &mut Thread, task: *const u8, preempted: bool, irq: u64, now: u64) {
    let slice = since(now, thread.since_ns);
    if thread.state == State::Running as u8 {
        let irq = if irq < slice { irq } else { slice };
        thread.cpu_ns += slice - irq;
        thread.irq_ns += irq;
    } else {
        // It was not seen to come.
        thread.unknown_ns += slice;
    }
    thread.since_ns += slice;
    thread.switches += 1;
    thread.voluntary_after = get::<true, u64>(task, sched_offset!(nvcsw));
    let config = filter::config();
    let mut flags = 0;
    if config.cgroup_id != 0 && filter::in_cgroup(&config) {
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

/// A thread has left the CPU for good: its account goes to user space. If there is no room, it stays where it is and
/// user space finds it there.
#[inline(always)]
fn end(thread: &mut Thread, task: *const u8) {
    thread.state = State::Ended as u8;
    // SAFETY: the helper takes any ring and any flag.
    let unread = unsafe { bpf_ringbuf_query((&raw const ENDED).cast_mut().cast(), RB_AVAIL_DATA) };
    let wake = if unread > ENDED_BYTES as u64 / 4 { RB_FORCE_WAKEUP } else { RB_NO_WAKEUP };
    if ENDED.output(&*thread, wake).is_ok() {
        // It was there.
        _ = THREADS.remove(task as u64);
    } else {
        thread.flags |= KEPT;
    }
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
        && let Some(mut comm) = probe(ctx.arg::<*const Comm>(1))
    {
        // What stands behind the terminator is the caller's memory, not the name.
        let mut ended = false;
        for byte in &mut comm {
            ended |= *byte == 0;
            if ended {
                *byte = 0;
            }
        }
        comm[comm.len() - 1] = 0;
        thread.comm = comm;
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
    let (state, cause, flags) = if get::<true, u32>(task, sched_offset!(on_cpu)) != 0 {
        (State::Running, Cause::Unknown, 0)
    } else if get::<true, u32>(task, sched_offset!(on_rq)) != 0 && state == 0 {
        (State::Runnable, Cause::Unknown, 0)
    } else {
        let flags = if is_uninterruptible(state) { UNINTERRUPTIBLE } else { 0 };
        (State::Blocked, blocked::why::<true>(task, state), flags)
    };
    make(Maker::Iterator, task, state, cause, flags, start, BPF_NOEXIST as u64);
}

/// `irq_handler_entry`, `local_timer_entry`: with interrupts off.
#[inline(always)]
pub fn hardirq_entry() {
    if gate(Gate::Start) != 0
        && let Some(cpu) = cpu()
    {
        cpu.hardirq_since_ns = now();
        cpu.hardirqs += 1;
    }
}

/// `irq_handler_exit`, `local_timer_exit`.
#[inline(always)]
pub fn hardirq_exit() {
    if let Some(cpu) = cpu()
        && cpu.hardirq_since_ns != 0
    {
        cpu.hardirq_ns += since(now(), cpu.hardirq_since_ns);
        cpu.hardirq_since_ns = 0;
    }
}

/// `softirq_entry`: with interrupts on. One that comes between the reading of its time and of the clock is noticed, and
/// the clock is read again: it is not in both.
#[inline(always)]
pub fn softirq_entry() {
    if gate(Gate::Start) == 0 {
        return;
    }
    let Some(cpu) = cpu() else { return };
    let hardirq_ns = &raw const cpu.hardirq_ns;
    // SAFETY: a member of this CPU's account; volatile because interrupts change it meanwhile.
    let before = unsafe { hardirq_ns.read_volatile() };
    let mut begun = now();
    // SAFETY: as above.
    let after = unsafe { hardirq_ns.read_volatile() };
    if after != before {
        begun = now();
    }
    cpu.softirq_hardirq_ns = after;
    cpu.softirq_since_ns = begun;
    cpu.softirqs += 1;
}

/// `softirq_exit`.
#[inline(always)]
pub fn softirq_exit() {
    if let Some(cpu) = cpu()
        && cpu.softirq_since_ns != 0
    {
        let hardirq_ns = &raw const cpu.hardirq_ns;
        // SAFETY: as in `softirq_entry`.
        let before = unsafe { hardirq_ns.read_volatile() };
        let mut ended = now();
        // SAFETY: as above.
        if unsafe { hardirq_ns.read_volatile() } != before {
            ended = now();
        }
        close_softirq(cpu, ended);
    }
}

/// Closes the time of a soft interrupt, without that of the interrupts that hit it.
#[inline(always)]
fn close_softirq(cpu: &mut Cpu, ended: u64) {
    let hardirq_ns = &raw const cpu.hardirq_ns;
    // SAFETY: as in `softirq_entry`.
    let hit = unsafe { hardirq_ns.read_volatile() } - cpu.softirq_hardirq_ns;
    cpu.softirq_ns += since(since(ended, cpu.softirq_since_ns), hit);
    cpu.softirq_since_ns = 0;
}
