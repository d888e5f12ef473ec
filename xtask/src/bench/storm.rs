//! What accounting and recording of waits cost where nothing happens but switches: two processes of one CPU that pass a byte over pipes
//! (`tests/workload/storm.c`), CPU time of both for each round (two switches, two wake-ups).
//!
//! Each run under a profiler is compared with the runs of nothing before and after it.

use std::{path::Path, process::Command, thread, time::Duration};

use super::{child::Measured, page, stats};
use crate::{
    process::{Failure, capture, run, say},
    workspace,
};

/// Rounds of one run: some 2 s.
const ROUNDS: &str = "200000";
/// A profiler is attached by then.
const START: Duration = Duration::from_millis(700);

/// What is measured: its name in the table, and the profiler's arguments.
const VIEWS: &[(&str, &[&str])] = &[
    ("`profiler sched -a`, all threads", &["sched", "-a", "--json"]),
    ("`profiler sched -p` another process", &["sched", "-p", "self", "--json"]),
    ("`profiler record -a -e offcpu`, whole stacks", &["record", "-a", "-e", "offcpu", "-o", "waits.pb.gz"]),
    (
        "`profiler record -a -e offcpu --min-block 1s`",
        &["record", "-a", "-e", "offcpu", "--min-block", "1s", "-o", "waits.pb.gz"],
    ),
    (
        "`profiler record -a -e offcpu --wakers`",
        &["record", "-a", "-e", "offcpu", "--wakers", "-o", "waits.pb.gz"],
    ),
    ("`profiler record -a -e offcpu,runq`", &["record", "-a", "-e", "offcpu,runq", "-o", "waits.pb.gz"]),
];

/// Values of all rounds, ns.
struct View {
    added_ns: Vec<f64>,
    rss_mib: Vec<f64>,
    exit_s: Vec<f64>,
}

/// What was measured.
pub struct Storm {
    views: Vec<View>,
    base_ns: Vec<f64>,
}

/// Measures all views in turn, in rounds.
pub fn measure(directory: &Path, rounds: usize) -> Result<Storm, Failure> {
    let program = directory.join("storm");
    let source = workspace::root().join("tests/workload/storm.c");
    run(Command::new("gcc").arg("-O2").arg(&source).arg("-o").arg(&program))?;
    let views = VIEWS.iter().map(|_| View { added_ns: Vec::new(), rss_mib: Vec::new(), exit_s: Vec::new() });
    let mut storm = Storm { views: views.collect(), base_ns: Vec::new() };
    let mut before = round_ns(&program)?;
    for round in 1..=rounds {
        say(format!("switches, round {round} of {rounds}"));
        for (view, (_, arguments)) in storm.views.iter_mut().zip(VIEWS) {
            let with = view.measure(arguments, &program, directory)?;
            let after = round_ns(&program)?;
            view.added_ns.push(with - (before + after) / 2.0);
            storm.base_ns.push(after);
            before = after;
        }
    }
    Ok(storm)
}

impl View {
    fn measure(&mut self, arguments: &[&str], program: &Path, directory: &Path) -> Result<f64, Failure> {
        let own = std::process::id().to_string();
        let arguments = arguments.iter().map(|argument| if *argument == "self" { &*own } else { argument });
        let mut command = Command::new(workspace::release_binary()?);
        command.args(arguments);
        let (profiler, _) = Measured::start(&mut command, directory, 0)?;
        thread::sleep(START);
        let with = round_ns(program)?;
        self.rss_mib.push(profiler.rss_mib());
        self.exit_s.push(profiler.interrupt()?.exit_s);
        Ok(with)
    }
}

/// CPU time of a round, ns.
fn round_ns(program: &Path) -> Result<f64, Failure> {
    let text = capture(Command::new(program).arg(ROUNDS))?;
    let said: Option<serde_json::Value> = serde_json::from_str(text.trim()).ok();
    let number = |key: &str| said.as_ref().and_then(|said| said[key].as_f64());
    match (number("cpu_ns"), number("rounds")) {
        (Some(ns), Some(rounds)) => Ok(ns / rounds),
        _ => Err(Failure::new(format!("{} said: {text}", program.display()))),
    }
}

impl Storm {
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
        let head = ["switch storm", "added ns per round trip", "RSS MiB", "Ctrl-C to end s"];
        format!(
            "\nSwitches: two processes of one CPU, a byte over pipes (`tests/workload/storm.c`); a round trip without a \
             profiler takes {base} ns of CPU.\n\n{}",
            page::table(&head, &rows)
        )
    }

    /// Added ns per round trip of the accounting of all threads.
    pub fn added_ns(&self) -> Option<f64> {
        self.views.first().and_then(|view| stats::median(&view.added_ns))
    }

    /// Its resident set, MiB.
    pub fn rss_mib(&self) -> Option<f64> {
        self.views.first().and_then(|view| stats::median(&view.rss_mib))
    }

    /// Its time from Ctrl-C to the end, s.
    pub fn exit_s(&self) -> Option<f64> {
        self.views.first().and_then(|view| stats::median(&view.exit_s))
    }
}
