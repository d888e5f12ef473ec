//! Accounts of threads: against what the threads measure themselves, and against what the kernel counts for them.

use std::{collections::BTreeMap, fs};

use profiler_tests::{
    accounts::{Accounting, Accounts, blocked, number},
    expect,
    skip::skip,
    target::{Target, said},
    workload,
};
use serde_json::Value;

use crate::selection::Cgroup;

/// The kernel's clock of run queues and ours are read some code apart, at each switch and each wake-up.
const CLOCKS: f64 = 0.01;
const MS: u64 = 1_000_000;

/// The longest way from a wake-up to the switch that it leads to, on average.
const SKIPPED_NS: u64 = 20_000;

/// What the kernel counted for a thread: /proc/PID/task/TID/{status,schedstat}.
#[derive(Clone, Copy, Debug, Default)]
struct Kernel {
    voluntary: u64,
    involuntary: u64,
    cpu_ns: u64,
    run_queue_ns: u64,
    slices: u64,
}

impl Kernel {
    /// Of all threads of a process, which must all be waiting: nothing changes between the two files.
    fn of_process(pid: u32) -> BTreeMap<u64, Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks
            .map(|task| task.unwrap().path())
            .map(|task| {
                let tid = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
                let status = fs::read_to_string(task.join("status")).unwrap();
                let field = |name: &str| {
                    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                    line.trim().parse::<u64>().unwrap()
                };
                let schedstat = fs::read_to_string(task.join("schedstat")).unwrap();
                let times: Vec<u64> =
                    schedstat.split_ascii_whitespace().map(|n| n.parse().unwrap()).collect();
                let kernel = Self {
                    voluntary: field("voluntary_ctxt_switches:"),
                    involuntary: field("nonvoluntary_ctxt_switches:"),
                    cpu_ns: times[0],
                    run_queue_ns: times[1],
                    slices: times[2],
                };
                (tid, kernel)
            })
            .collect()
    }

    fn since(self, before: Self) -> Self {
        Self {
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
            cpu_ns: self.cpu_ns - before.cpu_ns,
            run_queue_ns: self.run_queue_ns - before.run_queue_ns,
            slices: self.slices - before.slices,
        }
    }
}

/// Time of an account that is not spent waiting for what is asked about, ns.
fn elsewhere(row: &Value) -> u64 {
    ["cpu_ns", "irq_ns", "run_queue_ns", "unknown_ns"].iter().map(|part| number(row, part)).sum()
}

/// One run of the workload `sched waits`, with what the kernel counted meanwhile.
struct Waits {
    accounts: Accounts,
    intervals: Vec<Value>,
    kernel: BTreeMap<u64, Kernel>,
    /// Time that the hypervisor took from all CPUs.
    steal_ns: u64,
    said: Value,
    pid: u32,
}

impl Waits {
    fn run(view: &[&str], percent: u64, rounds: u64, spin_ms: u64) -> Self {
        let arguments = ["waits".to_owned(), percent.to_string(), rounds.to_string(), spin_ms.to_string()];
        let mut target = Target::ready(&workload::path("sched"), &arguments);
        let pid = target.pid();
        let pid_text = pid.to_string();
        let accounting = Accounting::start(&[view, &["-p", &pid_text]].concat());
        let (before, steal_before) = (Kernel::of_process(pid), expect::steal_ticks());
        target.go();
        let text = target.text_until("done");
        let mut kernel = Kernel::of_process(pid);
        for (tid, counted) in &mut kernel {
            *counted = counted.since(before.get(tid).copied().unwrap_or_default());
        }
        let steal_ns = expect::steal_since_ns(steal_before);
        let (intervals, accounts) = accounting.stop();
        drop(target);
        accounts.check();
        Self { accounts, intervals, kernel, steal_ns, said: said(&text), pid }
    }

    /// Name, row, time that the thread measured and what the kernel counted, of each thread but the first.
    fn threads(&self) -> Vec<(&str, &Value, u64, Kernel)> {
        let threads = self.said["threads"].as_array().unwrap().iter();
        threads
            .map(|thread| {
                let tid = thread[1].as_u64().unwrap();
                (
                    thread[0].as_str().unwrap(),
                    self.accounts.thread(tid),
                    thread[2].as_u64().unwrap(),
                    self.kernel[&tid],
                )
            })
            .collect()
    }
}

