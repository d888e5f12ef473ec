//! Running the profiler's binary: `record` to its end or until it is told to stop, and any other command.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use profiler::{model::Profile, render::pprof};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    binary,
    expect::is_emulated,
    target::{said, signal},
};

/// A `profiler record` command line. Its first output is a recording in a temporary directory.
pub struct Record {
    directory: TempDir,
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    command: Vec<OsString>,
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

impl Record {
    /// `profiler record -o DIRECTORY/profile.pb.gz`.
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let recording = directory.path().join("profile.pb.gz");
        let arguments = vec!["-o".into(), recording.into()];
        Self { directory, wrapper: Vec::new(), arguments, command: Vec::new() }
    }

    /// Samples at 999 Hz: as fast as is usual, and no multiple of the scheduler's tick.
    pub fn at_999() -> Self {
        Self::timed("999")
    }

    /// Samples so often a second by the kernel's timer, whose rate is exact: a cycle counter's is only approached.
    pub fn timed(rate: &str) -> Self {
        Self::new().args(["-F", rate, "--sampler", "cpu-clock"])
    }

    /// Samples often enough that a split of 5 s is told within 2 points (`expect::share`): 15,000 samples, where an
    /// emulated CPU takes a third of them.
    pub fn of_split() -> Self {
        Self::timed(if is_emulated() { "999" } else { "2999" })
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Adds an output in the same directory, to be read with [`Recorded::output`].
    pub fn output(self, name: &str) -> Self {
        let path = self.directory.path().join(name);
        self.args([OsStr::new("-o"), path.as_os_str()])
    }

    /// The command to start and record.
    pub fn command<A: AsRef<OsStr>>(
        mut self,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.command = vec![program.into()];
        self.command.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// A program that runs the profiler (which is appended to its arguments).
    pub fn under<A: AsRef<OsStr>>(mut self, program: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = vec![program.into()];
        self.wrapper.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// The output directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs it to its end.
    pub fn run(self) -> Recorded {
        self.start().finish()
    }

    /// Starts it.
    pub fn start(self) -> Recording {
        let mut words = self.wrapper;
        words.push(binary::profiler().into());
        words.push("record".into());
        words.extend(self.arguments);
        if !self.command.is_empty() {
            words.push("--".into());
            words.extend(self.command);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What it writes by default goes to its working directory.
        command.current_dir(self.directory.path());
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", words[0].display()));
        Recording { child, directory: self.directory, words }
    }
}

/// A running `profiler record`.
pub struct Recording {
    child: Child,
    directory: TempDir,
    words: Vec<OsString>,
}

impl Recording {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it samples: until it holds a sampling event and an event of the side band for each CPU.
    ///
    /// # Panics
    /// If it ends before.
    pub fn wait_until_sampling(&mut self) {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        self.wait_for_files("anon_inode:[perf_event]", 2 * cpus);
    }

    /// Waits until it records processes by their ids: until it holds the links of that many programs for its events, of two
    /// that follow targets, and of two that follow what they execute.
    ///
    /// # Panics
    /// If it ends before.
    pub fn wait_until_attached(&mut self, programs: usize) {
        self.wait_for_files("anon_inode:bpf_link", programs + 4);
    }

    fn wait_for_files(&mut self, kind: &str, number: usize) {
        let directory = format!("/proc/{}/fd", self.pid());
        loop {
            let files = fs::read_dir(&directory).into_iter().flatten().flatten();
            let links = files.filter_map(|file| fs::read_link(file.path()).ok());
            if links.filter(|link| link.as_os_str() == kind).count() >= number {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                let mut text = String::new();
                if let Some(mut stderr) = self.child.stderr.take() {
                    io::Read::read_to_string(&mut stderr, &mut text).expect("its messages are text");
                }
                panic!("it ended before it sampled ({status}): {text}");
            }
            // Nothing tells of another process's new file: look again, as fast as is no load.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal, SIGINT for Ctrl-C.
    pub fn signal(&self, number: Signal) {
        signal(self.pid(), number);
    }

    /// Waits for its end.
    pub fn finish(self) -> Recorded {
        let output = self.child.wait_with_output().expect("it is our child");
        Recorded { output, directory: self.directory, words: self.words }
    }
}

/// A `profiler record` that has ended.
pub struct Recorded {
    output: Output,
    directory: TempDir,
    words: Vec<OsString>,
}

impl Recorded {
    /// How it ended.
    pub fn status(&self) -> ExitStatus {
        self.output.status
    }

    /// Its exit code; 128 + the signal's number if it was killed by one, as shells say it.
    pub fn code(&self) -> i32 {
        code(self.output.status)
    }

    /// What it, and the command it started, wrote to stdout.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// What the command it started said.
    pub fn said(&self) -> Value {
        said(&self.stdout())
    }

    /// The path of an output.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An output's bytes.
    pub fn output(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}\n{}", self.describe()))
    }

    /// The recording.
    ///
    /// # Panics
    /// If there is none that can be read.
    pub fn profile(&self) -> Profile {
        let bytes = self.output("profile.pb.gz");
        pprof::read(bytes.as_slice()).unwrap_or_else(|e| panic!("the recording: {e}\n{}", self.describe()))
    }

    /// The recording of a run that succeeded.
    ///
    /// # Panics
    /// If it did not succeed.
    pub fn succeeded(&self) -> Profile {
        assert_eq!(self.code(), 0, "{}", self.describe());
        self.profile()
    }

    /// Command line, status and messages, for failures.
    pub fn describe(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        format!("{}\n{}\n{}", words.join(" "), self.status(), self.stderr())
    }
}

/// Runs any command of the profiler.
pub fn profiler<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new(binary::profiler()).args(arguments).stdin(Stdio::null()).output().expect("the profiler runs")
}

/// An exit code as shells say it.
pub fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("an ended process")
}

/// Checks what a failure must be: that exit code, one line of cause that has `part`, and at most a line of what mends
/// it; no panic, no backtrace, nothing a terminal would act on.
///
/// # Panics
/// If it is not so.
pub fn fails_with(what: &str, status: ExitStatus, stderr: &str, expected: i32, part: &str) {
    assert_eq!(code(status), expected, "{what}: {stderr}");
    // Outputs that could be written are told all the same.
    let lines: Vec<_> = stderr.lines().filter(|line| !line.starts_with("profiler: wrote ")).collect();
    assert!(lines.first().is_some_and(|line| line.starts_with("profiler: ")), "{what}: {stderr}");
    assert!(lines.len() <= 2, "{what}: more than a cause and what mends it: {stderr}");
    assert!(stderr.to_lowercase().contains(&part.to_lowercase()), "{what}: no `{part}` in: {stderr}");
    no_panic(what, stderr);
}

/// Checks that a text is no panic's and has no control characters.
///
/// # Panics
/// If it is or has.
pub fn no_panic(what: &str, text: &str) {
    assert!(!text.contains("panicked at") && !text.contains("RUST_BACKTRACE"), "{what}: {text}");
    let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert_eq!(bad, None, "{what}: a control character in {text:?}");
}
