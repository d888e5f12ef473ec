//! Why a task is blocked (`profiler_common::sched::cause`): read from the task when it leaves the CPU, or at any time
//! until it is woken.
//!
//! The system call in progress is where the kernel entry put it beside the user's registers: `pt_regs.orig_ax` on x86-64
//! and `pt_regs.syscallno` on arm64; -1 where an exception or an interrupt was the way in. The registers of kernel
//! threads are zeros, or not those of user mode.

use aya_ebpf::helpers::generated::bpf_task_pt_regs;
#[cfg(bpf_target_arch = "aarch64")]
use profiler_common::sched::syscall::Arch::Aarch64 as ARCH;
#[cfg(bpf_target_arch = "x86_64")]
use profiler_common::sched::syscall::Arch::X86_64 as ARCH;
use profiler_common::sched::{
    cause::{ANONYMOUS_FILES, Cause, Entry, FileKind, cause, class},
    wait,
};

use super::member::{get, pointer, probe, sched_offset};
use crate::task;

/// The registers that tell.
#[derive(Clone, Copy)]
struct Entered {
    entry: Entry,
    /// First argument of the system call.
    argument: u64,
}

const UNKNOWN: Entered = Entered { entry: Entry::Unknown, argument: 0 };

/// `task_struct.__state`. At the switch itself: what is left of it, 0 for a task that stays runnable.
#[inline(always)]
pub fn state<const TYPED: bool>(task: *const u8) -> u32 {
    get::<TYPED, u32>(task, sched_offset!(state))
}

/// The kernel's counts of a task's switches, voluntary and involuntary. At the switch itself they include it.
#[inline(always)]
pub fn switches<const TYPED: bool>(task: *const u8) -> u64 {
    get::<TYPED, u64>(task, sched_offset!(nvcsw)).wrapping_add(get::<TYPED, u64>(task, sched_offset!(nivcsw)))
}

/// The kernel's sum of a task's waits for a CPU that are over, ns; 0 if it does not say.
#[inline(always)]
pub fn run_delay_ns<const TYPED: bool>(task: *const u8) -> u64 {
    if sched_offset!(run_delay) == 0 {
        return 0;
    }
    get::<TYPED, u64>(task, sched_offset!(run_delay))
}

/// Why a task in that state is blocked. `TYPED`: the verifier knows the pointer as a task's.
#[inline(always)]
pub fn why<const TYPED: bool>(task: *const u8, state: u32) -> Cause {
    if sched_offset!(known) == 0 {
        return Cause::Unknown;
    }
    let iowait = get::<TYPED, u8>(task, sched_offset!(in_iowait)) as u32 & sched_offset!(in_iowait_mask) != 0;
    let entered = entered::<TYPED>(task);
    let class = class(entered.entry, ARCH);
    let file = match class {
        Some(class) if class.asks_for_file() && !iowait => file_kind::<TYPED>(task, entered.argument),
        _ => FileKind::Unknown,
    };
    cause(state, iowait, entered.entry, class, file)
}

/// Reads one register, at its place in `struct pt_regs`.
macro_rules! register {
    ($typed:expr, $registers:expr, $offset:expr, $ty:ty) => {
        if $typed { get::<true, $ty>($registers, $offset) } else { get::<false, $ty>($registers, $offset) }
    };
}

/// The places in `struct pt_regs` (arch/x86/include/asm/ptrace.h): the argument, the number, the instruction.
#[cfg(bpf_target_arch = "x86_64")]
mod place {
    pub const DI: u32 = 14 * 8;
    pub const ORIG_AX: u32 = 15 * 8;
    pub const IP: u32 = 16 * 8;
    pub const SP: u32 = 19 * 8;
}

/// The places in `struct pt_regs` (arch/arm64/include/asm/ptrace.h).
#[cfg(bpf_target_arch = "aarch64")]
mod place {
    pub const SP: u32 = 31 * 8;
    pub const IP: u32 = 32 * 8;
    pub const PSTATE: u32 = 33 * 8;
    pub const ORIG_X0: u32 = 34 * 8;
    pub const SYSCALLNO: u32 = 35 * 8;
}

