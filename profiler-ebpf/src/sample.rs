//! A sample of the current task: filtered, its stacks captured, counted by them (`profiler_common::sample`). What the
//! probes do that yield such counts.
//!
//! A user stack is walked in programs of its own ([`unwind`]), between which the sample is in per-CPU memory. What is
//! hot is inlined into them. Log messages are functions, and a program that both calls functions and makes tail calls is
//! for x86-64 from Linux 5.10 on, for arm64 from 6.0 on (d4609a5d8c70).

use aya_ebpf::{
    EbpfContext, Global,
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{ArrayOfMaps, HashMap, PerCpuArray, ProgramArray},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    },
    macros::btf_map,
};
use aya_log_ebpf::debug;
use profiler_common::{
    Comm,
    filter::{FilterConfig, MODE_KERNEL, MODE_USER},
    loss::Loss,
    sample::{CountKey, CountValue, Seen, WALK, What},
    stack::{EMPTY_STACK, WalkEnd},
};

use crate::{
    atomic, filter, loss, registers,
    stack::{self, Side},
    task,
    unwind::{self, Slot},
};

/// Whose a sample is.
pub enum Whose {
    /// The current task's, by whose code it happens.
    Current,
    /// This process's, whichever task runs: nothing is known of its threads and what they do.
    Process(Owner),
    /// Nobody's who is looked at.
    Nobody,
}

/// A process, as the kernel side keeps it with what it owns.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Its id.
    pub pid: u32,
    /// `CountKey::incarnation`.
    pub incarnation: u64,
    /// Its name.
    pub comm: Comm,
}

/// What differs between the probes that take samples.
pub trait Probe {
    /// What its programs are given.
    type Context: EbpfContext;
    /// What its samples are counted as.
    const WHAT: What;
    /// Its per-CPU memory.
    const SLOT: Slot;
    /// Whether the idle task is recorded.
    const IDLE_TASK: bool;
    /// Whether there can be a kernel stack.
    const KERNEL_STACK: bool = true;
    /// Where a walk goes on: programs of the probe's own type, which alone can be called from it.
    fn programs() -> &'static ProgramArray<2>;
    /// Whether a hit is what was asked for, whosever it is.
    #[inline(always)]
    fn wanted(_ctx: &Self::Context) -> bool {
        true
    }
    /// Whose a hit is.
    #[inline(always)]
    fn whose(_ctx: &Self::Context) -> Whose {
        Whose::Current
    }
    /// What is summed up besides the number: of what has no size, 0.
    #[inline(always)]
    fn amount(_ctx: &Self::Context) -> u64 {
        0
    }
    /// Of which kind the sample is (`CountKey::detail`). `of_current`: it is the current task's.
    #[inline(always)]
    fn detail(_ctx: &Self::Context, _of_current: bool) -> u32 {
        0
    }
    /// What is done with a sample that has been taken: it is counted.
    #[inline(always)]
    fn count(_ctx: &Self::Context, sample: &Pending) {
        add(&sample.key, sample.amount, sample.at_ns, &sample.comm);
    }
    /// Takes the memory of the slot, where programs can be preempted. False: another one has it, which has been counted.
    #[inline(always)]
    fn enter() -> bool {
        true
    }
    /// Gives it back.
    #[inline(always)]
    fn leave() {}
}

/// Slot 0: the current generation of counts.
#[btf_map]
static COUNTS: ArrayOfMaps<HashMap<CountKey, CountValue, 1>, 1> = ArrayOfMaps::new();

/// The event that [`SEEN`] counts: one of those recorded, because the sum of ticks and switches would say nothing.
#[unsafe(no_mangle)]
static SEEN_WHAT: Global<u32> = Global::new(0);

/// A sample whose user stack is being walked.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pending {
    /// What it is counted by.
    pub key: CountKey,
    /// Name of the thread.
    pub comm: Comm,
    /// When it was taken, before anything was looked up: what user space told before that time was known to the walk.
    pub at_ns: u64,
    /// [`Probe::amount`].
    amount: u64,
}

