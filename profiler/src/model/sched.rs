//! Where the time of threads and of CPUs went: exact accounts, for one span of time.

use serde::Serialize;

use super::{Cost, Losses, Meta, named::Named};

/// A histogram: `(from, to, count)` of ns, ascending; empty buckets are left out.
pub type Histogram = Vec<(u64, u64, u64)>;

/// The account of a thread, or the sum of a process's threads. Times are ns and add up: `cpu_ns` + `irq_ns` +
/// `run_queue_ns` + `blocked_ns` + `unknown_ns` = `wall_ns`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Process id; `None`: threads that ended long ago and are only counted in sum.
    pub pid: Option<u32>,
    /// Thread id; `None`: the process as a whole.
    pub tid: Option<u32>,
    /// Name, cleaned; of a process, its first thread's.
    pub comm: String,
    /// Threads that are in the row.
    pub threads: u64,
    /// Of these: ended.
    pub ended: u64,
    /// Time that was accounted: since the start, or since it was made.
    pub wall_ns: u64,
    /// Switches because it waited.
    pub voluntary: u64,
    /// Switches because another thread was to run.
    pub involuntary: u64,
    /// Time on a CPU without `irq_ns`.
    pub cpu_ns: u64,
    /// Time on a CPU that interrupts and soft interrupts took.
    pub irq_ns: u64,
    /// Time that it could have run and waited for a CPU.
    pub run_queue_ns: u64,
    /// Such waits.
    pub run_queue_count: u64,
    /// Their mean.
    pub run_queue_avg_ns: u64,
    /// Their median, within 12.5 %.
    pub run_queue_p50_ns: u64,
    /// 99 % of them are shorter, within 12.5 %.
    pub run_queue_p99_ns: u64,
    /// The longest.
    pub run_queue_max_ns: u64,
    /// Time that it waited for something else.
    pub blocked_ns: u64,
    /// The part of it that was uninterruptible (`D`).
    pub uninterruptible_ns: u64,
    /// The same by what it waited for; causes without time are left out.
    pub blocked: Named,
    /// Time in which a switch was not seen; 0 unless losses say so.
    pub unknown_ns: u64,
    /// Changes of the CPU.
    pub migrations: u64,
    /// Times that it was woken.
    pub wakeups_got: u64,
    /// Times that it woke another thread.
    pub wakeups_given: u64,
    /// What performance counters counted while it was on a CPU, in their own units; empty if none were read.
    pub counters: Named,
    /// Cycles for each instruction; `None` unless both were counted.
    pub cpi: Option<f64>,
}

impl Row {
    /// The columns that rows can be sorted by.
    pub const COLUMNS: [&str; 18] = [
        "cpu_ns",
        "wall_ns",
        "irq_ns",
        "run_queue_ns",
        "run_queue_count",
        "run_queue_avg_ns",
        "run_queue_p50_ns",
        "run_queue_p99_ns",
        "run_queue_max_ns",
        "blocked_ns",
        "unknown_ns",
        "uninterruptible_ns",
        "voluntary",
        "involuntary",
        "migrations",
        "wakeups_got",
        "wakeups_given",
        "threads",
    ];

    /// The number in a column, or of a counter; `None` if there is no such column.
    pub fn column(&self, name: &str) -> Option<u64> {
        Some(match name {
            "cpu_ns" => self.cpu_ns,
            "wall_ns" => self.wall_ns,
            "irq_ns" => self.irq_ns,
            "run_queue_ns" => self.run_queue_ns,
            "run_queue_count" => self.run_queue_count,
            "run_queue_avg_ns" => self.run_queue_avg_ns,
            "run_queue_p50_ns" => self.run_queue_p50_ns,
            "run_queue_p99_ns" => self.run_queue_p99_ns,
            "run_queue_max_ns" => self.run_queue_max_ns,
            "blocked_ns" => self.blocked_ns,
            "unknown_ns" => self.unknown_ns,
            "uninterruptible_ns" => self.uninterruptible_ns,
            "voluntary" => self.voluntary,
            "involuntary" => self.involuntary,
            "migrations" => self.migrations,
            "wakeups_got" => self.wakeups_got,
            "wakeups_given" => self.wakeups_given,
            "threads" => self.threads,
            _ => return self.counters.get(name),
        })
    }
}

