//! System calls: how often, how long, with what errors; for one span of time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Cost, Losses, Meta};

/// What rows are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// A system call of a process.
    #[default]
    Process,
    /// A system call of a thread.
    Thread,
    /// A system call of all that are looked at.
    Syscall,
}

/// Calls of one kind. Times are ns and `None` if calls are only counted, means and the like also if none returned. `count` = returned + in progress + those that
/// never return (`exit`, a thread that was killed inside of one).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Process id; `None`: not of one process.
    pub pid: Option<u32>,
    /// Thread id; `None`: not of one thread.
    pub tid: Option<u32>,
    /// Name, cleaned; `[other]`: calls without account of their own; `[ended]`: of processes that ended long ago, in sum.
    pub comm: String,
    /// The call's name.
    pub syscall: String,
    /// Its number; `None`: one that no kernel has.
    pub number: Option<u32>,
    /// Whose numbers these are: `x86-64`, `i386`, ...
    pub abi: &'static str,
    /// Times that it was entered.
    pub count: u64,
    /// Times that it returned.
    pub returned: Option<u64>,
    /// Of these: with an error.
    pub errors: Option<u64>,
    /// The same by error.
    pub errno: BTreeMap<String, u64>,
    /// Time in calls that returned.
    pub total_ns: Option<u64>,
    /// The part of it on a CPU.
    pub cpu_ns: Option<u64>,
    /// The part of it off the CPU: blocked, and waiting for a CPU behind that.
    pub blocked_ns: Option<u64>,
    /// Time on a CPU without interrupts, where those are accounted; also in calls that did not return.
    #[serde(skip)]
    pub own_cpu_ns: u64,
    /// Bytes that they transferred; `None` for calls that do not return a number of bytes.
    pub bytes: Option<u64>,
    /// The mean.
    pub avg_ns: Option<u64>,
    /// The median, within 3.2 %.
    pub p50_ns: Option<u64>,
    /// 90 % are shorter, within 3.2 %.
    pub p90_ns: Option<u64>,
    /// 99 % are shorter, within 3.2 %.
    pub p99_ns: Option<u64>,
    /// The longest.
    pub max_ns: Option<u64>,
    /// Calls that have not returned at the end of the span.
    pub in_progress: Option<u64>,
    /// Time in these until then.
    pub in_progress_ns: Option<u64>,
    /// Latencies, `(from, to, count)` of ns, ascending; if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Vec<(u64, u64, u64)>>,
}

impl Row {
    /// The columns that rows can be sorted by.
    pub const COLUMNS: [&str; 12] = [
        "total_ns",
        "count",
        "errors",
        "avg_ns",
        "p50_ns",
        "p90_ns",
        "p99_ns",
        "max_ns",
        "cpu_ns",
        "blocked_ns",
        "in_progress",
        "in_progress_ns",
    ];

    /// The number in a column, 0 if it is not known; `None` if there is no such column.
    pub fn column(&self, name: &str) -> Option<u64> {
        let value = match name {
            "count" => Some(self.count),
            "errors" => self.errors,
            "total_ns" => self.total_ns,
            "avg_ns" => self.avg_ns,
            "p50_ns" => self.p50_ns,
            "p90_ns" => self.p90_ns,
            "p99_ns" => self.p99_ns,
            "max_ns" => self.max_ns,
            "cpu_ns" => self.cpu_ns,
            "blocked_ns" => self.blocked_ns,
            "in_progress" => self.in_progress,
            "in_progress_ns" => self.in_progress_ns,
            _ => return None,
        };
        Some(value.unwrap_or(0))
    }
}

/// A span of time and the calls in it.
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
    /// Calls were timed, not only counted.
    pub timed: bool,
    /// The calls.
    pub rows: Vec<Row>,
}

impl Span {
    /// Puts the rows with most of a column in front; gives `false` if there is no such column.
    pub fn sort(&mut self, column: &str) -> bool {
        if Row::default().column(column).is_none() {
            return false;
        }
        // Calls that have not returned yet are told apart by their number.
        let key = |row: &Row| std::cmp::Reverse((row.column(column), row.count));
        self.rows.sort_by(|a, b| {
            key(a)
                .cmp(&key(b))
                .then_with(|| (a.pid, a.tid, a.abi, a.number).cmp(&(b.pid, b.tid, b.abi, b.number)))
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_any_column() {
        let row = |count, total_ns| Row { count, total_ns: Some(total_ns), ..Row::default() };
        let mut span = Span { rows: vec![row(1, 5), row(3, 2), row(2, 9)], ..Span::default() };
        let counts = |span: &Span| span.rows.iter().map(|row| row.count).collect::<Vec<_>>();
        assert!(span.sort("total_ns"));
        assert_eq!(counts(&span), [2, 1, 3]);
        assert!(span.sort("count"));
        assert_eq!(counts(&span), [3, 2, 1]);
        assert!(!span.sort("comm"));
    }

    #[test]
    fn every_column_has_a_number() {
        for column in Row::COLUMNS {
            assert_eq!(Row::default().column(column), Some(0), "{column}");
        }
    }
}
