//! `cargo xtask soak`: the daemon under a mix of loads for a long time. Does its memory stay, does it keep its budget, is every
//! window there, and in them every process and all CPU time? The tests run it for some minutes ([`check`]).
//!
//! | load | how much |
//! |---|---|
//! | short-lived processes | 200 in a second (`tests/workload/sched.c`) |
//! | requests over the loopback interface | 1,000 in a second (`net_storm.c`) |
//! | reads past the page cache | 100 of 64 KiB in a second (`disk.c`) |
//! | a JVM | a thread that works without end (`Stacks.java`), if there is a JDK |

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use workloads::Compilers;

use crate::{
    daemon::{Daemon, Ended, Resident, Used},
    document,
    process::{Failure, cpu_time, is_root, say},
    run::build_release,
    workspace,
};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Memory may grow by so much from the first third to the last, which is what a first look at further programs takes.
const GROWTH: f64 = 1.1;
/// Most of the machine's CPU time, percent: the default budget.
const BUDGET_PERCENT: f64 = 1.0;
/// Most memory, the kernel's included, MB: the default budget.
const BUDGET_MB: f64 = 150.0;
/// CPU time of a process may differ by so much from what the kernel says.
const CPU_ERROR: f64 = 0.01;
/// Children of a round of short-lived processes, which is a process too.
const CHILDREN: u64 = 100;
/// Pauses between rounds of the loads.
const PAUSE: Duration = Duration::from_millis(500);
/// A round of requests is one of 2,000.
const REQUESTS_PAUSE: Duration = Duration::from_millis(1500);

/// Runs it for so long, prints what was measured, and puts it into the documentation.
///
/// # Errors
/// Without root, and if memory grows, the budget is passed, or something is missing.
pub fn soak(time: Duration) -> Result<(), Failure> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut text =
        document::circumstances(&format!("cargo xtask soak --minutes {}", time.as_secs() / 60), cpus)?;
    let measured = measure(time)?;
    text.push_str(&measured.table());
    print!("{text}");
    document::write("docs/performance.md", "soak", &text)?;
    report(measured.of_machine().chain(measured.of_daemon()).collect())
}

/// Runs it for so long, and judges what does not depend on who else uses the machine.
///
/// # Errors
/// If something is missing, or more memory is used than the default budget.
pub fn check(time: Duration) -> Result<(), Failure> {
    let measured = measure(time)?;
    eprint!("{}", measured.table());
    report(measured.of_daemon().collect())
}

fn report(problems: Vec<String>) -> Result<(), Failure> {
    if problems.is_empty() { Ok(()) } else { Err(Failure::new(problems.join("; "))) }
}

fn measure(time: Duration) -> Result<Measured, Failure> {
    if !is_root() {
        return Err(Failure::new("the daemon needs root: run cargo xtask soak as root"));
    }
    build_release()?;
    let directory = workspace::target_directory()?.join("soak");
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    }
    fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    let programs = directory.join("workloads");
    for built in workloads::build_all(&Compilers::native(), &programs).map_err(Failure::new)? {
        // Each is in a directory of its own.
        let name = built.file_name().unwrap_or_default();
        fs::rename(&built, programs.join(name)).map_err(|e| Failure::io(&built, &e))?;
    }
    run(&directory, time)
}

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    /// From the daemon's start until it recorded.
    started: Duration,
    time: Duration,
    /// At each look.
    memory: Vec<Resident>,
    map_bytes: u64,
    /// Own CPU time and that of its eBPF programs, percent of all CPUs.
    cpu_percent: f64,
    store_bytes: u64,
    windows: usize,
    missing: usize,
    /// Windows that were made with less than is configured.
    reduced: usize,
    /// Losses that happened.
    lost: Vec<String>,
    /// Short-lived processes that ran, and that windows have.
    processes: [u64; 2],
    /// CPU time of the JVM by the kernel, that windows have, and time of which they say that they do not know whether it is,
    /// because the kernel hid a switch, ns; 0 without a JDK.
    jvm_ns: [u64; 3],
    /// Time that the hypervisor took meanwhile, ns, which the kernel leaves out of a process's CPU time.
    stolen_ns: u64,
}

