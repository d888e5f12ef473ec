//! Accounts of CPUs: closed at a moment, subtracted, and split by what the kernel knows of user and kernel mode.

use profiler_common::probe::sched::{CPU_EMPTY, Cpu, LOG2_BUCKETS};

use crate::{
    host::cpu_times::CpuTimes,
    model::sched::{CpuRow, Histogram},
};

/// A CPU's account closed at `end_ns`: what it is doing is taken to go on until then. All of it is 0 for a CPU that has
/// not switched since `start_ns`: what it was doing is not known.
pub fn close(cpu: &Cpu, start_ns: u64, end_ns: u64) -> Cpu {
    if cpu.since_ns == 0 {
        return CPU_EMPTY;
    }
    let mut closed = *cpu;
    let irq = (cpu.hardirq_ns + cpu.softirq_ns).saturating_sub(cpu.irq_at_ns);
    let rest = end_ns.saturating_sub(cpu.since_ns).saturating_sub(irq);
    *(if cpu.idle != 0 { &mut closed.idle_ns } else { &mut closed.busy_ns }) += rest;
    closed.since_ns = end_ns.max(start_ns);
    closed
}

/// What was added since an earlier account of the same CPU.
pub fn since(now: &Cpu, before: &Cpu) -> Cpu {
    let mut span = *now;
    span.idle_ns = now.idle_ns.saturating_sub(before.idle_ns);
    span.busy_ns = now.busy_ns.saturating_sub(before.busy_ns);
    span.unknown_ns = now.unknown_ns.saturating_sub(before.unknown_ns);
    span.hardirq_ns = now.hardirq_ns.saturating_sub(before.hardirq_ns);
    span.softirq_ns = now.softirq_ns.saturating_sub(before.softirq_ns);
    span.switches = now.switches.saturating_sub(before.switches);
    span.hardirqs = now.hardirqs.saturating_sub(before.hardirqs);
    span.softirqs = now.softirqs.saturating_sub(before.softirqs);
    for (count, earlier) in span.slices.iter_mut().zip(before.slices) {
        *count = count.saturating_sub(earlier);
    }
    for (count, earlier) in span.waits.iter_mut().zip(before.waits) {
        *count = count.saturating_sub(earlier);
    }
    span
}

/// The row of a span. `ticks`: what the kernel itself counted in that span. The time of tasks is exact; how it is split
/// is the kernel's (in ticks, so that short spans are split coarsely).
pub fn row(number: u32, span: &Cpu, ticks: CpuTimes, ticks_per_second: u64) -> CpuRow {
    let steal_ns = (ticks.steal.saturating_mul(1_000_000_000) / ticks_per_second).min(span.busy_ns);
    let busy_ns = span.busy_ns - steal_ns;
    let parts = u128::from(ticks.user) + u128::from(ticks.system);
    let user = (u128::from(busy_ns) * u128::from(ticks.user)).checked_div(parts).map(|ns| ns as u64);
    CpuRow {
        cpu: Some(number),
        wall_ns: span.busy_ns + span.idle_ns + span.unknown_ns + span.hardirq_ns + span.softirq_ns,
        user_ns: user,
        system_ns: user.map(|user| busy_ns - user),
        busy_ns,
        hardirq_ns: span.hardirq_ns,
        softirq_ns: span.softirq_ns,
        steal_ns,
        idle_ns: span.idle_ns,
        unknown_ns: span.unknown_ns,
        switches: span.switches,
        hardirqs: span.hardirqs,
        softirqs: span.softirqs,
        slices: histogram(&span.slices),
        run_queue: histogram(&span.waits),
    }
}

/// The sum of all CPUs. The split is known if it is known of each CPU that was busy at all.
pub fn total(rows: &[CpuRow]) -> CpuRow {
    let sum = |of: fn(&CpuRow) -> u64| rows.iter().map(of).sum::<u64>();
    // A CPU without a tick of either kind was busy for less than some ticks: shared out like the rest.
    let (user, system) = (sum(|row| row.user_ns.unwrap_or(0)), sum(|row| row.system_ns.unwrap_or(0)));
    let busy_ns = sum(|row| row.busy_ns);
    let split = (u128::from(busy_ns) * u128::from(user)).checked_div(u128::from(user) + u128::from(system));
    let user_ns = split.map(|ns| ns as u64);
    CpuRow {
        cpu: None,
        wall_ns: sum(|row| row.wall_ns),
        user_ns,
        system_ns: user_ns.map(|user| busy_ns - user),
        busy_ns,
        hardirq_ns: sum(|row| row.hardirq_ns),
        softirq_ns: sum(|row| row.softirq_ns),
        steal_ns: sum(|row| row.steal_ns),
        idle_ns: sum(|row| row.idle_ns),
        unknown_ns: sum(|row| row.unknown_ns),
        switches: sum(|row| row.switches),
        hardirqs: sum(|row| row.hardirqs),
        softirqs: sum(|row| row.softirqs),
        slices: merged(rows, |row| &row.slices),
        run_queue: merged(rows, |row| &row.run_queue),
    }
}

fn histogram(counts: &[u64; LOG2_BUCKETS]) -> Histogram {
    let occupied = counts.iter().enumerate().filter(|(_, count)| **count != 0);
    // The first bucket has 0 too.
    occupied.map(|(log, &count)| (if log == 0 { 0 } else { 1 << log }, 2 << log, count)).collect()
}

fn merged(rows: &[CpuRow], of: fn(&CpuRow) -> &Histogram) -> Histogram {
    let mut sums = std::collections::BTreeMap::new();
    for &(from, to, count) in rows.iter().flat_map(of) {
        *sums.entry((from, to)).or_insert(0) += count;
    }
    sums.into_iter().map(|((from, to), count)| (from, to, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slice_goes_on_until_the_end() {
        let cpu = Cpu { since_ns: 150, idle_ns: 20, busy_ns: 25, hardirq_ns: 8, irq_at_ns: 5, ..CPU_EMPTY };
        let busy = close(&cpu, 100, 200);
        assert_eq!((busy.idle_ns, busy.busy_ns), (20, 25 + 47));
        let idle = close(&Cpu { idle: 1, ..cpu }, 100, 200);
        assert_eq!((idle.idle_ns, idle.busy_ns), (20 + 47, 25));
        let row = row(0, &idle, CpuTimes::default(), 100);
        assert_eq!((row.wall_ns, row.user_ns), (100, None));
    }

    #[test]
    fn busy_time_is_split_as_the_kernel_does() {
        let span = Cpu { busy_ns: 1_000_000_000, idle_ns: 5, ..CPU_EMPTY };
        let ticks = CpuTimes { user: 30, system: 10, steal: 20 };
        let row = row(3, &span, ticks, 100);
        assert_eq!(row.steal_ns, 200_000_000);
        assert_eq!((row.user_ns, row.system_ns), (Some(600_000_000), Some(200_000_000)));
        let all = total(&[row.clone(), row]);
        assert_eq!((all.user_ns, all.system_ns, all.idle_ns), (Some(1_200_000_000), Some(400_000_000), 10));
    }

    #[test]
    fn histograms_have_the_bounds_of_their_buckets() {
        let mut counts = [0; LOG2_BUCKETS];
        (counts[0], counts[10]) = (1, 7);
        assert_eq!(histogram(&counts), [(0, 2, 1), (1024, 2048, 7)]);
    }
}
