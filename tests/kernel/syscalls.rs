//! System calls: numbers, errors and times against what a program makes, measures, and is told by the kernel.

use std::{collections::BTreeMap, fs};

use profiler_tests::{
    accounts::{Accounting, Accounts, number},
    expect,
    skip::skip,
    target::{Target, said},
    workload,
};
use serde_json::Value;

use crate::selection::Cgroup;

const MS: u64 = 1_000_000;

/// Calls of a storm: an emulated machine makes fewer.
fn calls() -> u64 {
    if expect::is_emulated() { 200_000 } else { 2_000_000 }
}

/// The workload in a mode, ready: it waits in a read, whose beginning nobody sees any more.
pub fn ready(mode: &str, count: u64) -> Target {
    let target = Target::ready(&workload::path("calls"), &[mode, &count.to_string()]);
    wait_until_asleep(target.pid());
    target
}

/// Waits until a process's first thread sleeps: its state in /proc/PID/stat.
pub fn wait_until_asleep(pid: u32) {
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next()
    };
    while state() != Some('S') {
        std::thread::yield_now();
    }
}

/// Checks what must hold whatever was called: nothing was lost but what a kernel does not show; a row's parts add up.
pub fn check(accounts: &Accounts) {
    for counter in [
        "calls_of_unknown_threads",
        "calls_without_account",
        "errors_map_full",
        "calls_not_in_histograms",
        "programs_missed",
        "targets_map_full",
    ] {
        assert_eq!(accounts.lost(counter), 0, "{counter}");
    }
    parts_add_up(accounts);
}

