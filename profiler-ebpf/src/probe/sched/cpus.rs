//! The accounts of CPUs: what they did between switches, and interrupts.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use profiler_common::{
    loss::Loss,
    probe::sched::{Cpu, Gate, log2_bucket},
};

use super::{gate, now, opaque, since};
use crate::loss;

/// Accounts of CPUs.
#[btf_map]
static CPUS: PerCpuArray<Cpu, 1> = PerCpuArray::new();

/// This CPU's account.
#[inline(always)]
pub fn cpu() -> Option<&'static mut Cpu> {
    // SAFETY: it is this CPU's. Interrupts may come in between on purpose, see `softirq_entry`.
    CPUS.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}

/// What interrupts have taken from this CPU so far, ns.
#[inline(always)]
pub fn irq_ns() -> u64 {
    cpu().map_or(0, |cpu| cpu.hardirq_ns + cpu.softirq_ns)
}

/// Closes what the CPU did since the last switch; gives the time of it that interrupts took.
#[inline(always)]
pub fn close_slice(cpu: &mut Cpu, start: u64, now: u64, prev: u64, leaves_idle: bool) -> u64 {
    if cpu.softirq_since_ns != 0 {
        // Only where soft interrupts can be switched away from (PREEMPT_RT).
        close_softirq(cpu, now);
    }
    let begun = if cpu.since_ns == 0 { start } else { cpu.since_ns };
    let slice = since(now, begun);
    let irq_total = cpu.hardirq_ns + cpu.softirq_ns;
    let irq = irq_total - cpu.irq_at_ns;
    let irq = if irq < slice { irq } else { slice };
    let is_expected = cpu.since_ns == 0 || cpu.current == prev;
    if !is_expected {
        loss::count(Loss::SwitchesMissed);
    }
    if !is_expected && (cpu.idle != 0) != leaves_idle {
        cpu.unknown_ns += slice - irq;
    } else if leaves_idle {
        cpu.idle_ns += slice - irq;
    } else {
        cpu.busy_ns += slice - irq;
        if let Some(bucket) = cpu.slices.get_mut(opaque(log2_bucket(slice))) {
            *bucket += 1;
        }
    }
    cpu.irq_at_ns = irq_total;
    cpu.since_ns = begun + slice;
    cpu.switches += 1;
    irq
}

/// `irq_handler_entry`, `local_timer_entry`: with interrupts off.
#[inline(always)]
pub fn hardirq_entry() {
    if gate(Gate::Start) != 0
        && let Some(cpu) = cpu()
    {
        cpu.hardirq_since_ns = now();
        cpu.hardirqs += 1;
    }
}

/// `irq_handler_exit`, `local_timer_exit`.
#[inline(always)]
pub fn hardirq_exit() {
    if let Some(cpu) = cpu()
        && cpu.hardirq_since_ns != 0
    {
        cpu.hardirq_ns += since(now(), cpu.hardirq_since_ns);
        cpu.hardirq_since_ns = 0;
    }
}

/// `softirq_entry`: with interrupts on. One that comes between the reading of its time and of the clock is noticed, and
/// the clock is read again: it is not in both.
#[inline(always)]
pub fn softirq_entry() {
    if gate(Gate::Start) == 0 {
        return;
    }
    let Some(cpu) = cpu() else { return };
    let hardirq_ns = &raw const cpu.hardirq_ns;
    // SAFETY: a member of this CPU's account; volatile because interrupts change it meanwhile.
    let before = unsafe { hardirq_ns.read_volatile() };
    let mut begun = now();
    // SAFETY: as above.
    let after = unsafe { hardirq_ns.read_volatile() };
    if after != before {
        begun = now();
    }
    cpu.softirq_hardirq_ns = after;
    cpu.softirq_since_ns = begun;
    cpu.softirqs += 1;
}

/// `softirq_exit`.
#[inline(always)]
pub fn softirq_exit() {
    if let Some(cpu) = cpu()
        && cpu.softirq_since_ns != 0
    {
        let hardirq_ns = &raw const cpu.hardirq_ns;
        // SAFETY: as in `softirq_entry`.
        let before = unsafe { hardirq_ns.read_volatile() };
        let mut ended = now();
        // SAFETY: as above.
        if unsafe { hardirq_ns.read_volatile() } != before {
            ended = now();
        }
        close_softirq(cpu, ended);
    }
}

/// Closes the time of a soft interrupt, without that of the interrupts that hit it.
#[inline(always)]
fn close_softirq(cpu: &mut Cpu, ended: u64) {
    let hardirq_ns = &raw const cpu.hardirq_ns;
    // SAFETY: as in `softirq_entry`.
    let hit = unsafe { hardirq_ns.read_volatile() } - cpu.softirq_hardirq_ns;
    cpu.softirq_ns += since(since(ended, cpu.softirq_since_ns), hit);
    cpu.softirq_since_ns = 0;
}
