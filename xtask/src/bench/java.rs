//! What a Java program is slowed down by being looked at: calls that a thread makes in a time
//! (`tests/workload/Stacks.java`), in a JVM of its own each time.
//!
//! Each run under the profiler is compared with the runs of nothing before and after it. And what a walk through such a
//! thread's stack costs ([`java_walk`]).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use ebpf_toolchain::on_path;

use super::{
    child::Measured,
    java_walk::{self, Walks},
    page, stats,
};
use crate::{
    process::{Failure, run, say},
    workspace,
};

/// The profiler is attached, and knows the JVM, by then.
const START: Duration = Duration::from_millis(1500);
/// How long the thread works, ms.
const TIME: &str = "1000";
/// Fewest pairs, whatever the extent.
const LEAST_ROUNDS: usize = 10;
/// Every method keeps a frame of its own.
const OPTIONS: [&str; 3] =
    ["-Xmx128m", "-XX:CompileCommand=quiet", "-XX:CompileCommand=dontinline,known.Stacks*::*"];

/// What is measured: its name in the table, and the profiler's arguments. `PID` is the JVM's.
const VIEWS: &[(&str, &[&str])] = &[
    ("nothing (the noise)", &[]),
    ("`profiler record -F 99`", &["record", "-F", "99", "-p", "PID", "-o", "a.pb.gz"]),
    ("`profiler record -F 999`", &["record", "-F", "999", "-p", "PID", "-o", "a.pb.gz"]),
    ("`profiler record -e cpu,offcpu`", &["record", "-e", "cpu,offcpu", "-p", "PID", "-o", "a.pb.gz"]),
    ("`profiler java`", &["java", "-p", "PID", "--json"]),
];

/// Slowdowns, by view.
pub struct Java {
    build: String,
    slowdown: Vec<Vec<f64>>,
    walks: Walks,
}

/// Measures all views in turn, in rounds. `None`: there is no JDK.
pub fn measure(directory: &Path, rounds: usize) -> Result<Option<Java>, Failure> {
    let (Some(java), Some(javac)) = (on_path("java"), on_path("javac")) else { return Ok(None) };
    let classes = directory.join("classes");
    let source = workspace::root().join("tests/workload/Stacks.java");
    run(Command::new(javac).arg("-d").arg(&classes).arg(source))?;
    let rounds = rounds.max(LEAST_ROUNDS);
    let program = Program { java, classes };
    let mut slowdown: Vec<Vec<f64>> = vec![Vec::new(); VIEWS.len()];
    let walks = java_walk::measure(&program, directory)?;
    let mut before = program.rate(None, directory)?;
    for round in 1..=rounds {
        say(format!("Java, round {round} of {rounds}"));
        for ((_, arguments), slowdown) in VIEWS.iter().zip(&mut slowdown) {
            let arguments = (!arguments.is_empty()).then_some(*arguments);
            let with = program.rate(arguments, directory)?;
            let after = program.rate(None, directory)?;
            slowdown.push(stats::slowdown(before, with, after));
            before = after;
        }
    }
    Ok(Some(Java { build: program.build()?, slowdown, walks }))
}

/// The workload.
pub struct Program {
    java: PathBuf,
    classes: PathBuf,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.java);
        command.args(OPTIONS).arg("-cp").arg(&self.classes);
        command
    }

    fn build(&self) -> Result<String, Failure> {
        let output = Command::new(&self.java).arg("-version").output();
        let output = output.map_err(|e| Failure::new(format!("{}: {e}", self.java.display())))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let build = text.lines().find_map(|line| Some(line.split_once("(build ")?.1.trim_end_matches(')')));
        Ok(build.unwrap_or("of an unknown build").to_owned())
    }

    /// Calls in a millisecond; while the profiler runs with these arguments, if there are some.
    fn rate(&self, arguments: Option<&[&str]>, directory: &Path) -> Result<f64, Failure> {
        let text = self.run("callers", arguments, directory)?;
        let said: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let number = |key: &str| said.as_ref().and_then(|said| said[key].as_f64());
        let calls = ["half", "third", "fifth"].map(number).into_iter().sum::<Option<f64>>();
        let time: f64 = TIME.parse().unwrap_or(f64::NAN);
        Ok(calls.ok_or_else(|| Failure::new(format!("{} said: {text}", self.java.display())))? / time)
    }

    /// What a run of a mode says that it did; while the profiler runs with these arguments, if there are some.
    pub fn run(&self, mode: &str, arguments: Option<&[&str]>, directory: &Path) -> Result<String, Failure> {
        let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", self.java.display()));
        let mut command = self.command();
        command.args(["known.Stacks", mode, TIME]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut jvm = Killed(command.spawn().map_err(failed)?);
        let (input, output) = (jvm.0.stdin.take(), jvm.0.stdout.take());
        let (Some(mut input), Some(output)) = (input, output) else {
            return Err(Failure::new("a JVM without input and output"));
        };
        let mut lines = BufReader::new(output).lines();
        let mut line = || lines.next().unwrap_or_else(|| Ok(String::new())).map_err(failed);
        // It is ready.
        line()?;
        let pid = jvm.0.id().to_string();
        let profiler = arguments.map(|arguments| -> Result<Measured, Failure> {
            let arguments =
                arguments.iter().map(|argument| if *argument == "PID" { &*pid } else { argument });
            let mut command = Command::new(workspace::release_binary()?);
            command.args(arguments);
            Ok(Measured::start(&mut command, directory, 0)?.0)
        });
        let profiler = profiler.transpose()?;
        thread::sleep(START);
        input.write_all(b"\n").map_err(failed)?;
        let text = line()?;
        if let Some(profiler) = profiler {
            profiler.interrupt()?;
        }
        Ok(text)
    }
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Java {
    /// The table.
    pub fn table(&self) -> String {
        let row = |((name, _), slowdown): (&(&str, &[&str]), &Vec<f64>)| {
            let percent: Vec<f64> = slowdown.iter().map(|slowdown| slowdown * 100.0).collect();
            vec![(*name).to_owned(), page::number(stats::median(&percent), 2)]
        };
        let rows: Vec<_> = VIEWS.iter().zip(&self.slowdown).map(row).collect();
        format!(
            "\nJava: a thread with short methods, {} pairs of runs, JDK {}.\n\n{}",
            self.slowdown.first().map_or(0, Vec::len),
            self.build,
            page::table(&["a JVM that is looked at by", "slowdown, %"], &rows)
        ) + &self.walks.table()
    }
}
