//! Running the tests: each in a process of its own, with a limit of its own.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::protocol::{Console, PRIVATE_VARIABLES};

/// The directory of the test programs.
const SUITES: &str = "/tests";

/// The longest that a test may take, its profiler and workloads included. The longest that do pass take a fifth.
const TEST_LIMIT: Duration = Duration::from_secs(60);

/// Only tests whose name has this; a parameter of the kernel's command line.
const FILTER_VARIABLE: &str = "VM_FILTER";

/// Which of these: `NUMBER/OF`, each `OF`-th one from the `NUMBER`-th on (from 1); a parameter of the kernel's command line.
const SHARE_VARIABLE: &str = "VM_SHARE";

/// Tests that are not run in a guest.
const NOT_HERE: &str = include_str!("../guest.txt");

/// Lines of a test's output that are passed on; the last ones, which have the reason.
const OUTPUT_LINES: usize = 60;

struct Test {
    suite: String,
    name: String,
    /// `SUITE::NAME`: how it is listed.
    id: String,
}

/// Runs all tests and says their verdicts.
pub fn all(console: &Console) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    console.say(&format!("machine {} {cpus}", release.trim()));
    let tests = match plan() {
        Ok(tests) => tests,
        Err(e) => return console.broken(&e),
    };
    for test in &tests {
        console.say(&format!("plan {}", test.id));
    }
    for test in &tests {
        if let Err(e) = run(test, console) {
            return console.broken(&format!("{}: {e}", test.id));
        }
    }
    console.say(&format!("end {}", tests.len()));
}

/// What is to be run: the tests of all programs, but for those that are listed or do not match the filter.
fn plan() -> Result<Vec<Test>, String> {
    let filter = env::var(FILTER_VARIABLE).unwrap_or_default();
    let mut suites: Vec<String> = fs::read_dir(SUITES)
        .map_err(|e| format!("{SUITES}: {e}"))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    suites.sort();
    let mut tests = Vec::new();
    for suite in suites {
        let program = Path::new(SUITES).join(&suite);
        let output = Command::new(&program).args(["--list", "--format", "terse"]).output();
        let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
        let names = String::from_utf8_lossy(&output.stdout);
        let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
        let all = names.map(|name| Test {
            id: format!("{suite}::{name}"),
            suite: suite.clone(),
            name: name.to_owned(),
        });
        tests.extend(all.filter(|test| test.id.contains(&filter) && !is_left_out(NOT_HERE, &test.id)));
    }
    match share(&env::var(SHARE_VARIABLE).unwrap_or_else(|_| "1/1".to_owned())) {
        Some((number, of)) => Ok(tests.into_iter().skip(number - 1).step_by(of).collect()),
        None => Err(format!("{SHARE_VARIABLE} is no share")),
    }
}

fn share(text: &str) -> Option<(usize, usize)> {
    let (number, of) = text.split_once('/')?;
    let (number, of) = (number.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&number).then_some((number, of))
}

/// One entry a line: `TEST REASON...`; a test without a reason is not left out.
fn is_left_out(list: &str, name: &str) -> bool {
    list.lines().filter(|line| !line.starts_with('#')).any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(name) && words.next().is_some()
    })
}

/// Most runs of a test that does not pass.
const MAX_RUNS: usize = 3;

/// Runs a test, and again if it did not pass: under emulation timers stand still and interrupts come in bunches, for as
/// long as the host does something else. What earlier runs said is told in any case.
fn run(test: &Test, console: &Console) -> std::io::Result<()> {
    let id = &test.id;
    let mut ran = attempt(test)?;
    for _ in 1..MAX_RUNS {
        if !matches!(ran.verdict, "failed" | "hung") {
            break;
        }
        ran.tell(id, console);
        ran = attempt(test)?;
    }
    if ran.verdict != "passed" {
        ran.tell(id, console);
    }
    console.say(&format!("verdict {id} {} {}", ran.verdict, ran.milliseconds));
    Ok(())
}

/// What came of running a test.
struct Ran {
    verdict: &'static str,
    milliseconds: u128,
    text: String,
}

impl Ran {
    fn tell(&self, id: &str, console: &Console) {
        let lines: Vec<_> = self.text.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(OUTPUT_LINES)..] {
            console.say(&format!("output {id} {line}"));
        }
    }
}

fn attempt(test: &Test) -> std::io::Result<Ran> {
    let output = format!("/run/{}", test.id);
    let file = fs::File::create(&output)?;
    let mut command = Command::new(Path::new(SUITES).join(&test.suite));
    command.args(["--exact", &test.name, "--test-threads=1"]);
    for variable in PRIVATE_VARIABLES {
        command.env_remove(variable);
    }
    command
        .env("PROFILER_BIN", "/profiler")
        .env(workloads::DIRECTORY_VARIABLE, "/workloads")
        .env("PROFILER_BROKEN_OBJECT", "/broken.bpf.o")
        .env("PROFILER_TEST_PROCESSES", "150")
        .env("PATH", "/bin")
        .env("TMPDIR", "/tmp")
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0);
    let start = Instant::now();
    let status = wait(command.spawn()?)?;
    let milliseconds = start.elapsed().as_millis();
    let text = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
    let verdict = match status {
        None => "hung",
        Some(status) if !status.success() => "failed",
        // A harness that ran nothing succeeds as well.
        Some(_) if !text.contains("test result: ok. 1 passed") => "failed",
        Some(_) if text.lines().any(|line| line.starts_with("SKIPPED ")) => "skipped",
        Some(_) => "passed",
    };
    Ok(Ran { verdict, milliseconds, text })
}

/// Waits for the test's end, and ends whatever it left behind; `None` if it took too long.
fn wait(mut child: Child) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > TEST_LIMIT {
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // An empty group is no failure: nothing was left behind.
        _ = kill_process_group(group, Signal::KILL);
    }
    if status.is_none() {
        child.wait()?;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::is_left_out;

    #[test]
    fn only_what_is_listed_with_a_reason_is_left_out() {
        let list = "# comment\na::b reads a file only\nc\n";
        assert!(is_left_out(list, "a::b"));
        assert!(!is_left_out(list, "b"));
        assert!(!is_left_out(list, "c"), "without a reason");
        assert!(!is_left_out(list, "#"));
    }
}
