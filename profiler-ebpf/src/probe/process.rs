//! Following targets: which processes a filter by process means, as they fork and end. Following programs: whose
//! tables will be needed, and which are not any more.
//!
//! Hooks: raw tracepoints `sched_process_fork` (parent, child), `sched_process_exec` (task) and `sched_process_free`
//! (task). Done in the kernel because a child can run, be sampled and end before user space hears of it.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
    programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use profiler_common::{
    loss::Loss,
    unwind::map::{Ask, NO_MODULE},
};

use crate::{
    filter::{self, TARGETS, is_target},
    loss, task,
    unwind::processes,
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

/// The current process executed a program: user space is asked for its tables before its first sample.
#[inline(always)]
pub fn executed() -> i32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let comm = bpf_get_current_comm().unwrap_or_default();
    if filter::wanted(&filter::config(), pid, &comm) {
        // SAFETY: the helper has no precondition.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        processes::ask(Ask::Executed, NO_MODULE, pid, task::incarnation(), now_ns);
    }
    0
}

/// A task is gone for good: with the last of a process its mappings are.
#[inline(always)]
pub fn gone(ctx: &RawTracePointContext) -> i32 {
    if let Some((pid, tid)) = task::ids(ctx.arg(0))
        && pid == tid
    {
        processes::forget(pid);
    }
    0
}
