//! The daemon: windows against what programs make, what the kernel counts of them, and what windows say of each other.

mod budget;
mod java;
mod reload;
mod served;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use profiler_tests::{
    binary,
    expect::{self, is_emulated},
    target::{Target, said, signal},
    workload,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::syscalls::{ready, wait_until_asleep};

/// Longest wait for the daemon to do something: an emulated machine takes long to attach.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon with a store of its own. Dropped, it is killed.
struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts it with windows of so many seconds, and returns when it records.
    fn start(window_s: u32, arguments: &[&str]) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), window_s, arguments)
    }

    fn in_directory(directory: TempDir, window_s: u32, arguments: &[&str]) -> Self {
        let child = command(directory.path(), window_s, arguments).spawn().unwrap();
        let mut daemon = Self { child, directory };
        let begun = Instant::now();
        while daemon.ctl("status").is_none_or(|status| !status.contains("recording")) {
            assert!(begun.elapsed() < PATIENCE, "it does not record");
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("it ended with {status}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// What `profiler ctl` says; `None`: nothing is there that answers.
    fn ctl(&self, verb: &str) -> Option<String> {
        let socket = self.directory.path().join("control.sock");
        let output =
            Command::new(binary::profiler()).args(["ctl", "--socket"]).arg(socket).arg(verb).output();
        let output = output.unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// What `profiler ctl status --json` says.
    fn status(&self) -> Value {
        let socket = self.directory.path().join("control.sock");
        let mut ctl = Command::new(binary::profiler());
        let output = ctl.args(["ctl", "--socket"]).arg(socket).args(["status", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Ends the window now; it is in the store then.
    fn flush(&self) {
        assert!(self.ctl("flush").is_some(), "flush");
    }

    /// What `profiler query ARGUMENTS` says of the last hour.
    fn query(&self, arguments: &[&str]) -> Output {
        self.query_range(&[&["--last", "1h"], arguments].concat())
    }

    /// What `profiler query ARGUMENTS` says, whose range they tell.
    fn query_range(&self, arguments: &[&str]) -> Output {
        let store = self.directory.path().join("store");
        let mut query = Command::new(binary::profiler());
        query.args(["query", "--store"]).arg(store).args(arguments).output().unwrap()
    }

    fn query_json(&self, arguments: &[&str]) -> Value {
        let output = self.query(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn windows(&self) -> Vec<Value> {
        self.query_json(&["--list", "--json"])["windows"].as_array().unwrap().clone()
    }

    /// Ends it as a service manager does.
    fn stop(mut self) -> TempDir {
        signal(self.child.id(), Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "it ended with {status}");
        // Moved out of what is killed when it is dropped.
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), Signal::KILL);
            _ = self.child.wait();
        }
    }
}

/// Waits until something is so.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn command(directory: &Path, window_s: u32, arguments: &[&str]) -> Command {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let mut command = Command::new(binary::profiler());
    command.arg("daemon");
    if !arguments.contains(&"--http-listen") {
        command.args(["--http-listen", "off"]);
    }
    command
        .args(["--store-directory", &path("store"), "--control-socket", &path("control.sock")])
        .args(["--window-length", &format!("{window_s}s")])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Numbers by metric and label of the rows of a process, or of all.
fn numbers(accounts: &Value, pid: Option<u32>) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for row in accounts["rows"].as_array().unwrap() {
        if pid.is_some_and(|pid| row["pid"] != pid) {
            continue;
        }
        add(&mut sums, &row["numbers"]);
    }
    sums
}

fn add(sums: &mut BTreeMap<(String, String), u64>, numbers: &Value) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for number in numbers.as_array().unwrap() {
        let key = (text(&number["metric"]), text(&number["label"]));
        *sums.entry(key).or_insert(0) += number["value"].as_u64().unwrap();
    }
}

fn metric(numbers: &BTreeMap<(String, String), u64>, name: &str) -> u64 {
    numbers.iter().filter(|((metric, _), _)| metric == name).map(|(_, value)| value).sum()
}

/// Of all threads of a process: time on a CPU, time waiting for one (ns, schedstat), and switches, as the kernel counts them.
fn kernels_count(pid: u32) -> [u64; 3] {
    let [mut cpu_ns, mut delay_ns, mut switches] = [0; 3];
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        let schedstat = fs::read_to_string(task.join("schedstat")).unwrap();
        let mut schedstat = schedstat.split_ascii_whitespace().map(|number| number.parse::<u64>().unwrap());
        cpu_ns += schedstat.next().unwrap();
        delay_ns += schedstat.next().unwrap();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
        switches += counts.map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()).sum::<u64>();
    }
    [cpu_ns, delay_ns, switches]
}

/// Checks that `is` is `should` within 1 %, a millisecond for what is between two readings, and what the hypervisor took: the
/// kernel does not count it as a thread's CPU time, and the clock goes on.
fn within(what: &str, is: u64, should: u64, stolen_ns: u64) {
    let tolerance = should / 100 + 1_000_000 + stolen_ns;
    assert!(is.abs_diff(should) <= tolerance, "{what}: {is}, and should be {should}");
}

/// The same of what the kernel hides a part of, which is said to be so much at most.
fn within_but_for(what: &str, is: u64, should: u64, hidden: u64, stolen_ns: u64) {
    within(what, is + should.saturating_sub(is).min(hidden), should, stolen_ns);
}

#[test]
fn windows_add_up_to_what_programs_make_and_the_kernel_counts() {
    let mut idle = Target::ready(&workload::path("calls"), &["many", "1"]);
    wait_until_asleep(idle.pid());
    let steal = expect::steal_ticks();
    let daemon = Daemon::start(2, &[]);
    // What began in no window: its numbers are of before.
    daemon.flush();
    // One of several threads, whose calls are known, and one of a single thread, whose times and switches the kernel tells.
    let (mut calls, mut times) = (ready("mixed", 200_000), ready("times", 20));
    calls.go();
    let said = said(&calls.text_until("done"));
    times.go();
    times.wait_until("done");
    wait_until_asleep(calls.pid());
    wait_until_asleep(times.pid());
    let [cpu_ns, delay_ns, switches] = kernels_count(times.pid());
    daemon.flush();
    let stolen_ns = expect::steal_since_ns(steal);
    let accounts = daemon.query_json(&["--accounts", "--json"]);

    let of_calls = numbers(&accounts, Some(calls.pid()));
    check_calls(&of_calls, &said);
    let of_times = numbers(&accounts, Some(times.pid()));
    // The kernel takes the time once for a wake-up and the switch that it leads to (`rq_clock_skip_update`,
    // kernel/sched/core.c): what such a thread waits for a CPU is time on it to the kernel, some us each. What a thread did since
    // a switch that the kernel hides is not known.
    let ran = metric(&of_times, "cpu") + metric(&of_times, "interrupts");
    let (waited, unknown) = (metric(&of_times, "run_queue"), metric(&of_times, "unknown"));
    let not_seen = (cpu_ns + delay_ns).saturating_sub(ran + waited).min(unknown);
    within("time on a CPU and waiting for one", ran + waited + not_seen, cpu_ns + delay_ns, stolen_ns);
    within("CPU time", ran.max(cpu_ns.min(ran + waited + not_seen)), cpu_ns, stolen_ns);
    let switched = metric(&of_times, "voluntary_switches") + metric(&of_times, "involuntary_switches");
    // The kernel hides some switches from the tracepoint, which is said.
    let hidden = lost(&daemon, &["switches_missed", "switches_not_traced"]);
    assert!(switched <= switches && switched + hidden >= switches, "{switched} and {hidden} of {switches}");
    let call = |name: &str| of_times.get(&("syscalls".to_owned(), name.to_owned())).copied().unwrap_or(0);
    assert_eq!((call("nanosleep"), call("pselect6")), (20, 20), "{of_times:?}");

    let of_idle = numbers(&accounts, Some(idle.pid()));
    assert_eq!((metric(&of_idle, "cpu"), metric(&of_idle, "syscalls")), (0, 0), "{of_idle:?}");

    let all = numbers(&accounts, None);
    let mut host = BTreeMap::new();
    add(&mut host, &accounts["host"]["numbers"]);
    let (ran, unknown, busy) = (metric(&all, "cpu"), metric(&all, "unknown"), metric(&host, "cpu"));
    within_but_for("CPU time of all", ran, busy, unknown, stolen_ns);
    assert_eq!(metric(&all, "syscalls"), metric(&host, "syscalls"));

    let windows = daemon.windows();
    let numbers: Vec<u64> = windows.iter().map(|window| window["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no window is missing");
    for pair in windows.windows(2) {
        let (end, start) =
            (pair[0]["end_unix_ns"].as_u64().unwrap(), pair[1]["start_unix_ns"].as_u64().unwrap());
        assert!(start.abs_diff(end) < 5_000_000, "between windows: {end} {start}");
    }
    for counter in ["calls_without_account", "errors_map_full", "programs_missed", "counts_full"] {
        assert_eq!(lost(&daemon, &[counter]), 0, "{counter}");
    }
    calls.finish();
    times.finish();
    idle.go();
    idle.wait_until("done");
    idle.finish();
    daemon.stop();
}

/// Checks the calls of `calls mixed` by what it says of its threads.
fn check_calls(numbers: &BTreeMap<(String, String), u64>, said: &Value) {
    let mut made = [0; 4];
    for thread in said["threads"].as_array().unwrap() {
        // [tid, getppid, read, write, openat, ...]
        for (sum, at) in made.iter_mut().zip(1..) {
            *sum += thread[at].as_u64().unwrap();
        }
    }
    let call = |name: &str| numbers.get(&("syscalls".to_owned(), name.to_owned())).copied().unwrap_or(0);
    assert_eq!(call("getppid"), made[0]);
    // And what it says. (What its start opens and reads depends on where its libraries are looked for.)
    assert!((made[2]..made[2] + 16).contains(&call("write")), "write: {} of {}", call("write"), made[2]);
    assert!(call("read") >= made[1] && call("openat") >= made[3], "{numbers:?}");
}

/// Loss counters, summed over all windows.
fn lost(daemon: &Daemon, counters: &[&str]) -> u64 {
    let profile = daemon.query_json(&["-o", "-", "--format", "json"]);
    counters.iter().map(|counter| profile["losses"]["counters"][*counter].as_u64().unwrap_or(0)).sum()
}

#[test]
fn short_lived_processes_are_together_and_none_is_missing() {
    let daemon = Daemon::start(2, &[]);
    daemon.flush();
    let count = 300;
    let status = Command::new(workload::path("sched")).args(["short", &count.to_string()]).status().unwrap();
    assert!(status.success());
    daemon.flush();
    let accounts = daemon.query_json(&["--accounts", "--json", "--process", "^sched$"]);
    let ended = metric(&numbers(&accounts, None), "threads_ended");
    // Its children, and itself.
    assert_eq!(ended, count + 1);
    let rows = accounts["rows"].as_array().unwrap();
    assert!(rows.len() <= 4, "{} rows of processes of one name", rows.len());
    daemon.stop();
}

#[test]
fn above_its_budget_it_samples_less_and_says_so_and_sums_stay_exact() {
    // No daemon can do with that little.
    let daemon = Daemon::start(1, &["--budget-cpu-percent", "0.01"]);
    let mut target = ready("mixed", 200_000);
    let begun = Instant::now();
    let stepped = |window: &Value| window["frequency_hz"].as_u64().unwrap() < 19;
    while !daemon.windows().iter().any(stepped) {
        assert!(begun.elapsed() < PATIENCE, "its rate stays: {:?}", daemon.windows());
        thread::sleep(Duration::from_millis(500));
    }
    daemon.flush();
    let windows = daemon.windows();
    let last = windows.last().unwrap();
    assert!(last["blocked_every"].as_u64() != Some(1), "{last}");
    assert!(last["notes"].to_string().contains("configured"), "{last}");
    assert!(daemon.ctl("status").unwrap().contains("CPU time is"), "status says why");
    // What is exact stays so.
    target.go();
    let said = said(&target.text_until("done"));
    daemon.flush();
    let accounts = daemon.query_json(&["--accounts", "--json"]);
    check_calls(&numbers(&accounts, Some(target.pid())), &said);
    target.finish();
    daemon.stop();
}

#[test]
fn a_killed_daemon_leaves_its_windows_and_a_second_one_is_refused() {
    let daemon = Daemon::start(1, &[]);
    daemon.flush();
    let before = daemon.windows().len();
    assert!(before > 0);
    let second = command(daemon.directory.path(), 1, &[]).output().unwrap();
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && message.contains(&daemon.child.id().to_string()), "{message}");

    // A configuration that cannot be read: what was goes on.
    let mut daemon = daemon;
    signal(daemon.child.id(), Signal::KILL);
    daemon.child.wait().unwrap();
    let directory = std::mem::replace(&mut daemon.directory, tempfile::tempdir().unwrap());
    let config = directory.path().join("daemon.toml");
    fs::write(&config, "[sampling]\nfrequency_hz = 19\n").unwrap();
    let again = Daemon::in_directory(directory, 1, &["--config", config.to_str().unwrap()]);
    assert!(again.windows().len() >= before, "what was kept is there");
    fs::write(&config, "[sampling]\nfrequency_hz = \"often\"\n").unwrap();
    signal(again.child.id(), Signal::HUP);
    let begun = Instant::now();
    while !again.ctl("status").unwrap().contains("the configuration is not used") {
        assert!(begun.elapsed() < PATIENCE, "{:?}", again.ctl("status"));
        thread::sleep(Duration::from_millis(50));
    }
    fs::write(&config, "[sampling]\nfrequency_hz = 7\n").unwrap();
    signal(again.child.id(), Signal::HUP);
    while again.windows().last().is_none_or(|window| window["frequency_hz"] != 7) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", again.windows().last());
        thread::sleep(Duration::from_millis(200));
    }
    let directory = again.stop();
    assert!(!directory.path().join("control.sock").exists(), "its socket is removed");
}