#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn decode<const TYPED: bool>(task: *const u8, registers: *const u8, typed_registers: bool) -> Entered {
    /// `TS_COMPAT` (arch/x86/include/asm/thread_info.h).
    const COMPAT: u32 = 0x2;
    let ip: u64 = register!(typed_registers, registers, place::IP, u64);
    if ip == 0 {
        return Entered { entry: Entry::Kernel, argument: 0 };
    }
    let number = register!(typed_registers, registers, place::ORIG_AX, u64) as i64;
    if number < 0 {
        return Entered { entry: Entry::Exception, argument: 0 };
    }
    if get::<TYPED, u32>(task, sched_offset!(thread_status)) & COMPAT != 0 {
        return Entered { entry: Entry::Syscall32, argument: 0 };
    }
    let argument = register!(typed_registers, registers, place::DI, u64);
    Entered { entry: Entry::Syscall(number as u32), argument }
}

#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn decode<const TYPED: bool>(_task: *const u8, registers: *const u8, typed_registers: bool) -> Entered {
    /// Exception level and stack, of `PSR_MODE_MASK`: 0 is user mode. `PSR_MODE32_BIT`.
    const KERNEL: u64 = 0xf;
    const COMPAT: u64 = 0x10;
    let pstate = register!(typed_registers, registers, place::PSTATE, u64);
    if pstate & KERNEL != 0 {
        return Entered { entry: Entry::Kernel, argument: 0 };
    }
    let number = register!(typed_registers, registers, place::SYSCALLNO, u32) as i32;
    if number < 0 {
        return Entered { entry: Entry::Exception, argument: 0 };
    }
    if pstate & COMPAT != 0 {
        return Entered { entry: Entry::Syscall32, argument: 0 };
    }
    let argument = register!(typed_registers, registers, place::ORIG_X0, u64);
    Entered { entry: Entry::Syscall(number as u32), argument }
}

/// How the task came into the kernel.
#[inline(always)]
fn entered<const TYPED: bool>(task: *const u8) -> Entered {
    if TYPED && task::has_task_pt_regs() {
        // SAFETY: the helper takes a task of known type.
        let registers = unsafe { bpf_task_pt_regs(task.cast_mut().cast()) } as *const u8;
        return decode::<TYPED>(task, registers, true);
    }
    match task::registers_on_stack::<TYPED>(task) {
        Some(registers) => decode::<TYPED>(task, registers, false),
        None => UNKNOWN,
    }
}

/// The place in its program where a task came into the kernel (`profiler_common::sched::wait::place`); 0 if that is not known.
#[inline(always)]
pub fn place<const TYPED: bool>(task: *const u8) -> u32 {
    if TYPED && task::has_task_pt_regs() {
        // SAFETY: the helper takes a task of known type.
        let registers = unsafe { bpf_task_pt_regs(task.cast_mut().cast()) } as *const u8;
        return wait::place(
            register!(true, registers, place::IP, u64),
            register!(true, registers, place::SP, u64),
        );
    }
    match task::registers_on_stack::<TYPED>(task) {
        Some(registers) => wait::place(
            register!(false, registers, place::IP, u64),
            register!(false, registers, place::SP, u64),
        ),
        None => 0,
    }
}

/// Whether the current task is in a system call.
#[inline(always)]
pub fn is_in_call() -> bool {
    matches!(entered::<false>(task::current()).entry, Entry::Syscall(_) | Entry::Syscall32)
}

/// What the descriptor `fd` of the task is.
#[inline(always)]
fn file_kind<const TYPED: bool>(task: *const u8, fd: u64) -> FileKind {
    let files = pointer::<TYPED>(task, sched_offset!(files));
    if files.is_null() {
        return FileKind::Unknown;
    }
    let table = pointer::<TYPED>(files, sched_offset!(fdt));
    if table.is_null() {
        return FileKind::Unknown;
    }
    // Descriptors are ints; what stands above is not looked at by the kernel.
    let fd = fd as u32;
    if fd >= get::<TYPED, u32>(table, sched_offset!(max_fds)) {
        return FileKind::Unknown;
    }
    // `struct file **`: no type that the verifier follows.
    let array = pointer::<TYPED>(table, sched_offset!(fd)).cast::<*const u8>();
    let Some(file) = probe(array.wrapping_add(fd as usize)) else { return FileKind::Unknown };
    let inode = pointer::<false>(file, sched_offset!(f_inode));
    let kind = FileKind::from_mode(get::<false, u16>(inode, sched_offset!(i_mode)));
    if kind != FileKind::Stored {
        return if inode.is_null() { FileKind::Unknown } else { kind };
    }
    let magic = get::<false, u64>(pointer::<false>(inode, sched_offset!(i_sb)), sched_offset!(s_magic));
    if magic == ANONYMOUS_FILES { FileKind::Anonymous } else { FileKind::Stored }
}
