//! The user stack of the current task, walked only if it is not the one that was walked from there before
//! (`profiler_common::unwind::memo`). For programs of raw tracepoints.

use aya_ebpf::{btf_maps::ProgramArray, programs::RawTracePointContext};
use profiler_common::{sample::WALK, stack::WalkEnd, unwind::memo::Memo};

use super::{Walk, begin};
use crate::stack::{self, Side};

/// Whose stack it is, and when.
pub struct Whose {
    /// Process id.
    pub pid: u32,
    /// `CountKey::incarnation`.
    pub incarnation: u64,
    /// Now, before anything was looked up, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// The name of the stack. Comes back only if it is known, or if it cannot be walked by tables: else the walk goes on in
/// `programs`, at the end of which [`walked`] gives the name.
#[inline(always)]
pub fn capture(
    ctx: &RawTracePointContext,
    walk: &mut Walk,
    whose: &Whose,
    memo: &Memo,
    programs: &ProgramArray<2>,
) -> u64 {
    let end = match begin(walk, whose.pid, whose.incarnation, whose.at_ns) {
        Ok(()) => {
            if let Some(known) = walk.known(memo) {
                return known;
            }
            // SAFETY: nothing is owned that would have to be dropped.
            unsafe { programs.tail_call(ctx, WALK) };
            WalkEnd::TailCallFailed
        }
        Err(end) => end,
    };
    stack::capture(ctx, Side::User, end, &mut walk.stack)
}

/// The name of the stack that has been walked; the walk is kept if it reached the thread's first function.
#[inline(always)]
pub fn walked(walk: &Walk, memo: &mut Memo) -> u64 {
    let name = stack::keep(Side::User, &walk.stack);
    if walk.stack.end == WalkEnd::Complete as u32 {
        walk.keep(memo, name);
    }
    name
}
