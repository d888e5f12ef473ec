//! Probe `cpu`: who is on the CPU, and where.
//!
//! Hook: a perf_event per CPU (hardware cycles or the software cpu-clock). Yields counts keyed by process, thread,
//! kernel stack and user stack; samples of the idle task are recorded too (their kernel stack tells idling from an
//! interrupt that hit an idle CPU) and told apart in user space.

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{ArrayOfMaps, HashMap, PerCpuArray},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    },
    macros::btf_map,
    programs::PerfEventContext,
};
use aya_log_ebpf::debug;
use profiler_common::{
    filter::{MODE_KERNEL, MODE_USER},
    loss::Loss,
    probe::cpu::{CountKey, CountValue, Seen},
    stack::{EMPTY_STACK, RawStack},
};

use crate::{
    filter, loss, registers,
    stack::{self, Side},
    task,
};

/// Slot 0: the current generation of counts.
#[btf_map]
static COUNTS: ArrayOfMaps<HashMap<CountKey, CountValue, 1>, 1> = ArrayOfMaps::new();

#[btf_map]
static SCRATCH: PerCpuArray<RawStack, 1> = PerCpuArray::new();

#[btf_map]
static SEEN: PerCpuArray<u64, { Seen::COUNT }> = PerCpuArray::new();

#[inline(always)]
fn seen(what: Seen) {
    if let Some(slot) = SEEN.get_ptr_mut(what as u32) {
        // SAFETY: the slot belongs to this CPU, and the sampling event does not interrupt itself.
        unsafe { *slot += 1 };
    }
}

/// Records one sample. The return value means nothing to the kernel (no perf output is asked for).
#[inline(always)]
pub fn sample(ctx: &PerfEventContext) -> u32 {
    seen(Seen::Ticks);
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let config = filter::config();
    let comm = bpf_get_current_comm().unwrap_or_default();
    if !filter::wanted(&config, pid, &comm) {
        seen(Seen::Filtered);
        return 0;
    }
    if tid == 0 {
        seen(Seen::IdleTask);
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        loss::count(Loss::NoScratch);
        return 0;
    };
    // SAFETY: this CPU's scratch; the sampling event does not interrupt itself.
    let scratch = unsafe { &mut *scratch };
    let kernel_stack = stack::capture(ctx, Side::Kernel, scratch);
    // A sample that hit user mode has no kernel frames.
    let in_kernel = kernel_stack != EMPTY_STACK;
    if (config.mode == MODE_USER && in_kernel) || (config.mode == MODE_KERNEL && !in_kernel) {
        seen(Seen::Filtered);
        return 0;
    }
    let user_stack = if tid == 0 { EMPTY_STACK } else { stack::capture(ctx, Side::User, scratch) };
    // SAFETY: the helper has no precondition.
    let incarnation =
        if tid == 0 { u64::from(unsafe { bpf_get_smp_processor_id() }) } else { task::incarnation() };
    count(&CountKey { pid, tid, incarnation, kernel_stack, user_stack }, comm);
    debug!(ctx, "sample pid {} tid {} kernel {:x} user {:x}", pid, tid, kernel_stack, user_stack);
    if user_stack != EMPTY_STACK {
        debug!(
            ctx,
            "task pid {} incarnation {} leaf {:x} pc {:x}",
            pid,
            incarnation,
            scratch.frames[0],
            registers::user().unwrap_or_default().pc
        );
    }
    0
}

#[inline(always)]
fn count(key: &CountKey, comm: [u8; 16]) {
    let Some(counts) = COUNTS.get(0) else {
        loss::count(Loss::NoScratch);
        return;
    };
    if let Some(value) = counts.get_ptr_mut(key) {
        // SAFETY: a map value stays valid memory while the program runs. No other CPU writes it at the same time: a key
        // names one thread, which runs on one CPU, or one CPU's idle task.
        unsafe { (*value).count += 1 };
        return;
    }
    // SAFETY: the helper has no precondition.
    let first_ns = unsafe { bpf_ktime_get_ns() };
    if counts.insert(key, CountValue { count: 1, first_ns, comm }, BPF_ANY as u64).is_err() {
        loss::count(Loss::CountsFull);
    }
}
