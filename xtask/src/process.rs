//! Running programs: what failed is told by the command line that failed; root by `sudo` where there is one.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    io::IsTerminal as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use ebpf_toolchain::on_path;

/// Why a task failed: one line or more for the reader, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// A failure of the task itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// Wrong arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// An operation on a file that failed.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{}: {error}", path.display()))
    }

    /// The exit code of `cargo xtask`.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// CPU time of a process until now: its `utime` and `stime` in proc(5), in ticks of 10 ms; of all threads that
/// there ever were.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let ticks =
        behind_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0));
    Some(Duration::from_millis(10 * ticks.sum::<u64>()))
}

/// Says on stderr what is being done.
pub fn say(line: impl fmt::Display) {
    eprintln!("xtask: {line}");
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end; its output goes where the task's goes.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command_status(command)?;
    check(command, status)
}

fn command_status(command: &mut Command) -> Result<ExitStatus, Failure> {
    command.status().map_err(|e| Failure::new(format!("`{}`: {e}", line(command))))
}

fn check(command: &Command, status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{}` failed ({status})", line(command))))
}

/// Runs a command and returns what it wrote to stdout.
pub fn capture(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|e| Failure::new(format!("`{}`: {e}", line(command))))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "`{}` failed ({}): {}",
            line(command),
            output.status,
            stderr.trim()
        )));
    }
    String::from_utf8(output.stdout).map_err(|e| Failure::new(format!("`{}`: {e}", line(command))))
}

/// `true` if the command starts and succeeds. Its output is thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// [`run`] for a command that may hang, as downloads do behind a firewall that answers nothing.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    let failure = |e: io::Error| Failure::new(e.to_string());
    let mut child = command.spawn().map_err(|e| Failure::new(format!("`{}`: {e}", line(command))))?;
    loop {
        if let Some(status) = child.try_wait().map_err(failure)? {
            return check(command, status);
        }
        if start.elapsed() > limit {
            child.kill().and_then(|()| child.wait()).map_err(failure)?;
            return Err(Failure::new(format!("`{}` took longer than {} s", line(command), limit.as_secs())));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// `true` if this process is root: the owner of its own entry in /proc is its effective user.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command that runs `program` as root: itself for root, else through sudo.
///
/// # Errors
/// Without sudo, or where sudo would ask for a password that nobody can type.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command, Failure> {
    let program = program.as_ref();
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = on_path("sudo").ok_or_else(|| Failure::new("this needs root, and there is no sudo"))?;
    let can_ask = io::stdin().is_terminal();
    if !can_ask && !succeeds(Command::new(&sudo).args(["-n", "true"])) {
        return Err(Failure::new("this needs root, and sudo wants a password"));
    }
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_status() {
        let failure = run(Command::new("false").arg("x")).unwrap_err();
        assert_eq!(failure.to_string(), "`false x` failed (exit status: 1)");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = capture(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(failure.to_string().starts_with("`/nonexistent/program`: "), "{failure}");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let failure = run_within(Command::new("sleep").arg("1000"), Duration::ZERO).unwrap_err();
        assert_eq!(failure.to_string(), "`sleep 1000` took longer than 0 s");
    }

    #[test]
    fn a_command_that_ends_in_time_is_not() {
        assert_eq!(run_within(&mut Command::new("true"), Duration::from_secs(60)), Ok(()));
    }
}
