//! `cargo xtask soak`: the daemon under a mix of loads for a long time. Does its memory stay, does it keep its budget, is every
//! window there?
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
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use workloads::Compilers;

use crate::{
    daemon::{Daemon, Ended, Used},
    document,
    process::{Failure, is_root, say},
    run::build_release,
    workspace,
};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Memory may grow by so much from the first third to the last, which is what a first look at further programs takes.
const GROWTH: f64 = 1.1;
/// Most of the machine's CPU time, percent: the default budget.
const BUDGET_PERCENT: f64 = 1.0;
/// Pauses between rounds of the loads.
const PAUSE: Duration = Duration::from_millis(500);
/// A round of requests is one of 2,000.
const REQUESTS_PAUSE: Duration = Duration::from_millis(1500);

/// Runs it for so long, and prints what was measured.
///
/// # Errors
/// Without root, and if memory grows, the budget is passed, or a window is missing.
pub fn soak(time: Duration) -> Result<(), Failure> {
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
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut text =
        document::circumstances(&format!("cargo xtask soak --minutes {}", time.as_secs() / 60), cpus)?;
    let measured = run(&directory, time)?;
    text.push_str(&measured.table());
    print!("{text}");
    document::write("docs/performance.md", "soak", &text)?;
    measured.check()
}

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    time: Duration,
    /// Resident memory at each look, bytes.
    rss: Vec<u64>,
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
}

fn run(directory: &Path, time: Duration) -> Result<Measured, Failure> {
    let mut daemon = Daemon::start(directory, &[])?;
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let mut measured = Measured::default();
    let watched = thread::scope(|scope| {
        let loads: [fn(&Path) -> io::Result<()>; 3] = [short_lived, requests, reads];
        let stop = &stop;
        for load in loads {
            scope.spawn(move || until(stop, || load(directory)));
        }
        let jvm = jvm();
        let watched = watch(&mut daemon, begun, time, &mut measured);
        stop.store(true, Ordering::Relaxed);
        drop(jvm);
        watched
    });
    watched?;
    measured.time = begun.elapsed();
    measured.take_used(daemon.flush()?);
    measured.take_losses(&daemon.status()?);
    measured.take_windows(&daemon.query(&["--list"])?);
    Ok(measured)
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
        measured.rss.push(daemon.rss());
        if measured.rss.len().is_multiple_of(30) {
            say(format!(
                "{} s: {} MB",
                begun.elapsed().as_secs(),
                measured.rss.last().unwrap_or(&0) / 1_000_000
            ));
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
    program(directory, "sched", &["short", "100"])
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
    fn take_used(&mut self, used: Used) {
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

    /// Mean of a part of the looks, MB.
    fn mean(rss: &[u64]) -> f64 {
        rss.iter().sum::<u64>() as f64 / rss.len().max(1) as f64 / 1e6
    }

    /// Memory in the first third and in the last, MB.
    fn first_and_last(&self) -> (f64, f64) {
        let third = self.rss.len().div_ceil(3);
        (Self::mean(&self.rss[..third]), Self::mean(&self.rss[self.rss.len() - third..]))
    }

    fn table(&self) -> String {
        let (first, last) = self.first_and_last();
        let lines = [
            ("time", format!("{} s", self.time.as_secs())),
            ("windows, missing", format!("{}, {}", self.windows, self.missing)),
            ("of these with less than is configured", self.reduced.to_string()),
            ("own CPU and eBPF, of the machine", format!("{:.2} %", self.cpu_percent)),
            ("resident memory, first and last third", format!("{first:.1} MB, {last:.1} MB")),
            ("kernel memory", format!("{:.1} MB", self.map_bytes as f64 / 1e6)),
            ("history on disk", format!("{:.1} MB", self.store_bytes as f64 / 1e6)),
            ("lost", if self.lost.is_empty() { "nothing".to_owned() } else { self.lost.join(", ") }),
        ];
        let rows: String = lines.iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
        format!("\n| | |\n|---|---|\n{rows}")
    }

    fn check(&self) -> Result<(), Failure> {
        let (first, last) = self.first_and_last();
        let mut problems = Vec::new();
        if self.missing != 0 || self.windows == 0 {
            problems.push(format!("{} windows are missing", self.missing));
        }
        if last > first * GROWTH {
            problems.push(format!("memory grew from {first:.1} to {last:.1} MB"));
        }
        if self.cpu_percent > BUDGET_PERCENT {
            problems.push(format!("{:.2} % of the machine's CPU time", self.cpu_percent));
        }
        if problems.is_empty() { Ok(()) } else { Err(Failure::new(problems.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_daemon_says_is_judged() {
        let mut measured = Measured {
            time: Duration::from_secs(100),
            rss: vec![60_000_000, 61_000_000, 62_000_000],
            ..Measured::default()
        };
        let status = json!({
            "cost": { "user_cpu_ns": 1_000_000u64, "system_cpu_ns": 1_000_000u64, "ebpf_run_ns": 0, "map_bytes": 7 },
            "store": { "bytes": 9 },
            "losses": { "a": 0, "b": 3 },
        });
        measured.take_used(Used::of(&status));
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
        assert!(measured.check().is_ok() && measured.cpu_percent < 0.01, "{measured:?}");
        measured.take_windows(&json!({ "windows": [{ "merged": 1, "last_number": 3, "blocked_every": 1 }] }));
        measured.rss.push(90_000_000);
        let message = measured.check().unwrap_err().to_string();
        assert!(message.contains("2 windows are missing") && message.contains("memory grew"), "{message}");
    }
}
