//! Rows of threads, from accounts, waits and what the JVM says.

use std::cmp::Reverse;

use super::{
    Part,
    tops::Tops,
    watch::{self, Moment},
};
use crate::{
    model::{java::Thread, named::Named, sched::Row},
    symbolize::runtime::jvm::{threads::State, wait::Wait},
};

/// The kernel's cause of all waits that code of Java tells more of (`profiler_common::sched::cause::Cause::Futex`).
const FUTEX: &str = "futex";

/// The row of a thread.
pub fn thread(row: &Row, tops: &Tops, before: &Moment, now: &Moment, part: Part) -> Thread {
    let tid = row.tid.unwrap_or(0);
    let java = now.threads.get(&tid);
    // What was waited for all the time, or when it began, or still is, is in no wait that ended.
    let ongoing = match part {
        Part::Whole => before.threads.get(&tid),
        Part::Interval => java,
    };
    let alive = java.filter(|_| row.ended == 0);
    let seen = now.seen.get(&tid);
    let allocated = seen.and_then(|seen| seen.allocated_bytes);
    let before_it = before.seen.get(&tid).and_then(|seen| seen.allocated_bytes);
    Thread {
        tid,
        name: seen.and_then(|seen| seen.name.clone()).unwrap_or_else(|| row.comm.clone()),
        java: seen.is_some(),
        state: alive.and_then(|thread| thread.state).map(State::key),
        innermost: alive.and_then(|thread| thread.innermost.as_deref()).and_then(watch::method),
        ended: row.ended != 0,
        wall_ns: row.wall_ns,
        cpu_ns: row.cpu_ns,
        irq_ns: row.irq_ns,
        run_queue_ns: row.run_queue_ns,
        blocked_ns: row.blocked_ns,
        blocked: causes(row, tops.waits_of(tid), ongoing.and_then(watch::wait)),
        unknown_ns: row.unknown_ns,
        allocated_bytes: allocated.map(|bytes| bytes.saturating_sub(before_it.unwrap_or(0))),
    }
}

/// The threads with most time on a CPU first.
pub fn sorted(mut threads: Vec<Thread>) -> Vec<Thread> {
    threads.sort_by_key(|thread| (Reverse(thread.cpu_ns + thread.irq_ns), thread.tid));
    threads
}

/// The time that a thread was blocked, by cause. `waits`: those of Java that ended, whose times can be more than what is in
/// the span if they began before it.
fn causes(row: &Row, waits: &[(Wait, u64)], ongoing: Option<Wait>) -> Named {
    let whole = row.blocked.get(FUTEX).unwrap_or(0);
    let told: u64 = waits.iter().map(|(_, ns)| ns).sum();
    let scaled = |ns: u64| match told > whole {
        true => (u128::from(ns) * u128::from(whole) / u128::from(told)) as u64,
        false => ns,
    };
    let mut causes: Vec<(&'static str, u64)> =
        waits.iter().map(|&(wait, ns)| (wait.key(), scaled(ns))).collect();
    let rest = whole - causes.iter().map(|(_, ns)| ns).sum::<u64>();
    let rest_is = ongoing.map_or(FUTEX, Wait::key);
    match causes.iter_mut().find(|(cause, _)| *cause == rest_is) {
        Some((_, ns)) => *ns += rest,
        None => causes.push((rest_is, rest)),
    }
    causes.extend(row.blocked.iter().filter(|(cause, _)| *cause != FUTEX));
    causes.retain(|(_, ns)| *ns != 0);
    causes.sort_by_key(|&(cause, ns)| (Reverse(ns), cause));
    causes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            blocked_ns: 150,
            blocked: [("socket", 50), ("futex", 100)].into_iter().collect(),
            ..Row::default()
        }
    }

    fn of(waits: &[(Wait, u64)], ongoing: Option<Wait>) -> Vec<(&'static str, u64)> {
        let causes = causes(&row(), waits, ongoing);
        assert_eq!(causes.iter().map(|(_, ns)| ns).sum::<u64>(), row().blocked_ns);
        causes.iter().collect()
    }

    #[test]
    fn causes_add_up_to_the_time_blocked() {
        assert_eq!(of(&[], None), [("futex", 100), ("socket", 50)]);
        // Blocked all the time.
        assert_eq!(of(&[], Some(Wait::Park)), [("park", 100), ("socket", 50)]);
        let waits = [(Wait::Monitor, 30), (Wait::Park, 60)];
        assert_eq!(of(&waits, None), [("park", 60), ("socket", 50), ("monitor", 30), ("futex", 10)]);
        assert_eq!(of(&waits, Some(Wait::Park)), [("park", 70), ("socket", 50), ("monitor", 30)]);
        // They began before the interval.
        let waits = [(Wait::Monitor, 300), (Wait::Sleep, 100)];
        assert_eq!(of(&waits, None), [("monitor", 75), ("socket", 50), ("thread-sleep", 25)]);
    }
}