fn parts_add_up(accounts: &Accounts) {
    for row in accounts.rows().filter(|row| !row["total_ns"].is_null()) {
        assert_eq!(number(row, "cpu_ns") + number(row, "blocked_ns"), number(row, "total_ns"), "{row}");
        let named: u64 = row["errno"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(named, number(row, "errors"), "{row}");
        assert!(number(row, "returned") + number(row, "in_progress") <= number(row, "count"), "{row}");
        if row["p50_ns"].is_u64() {
            let ordered: Vec<_> =
                ["p50_ns", "p90_ns", "p99_ns", "max_ns"].iter().map(|key| number(row, key)).collect();
            assert!(ordered.is_sorted(), "{row}");
        }
    }
}

/// The rows of a call.
fn rows<'a>(accounts: &'a Accounts, syscall: &'a str) -> impl Iterator<Item = &'a Value> {
    accounts.rows().filter(move |row| row["syscall"] == syscall)
}

/// Sum of a number in the rows of a call.
fn sum(accounts: &Accounts, syscall: &str, key: &str) -> u64 {
    rows(accounts, syscall).map(|row| number(row, key)).sum()
}

/// How many errors of that name a row has.
fn errno(row: &Value, name: &str) -> u64 {
    row["errno"][name].as_u64().unwrap_or(0)
}

/// One run of `calls mixed`: what was seen by thread, and what each thread made.
fn mixed(arguments: &[&str]) -> (Accounts, Vec<Value>, Vec<Vec<u64>>) {
    let mut target = ready("mixed", calls());
    let pid = target.pid().to_string();
    let accounting = Accounting::start(&[&["syscalls", "--by", "thread", "-p", &pid], arguments].concat());
    target.go();
    let text = target.text_until("done");
    let (intervals, accounts) = accounting.stop();
    check(&accounts);
    let said = said(&text);
    let threads = said["threads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|thread| thread.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect());
    (accounts, intervals, threads.collect())
}

/// The only row of a call of a thread.
fn of_thread<'a>(accounts: &'a Accounts, tid: u64, syscall: &'a str) -> &'a Value {
    let found: Vec<_> = rows(accounts, syscall).filter(|row| row["tid"] == tid).collect();
    assert_eq!(found.len(), 1, "rows of {syscall} of thread {tid}: {found:?}");
    found[0]
}

#[test]
fn every_call_is_counted_by_thread_and_error() {
    let (accounts, _, threads) = mixed(&[]);
    assert_eq!(threads.len(), 4);
    let mut all = 0;
    for thread in threads {
        let [tid, getppid, read, write, openat, ebadf, eagain] = thread[..] else { panic!("{thread:?}") };
        for (syscall, made, errors) in [
            ("getppid", getppid, vec![]),
            ("read", read, vec![("EBADF", ebadf), ("EAGAIN", eagain)]),
            ("write", write, vec![]),
        ] {
            let row = of_thread(&accounts, tid, syscall);
            assert_eq!((number(row, "count"), number(row, "returned")), (made, made), "{row}");
            let expected: u64 = errors.iter().map(|&(_, n)| n).sum();
            assert_eq!(number(row, "errors"), expected, "{row}");
            for (name, n) in errors {
                assert_eq!(errno(row, name), n, "{row}");
            }
            all += made;
        }
        let row = of_thread(&accounts, tid, "openat");
        assert_eq!((number(row, "count"), errno(row, "ENOENT")), (openat, openat), "{row}");
    }
    assert!(all >= calls() / 100 * 99, "{all}");
}

#[test]
fn counting_alone_counts_the_same() {
    let (accounts, _, threads) = mixed(&["--count-only"]);
    for thread in threads {
        for (syscall, made) in ["getppid", "read", "write", "openat"].iter().zip(&thread[1..]) {
            let row = of_thread(&accounts, thread[0], syscall);
            assert_eq!(
                (number(row, "count"), &row["total_ns"], &row["errors"]),
                (*made, &Value::Null, &Value::Null)
            );
        }
    }
}

#[test]
fn without_anything_newer_the_counts_are_the_same() {
    let (accounts, _, threads) = mixed(&["--force-fallback", "all"]);
    for thread in threads {
        for (syscall, made) in ["getppid", "read", "write", "openat"].iter().zip(&thread[1..]) {
            let row = of_thread(&accounts, thread[0], syscall);
            assert_eq!((number(row, "count"), row["abi"] == "i386"), (*made, false), "{row}");
        }
    }
    let notes = accounts.0["meta"]["notes"].to_string();
    assert!(notes.contains("task-btf (forced)"), "{notes}");
}

#[test]
fn intervals_add_up_to_the_whole_run() {
    let (accounts, intervals, threads) = mixed(&[]);
    let sum_of = |rows: &Value, tid: u64, key: &str| -> u64 {
        let rows = rows["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["tid"] == tid && row["syscall"] == "getppid").map(|row| number(row, key)).sum()
    };
    for thread in threads {
        for key in ["count", "returned", "total_ns"] {
            let parts: u64 = intervals.iter().map(|interval| sum_of(interval, thread[0], key)).sum();
            // What came behind the last interval is in the whole run only.
            assert!(parts <= sum_of(&accounts.0, thread[0], key), "{key}");
        }
    }
}

#[test]
fn times_are_those_that_the_program_measures() {
    let rounds = if expect::is_emulated() { 10 } else { 50 };
    let mut target = ready("times", rounds);
    let accounting = Accounting::start(&["syscalls", "-p", &target.pid().to_string()]);
    target.go();
    let measured = said(&target.text_until("done"));
    let (_, accounts) = accounting.stop();
    check(&accounts);
    // A switch that was not seen is one of a task that programs do not run for: what it took is somebody's.
    let missed = accounts.lost("switches_missed") * 10 * MS;
    for (syscall, shortest_ns) in [("nanosleep", 20 * MS), ("pselect6", 10 * MS), ("read", 0)] {
        let row = rows(&accounts, syscall).next().unwrap();
        let [wall, longest, cpu, delay] = [0, 1, 2, 3].map(|at| measured[syscall][at].as_u64().unwrap());
        let total =
            if syscall == "read" { number(row, "total_ns") } else { sum(&accounts, syscall, "total_ns") };
        if syscall == "read" {
            read_from_zero(row, wall, cpu, delay + missed);
            continue;
        }
        assert_eq!((number(row, "count"), number(row, "errors")), (rounds, 0), "{row}");
        assert!((rounds * shortest_ns..=wall).contains(&total), "{syscall}: {total} of {wall} ns: {row}");
        // The thread can be made to leave its CPU between the clock and the call too. Emulated, the way from one to the
        // other takes a hundred times as long.
        let apart = if expect::is_emulated() { rounds * MS } else { wall / 100 };
        assert!(wall - total <= apart + delay, "{syscall}: {total} of {wall} ns: {row}");
        assert!((shortest_ns..=longest).contains(&number(row, "max_ns")), "{longest}: {row}");
        // A percentile is within a bucket's half width of some call's time.
        assert!(number(row, "p50_ns") >= shortest_ns / 100 * 96, "{row}");
        assert!(number(row, "p99_ns") <= longest, "{longest}: {row}");
        // Asleep, but for the way there and back, and what the kernel's own clocks say of it.
        let blocked = number(row, "blocked_ns");
        assert!(blocked + cpu + missed + apart >= total, "{blocked} blocked, {cpu} CPU: {row}");
        let least = if expect::is_emulated() { 80 } else { 98 };
        assert!(blocked <= total && blocked >= rounds * shortest_ns / 100 * least, "{row}");
    }
}

/// Long reads that never wait: blocked only for a CPU, which the kernel counts too.
fn read_from_zero(row: &Value, wall: u64, cpu: u64, delay: u64) {
    let (total, blocked) = (number(row, "total_ns"), number(row, "blocked_ns"));
    // The only read that waits is the last one; it is in progress.
    assert!(total <= wall + wall / 100 + MS, "{wall}: {row}");
    assert!(total + delay + wall / 50 >= wall, "{wall}: {row}");
    assert!(blocked <= delay + wall / 100 + MS, "{delay} ns of delay: {row}");
    // The kernel's CPU time leaves out what interrupts and the hypervisor took, if it is built so.
    assert!(number(row, "cpu_ns") + wall / 50 + delay >= cpu, "{cpu} ns of CPU time: {row}");
}

#[test]
fn calls_in_progress_are_shown() {
    let mut target = ready("times", 1);
    let pid = target.pid();
    let accounting = Accounting::start(&["syscalls", "-p", &pid.to_string()]);
    target.go();
    target.wait_until("done");
    // It reads its input, which does not come.
    wait_until_asleep(pid);
    let (_, accounts) = accounting.stop();
    check(&accounts);
    let row = rows(&accounts, "read").next().unwrap();
    assert_eq!((number(row, "in_progress"), row["pid"].as_u64()), (1, Some(pid.into())), "{row}");
    assert_eq!(number(row, "returned") + 1, number(row, "count"), "{row}");
    let so_far = number(row, "in_progress_ns");
    assert!(0 < so_far && so_far < number(&accounts.0["meta"], "duration_ns"), "{row}");
    let others: u64 = accounts.rows().map(|row| number(row, "in_progress")).sum();
    assert_eq!(others, 1, "{}", accounts.0);
}

#[test]
fn calls_that_do_not_come_back_as_others_do() {
    let program = workload::path("calls");
    let accounts = Accounts::of_view(
        "syscalls",
        &["--by".as_ref(), "syscall".as_ref(), "--".as_ref(), program.as_os_str(), "odd".as_ref()],
    );
    check(&accounts);
    let one = |syscall: &str| -> (u64, u64, u64) {
        (
            sum(&accounts, syscall, "count"),
            sum(&accounts, syscall, "returned"),
            sum(&accounts, syscall, "errors"),
        )
    };
    // Ten children and the one that is stopped, five programs, and the first process.
    assert_eq!(one("exit_group"), (10 + 1 + 5 + 1, 0, 0));
    assert_eq!(one("exit"), (3, 0, 0));
    // The one that began it all is executed by the profiler's child; shells of the loader's search are not there.
    assert_eq!(one("execve"), (1 + 5 + 3, 1 + 5 + 3, 3));
    assert_eq!(one("kill"), (7 + 2, 7 + 2, 0));
    // It returns what the interrupted call would have: no error.
    assert_eq!(one("rt_sigreturn"), (7, 7, 0));
    // Stopped, it returns to be continued by another call.
    let row = rows(&accounts, "nanosleep").next().unwrap();
    assert_eq!((number(row, "count"), errno(row, "ERESTART_RESTARTBLOCK")), (1, 1), "{row}");
    assert_eq!(one("restart_syscall"), (1, 1, 0));
    // A child comes out of the call that its parent entered: that is no call of its own.
    let forks = ["clone", "fork", "vfork", "clone3"].map(&one);
    assert_eq!(forks.iter().map(|fork| fork.0).sum::<u64>(), 10 + 5 + 3 + 1, "{forks:?}");
    assert_eq!(forks.iter().map(|fork| fork.1).sum::<u64>(), 10 + 5 + 3 + 1, "{forks:?}");
    assert_eq!(one("wait4").0, 10 + 5 + 2);
}

#[test]
fn processes_that_execute_programs_have_their_names() {
    let program = workload::path("calls");
    let accounts = Accounts::of_view("syscalls", &["--".as_ref(), program.as_os_str(), "odd".as_ref()]);
    check(&accounts);
    let executed: Vec<_> = rows(&accounts, "execve").filter(|row| number(row, "errors") == 0).collect();
    // Five and, if it is not the one that failed three times too, the first.
    assert!(executed.len() >= 5, "{executed:?}");
    assert!(accounts.rows().all(|row| row["comm"] == "calls"), "{}", accounts.0);
    let processes: BTreeMap<_, _> = accounts.rows().map(|row| (row["pid"].as_u64(), ())).collect();
    assert_eq!(processes.len(), 1 + 10 + 5 + 1);
}

#[test]
fn beyond_the_room_everything_is_in_one_row() {
    let count = if expect::is_emulated() { 300 } else { 10_000 };
    let room = count / 4;
    let mut target = ready("many", count);
    let accounting =
        Accounting::start(&["syscalls", "--accounts", &room.to_string(), "-p", &target.pid().to_string()]);
    target.go();
    target.wait_until("done");
    let (_, accounts) = accounting.stop();
    drop(target);
    parts_add_up(&accounts);
    let other: u64 =
        accounts.rows().filter(|row| row["comm"] == "[other]").map(|row| number(row, "count")).sum();
    let lost = accounts.lost("calls_of_unknown_threads") + accounts.lost("calls_without_account");
    assert!(other > 0 && other == lost, "{other} in [other], {lost} counted as such");
    assert_eq!(sum(&accounts, "getppid", "count"), 3 * count);
    // One of what it inherited, one of no file.
    assert_eq!(sum(&accounts, "close", "count"), 2 * count);
    let of_own: u64 =
        rows(&accounts, "close").filter(|row| row["comm"] != "[other]").map(|row| errno(row, "EBADF")).sum();
    assert!(of_own > 0);
    assert_eq!(accounts.lost("targets_map_full"), 0);
    let rss = number(&accounts.0["cost"], "recording_peak_rss_bytes");
    assert!(rss < 64 << 20, "{rss} bytes");
}

#[test]
fn ten_thousand_processes_fit() {
    let count = if expect::is_emulated() { 300 } else { 10_000 };
    let mut target = ready("many", count);
    let accounting =
        Accounting::start(&["syscalls", "--accounts", "131072", "-p", &target.pid().to_string()]);
    target.go();
    target.wait_until("done");
    let (_, accounts) = accounting.stop();
    let pid = target.pid();
    drop(target);
    check(&accounts);
    let processes: Vec<_> = rows(&accounts, "getppid").collect();
    assert_eq!(processes.len() as u64, count);
    assert!(processes.iter().all(|row| number(row, "count") == 3 && row["pid"] != pid));
    assert_eq!(rows(&accounts, "close").map(|row| errno(row, "EBADF")).sum::<u64>(), count);
    // Each has done what it was told to, or is on its way into the call that it waits in.
    let waiting = sum(&accounts, "read", "in_progress");
    assert!(waiting <= count + 1, "{waiting}");
}

#[test]
fn calls_of_others_are_not_counted() {
    let (mut other, mut target) = (ready("mixed", 20_000), ready("mixed", 4_000));
    let accounting = Accounting::start(&["syscalls", "-p", &target.pid().to_string()]);
    other.go();
    other.wait_until("done");
    target.go();
    target.wait_until("done");
    let (_, accounts) = accounting.stop();
    check(&accounts);
    assert!(accounts.rows().all(|row| row["pid"] == target.pid()), "{}", accounts.0);
    assert_eq!(sum(&accounts, "write", "count"), 4 * 333 + 1, "{}", accounts.0);
}

#[test]
fn calls_of_a_cgroup() {
    let Some(group) = Cgroup::new() else { return skip("calls_of_a_cgroup", "no writable cgroup v2") };
    let (mut inside, mut outside) = (ready("mixed", 4_000), ready("mixed", 4_000));
    fs::write(group.0.join("cgroup.procs"), inside.pid().to_string()).unwrap();
    let accounting = Accounting::start(&["syscalls", "--cgroup", group.0.to_str().unwrap()]);
    for target in [&mut inside, &mut outside] {
        target.go();
        target.wait_until("done");
    }
    let (_, accounts) = accounting.stop();
    check(&accounts);
    assert!(accounts.rows().all(|row| row["pid"] == inside.pid()), "{}", accounts.0);
    assert_eq!(sum(&accounts, "getppid", "count"), 4 * 334);
    drop((inside, outside));
}

#[test]
fn calls_of_32_bit_programs_are_told_apart() {
    let program = workload::path("calls");
    let arguments = ["--by", "syscall", "--"].map(std::ffi::OsStr::new);
    for mode in ["--count-only", "--errors"] {
        let all: Vec<_> =
            [&[mode.as_ref()], &arguments[..], &[program.as_os_str(), "compat".as_ref(), "1000".as_ref()]]
                .concat();
        let accounts = Accounts::of_view("syscalls", &all);
        check(&accounts);
        let of = |abi: &str| {
            rows(&accounts, "getppid")
                .filter(|row| row["abi"] == abi)
                .map(|row| number(row, "count"))
                .sum::<u64>()
        };
        let native = if cfg!(target_arch = "x86_64") { "x86-64" } else { "arm64" };
        assert_eq!(of(native), 1001);
        // Its first call of this kind tells whether there are any.
        let has = accounts.rows().any(|row| row["abi"] == "i386");
        assert_eq!(of("i386"), if has { 1000 } else { 0 });
    }
}

#[test]
fn all_processes_are_seen_while_a_command_runs() {
    let program = workload::path("calls");
    let mut other = ready("mixed", 4_000);
    let accounting = Accounting::start(&["syscalls", "-a"]);
    other.go();
    other.wait_until("done");
    let (_, accounts) = accounting.stop();
    parts_add_up(&accounts);
    let of_it: u64 = rows(&accounts, "getppid")
        .filter(|row| row["pid"] == other.pid())
        .map(|row| number(row, "count"))
        .sum();
    assert_eq!(of_it, 4 * 334);
    let accounts =
        Accounts::of_view("syscalls", &["-a".as_ref(), "--".as_ref(), program.as_os_str(), "odd".as_ref()]);
    assert!(accounts.0["meta"]["target"].as_str().unwrap().starts_with("all processes, while"));
    assert_eq!(sum(&accounts, "exit", "count").min(3), 3);
}