#[btf_map]
static PENDING: PerCpuArray<Pending, { Slot::COUNT }> = PerCpuArray::new();

#[btf_map]
static SEEN: PerCpuArray<u64, { Seen::COUNT }> = PerCpuArray::new();

/// Counts what became of a hit of an event.
#[inline(always)]
pub fn seen(event: What, what: Seen) {
    if SEEN_WHAT.load() != event as u32 {
        return;
    }
    if let Some(slot) = SEEN.get_ptr_mut(what as u32) {
        // SAFETY: the slot belongs to this CPU, and an event does not interrupt itself.
        unsafe { *slot += 1 };
    }
}

/// Records one sample, of the current task unless the probe knows better.
#[inline(always)]
pub fn take<P: Probe>(ctx: &P::Context) {
    seen(P::WHAT, Seen::Hits);
    if !P::wanted(ctx) {
        seen(P::WHAT, Seen::Filtered);
        return;
    }
    match P::whose(ctx) {
        Whose::Current => {}
        Whose::Process(owner) => return of_process::<P>(ctx, &owner),
        Whose::Nobody => {
            seen(P::WHAT, Seen::Filtered);
            return;
        }
    }
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    if tid == 0 {
        seen(P::WHAT, Seen::IdleTask);
        if !P::IDLE_TASK {
            return;
        }
    }
    let config = filter::config();
    let comm = bpf_get_current_comm().unwrap_or_default();
    if !filter::wanted(&config, pid, &comm) {
        seen(P::WHAT, Seen::Filtered);
        return;
    }
    if P::enter() {
        capture::<P>(ctx, &config, pid, tid, comm);
        P::leave();
    }
}

/// Counts a sample of a process that is not the one that runs: with the stack of the interrupt that it happens in.
#[inline(always)]
fn of_process<P: Probe>(ctx: &P::Context, owner: &Owner) {
    let Some(walk) = unwind::current(Slot::SoftInterrupt) else {
        loss::count(Loss::NoScratch);
        return;
    };
    let key = CountKey {
        pid: owner.pid,
        tid: owner.pid,
        incarnation: owner.incarnation,
        kernel_stack: stack::capture(ctx, Side::Kernel, WalkEnd::Ended, &mut walk.stack),
        user_stack: EMPTY_STACK,
        what: P::WHAT as u32,
        detail: P::detail(ctx, false),
    };
    // SAFETY: the helper has no precondition.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    // Interrupts of several CPUs can be of the same process.
    add_shared(&key, P::amount(ctx), at_ns, &owner.comm, BPF_NOEXIST as u64);
}

