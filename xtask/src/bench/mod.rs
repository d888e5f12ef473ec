//! `cargo xtask bench`: what profiling costs, ours beside `perf record` and bcc's `profile`, on one machine in one run.
//!
//! Every round runs every subject once, in turn, under the same load (`load`): two threads that compute, and 20 program
//! starts a second. A subject is measured from outside (`measure`): its CPU time and peak memory by wait4(2), and what
//! the load got done per second of its own CPU time. Medians over the rounds; two runs without any profiler give the
//! noise floor. The table replaces the one in docs/performance.md.

mod load;
mod measure;
mod table;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use load::load;
use measure::Usage;

use crate::{
    process::{Failure, is_root, say, succeeds},
    run::build_release,
    workspace,
};

/// Seconds that each subject records in a round.
const SECONDS: u32 = 10;
/// Rounds of a full run, and of `--quick`.
const ROUNDS: (usize, usize) = (7, 3);
/// Samples per second and CPU.
const FREQUENCY_HZ: u32 = 99;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// No profiler; twice, for the noise floor.
    Nothing,
    NothingAgain,
    /// This profiler.
    Ours,
    /// `perf record`.
    Perf,
    /// bcc's `profile`.
    Bcc,
}

impl Subject {
    const ALL: [Self; 5] = [Self::Nothing, Self::Ours, Self::Perf, Self::Bcc, Self::NothingAgain];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no profiler",
            Self::NothingAgain => "no profiler (again: the noise)",
            Self::Ours => "profiler record",
            Self::Perf => "perf record -g",
            Self::Bcc => "bcc profile",
        }
    }

    /// The command that records the whole machine for [`SECONDS`]; `None` if it is not installed.
    fn command(self, directory: &Path) -> Result<Option<Command>, Failure> {
        let (seconds, frequency) = (SECONDS.to_string(), FREQUENCY_HZ.to_string());
        let mut command = match self {
            Self::Nothing | Self::NothingAgain => {
                let mut command = Command::new("sleep");
                command.arg(seconds);
                command
            }
            Self::Ours => {
                let mut command = Command::new(workspace::release_binary()?);
                command
                    .args(["record", "-a", "-F", &frequency, "-d", &seconds, "-o"])
                    .arg(recording(directory));
                command
            }
            Self::Perf => {
                let mut command = Command::new("perf");
                command.args(["record", "-q", "-a", "-g", "-e", "cpu-clock", "-F", &frequency, "-o"]);
                command.arg(directory.join("perf.data")).args(["--", "sleep", &seconds]);
                command
            }
            Self::Bcc => {
                let mut command = Command::new("profile-bpfcc");
                command.args(["-F", &frequency, "-f", &seconds]);
                command
            }
        };
        let installed = succeeds(Command::new("which").arg(command.get_program()));
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        Ok(installed.then_some(command))
    }
}

/// One subject in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    usage: Usage,
    /// Units of work that the load did per second of its CPU time.
    work_rate: f64,
    /// From our own recording: ns to the first possible sample, ns to resolve names, CPU ns while recording.
    own: Option<Own>,
}

/// What our recording says of itself.
#[derive(Clone, Copy, Debug)]
struct Own {
    start_ns: f64,
    naming_ns: f64,
    recording_cpu_ns: f64,
    recording_rss_bytes: f64,
    map_bytes: f64,
    ebpf_ns: f64,
    ebpf_runs: f64,
}

/// All rounds of a subject.
struct Results {
    subject: Subject,
    rounds: Vec<Round>,
}

fn recording(directory: &Path) -> PathBuf {
    directory.join("bench.pb.gz")
}

/// Runs the comparison and writes its table.
pub fn bench(quick: bool) -> Result<(), Failure> {
    if !is_root() {
        return Err(Failure::new("profiling the whole machine needs root: run as root"));
    }
    build_release()?;
    let directory = env::temp_dir().join(format!("profiler-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    let results = rounds(&directory, if quick { ROUNDS.1 } else { ROUNDS.0 });
    fs::remove_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    let text = table::render(&results?)?;
    print!("{text}");
    table::store(&workspace::root().join("docs/performance.md"), &text)
}

fn rounds(directory: &Path, count: usize) -> Result<Vec<Results>, Failure> {
    let mut results: Vec<Results> = Vec::new();
    for subject in Subject::ALL {
        match subject.command(directory)? {
            Some(_) => results.push(Results { subject, rounds: Vec::new() }),
            None => say(format!("{} is not installed: left out", subject.name())),
        }
    }
    for round in 1..=count {
        for result in &mut results {
            say(format!("round {round} of {count}: {}", result.subject.name()));
            if let Some(command) = result.subject.command(directory)? {
                result.rounds.push(one(result.subject, command, directory)?);
            }
        }
    }
    Ok(results)
}

fn one(subject: Subject, mut command: Command, directory: &Path) -> Result<Round, Failure> {
    let load = load::start(SECONDS)?;
    let usage = measure::run(&mut command)?;
    let work_rate = load::finish(load)?;
    let own = if subject == Subject::Ours { Some(own(&recording(directory))?) } else { None };
    Ok(Round { usage, work_rate, own })
}

/// Reads the cost that our recording carries.
fn own(recording: &Path) -> Result<Own, Failure> {
    let mut command = Command::new(workspace::release_binary()?);
    let json = crate::process::capture(command.arg("report").arg(recording).arg("--json"))?;
    let number = |key: &str| {
        measure::json_number(&json, key).ok_or_else(|| Failure::new(format!("the recording has no `{key}`")))
    };
    Ok(Own {
        start_ns: number("start_ns")?,
        naming_ns: number("naming_ns")?,
        recording_cpu_ns: number("user_cpu_ns")? + number("system_cpu_ns")?,
        recording_rss_bytes: number("recording_peak_rss_bytes")?,
        map_bytes: number("kernel_map_bytes")?,
        ebpf_ns: number("ebpf_run_ns")?,
        ebpf_runs: number("ebpf_runs")?,
    })
}
