//! Running `profiler sched`, `cpu`, `syscalls` or `stat` beside a workload, and reading the rows of the whole run.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{binary, target::signal};

/// A running profiler. Dropped, it is killed.
pub struct Accounting {
    child: Child,
    /// What it has written, read at once: what nobody takes out of the pipe would stop the profiler after some intervals.
    lines: Receiver<String>,
}

impl Accounting {
    /// Starts it with intervals of 100 ms, and returns when the first one has passed: everything is attached then.
    pub fn start(arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = Command::new(binary::profiler());
        let (view, rest) = arguments.split_first().expect("it is told what to show");
        command.arg(view).args(["--json", "-i", "0.1"]).args(rest).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the profiler can be started");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (written, lines) = channel();
        // It ends with the profiler's output.
        thread::spawn(move || {
            for line in output.lines() {
                let line = line.expect("its output is text");
                if written.send(line).is_err() {
                    return;
                }
            }
        });
        let started = Self { child, lines };
        assert_ne!(started.line(), Value::Null, "the profiler ended before its first interval");
        started
    }

    /// The next object that it writes; `Null` at the end.
    fn line(&self) -> Value {
        self.lines.recv().map_or(Value::Null, |line| serde_json::from_str(&line).expect("it writes JSON"))
    }

    /// Stops it, and gives the intervals that were not read yet and the whole run.
    pub fn stop(mut self) -> (Vec<Value>, Accounts) {
        signal(self.child.id(), Signal::INT);
        let mut intervals = Vec::new();
        loop {
            let line = self.line();
            assert_ne!(line, Value::Null, "the profiler ended without the whole run");
            if line["meta"].get("selection").is_none() {
                let status = self.child.wait().expect("it is our child");
                assert!(status.success(), "the profiler ended with {status}");
                return (intervals, Accounts(line));
            }
            intervals.push(line);
        }
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), Signal::KILL);
            _ = self.child.wait();
        }
    }
}

/// The accounts of the whole run.
pub struct Accounts(pub Value);

/// Accounts of threads that go on are read one after the other, behind the end of the time that is told: one that switches
/// meanwhile is that much longer.
const READING_NS: u64 = 1_000_000;

impl Accounts {
    /// Runs `profiler sched --json ARGUMENTS` to its end.
    pub fn of(arguments: &[impl AsRef<OsStr>]) -> Self {
        Self::of_view("sched", arguments)
    }

    /// Runs `profiler VIEW --json ARGUMENTS` to its end.
    pub fn of_view(view: &str, arguments: &[impl AsRef<OsStr>]) -> Self {
        let output = Command::new(binary::profiler()).args([view, "--json"]).args(arguments).output();
        let output = output.expect("the profiler can be started");
        Self::of_output(&output).0
    }

    /// The same of a command, with what the command says: an object on one line.
    pub fn and_said(arguments: &[impl AsRef<OsStr>]) -> (Self, Value) {
        let (accounts, said) = Self::of_view_and_said("sched", arguments);
        (accounts, serde_json::from_str(&said).expect("it says JSON"))
    }

    /// Runs `profiler VIEW --json ARGUMENTS` to its end, with the line that its command says, an object.
    pub fn of_view_and_said(view: &str, arguments: &[impl AsRef<OsStr>]) -> (Self, String) {
        let output = Command::new(binary::profiler()).args([view, "--json"]).args(arguments).output();
        let (accounts, others) = Self::of_output(&output.expect("the profiler can be started"));
        let said = others.into_iter().find(|line| line.starts_with('{')).expect("the command says something");
        (accounts, said)
    }

    /// The rows, and the other lines.
    fn of_output(output: &Output) -> (Self, Vec<String>) {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let (rows, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("{\"schema\""));
        let line = rows.first().expect("it writes its rows");
        let accounts = Self(serde_json::from_str(line).expect("it writes JSON"));
        (accounts, others.into_iter().map(str::to_owned).collect())
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Value> {
        self.0["rows"].as_array().expect("rows").iter()
    }

    /// The rows of threads.
    pub fn threads(&self) -> impl Iterator<Item = &Value> {
        self.rows().filter(|row| !row["tid"].is_null())
    }

    /// The row of the only thread of that id.
    ///
    /// # Panics
    /// If there is none, or several.
    pub fn thread(&self, tid: u64) -> &Value {
        let rows: Vec<_> = self.threads().filter(|row| row["tid"] == tid).collect();
        assert_eq!(rows.len(), 1, "rows of thread {tid}: {rows:?}");
        rows[0]
    }

    /// A loss counter.
    pub fn lost(&self, counter: &str) -> u64 {
        number(&self.0["losses"]["counters"], counter)
    }

    /// Checks what must hold whatever was accounted: each account adds up, none is longer than the run, and nothing was
    /// lost but what a kernel does not show.
    pub fn check(&self) {
        let duration = number(&self.0["meta"], "duration_ns");
        for row in self.threads() {
            let parts = ["cpu_ns", "irq_ns", "run_queue_ns", "blocked_ns", "unknown_ns"];
            let sum: u64 = parts.iter().map(|part| number(row, part)).sum();
            assert_eq!(sum, number(row, "wall_ns"), "{row}");
            assert!(sum <= duration + READING_NS, "longer than the run of {duration} ns: {row}");
            let causes: u64 =
                row["blocked"].as_object().expect("causes").values().filter_map(Value::as_u64).sum();
            assert_eq!(causes, number(row, "blocked_ns"), "{row}");
            if self.lost("switches_missed") + self.lost("wakeups_missed") == 0 {
                assert_eq!(number(row, "unknown_ns"), 0, "{row}");
            }
        }
        for counter in
            ["threads_map_full", "ended_threads_overwritten", "accounts_torn", "waits_not_in_histograms"]
        {
            assert_eq!(self.lost(counter), 0, "{counter}");
        }
    }
}

/// A number in a row.
///
/// # Panics
/// If it is none.
pub fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("no number {key}: {row}"))
}

/// Time blocked by a cause, ns; 0 if there is none.
pub fn blocked(row: &Value, cause: &str) -> u64 {
    row["blocked"][cause].as_u64().unwrap_or(0)
}
