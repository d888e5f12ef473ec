//! Probe `syscalls`: accounts of system calls by thread and number.
//!
//! Hooks: raw tracepoints `sys_enter`, `sys_exit`; `sched_switch`, which tells how long a thread was off the CPU inside of
//! a call (where threads are accounted too, by their program); `sched_process_exit`, `sched_process_exec`, `task_rename`. If
//! calls are only counted, neither `sys_exit` nor `sched_switch` is attached, and no clock is read.
//!
//! A call costs no look-up in a hash map as long as the thread that makes it is the one that the CPU saw last: the CPU
//! remembers that one's place. The rest are look-ups in arrays, which the verifier inlines. The kernel runs the programs
//! of these tracepoints with preemption off (`__DO_TRACE`, include/linux/tracepoint.h; `__bpf_trace_sys_enter` since
//! 6.13), and a thread is on one CPU at a time: each account has one writer.
//!
//! Linux 7.3 does not: a thread can be preempted inside of a program there. The kernel leaves out a program's runs
//! meanwhile on that CPU, and counts them, which user space shows as a loss.
//!
//! What has no account of its own, because a slab is full, is summed up by number for each CPU.

mod callers;
mod slabs;
mod threads;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{HashMap, PerCpuArray},
    helpers::generated::{bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::btf_map,
    programs::{BtfTracePointContext, RawTracePointContext},
};
use profiler_common::{
    hist,
    loss::Loss,
    probe::syscalls::{
        COMPAT, Call, Caller, ErrorKey, OTHERS, Other, PerCpu, Slab, errno, is_sigreturn, other_key,
        other_place,
    },
};

use self::callers::{Found, find, find_at, find_or_make};
pub use self::callers::{executed, exited, renamed};
pub use self::threads::are_accounted as are_of_threads;
use crate::{
    filter::{self, filter_member},
    loss,
    sched::member::{get, sched_offset},
    task,
};

/// Sums of what has no account of its own, by `other_place`.
#[btf_map]
static OTHER_CALLS: PerCpuArray<Other, OTHERS> = PerCpuArray::new();

/// Number of errors by call and error number.
#[btf_map]
static CALL_ERRORS: HashMap<ErrorKey, u64, 16384> = HashMap::new();

#[cfg(bpf_target_arch = "aarch64")]
use profiler_common::probe::syscalls::SIGRETURN_AARCH64 as SIGRETURN;
#[cfg(bpf_target_arch = "x86_64")]
use profiler_common::probe::syscalls::SIGRETURN_X86_64 as SIGRETURN;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether the current call is one of a 32-bit program: `TS_COMPAT` (arch/x86/include/asm/thread_info.h), which the entry
/// sets, or `TIF_32BIT` (arch/arm64/include/asm/thread_info.h), which the thread has.
#[inline(always)]
pub fn is_compat<const TYPED: bool>(task: *const u8) -> bool {
    #[cfg(bpf_target_arch = "x86_64")]
    return get::<TYPED, u32>(task, sched_offset!(thread_status)) & 0x2 != 0;
    #[cfg(bpf_target_arch = "aarch64")]
    return get::<TYPED, u64>(task, sched_offset!(thread_status)) & (1 << 22) != 0;
}

/// Whether the call in progress is surely one of a 64-bit program: if not, it may be one all the same. `registers`: those
/// of user mode, whose type the verifier knows. On x86-64, the instruction `syscall` leaves the address and the flags to
/// return with in two registers; on arm64, the state of user mode tells.
#[inline(always)]
fn is_native(registers: *const u8) -> bool {
    #[cfg(bpf_target_arch = "x86_64")]
    {
        /// `__USER_CS`, and places in `struct pt_regs` (arch/x86/include/asm/ptrace.h).
        const USER_CS: u16 = 0x33;
        let [r11, cx, ip, cs, flags] = [6 * 8, 11 * 8, 16 * 8, 17 * 8, 18 * 8];
        let word = |at| get::<true, u64>(registers, at);
        get::<true, u16>(registers, cs) == USER_CS && word(cx) == word(ip) && word(r11) == word(flags)
    }
    #[cfg(bpf_target_arch = "aarch64")]
    {
        /// `PSR_MODE32_BIT`, and the place in `struct user_pt_regs` (arch/arm64/include/uapi/asm/ptrace.h).
        const COMPAT: u64 = 0x10;
        const PSTATE: u32 = 33 * 8;
        get::<true, u64>(registers, PSTATE) & COMPAT == 0
    }
}

