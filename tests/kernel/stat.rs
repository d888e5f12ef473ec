//! Where the time of a command went: each part against what the command measures itself, numbers against what it makes.

use std::{ffi::OsStr, fs, process::Command};

use profiler_tests::{
    accounts::{Accounts, number},
    binary, expect,
    target::Target,
    workload,
};
use serde_json::Value;

const MS: u64 = 1_000_000;

/// CPU time in user mode and in system calls, ms; direct reads.
const MADE: [&str; 3] = ["400", "300", "200"];

/// CPU time of what the workload does not measure: it is executed, and makes two threads and a process, which end.
const UNMEASURED_NS: u64 = 5 * MS;

/// What the workload `stat` was seen to do, and what it says.
struct Seen {
    stat: Accounts,
    said: Value,
    /// Bytes that it wrote to say so.
    said_bytes: u64,
    /// What times may be off beside 2 %: the hypervisor's part; under emulation, slices of the host's scheduler.
    slack_ns: u64,
}

impl Seen {
    fn run(arguments: &[&str]) -> Self {
        let (steal, program) = (expect::steal_ticks(), workload::path("stat"));
        let file = program.with_file_name(format!("stat-{}", std::process::id()));
        let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        all.extend(["--".as_ref(), program.as_os_str(), MADE[0].as_ref(), MADE[1].as_ref()]);
        all.extend([file.as_os_str(), MADE[2].as_ref()]);
        let (stat, line) = Accounts::of_view_and_said("stat", &all);
        _ = fs::remove_file(&file);
        let slack_ns = if expect::is_emulated() { 15 * MS } else { MS + expect::steal_since_ns(steal) };
        let said = serde_json::from_str(&line).unwrap();
        let seen = Self { stat, said, said_bytes: line.len() as u64 + 1, slack_ns };
        seen.check();
        seen
    }

    /// What must hold whatever was done: the parts are the whole, none is there twice, and nothing was lost.
    fn check(&self) {
        let all = number(&self.stat.0, "thread_ns");
        let sum: u64 = self.stat.rows().map(|row| number(row, "ns")).sum();
        let percent: f64 = self.stat.rows().filter_map(|row| row["percent"].as_f64()).sum();
        assert_eq!(sum, all, "{}", self.stat.0);
        assert!((percent - 100.0).abs() < 0.5, "{percent} %: {}", self.stat.0);
        let mut kinds: Vec<_> =
            self.stat.rows().map(|row| (row["part"].as_str(), row["cause"].as_str())).collect();
        kinds.sort_unstable();
        assert!(kinds.windows(2).all(|pair| pair[0] != pair[1]), "{kinds:?}");
        for counter in [
            "threads_map_full",
            "ended_threads_overwritten",
            "accounts_torn",
            "calls_of_unknown_threads",
            "calls_without_account",
            "errors_map_full",
            "programs_missed",
            "targets_map_full",
            "counts_map_full",
            "stacks_map_full",
            "waits_map_full",
        ] {
            assert_eq!(self.stat.lost(counter), 0, "{counter}");
        }
        if self.stat.lost("switches_missed") + self.stat.lost("wakeups_missed") == 0 {
            assert_eq!(self.part("unknown", None), 0, "{}", self.stat.0);
        }
    }

    fn row(&self, part: &str, cause: Option<&str>) -> Option<&Value> {
        self.stat.rows().find(|row| row["part"] == part && row["cause"].as_str() == cause)
    }

    /// A part, ns; 0 if there is none.
    fn part(&self, part: &str, cause: Option<&str>) -> u64 {
        self.row(part, cause).map_or(0, |row| number(row, "ns"))
    }

    /// A function in a part, ns.
    fn function(&self, part: &str, cause: Option<&str>, function: &str) -> u64 {
        let functions = self.row(part, cause).and_then(|row| row["functions"].as_array());
        let found = functions.into_iter().flatten().filter(|found| found["function"] == function);
        found.map(|found| number(found, "ns")).sum()
    }

    fn said(&self, key: &str) -> u64 {
        number(&self.said, key)
    }

    /// Checks a time that the workload measured without waits for a CPU, as far as the kernel counts those: it takes the
    /// time once for a wake-up and the switch that it leads to (`rq_clock_skip_update`, kernel/sched/core.c).
    fn near(&self, what: &str, found: u64, measured: u64) {
        let below = self.slack_ns + self.part("run-queue", None) + self.part("unknown", None);
        let range =
            (measured - measured / 50).saturating_sub(below)..=measured + measured / 50 + self.slack_ns;
        assert!(range.contains(&found), "{what}: {found} ns, measured {measured}: {}", self.stat.0);
    }
}

/// Name, cause, and the function that waits; the rest of the pipe's part is the command's wait to be released.
const WAITS: [(&str, &str, Option<&str>); 6] = [
    ("sleep", "sleep", Some("known_sleep")),
    ("futex", "futex", None),
    ("pipe", "pipe", Some("known_pipe")),
    ("socket", "socket-read", Some("known_socket")),
    ("wait", "wait", None),
    ("disk", "disk", Some("known_disk")),
];

