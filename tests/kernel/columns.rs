//! Columns of `profiler sched` that the known waits do not have: migrations, wake-ups given, the distribution of waits for a CPU,
//! uninterruptible waits. Each against what the workload has made happen.

use profiler_tests::{
    accounts::{Accounting, Accounts, number},
    expect,
    target::{Target, said},
    workload,
};
use serde_json::Value;

const MS: u64 = 1_000_000;

/// Moves, waits for a CPU and wake-ups that are made.
const MADE: [&str; 3] = ["1000", "30", "2000"];

/// Moves by the scheduler, before a thread is bound to its first CPU.
const MOVED: u64 = 3;

/// Wake-ups of others that a thread may do.
const OTHERS: u64 = 10;

struct Columns {
    accounts: Accounts,
    said: Value,
    /// What times may be off beside 2 %: the hypervisor's part; under emulation, slices of the host's scheduler.
    slack_ns: u64,
}

impl Columns {
    fn run() -> Self {
        let mut target = Target::ready(&workload::path("columns"), &MADE);
        let accounting = Accounting::start(&["sched", "-p", &target.pid().to_string()]);
        let steal = expect::steal_ticks();
        target.go();
        let text = target.text_until("done");
        let slack_ns = if expect::is_emulated() { 15 * MS } else { MS + expect::steal_since_ns(steal) };
        let (_, accounts) = accounting.stop();
        accounts.check();
        Self { accounts, said: said(&text), slack_ns }
    }

    /// The row of a thread, and the number that it says.
    fn of(&self, name: &str) -> (&Value, u64) {
        let [tid, said] = [0, 1].map(|i| self.said[name][i].as_u64().unwrap());
        let row = self.accounts.thread(tid);
        assert_eq!(row["comm"], name);
        (row, said)
    }

    fn missed(&self) -> u64 {
        self.accounts.lost("switches_missed") + self.accounts.lost("wakeups_missed")
    }
}

#[test]
fn columns_say_what_was_made() {
    let columns = Columns::run();
    let (mover, moves) = columns.of("mover");
    assert!((moves..=moves + MOVED).contains(&number(mover, "migrations")), "{moves} moves: {mover}");
    for name in ["queued", "holder"] {
        let (row, _) = columns.of(name);
        assert!(number(row, "migrations") <= MOVED, "{row}");
    }
    let (waker, wakes) = columns.of("waker");
    let given = number(waker, "wakeups_given");
    // The main thread, in the end, and threads of the kernel that work for it.
    assert!((wakes..=wakes + OTHERS).contains(&given), "{wakes} wake-ups: {waker}");
    let (woken, _) = columns.of("woken");
    let got = number(woken, "wakeups_got");
    assert!(got <= wakes + 1 && wakes <= got + columns.missed() + 1, "{wakes} wake-ups: {woken}");
    assert!(number(woken, "wakeups_given") <= OTHERS, "{woken}");
    let (vforker, waited) = columns.of("vforker");
    let uninterruptible = number(vforker, "uninterruptible_ns");
    let slack = waited / 50 + columns.slack_ns + number(vforker, "run_queue_ns");
    assert!(waited >= 100 * MS && uninterruptible.abs_diff(waited) <= slack, "{waited} ns: {vforker}");
    assert_eq!(number(woken, "uninterruptible_ns"), 0, "{woken}");
}

#[test]
fn waits_for_a_cpu_have_their_distribution() {
    let columns = Columns::run();
    let (row, longest) = columns.of("queued");
    let [total, count, avg, p50, p99, max] = ["ns", "count", "avg_ns", "p50_ns", "p99_ns", "max_ns"]
        .map(|column| number(row, &format!("run_queue_{column}")));
    // A wait for each sleep, and some that are short.
    assert!(count >= 30 && total / count == avg, "{row}");
    assert!(p50 <= p99 && p99 <= max && max <= total, "{row}");
    assert!(max.abs_diff(longest) <= longest / 50 + columns.slack_ns, "{longest} ns: {row}");
    // Of each that was not seen to begin or to end, the time is elsewhere.
    let seen = 30u64.saturating_sub(columns.missed());
    assert!(total >= seen * 20 * MS * 98 / 100, "each was 20 ms at least: {row}");
    // Within 12.5 %; a kernel may make a short wait of each wake-up too, before the long one.
    if seen > count / 2 + 1 {
        assert!(p50 >= 17 * MS, "{row}");
    }
    if seen > count / 100 + 1 {
        assert!(p99 >= 17 * MS, "{row}");
    }
    let (holder, _) = columns.of("holder");
    assert!(number(holder, "run_queue_p50_ns") < 15 * MS, "it is the first in the queue: {holder}");
}