/// The thread that makes a call, and the call's number, with `COMPAT`. `None`: it is not wanted, or there is no room for
/// the thread, which is counted.
///
/// Where functions of the kernel return by a detour (`srso`, `retbleed`), every helper costs as much as all the rest.
/// None is called if the thread is the one that the CPU saw last, which the place of its registers tells: they are on its
/// kernel stack.
#[inline(always)]
fn identify(registers: *const u8, number: u32) -> Option<(&'static mut Caller, u32)> {
    if filter_member!(cgroup_id) == 0
        && let Some(caller) = slabs::caller(slabs::cpu()?.caller)
        && caller.registers == registers as u64
        && is_native(registers)
    {
        return Some((caller, number));
    }
    let registers = registers as u64;
    task::with_current(
        |task| identify_by_task::<true>(task, registers, number),
        |task| identify_by_task::<false>(task, registers, number),
    )
}

#[inline(always)]
fn identify_by_task<const TYPED: bool>(
    task: *const u8,
    registers: u64,
    number: u32,
) -> Option<(&'static mut Caller, u32)> {
    let cgroup = filter_member!(cgroup_id);
    if cgroup != 0 && !filter::in_cgroup(cgroup, filter_member!(cgroup_level)) {
        return None;
    }
    let number = number | if is_compat::<TYPED>(task) { COMPAT } else { 0 };
    match find_or_make::<TYPED>(slabs::cpu()?, task) {
        Found::Unwanted => None,
        Found::Unknown => {
            loss::count(Loss::CallersFull);
            count_other(number);
            None
        }
        Found::Caller(caller) => {
            caller.registers = registers;
            Some((caller, number))
        }
    }
}

/// `sys_enter(registers, number)`. `TIMED`: the call's end is of interest.
#[inline(always)]
pub fn enter<const TIMED: bool>(ctx: &BtfTracePointContext) {
    if !threads::is_open() {
        return;
    }
    let number = ctx.arg::<u64>(1) as u32 & !COMPAT;
    let Some((caller, number)) = identify(ctx.arg(0), number) else { return };
    let Some(cpu) = slabs::cpu() else { return };
    let (place, call) = callers::call(cpu, caller, number);
    match call {
        Some(call) => call.count += 1,
        None => {
            loss::count(Loss::CallsFull);
            count_other(number);
        }
    }
    if TIMED {
        caller.call = place;
        caller.number = number;
        caller.off_ns = 0;
        caller.left_ns = 0;
        threads::entered(caller);
        caller.since_ns = now();
    }
}

#[inline(always)]
fn other(number: u32) -> Option<&'static mut Other> {
    // SAFETY: it is this CPU's, and programs of these tracepoints run one after the other (see the module).
    OTHER_CALLS.get_ptr_mut(other_place(number)).map(|other| unsafe { &mut *other })
}

#[inline(always)]
fn count_other(number: u32) {
    if let Some(other) = other(number) {
        other.count += 1;
    }
}

/// `sys_exit(registers, returned)`. A new thread comes out of a call that it never entered, and so do the threads that
/// were in one at the start.
#[inline(always)]
pub fn exit(ctx: &RawTracePointContext) {
    let (registers, returned): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let Some(cpu) = slabs::cpu() else { return };
    if let Some(caller) = slabs::caller(cpu.caller)
        && caller.registers == registers
    {
        return ended_call(cpu, caller, returned as i64);
    }
    // SAFETY: the helper has no precondition.
    if let Some(caller) = find(cpu, unsafe { bpf_get_current_task() }) {
        ended_call(cpu, caller, returned as i64);
    }
}

#[inline(always)]
fn ended_call(cpu: &mut PerCpu, caller: &mut Caller, returned: i64) {
    let since = caller.since_ns;
    if since == 0 || !threads::is_open() {
        return;
    }
    let now = now();
    caller.since_ns = 0;
    if caller.left_ns != 0 {
        // It was not seen to come back.
        loss::count(Loss::SwitchesMissed);
        caller.off_ns += now.saturating_sub(caller.left_ns);
        caller.left_ns = 0;
    } else {
        threads::left(caller);
    }
    let ns = now.saturating_sub(since);
    let off_ns = if caller.off_ns < ns { caller.off_ns } else { ns };
    let on_cpu_ns = ns - off_ns;
    let irq_ns = if caller.irq_ns < on_cpu_ns { caller.irq_ns } else { on_cpu_ns };
    let error = if is_sigreturn(caller.number, SIGRETURN) { None } else { errno(returned) };
    let returned = Returned {
        ns,
        off_ns,
        irq_ns,
        failed: error.is_some(),
        bytes: if returned > 0 { returned as u64 } else { 0 },
    };
    let key = match slabs::call(caller.call) {
        Some(call) if caller.call != 0 => {
            returned_to(cpu, call, &returned);
            caller.call
        }
        _ => {
            if let Some(other) = other(caller.number) {
                other.returned += 1;
                other.errors += u64::from(returned.failed);
                other.total_ns += ns;
                other.off_ns += off_ns;
                other.irq_ns += irq_ns;
                other.bytes = other.bytes.wrapping_add(returned.bytes);
                if ns > other.max_ns {
                    other.max_ns = ns;
                }
            }
            // SAFETY: the helper has no precondition.
            other_key(caller.number, unsafe { bpf_get_smp_processor_id() })
        }
    };
    if let Some(errno) = error {
        count_error(ErrorKey { call: key, errno });
    }
}