#[test]
fn every_part_is_what_the_command_measures() {
    let seen = Seen::run(&["-F", "999"]);
    for (name, cause, function) in WAITS {
        let (part, measured) = (seen.part("blocked", Some(cause)), seen.said(name));
        if let Some(function) = function {
            let found = seen.function("blocked", Some(cause), function);
            seen.near(function, found, measured);
            // The account and the samples read the clock one after the other.
            assert!(found <= part + MS, "{name}: {found} of {part} ns");
        }
        // Making a file waits for the disk too.
        if !["pipe", "disk"].contains(&name) {
            seen.near(name, part, measured);
        }
    }
    let (irq, unknown) = (seen.part("interrupts", None), seen.part("unknown", None));
    // Looking at the clock is at most 1 % of the work in user mode (`burn.h`).
    let (user, kernel, clock) = (seen.said("user"), seen.said("kernel"), seen.said("user") / 100);
    let calls = seen.part("syscalls", None);
    let allowed = kernel / 50 + seen.slack_ns + UNMEASURED_NS;
    assert!(
        calls + irq + unknown + allowed >= kernel,
        "{calls} ns in calls, measured {kernel}: {}",
        seen.stat.0
    );
    assert!(calls <= kernel + clock + allowed, "{calls} ns in calls, measured {kernel}: {}", seen.stat.0);
    // What is outside of calls is known too; how it is divided is not better than samples are: 4.5 standard deviations.
    let outside = seen.part("user", None) + seen.part("kernel", None);
    let allowed = user / 50 + seen.slack_ns + UNMEASURED_NS;
    assert!(
        outside + clock + irq + unknown + allowed >= user,
        "{outside} ns outside of calls: {}",
        seen.stat.0
    );
    assert!(outside <= user + allowed, "{outside} ns outside of calls, measured {user}: {}", seen.stat.0);
    let (cpu, samples) = (outside + calls + irq, number(&seen.stat.0, "samples"));
    let share = user as f64 / cpu as f64;
    let deviation = (share * (1.0 - share) / samples as f64).sqrt() * cpu as f64;
    let found = seen.part("user", None);
    assert!(
        (found as f64 - user as f64).abs() <= 4.5 * deviation + allowed as f64 + irq as f64,
        "{found} ns in user mode by {samples} samples, measured {user}: {}",
        seen.stat.0
    );
    expect::at_least("known_user", seen.function("user", None, "known_user"), found, 95.0);
}

#[test]
fn counts_are_exact() {
    let seen = Seen::run(&[]);
    let counts = &seen.stat.0["counts"];
    for (key, made) in [
        ("read_bytes", seen.said("read")),
        ("written_bytes", seen.said("written") + seen.said_bytes),
        ("received_bytes", seen.said("received")),
        ("sent_bytes", seen.said("sent")),
        ("copied_bytes", 0),
    ] {
        assert_eq!(number(counts, key), made, "{key}: {counts}");
    }
    let calls = seen.row("syscalls", None).unwrap()["syscalls"].as_array().unwrap();
    let read = calls.iter().find(|call| call["syscall"] == "read").unwrap();
    // The process that becomes the command is in a read when it is released, which nobody saw begin.
    assert_eq!((number(read, "count"), number(read, "errors")), (seen.said("reads"), 7), "{read}");
    for (key, made) in [("processes", 2), ("threads", 4)] {
        let of = &counts[key];
        assert_eq!((number(of, "seen"), number(of, "started")), (made, made), "{counts}");
        // The command's first thread may not have left its CPU for good when the command has ended.
        assert!((made - 1..=made).contains(&number(of, "ended")), "{counts}");
    }
    // Memory that is written for the first time: the buffer, at least where pages are as small as they get.
    assert!(number(counts, "minor_faults") >= 10, "{counts}");
    assert!(number(counts, "voluntary") >= 8, "{counts}");
}

#[test]
fn others_are_not_in_it() {
    let program = workload::path("burner");
    let mut other = Target::ready(&program, &["1000", "forever", "wait"]).giving_way();
    other.go();
    let seen = Seen::run(&[]);
    for row in seen.stat.rows() {
        let functions = row["functions"].as_array().unwrap().iter();
        assert_eq!(functions.filter(|found| found["function"] == "burner_work").count(), 0, "{row}");
    }
    assert_eq!(number(&seen.stat.0["counts"]["processes"], "seen"), 2);
}

#[test]
fn a_process_that_waits_has_one_part() {
    let target = Target::ready(&workload::path("burner"), &["1", "wait"]);
    let stat = Accounts::of_view("stat", &["-p", &target.pid().to_string(), "-d", "1"]);
    let all = number(&stat.0, "thread_ns");
    assert_eq!(all, number(&stat.0["meta"], "duration_ns"), "{}", stat.0);
    let rows: Vec<_> = stat.rows().filter(|row| number(row, "ns") * 1_000 > all).collect();
    let [row] = rows[..] else { panic!("{}", stat.0) };
    assert_eq!((row["part"].as_str(), row["cause"].as_str()), (Some("blocked"), Some("pipe")), "{row}");
    let threads = &stat.0["counts"]["threads"];
    assert_eq!((number(threads, "seen"), number(threads, "started"), number(threads, "ended")), (1, 0, 0));
}

#[test]
fn the_exit_status_of_the_command_is_passed_on() {
    let program = workload::path("burner");
    let status = |arguments: &[&OsStr]| {
        let output = Command::new(binary::profiler()).args(["stat", "--"]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = status(&[program.as_os_str(), "20".as_ref(), "exit=7".as_ref()]);
    assert_eq!(code, Some(7));
    assert!(text.contains("100.0 %") && text.contains("blocked") && text.contains("lost"), "{text}");
    assert_eq!(status(&["/nonexistent/program".as_ref()]).0, Some(127));
}
