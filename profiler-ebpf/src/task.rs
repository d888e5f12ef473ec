//! Facts about the current task that no helper gives, read at BTF offsets patched in before load.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};
use profiler_common::filter::TaskOffsets;

#[unsafe(no_mangle)]
static TASK_OFFSETS: Global<TaskOffsets> = Global::new(TaskOffsets::UNKNOWN);

/// The offsets, if the kernel's BTF had them.
#[inline(always)]
pub fn offsets() -> Option<TaskOffsets> {
    let offsets = TASK_OFFSETS.load();
    (offsets.known != 0).then_some(offsets)
}

/// Reads a member of a `task_struct`.
#[inline(always)]
pub fn read<T>(task: *const u8, offset: u32) -> Option<T> {
    // SAFETY: bpf_probe_read_kernel checks the address itself and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(task.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// Start time plus exec count of the current process (`CountKey::incarnation`), 0 if unknown.
#[inline(always)]
pub fn incarnation() -> u64 {
    let Some(offsets) = offsets() else { return 0 };
    // SAFETY: the helper has no precondition.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let Some(leader) = read::<*const u8>(task, offsets.group_leader) else { return 0 };
    let start: u64 = read(leader, offsets.start_boottime).unwrap_or(0);
    let execs: u32 = read(leader, offsets.self_exec_id).unwrap_or(0);
    start.wrapping_add(execs as u64)
}
