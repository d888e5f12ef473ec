//! What accounting of system calls costs where nothing else happens: getppid as fast as it can be made
//! (`tests/workload/call_storm.c`).
//!
//! Each run under a profiler is compared with the runs of nothing before and after it. The first line is a program that
//! does nothing at the entry of each call: what counting cannot cost less than, whoever does it.

use std::{path::Path, process::Command, thread, time::Duration};

use super::{child::Measured, page, stats};
use crate::{
    process::{Failure, capture, run, say},
    workspace,
};

/// Batches of one run: some half a second.
const BATCHES: &str = "100";
/// A profiler is attached by then.
const START: Duration = Duration::from_millis(1500);
/// Runs for each round of the bench: one is short.
const RUNS: usize = 3;

/// What is measured: its name in the table, and the profiler's arguments.
const VIEWS: &[(&str, &[&str])] = &[
    ("a program that does nothing, at the entry", &["syscalls", "--json", "-a", "--floor"]),
    ("`profiler syscalls -a --count-only`", &["syscalls", "--json", "-a", "--count-only"]),
    ("`profiler syscalls -a`, times, errors, histograms", &["syscalls", "--json", "-a"]),
    ("`profiler syscalls -p` another process", &["syscalls", "--json", "-p", "self"]),
    (
        "`profiler record -a -e syscalls`, whole stacks",
        &["record", "-a", "-e", "syscalls", "-o", "calls.pb.gz"],
    ),
    ("`profiler record -a -e syscall-time`", &["record", "-a", "-e", "syscall-time", "-o", "calls.pb.gz"]),
];

/// Places in [`VIEWS`].
const FLOOR: usize = 0;
const COUNTED: usize = 1;
const TIMED: usize = 2;

/// Values of all rounds.
#[derive(Default)]
struct View {
    added_ns: Vec<f64>,
    rss_mib: Vec<f64>,
    exit_s: Vec<f64>,
}

/// What was measured.
pub struct Calls {
    views: Vec<View>,
    base_ns: Vec<f64>,
}

/// Measures all views in turn, in rounds.
pub fn measure(directory: &Path, rounds: usize) -> Result<Calls, Failure> {
    let program = directory.join("call_storm");
    let source = workspace::root().join("tests/workload/call_storm.c");
    run(Command::new("gcc").arg("-O2").arg(&source).arg("-o").arg(&program))?;
    let mut calls = Calls { views: VIEWS.iter().map(|_| View::default()).collect(), base_ns: Vec::new() };
    let mut before = call_ns(&program)?;
    for round in 1..=rounds * RUNS {
        say(format!("system calls, round {round} of {}", rounds * RUNS));
        for (view, (_, arguments)) in calls.views.iter_mut().zip(VIEWS) {
            let with = view.measure(arguments, &program, directory)?;
            let after = call_ns(&program)?;
            view.added_ns.push(with - (before + after) / 2.0);
            calls.base_ns.push(after);
            before = after;
        }
    }
    Ok(calls)
}

impl View {
    fn measure(&mut self, arguments: &[&str], program: &Path, directory: &Path) -> Result<f64, Failure> {
        let own = std::process::id().to_string();
        let arguments = arguments.iter().map(|argument| if *argument == "self" { &*own } else { argument });
        let mut command = Command::new(workspace::release_binary()?);
        command.args(arguments);
        let (profiler, _) = Measured::start(&mut command, directory, 0)?;
        thread::sleep(START);
        let with = call_ns(program)?;
        self.rss_mib.push(profiler.rss_mib());
        self.exit_s.push(profiler.interrupt()?.exit_s);
        Ok(with)
    }
}

/// Time of a call, ns.
fn call_ns(program: &Path) -> Result<f64, Failure> {
    let text = capture(Command::new(program).arg(BATCHES))?;
    let said: Option<serde_json::Value> = serde_json::from_str(text.trim()).ok();
    said.and_then(|said| said["call_ns"].as_f64())
        .ok_or_else(|| Failure::new(format!("{} said: {text}", program.display())))
}

impl Calls {
    /// The table.
    pub fn table(&self) -> String {
        let row = |(view, (name, _)): (&View, &(&str, &[&str]))| {
            vec![
                (*name).to_owned(),
                page::number(stats::median(&view.added_ns), 0),
                page::number(stats::median(&view.rss_mib), 0),
                page::number(stats::median(&view.exit_s), 2),
            ]
        };
        let rows: Vec<_> = self.views.iter().zip(VIEWS).map(row).collect();
        let base = page::number(stats::median(&self.base_ns), 0);
        let head = ["system call storm", "added ns per call", "RSS MiB", "Ctrl-C to end s"];
        format!(
            "\nSystem calls: getppid as fast as it can be made (`tests/workload/call_storm.c`); a call without a profiler \
             takes {base} ns.\n\n{}",
            page::table(&head, &rows)
        )
    }

    fn above_floor_ns(&self, view: usize) -> Option<f64> {
        let added = |view: usize| self.views.get(view).and_then(|view| stats::median(&view.added_ns));
        Some(added(view)? - added(FLOOR)?)
    }

    /// Added ns per call that is counted, above a program that does nothing.
    pub fn counted_ns(&self) -> Option<f64> {
        self.above_floor_ns(COUNTED)
    }

    /// The same per call that is timed.
    pub fn timed_ns(&self) -> Option<f64> {
        self.above_floor_ns(TIMED)
    }

    /// Resident set while calls are timed, MiB.
    pub fn rss_mib(&self) -> Option<f64> {
        self.views.get(TIMED).and_then(|view| stats::median(&view.rss_mib))
    }
}
