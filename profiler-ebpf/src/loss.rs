//! Loss counters (`profiler_common::loss`), a per-CPU array that is only ever incremented.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use profiler_common::loss::Loss;

#[btf_map]
static LOSSES: PerCpuArray<u64, { Loss::ALL.len() }> = PerCpuArray::new();

/// Counts one loss.
#[inline(always)]
pub fn count(loss: Loss) {
    add(loss, 1);
}

/// Counts so many of one.
#[inline(always)]
pub fn add(loss: Loss, number: u64) {
    if let Some(slot) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: the slot belongs to this CPU; an interrupting program on the same CPU can at worst be counted once
        // with us, and programs of one event never interrupt themselves.
        unsafe { *slot += number };
    }
}
