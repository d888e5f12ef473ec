//! Sums of accounts.

use profiler_common::probe::syscalls::Call;

use super::*;

const WITH: With = With { timed: true, histogram: true };

fn caller(tgid: u32, tid: u32) -> Caller {
    Caller {
        task: 1,
        tgid,
        tid,
        start_ns: u64::from(tid),
        comm: *b"name\0\0\0\0\0\0\0\0\0\0\0\0",
        ..Caller::EMPTY
    }
}

fn account(number: u32, times: &[u64], errors: &[(u32, u64)]) -> CallAccount {
    let mut latencies = Vec::new();
    for &ns in times {
        let (block, bucket) = profiler_common::hist::place(ns);
        merge(&mut latencies, [((block * profiler_common::hist::BUCKETS + bucket) as u16, 1)]);
    }
    let call = Call {
        count: times.len() as u64,
        returned: times.len() as u64,
        errors: errors.iter().map(|&(_, n)| n).sum(),
        total_ns: times.iter().sum(),
        max_ns: times.iter().copied().max().unwrap_or(0),
        off_ns: times.iter().sum::<u64>() / 4,
        number,
        ..Call::EMPTY
    };
    let latencies = latencies.into_iter().map(|(bucket, n)| (bucket, n as u32)).collect();
    CallAccount { call, latencies, errors: errors.to_vec() }
}

#[test]
fn threads_of_a_process_are_one_row() {
    let mut totals = Totals::new(By::Process, false);
    totals.add(&caller(7, 8), &[account(1, &[100, 200], &[(9, 1)])], 0);
    totals.add(
        &Caller { comm: *b"leader\0\0\0\0\0\0\0\0\0\0", ..caller(7, 7) },
        &[account(1, &[300], &[(11, 1)])],
        0,
    );
    let rows = totals.rows(WITH);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.pid, row.tid, row.comm.as_str(), row.count), (Some(7), None, "leader", 3));
    assert_eq!((row.total_ns, row.avg_ns, row.max_ns), (Some(600), Some(200), Some(300)));
    assert_eq!((row.cpu_ns, row.blocked_ns), (Some(450), Some(150)));
    assert_eq!(row.errno, BTreeMap::from([("EAGAIN".to_owned(), 1), ("EBADF".to_owned(), 1)]));
    let mut threads = Totals::new(By::Thread, false);
    threads.add(&caller(7, 8), &[account(1, &[100], &[])], 0);
    threads.add(&caller(7, 7), &[account(1, &[100], &[])], 0);
    assert_eq!(threads.rows(WITH).len(), 2);
}

#[test]
fn percentiles_are_within_the_error() {
    let times: Vec<u64> = (1..=1000).map(|i| i * 1_000).collect();
    let mut totals = Totals::new(By::Syscall, false);
    totals.add(&caller(1, 1), &[account(0, &times, &[])], 0);
    let row = totals.rows(WITH).remove(0);
    for (found, exact) in [(row.p50_ns, 500_000), (row.p90_ns, 900_000), (row.p99_ns, 990_000)] {
        let found = found.unwrap();
        assert!(found.abs_diff(exact) * 100 <= exact * 5, "{found} for {exact}");
    }
    let counted: u64 = row.histogram.unwrap().iter().map(|bucket| bucket.2).sum();
    assert_eq!((counted, totals.not_in_histograms()), (1000, 0));
}

#[test]
fn an_interval_is_what_was_added() {
    let mut before = Totals::new(By::Process, false);
    before.add(&caller(7, 7), &[account(1, &[5_000, 90], &[(4, 2)])], 0);
    let mut now = Totals::new(By::Process, false);
    now.add(&caller(7, 7), &[account(1, &[5_000, 90, 70], &[(4, 3)]), account(2, &[40], &[])], 0);
    let mut rows = now.rows_since(&before, WITH);
    rows.sort_by_key(|row| row.number);
    assert_eq!((rows.len(), rows[0].count, rows[0].total_ns, rows[0].errno["EINTR"]), (2, 1, Some(70), 1));
    // Its bucket's end: the longest of all came before.
    assert_eq!(rows[0].max_ns, Some(72));
    assert_eq!((rows[1].count, rows[1].max_ns), (1, Some(40)));
    assert!(now.rows_since(&now, WITH).is_empty());
}

#[test]
fn what_ended_in_an_interval_is_added_to_what_did_not() {
    let of = |accounts: &[(u32, u32, CallAccount)]| {
        let mut totals = Totals::new(By::Process, false);
        for &(tgid, tid, ref account) in accounts {
            totals.add(&caller(tgid, tid), std::slice::from_ref(account), 0);
        }
        totals
    };
    let before =
        of(&[(7, 7, account(1, &[90], &[])), (8, 8, account(1, &[10], &[])), (9, 9, account(1, &[1], &[]))]);
    let alive = of(&[(7, 7, account(1, &[90, 70], &[(4, 1)])), (9, 9, account(1, &[1], &[]))]);
    // A thread of the first one, one that was there before, and one that was not.
    let ended = of(&[
        (7, 6, account(1, &[200], &[(4, 2)])),
        (8, 8, account(1, &[10, 20, 30], &[])),
        (5, 5, account(2, &[40], &[])),
    ]);
    let mut all = alive.clone();
    all.add_all(&ended);
    let mut called = alive.called_with(ended, &before);
    called.sort_by_key(|called| called.pid);
    let counts: Vec<_> = called.iter().map(|called| (called.pid, called.count, called.comm())).collect();
    let name = || "name".to_owned();
    assert_eq!(counts, [(Some(5), 1, name()), (Some(7), 2, name()), (Some(8), 2, name())]);
    assert_eq!((called[1].errors, called[1].total_ns), (3, 270));
    let mut rows = all.rows_since(&before, WITH);
    rows.sort_by_key(|row| row.pid);
    assert_eq!(called.len(), rows.len());
    for (called, row) in called.iter().zip(rows) {
        assert_eq!((called.count, &*called.name()), (row.count, row.syscall.as_str()));
        assert_eq!((Some(called.errors), Some(called.total_ns)), (row.errors, row.total_ns));
        assert_eq!(Some(ranges(&called.latencies)), row.histogram);
        assert_eq!((called.pid, called.comm()), (row.pid, row.comm));
    }
}

