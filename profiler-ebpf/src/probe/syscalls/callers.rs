//! Threads that make system calls: found, made, named, ended.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    btf_maps::{HashMap, RingBuf},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::btf_map,
    programs::RawTracePointContext,
};
use profiler_common::{
    Comm,
    probe::syscalls::{CALLS, Call, Caller, PROBES, PerCpu, Slab, ended_bytes, first_place},
};

use super::{
    now, opaque,
    slabs::{self, take},
    threads,
};
use crate::{
    filter::{self, filter_member},
    sched::member::{get, given_name, pointer},
    task::{self, task_offset},
};

/// Place of each thread, by the address of its `task_struct`: unlike the thread id, that stays the same when a thread
/// executes a program in its leader's place.
#[btf_map]
static CALLER_PLACES: HashMap<u64, u32, 16384> = HashMap::new();

/// Places of threads that ended. Each is in it once at most, so there is always room. User space looks every now and then:
/// it reads a ring without a system call for each thread.
#[btf_map]
static ENDED_CALLERS: RingBuf<u32, ENDED_BYTES> = RingBuf::new();

/// Bytes of places that user space has not read yet ([`ended_bytes`]).
const ENDED_BYTES: usize = ended_bytes(16_384) as usize;

/// What is known of the thread that runs.
pub enum Found {
    /// Not asked for.
    Unwanted,
    /// Asked for, but there is no room for it.
    Unknown,
    /// Its account.
    Caller(&'static mut Caller),
}

/// The account of a task that is known. `cpu` remembers it.
#[inline(always)]
pub fn find(cpu: &mut PerCpu, task: u64) -> Option<&'static mut Caller> {
    let (place, caller) = find_at(cpu.caller, task)?;
    cpu.caller = place;
    Some(caller)
}

/// The same, and its place. `place`: where it may be.
#[inline(always)]
pub fn find_at(place: u32, task: u64) -> Option<(u32, &'static mut Caller)> {
    if let Some(caller) = slabs::caller(place)
        && caller.task == task
    {
        return Some((place, caller));
    }
    // SAFETY: a number, read whole; an entry is removed only by the task itself.
    let place = unsafe { *CALLER_PLACES.get_ptr(task)? };
    Some((place, slabs::caller(place)?))
}

/// The account of the task that runs, a new one if there is none.
#[inline(always)]
pub fn find_or_make<const TYPED: bool>(cpu: &mut PerCpu, task: *const u8) -> Found {
    let ids = bpf_get_current_pid_tgid();
    if filter_member!(by_process) != 0 && !filter::is_target((ids >> 32) as u32) {
        return Found::Unwanted;
    }
    if let Some(caller) = find(cpu, task as u64) {
        return Found::Caller(caller);
    }
    make::<TYPED>(cpu, task, ids)
}

#[inline(always)]
fn make<const TYPED: bool>(cpu: &mut PerCpu, task: *const u8, ids: u64) -> Found {
    let place = take(cpu, Slab::Callers);
    let Some(caller) = slabs::caller(place) else { return Found::Unknown };
    if place == 0 {
        return Found::Unknown;
    }
    let leader = pointer::<TYPED>(task, task_offset!(group_leader));
    caller.start_ns = get::<TYPED, u64>(task, task_offset!(start_boottime));
    caller.process_start_ns = get::<TYPED, u64>(leader, task_offset!(start_boottime));
    caller.tgid = (ids >> 32) as u32;
    caller.comm = bpf_get_current_comm().unwrap_or_default();
    caller.tid = ids as u32;
    if CALLER_PLACES.insert(task as u64, place, BPF_NOEXIST as u64).is_err() {
        // There are as many entries as places: this cannot be. User space gets the place back.
        caller.task = 0;
        _ = ENDED_CALLERS.output(place, BPF_RB_NO_WAKEUP.into());
        return Found::Unknown;
    }
    caller.task = task as u64;
    cpu.caller = place;
    Found::Caller(caller)
}

/// The place of the account of a call; 0: there is no room.
#[inline(always)]
pub fn call(cpu: &mut PerCpu, caller: &mut Caller, number: u32) -> (u32, Option<&'static mut Call>) {
    let first = first_place(number);
    let mut free = None;
    for probe in 0..PROBES as u32 {
        let at = ((first + probe) & (CALLS as u32 - 1)) as usize;
        let Some(&place) = caller.calls.get(at) else { return (0, None) };
        if place == 0 {
            free = Some(at);
            break;
        }
        if let Some(call) = slabs::call(place)
            && call.number == number
        {
            return (place, Some(call));
        }
    }
    let Some(slot) = free.and_then(|at| caller.calls.get_mut(opaque(at))) else { return (0, None) };
    let place = take(cpu, Slab::Calls);
    if place == 0 {
        return (0, None);
    }
    let Some(call) = slabs::call(place) else { return (0, None) };
    call.number = number;
    call.caller = cpu.caller;
    *slot = place;
    (place, Some(call))
}

/// `sched_process_exit(task)`: it makes no calls any more; the one that it is in never returns.
#[inline(always)]
pub fn exited(ctx: &RawTracePointContext) {
    let task: *const u8 = ctx.arg(0);
    let Some(place) = CALLER_PLACES.get_ptr(task as u64) else { return };
    // SAFETY: a number, read whole.
    let place = unsafe { *place };
    if let Some(caller) = slabs::caller(place) {
        if caller.since_ns != 0 && caller.left_ns == 0 && threads::is_open() {
            threads::left(caller);
            caller.left_ns = now();
        }
        caller.task = 0;
        caller.registers = 0;
    }
    _ = CALLER_PLACES.remove(task as u64);
    _ = ENDED_CALLERS.output(place, BPF_RB_NO_WAKEUP.into());
}

/// `sched_process_exec(task, ...)`: a thread that is not its process's first takes that one's id, and all have another
/// name.
#[inline(always)]
pub fn executed(ctx: &RawTracePointContext) {
    let task: *const u8 = ctx.arg(0);
    if let Some(caller) = of(task)
        && let Some((tgid, tid)) = task::ids(task)
    {
        (caller.tgid, caller.tid) = (tgid, tid);
        caller.comm = bpf_get_current_comm().unwrap_or_default();
    }
}

/// `task_rename(task, comm)`: the name that it gets now.
#[inline(always)]
pub fn renamed(ctx: &RawTracePointContext) {
    if let Some(caller) = of(ctx.arg(0))
        && let Some(comm) = given_name(ctx.arg::<*const Comm>(1))
    {
        caller.comm = comm;
    }
}

#[inline(always)]
fn of(task: *const u8) -> Option<&'static mut Caller> {
    // SAFETY: a number, read whole.
    slabs::caller(unsafe { *CALLER_PLACES.get_ptr(task as u64)? })
}
