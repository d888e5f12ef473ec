//! Facts about the current task that no helper gives, read at BTF offsets patched in before load.
//!
//! Where the kernel has `bpf_get_current_task_btf` (Linux 5.11), members are read by plain loads, which the verifier
//! allows at offsets it knows for constants; elsewhere by `bpf_probe_read_kernel`. Which it is stands in a frozen
//! read-only global, so the verifier follows only one way and never meets a helper that the kernel lacks.

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_task, bpf_probe_read_kernel,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
};
use profiler_common::task::{PF_EXITING, PF_KTHREAD, TASK_BTF, TASK_PT_REGS, TaskOffsets};

#[unsafe(no_mangle)]
pub static TASK_OFFSETS: Global<TaskOffsets> = Global::new(TaskOffsets::UNKNOWN);

/// Helpers that the kernel has and that may be used, bits of `profiler_common::task`.
#[unsafe(no_mangle)]
static HELPERS: Global<u32> = Global::new(0);

/// One of the offsets. Never a copy of all: it would go over the program's stack, where verifiers before 5.16
/// (354e8f1970f8) forget that a word of 4 bytes was constant, and then refuse it as an offset.
macro_rules! offset {
    ($member:ident) => {{
        let offsets = (&raw const TASK_OFFSETS).cast::<TaskOffsets>();
        // SAFETY: a member of a global that is initialized and never written; volatile because the loader replaces what
        // the compiler sees.
        unsafe { (&raw const (*offsets).$member).read_volatile() }
    }};
}

/// The same for other modules.
macro_rules! task_offset {
    ($member:ident) => {{
        let offsets = (&raw const $crate::task::TASK_OFFSETS).cast::<profiler_common::task::TaskOffsets>();
        // SAFETY: as in `offset`.
        unsafe { (&raw const (*offsets).$member).read_volatile() }
    }};
}
pub(crate) use task_offset;

/// Reads a member of a `task_struct`.
#[inline(always)]
fn read<T>(task: *const u8, offset: u32) -> Option<T> {
    // SAFETY: bpf_probe_read_kernel checks the address itself and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(task.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// Loads a member of a task that came from `bpf_get_current_task_btf`, or from such a member.
#[inline(always)]
fn load<T: Copy>(task: *const u8, offset: u32) -> T {
    // SAFETY: the verifier checks type, offset and size of the load, and a load that faults reads 0.
    unsafe { task.wrapping_add(offset as usize).cast::<T>().read_volatile() }
}

#[inline(always)]
fn has(helper: u32) -> bool {
    HELPERS.load() & helper != 0
}

/// The current task, for [`load`]. Only if the kernel [has](has) [`TASK_BTF`].
#[inline(always)]
fn current_btf() -> *const u8 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task_btf() }.cast()
}

/// The current task, as an address to be probed.
#[inline(always)]
pub fn current() -> *const u8 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task() as *const u8 }
}

/// Process and thread id of a `task_struct`.
#[inline(always)]
pub fn ids(task: *const u8) -> Option<(u32, u32)> {
    if offset!(known) == 0 {
        return None;
    }
    Some((read(task, offset!(tgid))?, read(task, offset!(pid))?))
}

/// Start time plus exec count of the current process (`CountKey::incarnation`), 0 if unknown.
#[inline(always)]
pub fn incarnation() -> u64 {
    if offset!(known) == 0 {
        return 0;
    }
    if !has(TASK_BTF) {
        return incarnation_of(current());
    }
    let leader: *const u8 = load(current_btf(), offset!(group_leader));
    let (start, execs): (u64, u32) =
        (load(leader, offset!(start_boottime)), load(leader, offset!(self_exec_id)));
    start.wrapping_add(u64::from(execs))
}

/// The same of the process of any task.
#[inline(always)]
pub fn incarnation_of(task: *const u8) -> u64 {
    let Some(leader) = read::<*const u8>(task, offset!(group_leader)) else { return 0 };
    start_and_incarnation_of(leader).1
}