#[test]
fn a_call_that_goes_on_was_not_called_in_an_interval_in_which_nothing_happened() {
    let inside = Caller { since_ns: 100, call: 5, number: 3, ..caller(1, 1) };
    let mut now = Totals::new(By::Process, false);
    now.add(&inside, &[account(1, &[90], &[])], 350);
    let nothing = Totals::new(By::Process, true);
    assert_eq!(now.called_with(nothing.clone(), &nothing).len(), 1);
    assert_eq!(now.called_with(nothing, &now), []);
}

#[test]
fn calls_in_progress_are_told_with_their_time() {
    let mut totals = Totals::new(By::Thread, false);
    totals.add(&Caller { since_ns: 100, call: 5, number: 3, ..caller(1, 2) }, &[], 350);
    // Ended inside of it: it never returns.
    totals.add(&Caller { task: 0, since_ns: 100, call: 6, number: 3, ..caller(1, 3) }, &[], 350);
    let rows = totals.rows(WITH);
    assert_eq!((rows.len(), rows[0].in_progress, rows[0].in_progress_ns), (1, Some(1), Some(250)));
}

#[test]
fn memory_is_bounded_and_nothing_vanishes() {
    let mut totals = Totals::new(By::Process, true);
    for pid in 0..MAX_KEPT as u32 + 10 {
        totals.add(
            &Caller { process_start_ns: pid.into(), ..caller(pid, pid) },
            &[account(1, &[50], &[])],
            0,
        );
    }
    assert_eq!(totals.merged(), 10);
    let rows = totals.rows(WITH);
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), MAX_KEPT as u64 + 10);
    let ended = rows.iter().find(|row| row.comm == "[ended]").unwrap();
    assert_eq!((ended.pid, ended.count), (None, 10));
}

#[test]
fn calls_without_account_are_rows_by_number() {
    let mut totals = Totals::new(By::Process, false);
    let other =
        Other { count: 5, returned: 4, errors: 1, total_ns: 80, max_ns: 50, off_ns: 20, ..Other::default() };
    totals.add_other(other_place(COMPAT | 3), &other, &[(9, 1)]);
    totals.add_other(other_place(60_000), &other, &[]);
    let mut rows = totals.rows(WITH);
    rows.sort_by_key(|row| row.number.is_none());
    assert_eq!((rows[0].comm.as_str(), rows[0].syscall.as_str(), rows[0].count), ("[other]", "read", 5));
    assert_eq!((rows[0].avg_ns, rows[0].p50_ns, rows[0].errno["EBADF"]), (Some(20), None, 1));
    assert_eq!((rows[1].syscall.as_str(), rows[1].number), ("[unknown]", None));
    let counted = totals.rows(With { timed: false, histogram: false }).remove(0);
    assert_eq!((counted.count, counted.total_ns, counted.errors), (5, None, None));
}

#[test]
fn time_on_a_cpu_is_known_of_calls_that_do_not_return_too() {
    let own = |caller: &Caller, call: Call| {
        let account = CallAccount { call: Call { number: 1, ..call }, latencies: vec![], errors: vec![] };
        let mut totals = Totals::new(By::Syscall, false);
        totals.add(caller, &[account], 1_000);
        totals.rows(WITH)[0].own_cpu_ns
    };
    let returned = Call { total_ns: 100, off_ns: 40, irq_ns: 10, ..Call::EMPTY };
    assert_eq!(own(&caller(7, 7), returned), 50);
    let inside = Caller { call: 1, number: 1, since_ns: 400, off_ns: 50, irq_ns: 20, ..caller(7, 7) };
    assert_eq!(own(&inside, returned), 50 + 530, "on a CPU");
    let blocked = Caller { left_ns: 600, ..inside };
    assert_eq!(own(&blocked, returned), 50 + 130);
    assert_eq!(own(&Caller { task: 0, ..blocked }, returned), 50 + 130, "it ended inside of the call");
}

#[test]
fn bytes_are_those_of_calls_that_return_bytes() {
    let bytes = |number: i64| {
        let call = Call { number: number as u32, bytes: 4_096, ..Call::EMPTY };
        let mut totals = Totals::new(By::Syscall, false);
        totals.add(&caller(7, 7), &[CallAccount { call, latencies: vec![], errors: vec![] }], 0);
        totals.rows(WITH)[0].bytes
    };
    assert_eq!([libc::SYS_read, libc::SYS_mmap].map(bytes), [Some(4_096), None]);
}
