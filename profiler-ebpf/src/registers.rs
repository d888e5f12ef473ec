//! The user registers of the current task, from wherever it entered the kernel: a user stack begins there, also where
//! the event hit kernel mode.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use profiler_common::registers::Registers;
#[cfg(bpf_target_arch = "aarch64")]
use profiler_common::registers::aarch64 as arch;
#[cfg(bpf_target_arch = "x86_64")]
use profiler_common::registers::x86_64 as arch;

use crate::task;

/// The registers; `None` for kernel threads and 32-bit programs, or if it is not known where they are.
#[inline(always)]
pub fn user() -> Option<Registers> {
    let at = task::user_registers()?;
    let frame = read::<arch::Frame>(at.wrapping_add(arch::FRAME))?;
    #[cfg(bpf_target_arch = "x86_64")]
    return arch::user(frame, read(at.wrapping_add(arch::FRAME_POINTER))?);
    #[cfg(bpf_target_arch = "aarch64")]
    arch::user(frame)
}

#[inline(always)]
fn read<T>(address: *const u8) -> Option<T> {
    // SAFETY: bpf_probe_read_kernel checks the address itself and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(address.cast::<T>()) }.ok()
}
