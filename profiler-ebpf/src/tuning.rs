//! How closely it is looked, which user space changes while programs run (`profiler_common::tuning`).

use aya_ebpf::{btf_maps::Array, helpers::generated::bpf_get_prandom_u32, macros::btf_map};
use profiler_common::tuning::{NO_STACKS, Tuning};

/// Slot 0.
#[btf_map]
static TUNING: Array<Tuning, 1> = Array::new();

/// Whether a blocked time that begins is to have its stack. At random, so that no rhythm of a program is in step with it.
#[inline(always)]
pub fn has_stack() -> bool {
    let Some(tuning) = TUNING.get(0) else { return true };
    match tuning.blocked_every {
        0 | 1 => true,
        NO_STACKS => false,
        every => {
            // SAFETY: the helper has no precondition.
            let random = unsafe { bpf_get_prandom_u32() };
            random % every == 0
        }
    }
}

/// Whether a blocked time that was so long is too short for a stack.
#[inline(always)]
pub fn is_short(ns: u64) -> bool {
    TUNING.get(0).is_some_and(|tuning| ns < tuning.min_block_ns)
}

/// Whether a stack of so many frames is to be walked on.
#[inline(always)]
pub fn is_deep_enough(frames: u32) -> bool {
    let depth = TUNING.get(0).map_or(0, |tuning| tuning.depth);
    depth != 0 && frames >= depth
}