/// When a process started, ns since boot, and its incarnation, from its first task.
#[inline(always)]
pub fn start_and_incarnation_of(leader: *const u8) -> (u64, u64) {
    let start: u64 = read(leader, offset!(start_boottime)).unwrap_or(0);
    let execs: u32 = read(leader, offset!(self_exec_id)).unwrap_or(0);
    (start, start.wrapping_add(u64::from(execs)))
}

/// Whether the current task is on its way out: its user memory is being given back, or is gone.
#[inline(always)]
pub fn is_exiting() -> bool {
    if offset!(known) == 0 {
        return false;
    }
    let flags: u32 = if has(TASK_BTF) {
        load(current_btf(), offset!(flags))
    } else {
        read(current(), offset!(flags)).unwrap_or(0)
    };
    flags & PF_EXITING != 0
}

/// Whether the current task is a thread of the kernel's own.
#[inline(always)]
pub fn is_kernel_thread() -> bool {
    if offset!(known) == 0 {
        return false;
    }
    read::<u32>(current(), offset!(flags)).unwrap_or(0) & PF_KTHREAD != 0
}

/// The kernel address of the current task's user registers (`struct pt_regs`), to be read with
/// `bpf_probe_read_kernel`. A kernel thread has them too, but they are no user's (`crate::registers`). `None` if it is
/// not known where they are.
#[inline(always)]
pub fn user_registers() -> Option<*const u8> {
    if has(TASK_PT_REGS) {
        // SAFETY: the helper takes what the other one gives.
        return Some(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8);
    }
    let from_stack = offset!(user_registers);
    if from_stack == 0 {
        return None;
    }
    let stack: *const u8 =
        if has(TASK_BTF) { load(current_btf(), offset!(stack)) } else { read(current(), offset!(stack))? };
    Some(stack.wrapping_add(from_stack as usize))
}

/// Whether `ctx` is on the current task's stack. On x86-64 interrupts that hit the kernel, and soft interrupts behind them or
/// where a task switches them on again, run on stacks of their own (`HAVE_SOFTIRQ_ON_OWN_STACK`, arch/x86/kernel/irq_64.c).
/// Those that hit user mode run on the task's. Where it is not known how far stacks reach, and on arm64, whose soft
/// interrupts have a stack only since Linux 6.1, nothing is on it.
#[inline(always)]
pub fn is_on_stack(ctx: *mut core::ffi::c_void) -> bool {
    let top = offset!(user_registers);
    if top == 0 || cfg!(bpf_target_arch = "aarch64") {
        return false;
    }
    // Through memory, by which the pointer becomes a number.
    // SAFETY: bpf_probe_read_kernel checks the address itself, which is that of a local variable.
    let Ok(address) = (unsafe { bpf_probe_read_kernel((&raw const ctx).cast::<u64>()) }) else {
        return false;
    };
    let Some(stack) = read::<u64>(current(), offset!(stack)) else { return false };
    address.wrapping_sub(stack) < u64::from(top)
}

/// Calls one of two functions with the current task: `typed` if the verifier knows the pointer as a task's, else `other`.
#[inline(always)]
pub fn with_current<T>(typed: impl FnOnce(*const u8) -> T, other: impl FnOnce(*const u8) -> T) -> T {
    if has(TASK_BTF) { typed(current_btf()) } else { other(current()) }
}

/// Whether `bpf_task_pt_regs` may be called, on any task whose type the verifier knows.
#[inline(always)]
pub fn has_task_pt_regs() -> bool {
    has(TASK_PT_REGS)
}

/// The kernel address of a task's user registers, from where its kernel stack ends; `None` if that is not known.
/// `TYPED`: the verifier knows the pointer as a task's.
#[inline(always)]
pub fn registers_on_stack<const TYPED: bool>(task: *const u8) -> Option<*const u8> {
    let from_stack = offset!(user_registers);
    if from_stack == 0 {
        return None;
    }
    let stack: *const u8 = if TYPED { load(task, offset!(stack)) } else { read(task, offset!(stack))? };
    Some(stack.wrapping_add(from_stack as usize))
}