/// What is known of a call that returned.
struct Returned {
    ns: u64,
    off_ns: u64,
    irq_ns: u64,
    failed: bool,
    bytes: u64,
}

/// A call that has an account returned.
#[inline(always)]
fn returned_to(cpu: &mut PerCpu, call: &mut Call, returned: &Returned) {
    let ns = returned.ns;
    call.returned += 1;
    call.errors += u64::from(returned.failed);
    call.total_ns += ns;
    call.off_ns += returned.off_ns;
    call.irq_ns += returned.irq_ns;
    // Calls that return addresses have no sum that means anything.
    call.bytes = call.bytes.wrapping_add(returned.bytes);
    if ns > call.max_ns {
        call.max_ns = ns;
    }
    let (block, bucket) = hist::place(ns);
    let Some(slot) = call.blocks.get_mut(opaque(block)) else { return };
    if *slot == 0 {
        // User space sees from the sums if there is none left.
        *slot = slabs::take(cpu, Slab::Blocks);
        if *slot == 0 {
            return;
        }
    }
    if let Some(block) = slabs::block(*slot)
        && let Some(number) = block.get_mut(opaque(bucket))
        && *number != u32::MAX
    {
        *number += 1;
    }
}

/// The same number, of which the compiler knows nothing any more: it would leave out the check of an index whose bounds
/// it can derive, and the verifier cannot.
#[inline(always)]
fn opaque(index: usize) -> usize {
    // SAFETY: a local number.
    unsafe { (&raw const index).read_volatile() }
}

/// Counts an error.
#[inline(always)]
fn count_error(key: ErrorKey) {
    if CALL_ERRORS.get_ptr(key).is_none() {
        // ENOMEM or E2BIG: full, which is counted below.
        _ = CALL_ERRORS.insert(key, 0, BPF_NOEXIST as u64);
    }
    match CALL_ERRORS.get_ptr_mut(key) {
        // SAFETY: one writer, the call's thread or the CPU; entries are removed only when their thread is gone.
        Some(number) => unsafe { *number += 1 },
        None => loss::count(Loss::ErrorsFull),
    }
}

/// `sched_switch(preempt, prev, next)`, if threads are not accounted too.
#[inline(always)]
pub fn switched(ctx: &RawTracePointContext) {
    leaves(0, ctx.arg(1), now);
    comes(0, ctx.arg(2), now);
}

/// A task leaves the CPU. `place`: where its account was last found; gives where it is, 0 if there is none.
#[inline(always)]
pub fn leaves(place: u32, task: u64, now: impl FnOnce() -> u64) -> u32 {
    let Some((place, caller)) = find_at(place, task) else { return 0 };
    if caller.since_ns != 0 {
        let now = now();
        if came_back(caller, now) {
            loss::count(Loss::SwitchesMissed);
        } else {
            threads::left(caller);
        }
        caller.left_ns = now;
    }
    place
}

/// A task gets the CPU, which remembers it: it is the one that makes calls there. `place` and what is given as above.
#[inline(always)]
pub fn comes(place: u32, task: u64, now: impl FnOnce() -> u64) -> u32 {
    let Some((place, caller)) = find_at(place, task) else { return 0 };
    if let Some(cpu) = slabs::cpu() {
        cpu.caller = place;
    }
    if caller.left_ns != 0 {
        came_back(caller, now());
        threads::came(caller);
    }
    place
}

/// Closes the time off the CPU of a thread that is inside of a call. Whether it had left.
#[inline(always)]
fn came_back(caller: &mut Caller, now: u64) -> bool {
    let had_left = caller.left_ns != 0;
    if had_left {
        caller.off_ns += now.saturating_sub(caller.left_ns);
        caller.left_ns = 0;
    }
    had_left
}