/// Name, cause, and the shortest time that the wait can take, ms.
const KNOWN: [(&str, &str, u64); 6] = [
    ("sleep", "sleep", 200),
    ("futex", "futex", 300),
    ("pipe", "pipe", 150),
    ("poll", "poll", 100),
    ("socket", "socket-read", 120),
    ("child", "wait", 100),
];

#[test]
fn known_waits_have_their_causes() {
    let waits = Waits::run(&["sched"], 100, 100, 50);
    let threads = waits.threads();
    for (name, cause, shortest_ms) in KNOWN {
        let &(_, row, measured, _) = threads.iter().find(|thread| thread.0 == name).unwrap();
        let found = blocked(row, cause);
        // What the thread measured begins before the wait and ends when it runs again: the rest of it is elsewhere in its
        // account. A helper that ends a wait began with its own before the other thread did, by some ms.
        assert!(found <= measured, "{name}: {found} of {measured} ns: {row}");
        let other_waits = number(row, "blocked_ns") - found - blocked(row, "signal");
        let allowed = elsewhere(row) + other_waits;
        assert!(measured - found <= allowed, "{name}: {found} of {measured} ns: {row}");
        let helper_ms = if ["pipe", "socket"].contains(&name) { waits.started_apart_ms() } else { 0 };
        let tolerance = (shortest_ms / 50).max(1) + helper_ms;
        // What another thread ends has begun there; this one may have been waiting for a CPU meanwhile.
        let meanwhile = if ["pipe", "socket", "child"].contains(&name) { allowed } else { 0 };
        assert!(
            found + meanwhile + tolerance * MS + waits.steal_ns >= shortest_ms * MS,
            "{name}: {found} of {shortest_ms} ms: {row}"
        );
        assert_eq!(row["comm"], name);
        for (_, other, _) in KNOWN.iter().filter(|(_, other, _)| *other != cause) {
            assert_eq!(blocked(row, other), 0, "{name}: {row}");
        }
    }
    let &(_, mutex, measured, _) = threads.iter().find(|thread| thread.0 == "mutex").unwrap();
    assert!(blocked(mutex, "futex") <= measured, "{mutex}");
    assert!(measured - blocked(mutex, "futex") <= elsewhere(mutex) + blocked(mutex, "lock"), "{mutex}");
}

impl Waits {
    /// How far apart threads were started, ms: the longest time that the first thread was not waiting.
    fn started_apart_ms(&self) -> u64 {
        let first = self.accounts.thread(u64::from(self.pid));
        (elsewhere(first) + blocked(first, "lock")) / MS + 1
    }
}

#[test]
fn work_without_waits_is_never_blocked() {
    let waits = Waits::run(&["sched"], 10, 100, 300);
    for (name, row, measured, kernel) in waits.threads() {
        if name != "spin" && name != "load" {
            continue;
        }
        for (_, cause, _) in KNOWN {
            assert_eq!(blocked(row, cause), 0, "{name}: {row}");
        }
        let cpu = number(row, "cpu_ns") + number(row, "irq_ns");
        // The kernel's CPU time leaves out what interrupts and the hypervisor took, if it is built so.
        let unknown = number(row, "unknown_ns") + number(row, "irq_ns") + waits.steal_ns;
        near(&format!("{name}: CPU time"), cpu, kernel.cpu_ns, unknown + MS, row);
        assert!(cpu + unknown + MS >= 300 * MS, "{name}: {row}");
        let parts = cpu + number(row, "run_queue_ns") + number(row, "unknown_ns");
        assert!(parts + MS >= measured, "{name}: {measured} ns measured: {row}");
    }
    // Three share a CPU with each other: they waited for it about twice as long as they worked.
    let loads: Vec<_> = waits.threads().into_iter().filter(|thread| thread.0 == "load").collect();
    let waited: u64 = loads.iter().map(|thread| number(thread.1, "run_queue_ns")).sum();
    let counted: u64 = loads.iter().map(|thread| thread.3.run_queue_ns).sum();
    assert!(counted > 300 * MS, "three on one CPU wait for it: {counted}");
    assert!(waited > 300 * MS, "{waited}");
}