fn run(directory: &Path, time: Duration) -> Result<Measured, Failure> {
    let mut daemon = Daemon::start(directory, &[])?;
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let mut measured = Measured { started: daemon.started, ..Measured::default() };
    let stolen_before = stolen_ns();
    let jvm = jvm();
    let watched = thread::scope(|scope| {
        scope.spawn(|| {
            until(&stop, || {
                short_lived(directory)?;
                rounds.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
        });
        for load in [requests, reads] {
            let stop = &stop;
            scope.spawn(move || until(stop, || load(directory)));
        }
        let watched = watch(&mut daemon, begun, time, &mut measured);
        stop.store(true, Ordering::Relaxed);
        watched
    });
    watched?;
    let jvm_time = jvm.as_ref().and_then(|jvm| cpu_time(jvm.0.id()));
    measured.take_used(daemon.flush()?, begun.elapsed());
    measured.stolen_ns = stolen_ns().saturating_sub(stolen_before);
    measured.take_losses(&daemon.status()?);
    measured.take_windows(&daemon.query(&["--list"])?);
    let rounds = rounds.load(Ordering::Relaxed);
    let ended = daemon.query(&["--accounts", "--process", "^sched$"])?;
    measured.processes = [rounds * (CHILDREN + 1), sum(&ended, "threads_ended", None)];
    if let (Some(jvm), Some(time)) = (&jvm, jvm_time) {
        let accounts = daemon.query(&["--accounts", "--process", "^java$"])?;
        let of = |metric: &str| sum(&accounts, metric, Some(jvm.0.id()));
        measured.jvm_ns = [time.as_nanos() as u64, of("cpu") + of("interrupts"), of("unknown")];
    }
    Ok(measured)
}

/// A number of all rows of accounts, or of those of a process.
fn sum(accounts: &Value, metric: &str, pid: Option<u32>) -> u64 {
    let rows = accounts["rows"].as_array().into_iter().flatten();
    let of_process = rows.filter(|row| pid.is_none_or(|pid| row["pid"] == pid));
    let numbers = of_process.filter_map(|row| row["numbers"].as_array()).flatten();
    numbers.filter(|number| number["metric"] == metric).filter_map(|number| number["value"].as_u64()).sum()
}

/// Time that the hypervisor has taken from all CPUs, ns: `steal` (proc_stat(5)), in ticks of 10 ms.
fn stolen_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let steal = stat.lines().next().and_then(|all| all.split_ascii_whitespace().nth(8));
    steal.and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0) * 10_000_000
}

/// Looks at the daemon until the time is over.
fn watch(
    daemon: &mut Daemon,
    begun: Instant,
    time: Duration,
    measured: &mut Measured,
) -> Result<(), Failure> {
    while begun.elapsed() < time {
        thread::sleep(LOOK.min(time));
        daemon.check()?;
        let now = daemon.resident();
        measured.memory.push(now);
        if measured.memory.len().is_multiple_of(30) {
            say(format!("{} s: {} MB", begun.elapsed().as_secs(), now.all / 1_000_000));
        }
    }
    Ok(())
}

/// Repeats a load until it is told to stop, or cannot be run.
fn until(stop: &AtomicBool, load: impl Fn() -> io::Result<()>) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(e) = load() {
            say(format!("a load cannot be run: {e}"));
            return;
        }
        thread::sleep(PAUSE);
    }
}

fn program(directory: &Path, name: &str, arguments: &[&str]) -> io::Result<()> {
    let mut command = Command::new(directory.join("workloads").join(name));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status().map(drop)
}

fn short_lived(directory: &Path) -> io::Result<()> {
    program(directory, "sched", &["short", &CHILDREN.to_string()])
}

fn requests(directory: &Path) -> io::Result<()> {
    program(directory, "net_storm", &["requests", "1"])?;
    thread::sleep(REQUESTS_PAUSE);
    Ok(())
}

fn reads(directory: &Path) -> io::Result<()> {
    program(directory, "disk", &["1", &directory.join("read").to_string_lossy(), "50"])
}

