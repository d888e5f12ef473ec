//! What a Java program is slowed down by being looked at: calls that a thread makes in a time
//! (`tests/workload/Stacks.java`), in a JVM of its own each time.
//!
//! Each run under the profiler is compared with the runs of nothing before and after it. And what a walk through such a
//! thread's stack costs ([`java_walk`]), and when a large JVM's code is known ([`java_large`]).

use std::{
    io::{self, BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use ebpf_toolchain::on_path;

use super::{
    child::Measured,
    java_large::{self, Large},
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
    large: Large,
}

/// Measures all views in turn, in rounds. `None`: there is no JDK.
pub fn measure(directory: &Path, rounds: usize) -> Result<Option<Java>, Failure> {
    let (Some(java), Some(javac)) = (on_path("java"), on_path("javac")) else { return Ok(None) };
    let classes = directory.join("classes");
    let sources =
        ["Crowd.java", "Stacks.java"].map(|name| workspace::root().join("tests/workload").join(name));
    run(Command::new(javac).arg("-d").arg(&classes).args(sources))?;
    let rounds = rounds.max(LEAST_ROUNDS);
    let program = Program { java, classes };
    let mut slowdown: Vec<Vec<f64>> = vec![Vec::new(); VIEWS.len()];
    let large = java_large::measure(&program, directory)?;
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
    Ok(Some(Java { build: program.build()?, slowdown, walks, large }))
}

/// The workloads, compiled.
pub struct Program {
    java: PathBuf,
    classes: PathBuf,
}

impl Program {
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
        let mut jvm = self.start("known.Stacks", &OPTIONS, &[mode, TIME])?;
        let profiler = arguments.map(|arguments| jvm.look(arguments, directory, 0)).transpose()?;
        thread::sleep(START);
        jvm.go()?;
        let text = jvm.line()?;
        if let Some((profiler, _)) = profiler {
            profiler.interrupt()?;
        }
        Ok(text)
    }

    /// Starts a workload, and waits until it is ready.
    pub fn start(&self, class: &str, options: &[&str], arguments: &[&str]) -> Result<Jvm, Failure> {
        let mut command = Command::new(&self.java);
        command.args(options).arg("-cp").arg(&self.classes).arg(class).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Killed(command.spawn().map_err(failed)?);
        let (input, output) = (child.0.stdin.take(), child.0.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Failure::new("a JVM without input and output"));
        };
        let mut jvm = Jvm { child, input, lines: BufReader::new(output).lines() };
        // It is ready.
        jvm.line()?;
        Ok(jvm)
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::new(format!("a JVM: {error}"))
}

/// A JVM that runs a workload. Dropped, it is killed.
pub struct Jvm {
    child: Killed,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Jvm {
    /// Lets it do what it waits with.
    pub fn go(&mut self) -> Result<(), Failure> {
        self.input.write_all(b"\n").map_err(failed)
    }

    /// The next line that it says.
    fn line(&mut self) -> Result<String, Failure> {
        self.lines.next().unwrap_or_else(|| Ok(String::new())).map_err(failed)
    }

    /// Starts the profiler on it, with `PID` in the arguments for its process id, in a directory; and the time until it has
    /// that many sampling events.
    pub fn look(
        &self,
        arguments: &[&str],
        directory: &Path,
        events: usize,
    ) -> Result<(Measured, Duration), Failure> {
        let pid = self.child.0.id().to_string();
        let arguments = arguments.iter().map(|argument| if *argument == "PID" { &*pid } else { argument });
        Measured::start(Command::new(workspace::release_binary()?).args(arguments), directory, events)
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
            + &self.large.table()
    }
}
