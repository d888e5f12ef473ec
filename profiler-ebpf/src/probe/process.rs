//! Following targets: which processes a filter by process means, as they fork and end.
//!
//! Hooks: raw tracepoints `sched_process_fork` (parent, child) and `sched_process_free` (task). Done in the kernel
//! because a child can run, be sampled and end before user space hears of it.

use aya_ebpf::{bindings::BPF_ANY, programs::RawTracePointContext};
use aya_log_ebpf::debug;
use profiler_common::loss::Loss;

use crate::{
    filter::{TARGETS, is_target},
    loss, task,
};

/// A task was made. Threads need nothing: they share their process's id.
#[inline(always)]
pub fn fork(ctx: &RawTracePointContext) -> i32 {
    let (Some((parent, _)), Some((pid, tid))) = (task::ids(ctx.arg(0)), task::ids(ctx.arg(1))) else {
        return 0;
    };
    if pid != tid || !is_target(parent) {
        return 0;
    }
    if TARGETS.insert(pid, 1u8, BPF_ANY as u64).is_err() {
        loss::count(Loss::TargetsFull);
    }
    debug!(ctx, "target {} forked {}", parent, pid);
    0
}

/// A task is gone for good. Its id is forgotten only when the last of its process (the leader) is.
#[inline(always)]
pub fn free(ctx: &RawTracePointContext) -> i32 {
    if let Some((pid, tid)) = task::ids(ctx.arg(0))
        && pid == tid
        && is_target(pid)
        && TARGETS.remove(pid).is_ok()
    {
        debug!(ctx, "target {} is gone", pid);
    }
    0
}