/// A JVM at work, if there is a JDK.
fn jvm() -> Option<Ended> {
    let source = workspace::root().join("tests/workload/Stacks.java");
    let mut command = Command::new("java");
    command.arg("-Xmx128m").arg(source).args(["callers", "2000000000"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Ended(command.spawn().ok()?);
    if let Some(input) = &mut child.0.stdin {
        // It says `ready` to nobody, and works as soon as it is told.
        io::Write::write_all(input, b"\n").ok()?;
    }
    Some(child)
}

impl Measured {
    fn take_used(&mut self, used: Used, time: Duration) {
        self.time = time;
        let cpus = thread::available_parallelism().map_or(1, usize::from) as f64;
        let cpu_ns = (used.own_ns + used.ebpf_ns) as f64;
        self.cpu_percent = cpu_ns / 1e9 / (self.time.as_secs_f64() * cpus) * 100.0;
        (self.map_bytes, self.store_bytes) = (used.maps, used.store);
    }

    fn take_losses(&mut self, status: &Value) {
        let lost = status["losses"].as_object().into_iter().flatten();
        self.lost = lost
            .filter(|(_, count)| count.as_u64() != Some(0))
            .map(|(cause, count)| format!("{cause} {count}"))
            .collect();
    }

    fn take_windows(&mut self, list: &Value) {
        let windows = list["windows"].as_array().map_or(&[][..], Vec::as_slice);
        let number = |window: &Value, name: &str| window[name].as_u64().unwrap_or(0);
        let there: u64 = windows.iter().map(|window| number(window, "merged")).sum();
        let last = windows.last().map_or(0, |window| number(window, "last_number"));
        self.windows = there as usize;
        self.missing = last.saturating_sub(there) as usize;
        let reduced = windows.iter().filter(|window| number(window, "blocked_every") != 1);
        self.reduced = reduced.map(|window| number(window, "merged") as usize).sum();
    }

    /// Memory of a kind in the first third and in the last, MB: the means of the looks.
    fn first_and_last(&self, kind: impl Fn(&Resident) -> u64) -> (f64, f64) {
        let third = self.memory.len().div_ceil(3);
        let mean =
            |looks: &[Resident]| looks.iter().map(&kind).sum::<u64>() as f64 / third.max(1) as f64 / 1e6;
        (mean(&self.memory[..third]), mean(&self.memory[self.memory.len() - third..]))
    }

    fn table(&self) -> String {
        let thirds = |kind: fn(&Resident) -> u64| {
            let (first, last) = self.first_and_last(kind);
            format!("{first:.1} MB, {last:.1} MB")
        };
        let lines = [
            ("until it records", format!("{:.2} s", self.started.as_secs_f64())),
            ("time", format!("{} s", self.time.as_secs())),
            ("windows, missing", format!("{}, {}", self.windows, self.missing)),
            ("of these with less than is configured", self.reduced.to_string()),
            ("own CPU and eBPF, of the machine", format!("{:.2} %", self.cpu_percent)),
            ("resident memory, first and last third", thirds(|memory| memory.all)),
            ("of this without pages of files and kernel maps", thirds(|memory| memory.anonymous)),
            ("kernel memory", format!("{:.1} MB", self.map_bytes as f64 / 1e6)),
            ("history on disk", format!("{:.1} MB", self.store_bytes as f64 / 1e6)),
            ("short-lived processes, in windows", format!("{}, {}", self.processes[0], self.processes[1])),
            (
                "CPU time of the JVM by the kernel, in windows, unknown there",
                self.jvm_ns.map(|ns| format!("{:.2} s", ns as f64 / 1e9)).join(", "),
            ),
            ("lost", if self.lost.is_empty() { "nothing".to_owned() } else { self.lost.join(", ") }),
        ];
        let rows: String = lines.iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
        format!("\n| | |\n|---|---|\n{rows}")
    }

    /// What is wrong that can be so because of others on the machine, or because it was too short.
    fn of_machine(&self) -> impl Iterator<Item = String> {
        let (first, last) = self.first_and_last(|memory| memory.all);
        let grew = (last > first * GROWTH).then(|| format!("memory grew from {first:.1} to {last:.1} MB"));
        let cost = (self.cpu_percent > BUDGET_PERCENT)
            .then(|| format!("{:.2} % of the machine's CPU time", self.cpu_percent));
        grew.into_iter().chain(cost)
    }

    /// What is wrong with the daemon.
    fn of_daemon(&self) -> impl Iterator<Item = String> {
        let missing =
            (self.missing != 0 || self.windows == 0).then(|| format!("{} windows are missing", self.missing));
        let memory = self
            .memory
            .iter()
            .map(|memory| memory.all)
            .max()
            .map_or(0.0, |all| (all + self.map_bytes) as f64 / 1e6);
        let memory = (memory > BUDGET_MB).then(|| format!("{memory:.1} MB of memory"));
        let [ran, found] = self.processes;
        // None at all is a load that could not be run.
        let processes =
            (ran != found || ran == 0).then(|| format!("{found} of {ran} processes are in windows"));
        let [ran, found, unknown] = self.jvm_ns.map(|ns| ns as f64);
        let (least, most) = (ran * (1.0 - CPU_ERROR), ran * (1.0 + CPU_ERROR) + self.stolen_ns as f64);
        let cpu = (found + unknown < least || found > most)
            .then(|| format!("{:.3} of {:.3} s of CPU time are in windows", found / 1e9, ran / 1e9));
        [missing, memory, processes, cpu].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_all(all: u64) -> Resident {
        Resident { all, anonymous: 0 }
    }

    #[test]
    fn what_the_daemon_says_is_judged() {
        let mut measured = Measured {
            memory: [60_000_000, 61_000_000, 62_000_000].map(of_all).to_vec(),
            processes: [202, 202],
            jvm_ns: [1_000_000_000, 980_000_000, 11_000_000],
            ..Measured::default()
        };
        let status = json!({
            "cost": { "user_cpu_ns": 1_000_000u64, "system_cpu_ns": 1_000_000u64, "ebpf_run_ns": 0, "map_bytes": 7 },
            "store": { "bytes": 9 },
            "losses": { "a": 0, "b": 3 },
        });
        measured.take_used(Used::of(&status), Duration::from_secs(100));
        measured.take_losses(&status);
        measured.take_windows(&json!({ "windows": [
            { "merged": 6, "last_number": 6, "blocked_every": 1 },
            { "merged": 1, "last_number": 7, "blocked_every": 4 },
        ] }));
        assert_eq!((measured.windows, measured.missing, measured.reduced), (7, 0, 1));
        assert_eq!(
            (measured.lost.join(""), measured.map_bytes, measured.store_bytes),
            ("b 3".to_owned(), 7, 9)
        );
        let problems = |measured: &Measured| {
            measured.of_machine().chain(measured.of_daemon()).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(problems(&measured), "", "{measured:?}");
        assert!(measured.cpu_percent < 0.01, "{measured:?}");
        measured.take_windows(&json!({ "windows": [{ "merged": 1, "last_number": 3, "blocked_every": 1 }] }));
        measured.memory.push(of_all(190_000_000));
        measured.processes[1] -= 1;
        measured.jvm_ns[1] = 1_020_000_000;
        let message = problems(&measured);
        for problem in [
            "2 windows are missing",
            "memory grew",
            "190.0 MB of memory",
            "201 of 202 processes",
            "1.020 of 1.000 s of CPU time",
        ] {
            assert!(message.contains(problem), "{message}");
        }
        measured.processes = [0, 0];
        assert!(problems(&measured).contains("0 of 0 processes"), "{}", problems(&measured));
        measured.stolen_ns = 11_000_000;
        assert!(!problems(&measured).contains("CPU time"), "{}", problems(&measured));
        measured.jvm_ns = [1_000_000_000, 980_000_000, 9_000_000];
        assert!(problems(&measured).contains("0.980 of 1.000 s of CPU time"), "{}", problems(&measured));
    }

    #[test]
    fn numbers_of_accounts_are_summed() {
        let accounts = json!({ "rows": [
            { "pid": 1, "numbers": [{ "metric": "cpu", "label": "", "value": 3 }, { "metric": "x", "value": 9 }] },
            { "pid": 2, "numbers": [{ "metric": "cpu", "label": "", "value": 4 }] },
        ] });
        assert_eq!((sum(&accounts, "cpu", None), sum(&accounts, "cpu", Some(2))), (7, 4));
    }
}