#[inline(always)]
fn capture<P: Probe>(ctx: &P::Context, config: &FilterConfig, pid: u32, tid: u32, comm: Comm) {
    let (Some(walk), Some(pending)) = (unwind::current(P::SLOT), PENDING.get_ptr_mut(P::SLOT as u32)) else {
        loss::count(Loss::NoScratch);
        return;
    };
    let kernel_stack = if P::KERNEL_STACK {
        stack::capture(ctx, Side::Kernel, WalkEnd::Ended, &mut walk.stack)
    } else {
        EMPTY_STACK
    };
    // A sample that hit user mode has no kernel frames.
    let in_kernel = kernel_stack != EMPTY_STACK;
    if (config.mode == MODE_USER && in_kernel) || (config.mode == MODE_KERNEL && !in_kernel) {
        seen(P::WHAT, Seen::Filtered);
        return;
    }
    // SAFETY: the helper has no precondition.
    let incarnation =
        if tid == 0 { u64::from(unsafe { bpf_get_smp_processor_id() }) } else { task::incarnation() };
    let what = P::WHAT as u32;
    let key = CountKey {
        pid,
        tid,
        incarnation,
        kernel_stack,
        user_stack: EMPTY_STACK,
        what,
        detail: P::detail(ctx, true),
    };
    let amount = P::amount(ctx);
    // SAFETY: the helper has no precondition.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    if tid == 0 {
        count::<P>(ctx, &Pending { key, comm, at_ns, amount });
        return;
    }
    let end = match unwind::begin(walk, pid, incarnation, at_ns) {
        Ok(()) => {
            // SAFETY: this CPU's memory; the programs of a slot do not interrupt each other.
            unsafe { *pending = Pending { key, comm, at_ns, amount } };
            // SAFETY: nothing is owned that would have to be dropped.
            unsafe { P::programs().tail_call(ctx, WALK) };
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
    count::<P>(ctx, &Pending { key: CountKey { user_stack, ..key }, comm, at_ns, amount });
}

/// Walks the user stack of the pending sample on.
#[inline(always)]
pub fn walk<P: Probe>(ctx: &P::Context) {
    let Some(walk) = unwind::current(P::SLOT) else {
        P::leave();
        return;
    };
    unwind::go_on::<false, _>(ctx, walk, P::programs());
    walked::<P>(ctx);
}

/// Counts the pending sample, whose user stack has been walked.
#[inline(always)]
pub fn walked<P: Probe>(ctx: &P::Context) {
    finish::<P>(ctx);
    P::leave();
}

#[inline(always)]
fn finish<P: Probe>(ctx: &P::Context) {
    let (Some(walk), Some(pending)) = (unwind::current(P::SLOT), PENDING.get_ptr_mut(P::SLOT as u32)) else {
        loss::count(Loss::NoScratch);
        return;
    };
    // SAFETY: as in `take`, whose tail calls lead here.
    let pending = unsafe { &mut *pending };
    pending.key.user_stack = stack::keep(Side::User, &walk.stack);
    count::<P>(ctx, pending);
}

#[inline(always)]
fn count<P: Probe>(ctx: &P::Context, sample: &Pending) {
    log(ctx, sample);
    P::count(ctx, sample);
}

/// A function for each kind of context, not for each probe: what it says is the same.
#[inline(always)]
fn log<C: EbpfContext>(ctx: &C, sample: &Pending) {
    let CountKey { pid, tid, kernel_stack, user_stack, .. } = sample.key;
    debug!(ctx, "sample pid {} tid {} kernel {:x} user {:x}", pid, tid, kernel_stack, user_stack);
}

/// Counts one more of that key, and `ns`, its time or another size. `first_ns`: when its stacks were captured, before anything was looked up.
#[inline(always)]
pub fn add(key: &CountKey, ns: u64, first_ns: u64, comm: &Comm) {
    let Some(counts) = COUNTS.get(0) else {
        loss::count(Loss::NoScratch);
        return;
    };
    if let Some(value) = counts.get_ptr_mut(key) {
        // SAFETY: a map value stays valid memory while the program runs. No other CPU writes it at the same time: a key
        // names one thread, which runs on one CPU, or one CPU's idle task.
        unsafe {
            (*value).count += 1;
            (*value).ns += ns;
        }
        return;
    }
    let value = CountValue { count: 1, ns, first_ns, comm: *comm };
    if counts.insert(key, value, BPF_ANY as u64).is_err() {
        loss::count(Loss::CountsFull);
    }
}

/// The same of a key that several CPUs can count at the same time. `if_new`: `BPF_NOEXIST`.
#[inline(always)]
pub fn add_shared(key: &CountKey, ns: u64, first_ns: u64, comm: &Comm, if_new: u64) {
    let Some(counts) = COUNTS.get(0) else {
        loss::count(Loss::NoScratch);
        return;
    };
    if counts.get_ptr_mut(key).is_none() {
        let value = CountValue { count: 0, ns: 0, first_ns, comm: *comm };
        // EEXIST: another CPU was faster. E2BIG or ENOMEM: full, which is counted below.
        _ = counts.insert(key, value, if_new);
    }
    match counts.get_ptr_mut(key) {
        // SAFETY: a map value stays valid memory while the program runs.
        Some(value) => unsafe {
            atomic::add(&mut (*value).count, 1);
            atomic::add(&mut (*value).ns, ns);
        },
        None => loss::count(Loss::CountsFull),
    }
}