fn near(what: &str, found: u64, counted: u64, slack: u64, row: &Value) {
    let tolerance = (counted as f64 * CLOCKS) as u64 + slack;
    assert!(found.abs_diff(counted) <= tolerance, "{what}: {found}, the kernel counted {counted}: {row}");
}

#[test]
fn switches_and_waits_are_those_that_the_kernel_counts() {
    let rounds = if expect::is_emulated() { 2_000 } else { 100_000 };
    let waits = Waits::run(&["sched"], 1, rounds, 100);
    let mut switches = 0;
    for (name, row, _, kernel) in waits.threads() {
        let (voluntary, involuntary) = (number(row, "voluntary"), number(row, "involuntary"));
        assert_eq!((voluntary, involuntary), (kernel.voluntary, kernel.involuntary), "{name}: {row}");
        // The kernel takes the time once for a wake-up that preempts and the switch that it leads to
        // (`rq_clock_skip_update`, kernel/sched/core.c): such a wait is 0 to it, and here what it is, some us.
        let skipped = match name {
            // Emulated, the way between the two clocks' readings is a thousand times as long.
            _ if expect::is_emulated() => kernel.slices * 5 * MS,
            "load" => 0,
            _ => kernel.slices * SKIPPED_NS,
        };
        let slack = number(row, "unknown_ns") + MS + skipped;
        let waited = number(row, "run_queue_ns");
        near(&format!("{name}: run queue"), waited, kernel.run_queue_ns, slack, row);
        let less = if expect::is_emulated() { slack } else { number(row, "unknown_ns") + MS };
        assert!(waited + less >= kernel.run_queue_ns / 100 * 99, "{name}: {kernel:?}: {row}");
        // A time slice whose beginning was not seen is not counted.
        let missed = waits.accounts.lost("switches_missed") + waits.accounts.lost("wakeups_missed");
        let slices = number(row, "run_queue_count");
        assert!(slices <= kernel.slices && kernel.slices <= slices + missed, "{name}: {kernel:?}: {row}");
        if name == "ping" || name == "pong" {
            switches += voluntary + involuntary;
            // A wake-up for each wait, but for the one that lasts.
            let woken = number(row, "wakeups_got");
            assert!(woken <= voluntary && voluntary <= woken + 1 + missed, "{name}: {row}");
        }
    }
    assert!(switches >= rounds, "{switches} switches in {rounds} rounds");
}

