//! What the accounting reads of the host itself: how many threads there are, the kernel's own split of CPU time; and the
//! header of its reports.

use std::{collections::HashMap, fs, ops::RangeInclusive};

use profiler_common::probe::sched::Cpu;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{AccountOptions, CpuTimes, cpu_times, cpus};
use crate::{
    host::cpus as host_cpus,
    model::{Meta, name::clean, sched::CpuRow},
};

/// Room for threads: twice as many as there are now (the fourth word of /proc/loadavg), a power of two within bounds.
pub fn threads(bounds: RangeInclusive<u64>) -> u32 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let now =
        text.split_ascii_whitespace().nth(3).and_then(|word| word.split_once('/')?.1.parse::<u64>().ok());
    let room = now.unwrap_or(0).saturating_mul(2).clamp(*bounds.start(), *bounds.end());
    u32::try_from(room.next_power_of_two()).unwrap_or(u32::MAX)
}

/// Runs on each CPU for a moment. CPUs that this process may not run on are left out.
pub fn visit(cpus: &[u32]) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    for &cpu in cpus {
        let mut one = CpuSet::new();
        if (cpu as usize) < CpuSet::MAX_CPU && allowed.is_set(cpu as usize) {
            one.set(cpu as usize);
            _ = sched_setaffinity(None, &one);
        }
    }
    // What was allowed before is allowed still.
    _ = sched_setaffinity(None, &allowed);
}

/// The kernel's own split, by CPU; nothing if it cannot be read: the split is not known then.
pub fn ticks() -> HashMap<u32, CpuTimes> {
    cpu_times::read().unwrap_or_default().into_iter().collect()
}

/// Rows of all CPUs that were accounted, their sum first. `before`: the accounts at the start of the span, or none.
pub fn cpu_rows(
    now: &[Cpu],
    before: &[Cpu],
    ticks: &HashMap<u32, CpuTimes>,
    ticks_before: &HashMap<u32, CpuTimes>,
) -> Vec<CpuRow> {
    let per_second = cpu_times::ticks_per_second();
    let mut rows = Vec::new();
    for (number, cpu) in (0..).zip(now).filter(|(_, cpu)| cpu.since_ns != 0) {
        let span = before.get(number as usize).map_or(*cpu, |before| cpus::since(cpu, before));
        let of = |ticks: &HashMap<u32, CpuTimes>| ticks.get(&number).copied().unwrap_or_default();
        let (later, earlier) = (of(ticks), of(ticks_before));
        let split = CpuTimes {
            user: later.user.saturating_sub(earlier.user),
            system: later.system.saturating_sub(earlier.system),
            steal: later.steal.saturating_sub(earlier.steal),
        };
        rows.push(cpus::row(number, &span, split, per_second));
    }
    rows.insert(0, cpus::total(&rows));
    rows
}

/// The header. `hook`: the tracepoint that is hit.
pub fn meta(
    options: &AccountOptions,
    hook: &str,
    start_unix_ns: u64,
    duration_ns: u64,
    notes: &[String],
) -> Meta {
    let uname = rustix::system::uname();
    Meta {
        profiler_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: clean(uname.nodename().to_bytes()),
        kernel: clean(uname.release().to_bytes()),
        arch: clean(uname.machine().to_bytes()),
        cpus: host_cpus::online().len() as u32,
        start_unix_ns,
        duration_ns,
        events: vec![options.event.to_owned()],
        sampler: hook.to_owned(),
        target: options.target_words.clone(),
        command: options.command_line.clone(),
        notes: notes.to_vec(),
        ..Meta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_twice_the_threads_within_bounds() {
        assert!(threads(1..=1 << 22).is_power_of_two());
        assert_eq!((threads(64..=64), threads(1 << 30..=1 << 30)), (64, 1 << 30));
    }
}