/// Nanoseconds off the CPU of a process's stacks, folded, that have all of these frames.
fn off_cpu_ns(folded: &str, frames: &[&str]) -> u64 {
    let of_line = |line: &str| {
        let (stack, value) = line.rsplit_once(' ').unwrap();
        let has = |frame: &&str| stack.split(';').any(|other| other.starts_with(*frame));
        if frames.iter().all(has) { value.parse::<u64>().unwrap() } else { 0 }
    };
    folded.lines().map(of_line).sum()
}

#[test]
fn stacks_are_those_of_long_waits_however_many_short_ones_there_are() {
    // The budget is no concern here: at every step, fewer long waits would have stacks.
    let daemon = Daemon::start(5, &["--budget-cpu-percent", "100", "--budget-memory", "1GB"]);
    daemon.flush();
    let warm_ms = expect::warm_up_ms();
    let mut target = Target::ready(&workload::path("waits"), &[&warm_ms.to_string(), "mixed", "60"]);
    target.go();
    let said = target.says();
    daemon.flush();
    let pid = target.pid().to_string();
    let output = daemon.query(&["--event", "offcpu", "-p", &pid, "-o", "-", "--format", "folded"]);
    let folded = String::from_utf8(output.stdout).unwrap();
    let said_of = |name: &str, i: usize| said[name][i].as_u64().unwrap();
    let said_ns = |name: &str| said_of(name, 1);
    // What begins and ends a wait is on a CPU, and behind its end it waits for one: two hundredths of it on slow machines.
    let long_ns = said_ns("long_wait") - said_of("long_wait", 2) - said_of("long_wait", 3);
    // The kernel hides the ends of some from the tracepoint, which is said.
    let hidden = lost(&daemon, &["switches_not_traced"]);
    let hidden_ns = hidden * long_ns.div_ceil(said_of("long_wait", 0));
    // What is stolen while the thread waits is a part of its wait to both.
    within_but_for("time in long waits", off_cpu_ns(&folded, &["long_wait"]), long_ns, hidden_ns, 0);
    // Short ones are in sum. What it takes to begin and to end each is on a CPU.
    let all = off_cpu_ns(&folded, &["waits"]);
    assert!(all + hidden_ns > long_ns + said_ns("short_waits") / 2, "{all} of {said}: {folded}");
    assert!(
        all < warm_ms * 1_000_000 + long_ns + said_ns("short_waits") + 1_000_000_000,
        "{all} of {said}: {folded}"
    );
    let of_calls = daemon.query_json(&["--accounts", "--json", "-p", &pid]);
    let blocked = metric(&numbers(&of_calls, Some(target.pid())), "blocked");
    // Two programs see each wait begin and end, one behind the other, each with its own look at the clock.
    let apart_ns = if is_emulated() { 20_000 } else { 2_000 };
    let waits = said_of("short_waits", 0) + said_of("long_wait", 0);
    let most = blocked / 100 + waits * apart_ns + hidden_ns;
    assert!(
        all.abs_diff(blocked) <= most,
        "blocked: {all} by stacks, {blocked} by accounts, {waits} waits, {hidden} hidden"
    );
    target.go();
    target.finish();
    daemon.stop();
}
