//! A workload that runs beside the profiler: started, told to go on, waited for.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use serde_json::Value;

use crate::expect::is_emulated;

/// A running workload. Dropped, it is killed.
pub struct Target {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Target {
    /// Starts a program.
    pub fn start(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::of(command)
    }

    /// Starts what a command says.
    ///
    /// # Panics
    /// If it does not start.
    pub fn of(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, output }
    }

    /// Starts a program and waits until it says `ready`.
    pub fn ready(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut target = Self::start(program, arguments);
        target.wait_until("ready");
        target
    }

    /// Has it give way to all others if the machine is emulated: what works without end would take most of it from the
    /// profiler.
    pub fn giving_way(self) -> Self {
        if is_emulated() {
            setpriority_process(Some(Pid::from_child(&self.child)), 10).expect("a test may lower priorities");
        }
        self
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads what it prints until a line is `word`.
    pub fn wait_until(&mut self, word: &str) {
        self.text_until(word);
    }

    /// Reads what it prints until a line is `word`, and gives all of it.
    pub fn text_until(&mut self, word: &str) -> String {
        let (mut text, mut begin) = (String::new(), 0);
        while text[begin..].trim_end() != word {
            begin = text.len();
            let read = self.output.read_line(&mut text).expect("its output is a pipe");
            assert_ne!(read, 0, "it ended without saying `{word}`");
        }
        text
    }

    /// Reads what it prints until there is a line of JSON.
    pub fn says(&mut self) -> Value {
        said(&self.text_until_says())
    }

    /// The same, and gives all of it as text.
    pub fn text_until_says(&mut self) -> String {
        let mut text = String::new();
        loop {
            let begin = text.len();
            let read = self.output.read_line(&mut text).expect("its output is a pipe");
            assert_ne!(read, 0, "it ended without saying anything");
            if said(&text[begin..]).is_object() {
                return text;
            }
        }
    }

    /// Lets it go on behind its `ready`.
    pub fn go(&mut self) {
        let input = self.child.stdin.as_mut().expect("it is piped");
        input.write_all(b"\n").expect("it waits for input");
    }

    /// Waits for its end: its status, and what it says it used (`Null` if it says nothing).
    pub fn finish(mut self) -> (ExitStatus, Value) {
        drop(self.child.stdin.take());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut text).expect("its output is text");
        let status = self.child.wait().expect("it is our child");
        (status, said(&text))
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        signal(self.pid(), Signal::KILL);
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Sends a signal; to a process that is gone, nothing happens.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    _ = kill_process(pid, signal);
}

/// The last line of JSON in a workload's output.
pub fn said(text: &str) -> Value {
    let lines = text.lines().rev().filter(|line| line.starts_with('{'));
    lines.filter_map(|line| serde_json::from_str(line).ok()).next().unwrap_or(Value::Null)
}

/// A number that a workload said.
///
/// # Panics
/// If it said no such number.
pub fn number(said: &Value, key: &str) -> u64 {
    said[key].as_u64().unwrap_or_else(|| panic!("the workload said no {key}: {said}"))
}