#[test]
fn intervals_add_up_to_the_whole_run() {
    let waits = Waits::run(&["sched"], 100, 1_000, 100);
    let first = waits.accounts.thread(u64::from(waits.pid));
    let of_interval = |interval: &Value, key: &str| -> u64 {
        let rows = interval["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["tid"] == waits.pid).map(|row| number(row, key)).sum()
    };
    for key in ["voluntary", "wakeups_got", "blocked_ns", "wall_ns"] {
        let sum: u64 = waits.intervals.iter().map(|interval| of_interval(interval, key)).sum();
        assert!(sum <= number(first, key), "{key}: {sum}: {first}");
    }
    assert!(waits.intervals.len() > 2, "{} intervals", waits.intervals.len());
}

/// Processes of a run: an emulated machine starts fewer.
fn processes() -> u64 {
    let set = std::env::var("PROFILER_TEST_PROCESSES").ok();
    set.map_or(20_000, |count| count.parse().expect("PROFILER_TEST_PROCESSES is a number"))
}

#[test]
fn short_processes_leave_nothing_behind() {
    let (count, program) = (processes(), workload::path("sched"));
    let accounts =
        Accounts::of(&["--".as_ref(), program.as_os_str(), "short".as_ref(), count.to_string().as_ref()]);
    accounts.check();
    let ended = accounts.threads().filter(|row| row["ended"] == 1).count() as u64;
    // The children, and the parent if it had left its CPU for good before the end.
    assert!(ended == count || ended == count + 1, "{ended} of {count} ended");
    let alive = accounts.threads().filter(|row| row["ended"] == 0).count();
    assert!(alive <= 1, "{alive} are not ended");
    let processes: u64 =
        accounts.rows().filter(|row| row["tid"].is_null()).map(|row| number(row, "threads")).sum();
    assert_eq!(processes, ended + alive as u64);
    for row in accounts.threads().filter(|row| row["ended"] == 1) {
        // Its last switch is one of its own accord.
        assert!(number(row, "voluntary") >= 1, "{row}");
    }
}

#[test]
fn ten_thousand_threads_fit() {
    let count: u64 = if expect::is_emulated() { 500 } else { 10_000 };
    let mut target = Target::ready(&workload::path("sched"), &["crowd", &count.to_string()]);
    let accounting = Accounting::start(&["sched", "-p", &target.pid().to_string()]);
    target.go();
    target.wait_until("done");
    let (_, accounts) = accounting.stop();
    accounts.check();
    let members: Vec<_> = accounts.threads().filter(|row| row["tid"] != target.pid()).collect();
    assert_eq!(members.len() as u64, count);
    let ran = members.iter().filter(|row| number(row, "run_queue_count") >= 1).count() as u64;
    assert!(
        ran + accounts.lost("switches_missed") + accounts.lost("wakeups_missed") >= count,
        "{ran} of {count}"
    );
    let rss = number(&accounts.0["cost"], "recording_peak_rss_bytes");
    // 28.7 MB where nothing else runs, more where what ended waits to be read.
    assert!(rss < 36 << 20, "{rss} bytes for {count} threads");
}

#[test]
fn a_thread_keeps_its_account_when_it_executes_a_program() {
    let program = workload::path("sched");
    let accounts = Accounts::of(&["--".as_ref(), program.as_os_str(), "exec".as_ref()]);
    accounts.check();
    let row = accounts.threads().max_by_key(|row| number(row, "cpu_ns")).unwrap();
    assert!(number(row, "cpu_ns") + number(row, "irq_ns") + number(row, "unknown_ns") >= 50 * MS, "{row}");
    // It has its leader's id now, and the program's name; it slept before, under its own.
    assert_eq!((&row["tid"], row["comm"].as_str()), (&row["pid"], Some("sched")), "{row}");
    assert!(blocked(row, "sleep") >= 45 * MS, "{row}");
}

#[test]
fn threads_of_others_are_not_accounted() {
    let mut other = Target::ready(&workload::path("sched"), &["waits", "10", "100", "50"]);
    let mut target = Target::ready(&workload::path("sched"), &["crowd", "1"]);
    let accounting = Accounting::start(&["sched", "-p", &target.pid().to_string()]);
    other.go();
    other.wait_until("done");
    target.go();
    target.wait_until("done");
    let (_, accounts) = accounting.stop();
    accounts.check();
    assert!(accounts.rows().all(|row| row["pid"] == target.pid()), "{}", accounts.0);
    assert_eq!(accounts.threads().count(), 2);
}

/// Runs `faults` with these counters; its rows by name, and the faults that the kernel counts for each.
fn counted(counters: &[&str]) -> (Accounts, Vec<(String, Value, u64)>) {
    const PAGES: &str = "5000";
    let program = workload::path("faults");
    let mut arguments: Vec<&std::ffi::OsStr> = counters.iter().map(std::ffi::OsStr::new).collect();
    arguments.extend(["--".as_ref(), program.as_os_str(), PAGES.as_ref()]);
    let (accounts, said) = Accounts::and_said(&arguments);
    accounts.check();
    assert_eq!(accounts.lost("counters_not_read"), 0);
    let threads = said.as_object().unwrap().iter().map(|(name, of_it)| {
        let [tid, faults] = [0, 1].map(|i| of_it[i].as_u64().unwrap());
        (name.clone(), accounts.thread(tid).clone(), faults)
    });
    let threads = threads.collect();
    (accounts, threads)
}

#[test]
fn counters_are_those_of_the_thread() {
    let (accounts, threads) = counted(&["--counters", "cpu-clock,minor-faults"]);
    for (name, row, faults) in &threads {
        let counter = |name: &str| row["counters"][name].as_u64().unwrap();
        // A switch that was not seen is in neither, or in the unknown time.
        let on_cpu = number(row, "cpu_ns") + number(row, "irq_ns");
        let slack = number(row, "unknown_ns") + on_cpu / 100 + MS;
        assert!(counter("cpu-clock").abs_diff(on_cpu) <= slack, "{name}: {row}");
        // Those on its way out come behind what it says.
        assert!((*faults..=faults + 20).contains(&counter("minor-faults")), "{name}: {faults} faults, {row}");
    }
    let faults: BTreeMap<_, _> = threads.iter().map(|(name, _, faults)| (name.as_str(), *faults)).collect();
    assert!(faults["toucher"] >= 5_000 && faults["worker"] <= 50, "{faults:?}");
    // The process is the sum of its threads.
    let of = |row: &Value| row["counters"]["minor-faults"].as_u64().unwrap();
    let process = accounts.rows().find(|row| row["tid"].is_null()).unwrap();
    assert_eq!(of(process), accounts.threads().map(of).sum::<u64>());
}

#[test]
fn cycles_are_counted_or_it_is_said_why_not() {
    let (accounts, threads) = counted(&[]);
    let notes = accounts.0["meta"]["notes"].to_string();
    for counter in ["cycles", "instructions"] {
        if notes.contains(&format!("no counter for {counter}")) {
            assert!(threads.iter().all(|(_, row, _)| row["counters"].get(counter).is_none()), "{notes}");
            continue;
        }
        // 200 ms of work at 100 MHz and an instruction for each ten cycles, at the least.
        for (_, row, _) in threads.iter().filter(|(name, ..)| name == "worker") {
            assert!(row["counters"][counter].as_u64().unwrap() > 2_000_000, "{row}");
        }
    }
    let (_, none) = counted(&["--counters", "none"]);
    assert!(none.iter().all(|(_, row, _)| row["counters"].as_object().unwrap().is_empty()));
}

#[test]
fn accounts_of_a_cgroup() {
    let Some(group) = Cgroup::new() else { return skip("accounts_of_a_cgroup", "no writable cgroup v2") };
    let (inside, below) = (group.burner(None), group.burner(Some("below")));
    let outside = Target::start(&workload::path("burner"), &["0", "forever"]).giving_way();
    let accounting = Accounting::start(&["sched", "--cgroup", group.0.to_str().unwrap()]);
    // What is looked for has left a CPU: more threads work than there are CPUs, or its own visit to each CPU made it.
    let (_, accounts) = accounting.stop();
    accounts.check();
    for target in [&inside, &below] {
        let row = accounts.thread(u64::from(target.pid()));
        assert!(number(row, "cpu_ns") > 0, "{row}");
    }
    assert!(accounts.threads().all(|row| row["tid"] != outside.pid()), "{}", accounts.0);
    assert_eq!(accounts.threads().count(), 2, "{}", accounts.0);
    drop((inside, below));
}

#[test]
fn times_of_cpus_add_up() {
    let accounting = Accounting::start(&["cpu"]);
    let mut target = Target::ready(&workload::path("sched"), &["waits", "10", "1000", "200"]);
    target.go();
    target.wait_until("done");
    let (_, accounts) = accounting.stop();
    let duration = number(&accounts.0["meta"], "duration_ns");
    let mut loads = 0;
    for row in accounts.rows() {
        let parts = ["busy_ns", "hardirq_ns", "softirq_ns", "steal_ns", "idle_ns", "unknown_ns"];
        let sum: u64 = parts.iter().map(|part| number(row, part)).sum();
        assert_eq!(sum, number(row, "wall_ns"), "{row}");
        if row["cpu"].is_null() {
            continue;
        }
        assert!(sum.abs_diff(duration) <= duration / 200, "{duration}: {row}");
        loads += number(row, "busy_ns") + number(row, "steal_ns") + number(row, "unknown_ns");
        let slices: u64 =
            row["slices"].as_array().unwrap().iter().map(|bucket| bucket[2].as_u64().unwrap()).sum();
        assert!(slices <= number(row, "switches"), "{row}");
    }
    // Four that work for 200 ms each.
    assert!(loads >= 800 * MS * 98 / 100, "{loads}");
}