/// The account of a CPU, or of all. Times are ns and add up to `wall_ns`, except that `user_ns` and `system_ns` are
/// `None` where nothing tells how the rest is split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuRow {
    /// Its number; `None`: all.
    pub cpu: Option<u32>,
    /// Time that was accounted.
    pub wall_ns: u64,
    /// User mode.
    pub user_ns: Option<u64>,
    /// Kernel mode, without interrupts.
    pub system_ns: Option<u64>,
    /// User and kernel mode together.
    pub busy_ns: u64,
    /// Handlers of interrupts.
    pub hardirq_ns: u64,
    /// Soft interrupts.
    pub softirq_ns: u64,
    /// Taken by the hypervisor while a task was to run.
    pub steal_ns: u64,
    /// The idle task.
    pub idle_ns: u64,
    /// Time in which a switch was not seen; 0 unless losses say so.
    pub unknown_ns: u64,
    /// Switches, those to and from the idle task included.
    pub switches: u64,
    /// Handlers of interrupts that ran.
    pub hardirqs: u64,
    /// Soft interrupts that ran.
    pub softirqs: u64,
    /// How long tasks were on the CPU at a time, by powers of two.
    pub slices: Histogram,
    /// How long threads waited for this CPU, by powers of two.
    pub run_queue: Histogram,
}

/// A span of time and what happened in it.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Its number, from 1; `None`: the whole run.
    pub number: Option<u64>,
    /// Circumstances.
    pub meta: Meta,
    /// What was lost, of the whole run.
    pub losses: Losses,
    /// The profiler's own consumption, of the whole run.
    pub cost: Cost,
    /// Threads, processes and CPUs.
    pub accounts: Accounts,
}

/// Accounts of one span of time.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Threads and processes: each process in front of its threads.
    pub rows: Vec<Row>,
    /// CPUs, the sum of all first.
    pub cpus: Vec<CpuRow>,
}

impl Accounts {
    /// Puts the processes with most of a column in front, and in each the threads. Rows that do not have it (counters that were
    /// not read) come last.
    pub fn sort(&mut self, column: &str) {
        let mut groups: Vec<Vec<Row>> = Vec::new();
        for row in self.rows.drain(..) {
            match groups.last_mut() {
                Some(group) if row.tid.is_some() => group.push(row),
                _ => groups.push(vec![row]),
            }
        }
        let key = |row: &Row| std::cmp::Reverse(row.column(column));
        for group in &mut groups {
            if let Some(threads) = group.get_mut(1..) {
                threads.sort_by_key(|row| (key(row), row.tid));
            }
        }
        groups.sort_by_key(|group| group.first().map(|row| (key(row), row.pid)));
        self.rows = groups.concat();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: u32, tid: Option<u32>, cpu_ns: u64) -> Row {
        Row { pid: Some(pid), tid, cpu_ns, ..Row::default() }
    }

    #[test]
    fn processes_keep_their_threads_when_sorted() {
        let rows = vec![
            row(1, None, 5),
            row(1, Some(1), 2),
            row(1, Some(2), 3),
            row(7, None, 9),
            row(7, Some(7), 9),
        ];
        let mut accounts = Accounts { rows, cpus: Vec::new() };
        accounts.sort("cpu_ns");
        let ids: Vec<_> = accounts.rows.iter().map(|row| (row.pid, row.tid)).collect();
        assert_eq!(
            ids,
            [(Some(7), None), (Some(7), Some(7)), (Some(1), None), (Some(1), Some(2)), (Some(1), Some(1))]
        );
    }

    #[test]
    fn every_column_has_a_number() {
        for column in Row::COLUMNS {
            assert_eq!(Row::default().column(column), Some(0), "{column}");
        }
    }
}
