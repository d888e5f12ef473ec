//! Probe `between`: how long it takes a thread to come from one place in a program's code to another one, and where it began.
//!
//! Hooks: breakpoints as those of [`uprobe`](super::uprobe), at all places that begin a span and at all that end it, or at a
//! function's first instruction and at its return; raw tracepoints `sched_process_exit` and `sched_process_exec`, both hit by
//! the thread itself. Yields counts keyed as those of the `uprobe` probe, with their time as their sum.
//!
//! The stack is that of the beginning, so that a span that goes on has one too. What the walk takes is not in the time. Of
//! beginnings inside of an open span only their number is kept, and of calls not even that: their stack pointers tell them
//! apart.
//!
//! A span is found by the thread's `task_struct`, whose id may change when it executes a program. Its thread alone writes it,
//! and no other program of the thread's runs meanwhile.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_ANY,
    btf_maps::{Array, HashMap, ProgramArray},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task, bpf_ktime_get_ns},
    },
    macros::btf_map,
    programs::ProbeContext,
};
#[cfg(bpf_target_arch = "aarch64")]
use profiler_common::registers::aarch64 as arch;
#[cfg(bpf_target_arch = "x86_64")]
use profiler_common::registers::x86_64 as arch;
use profiler_common::{
    loss::Loss,
    probe::between::{LEFT_OPEN, MAX_OPEN, Open, Return, given_back},
    sample::{MAX_HOOKS, What},
};

use super::uprobe;
use crate::{
    entry, filter, loss,
    sample::{self, Pending, Probe},
    unwind::Slot,
};

/// Which of the events are calls of a function: a bit for each place.
#[unsafe(no_mangle)]
static BETWEEN_CALLS: Global<u32> = Global::new(0);

/// Whether spans are counted (`profiler_common::probe::between::SWITCH`).
#[btf_map]
static BETWEEN_SWITCH: Array<u32, 1> = Array::new();

/// Spans that have begun, by thread and place ([`key`]).
#[btf_map]
static OPEN_SPANS: HashMap<u64, Open, MAX_OPEN> = HashMap::new();

#[btf_map]
static BETWEEN_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The probe, for the event at a place.
pub enum Between<const PLACE: usize> {}

impl<const PLACE: usize> Probe for Between<PLACE> {
    type Context = ProbeContext;
    const WHAT: What = What::HOOKS[PLACE];
    const SLOT: Slot = Slot::Uprobe;
    const IDLE_TASK: bool = false;
    const KERNEL_STACK: bool = false;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &BETWEEN_PROGRAMS
    }

    /// Whether it is no beginning inside of an open span.
    #[inline(always)]
    fn wanted(ctx: &ProbeContext) -> bool {
        if !is_on() {
            return false;
        }
        let key = key(PLACE as u64);
        let Some(open) = entry::find(&OPEN_SPANS, key) else { return true };
        if !is_call(PLACE) {
            open.depth += 1;
            return false;
        }
        if open.is_around(sp(ctx)) {
            return false;
        }
        abandon(key);
        true
    }

    /// It counts when it ends; its time begins when its stack has been walked.
    #[inline(always)]
    fn count(ctx: &ProbeContext, sample: &Pending) {
        let place = u64::from(sample.key.what).wrapping_sub(What::Hook0 as u64);
        let mut open = Open {
            key: sample.key,
            comm: sample.comm,
            at_ns: sample.at_ns,
            since_ns: 0,
            sp: sp(ctx),
            depth: 1,
        };
        open.since_ns = now();
        if OPEN_SPANS.insert(key(place), open, BPF_ANY as u64).is_err() {
            loss::count(Loss::OpenSpansFull);
        }
    }

    #[inline(always)]
    fn enter() -> bool {
        uprobe::enter()
    }

    #[inline(always)]
    fn leave() {
        uprobe::leave();
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn is_on() -> bool {
    // SAFETY: user space writes it, which one read tolerates.
    BETWEEN_SWITCH.get_ptr(0).is_some_and(|switch| unsafe { switch.read_volatile() } != 0)
}

#[inline(always)]
fn is_call(place: usize) -> bool {
    BETWEEN_CALLS.load() >> place & 1 != 0
}

/// The current thread's span of a place. Tasks are aligned to a cache line (`task_struct_whitelist`, kernel/fork.c), so that
/// there is room for the place.
#[inline(always)]
fn key(place: u64) -> u64 {
    const _: () = assert!(MAX_HOOKS <= 32);
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task() }.wrapping_add(place)
}

#[inline(always)]
fn sp(ctx: &ProbeContext) -> u64 {
    // SAFETY: a member of the program's own context; in one load, as the verifier wants it.
    unsafe { ctx.as_ptr().cast::<u8>().add(arch::STACK_POINTER).cast::<u64>().read_volatile() }
}

/// The current thread comes to the end of a span.
#[inline(always)]
pub fn ended<const PLACE: usize>(ctx: &ProbeContext) {
    let now_ns = now();
    if !is_on() {
        return;
    }
    let key = key(PLACE as u64);
    let Some(open) = entry::find(&OPEN_SPANS, key) else { return unpaired() };
    if is_call(PLACE) {
        match open.returned(sp(ctx), given_back(cfg!(bpf_target_arch = "x86_64"))) {
            Return::Inside => return,
            Return::Outside => return abandon(key),
            Return::Own => {}
        }
    } else if open.depth > 1 {
        open.depth -= 1;
        return;
    }
    sample::add(&open.key, now_ns.saturating_sub(open.since_ns), open.at_ns, &open.comm);
    _ = OPEN_SPANS.remove(key);
}

/// An end without a beginning: of whom it matters, it is counted.
#[inline(always)]
fn unpaired() {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let comm = bpf_get_current_comm().unwrap_or_default();
    if filter::wanted(&filter::config(), pid, &comm) {
        loss::count(Loss::SpanUnpaired);
    }
}

/// A call that was left without a return.
#[inline(always)]
fn abandon(key: u64) {
    _ = OPEN_SPANS.remove(key);
    loss::count(Loss::SpanUnpaired);
}

/// The current thread ends, or has executed another program: what it has open is counted until now.
#[inline(always)]
pub fn left() {
    let now_ns = now();
    if !is_on() {
        return;
    }
    for place in 0..MAX_HOOKS as u64 {
        let key = key(place);
        let Some(open) = entry::find(&OPEN_SPANS, key) else { continue };
        open.key.detail = LEFT_OPEN;
        sample::add(&open.key, now_ns.saturating_sub(open.since_ns), open.at_ns, &open.comm);
        _ = OPEN_SPANS.remove(key);
    }
}
