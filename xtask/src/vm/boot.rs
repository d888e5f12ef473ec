//! Running a guest to its end, or to the host's limit.

use std::{
    fmt, fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    machine::Machine,
    qemu::Qemu,
    verdict::{self, Report},
};
use crate::process::{Failure, cpu_time, line};

/// A guest's share of a kernel's tests: each `of`-th one, from `number` on.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// From 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number + 1, self.of)
    }
}

/// What a guest is told.
pub struct Order<'a> {
    /// Only tests whose name contains this.
    pub filter: Option<&'a str>,
    /// Of these, only its share.
    pub share: Share,
    /// The emulator.
    pub qemu: &'a Qemu,
    /// The guest switches itself off after this; the host waits a little longer.
    pub limit: Duration,
}

/// How much longer the host waits than the guest's own alarm: booting and powering off, several times over.
const GRACE: Duration = Duration::from_secs(30);

/// Boots a kernel and reads what the guest says; with the CPU time that it took of this machine. All that came over the
/// console is kept in `log`.
///
/// # Errors
/// If qemu cannot be started; everything that happens in the guest is in the report.
pub fn boot(
    machine: &Machine,
    kernel: &Path,
    root: &Path,
    order: &Order<'_>,
    log: &Path,
) -> Result<(Report, Duration), Failure> {
    let word = word(kernel);
    let mut settings = vec![
        ("VM_WORD", word.clone()),
        ("VM_LIMIT_S", order.limit.as_secs().to_string()),
        ("VM_SHARE", order.share.to_string()),
    ];
    settings.extend(order.filter.map(|filter| ("VM_FILTER", filter.to_owned())));
    let mut qemu = machine.boot(order.qemu, kernel, root, &settings);
    let mut cpu = Duration::ZERO;
    let (console, ended) = console(&mut qemu, order.limit + GRACE, log, &mut cpu)?;
    let mut report = verdict::parse(&String::from_utf8_lossy(&console), &word);
    if !ended {
        report
            .broken
            .push(format!("the machine hung; the host ended it after {} s", (order.limit + GRACE).as_secs()));
    }
    Ok((report, cpu))
}

/// A word that nobody in the guest can guess by accident.
fn word(kernel: &Path) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:016x}", RandomState::new().hash_one((now, kernel)))
}

/// Runs a command that writes into `log` until it ends, or until the limit; with what it wrote, and whether it ended
/// itself. `cpu` is its CPU time.
fn console(
    command: &mut Command,
    limit: Duration,
    log: &Path,
    cpu: &mut Duration,
) -> Result<(Vec<u8>, bool), Failure> {
    let file = fs::File::create(log).map_err(|e| Failure::io(log, &e))?;
    command.stdin(Stdio::null()).stdout(file);
    let failure = |e: std::io::Error, command: &Command| Failure::new(format!("`{}`: {e}", line(command)));
    let mut child = command.spawn().map_err(|e| failure(e, command))?;
    let ended = wait(&mut child, limit, cpu).map_err(|e| failure(e, command))?;
    Ok((fs::read(log).map_err(|e| Failure::io(log, &e))?, ended))
}

fn wait(child: &mut Child, limit: Duration, cpu: &mut Duration) -> std::io::Result<bool> {
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        *cpu = cpu_time(child.id()).unwrap_or(*cpu);
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, script: &str, limit: Duration) -> (String, bool) {
        let log = std::env::temp_dir().join(format!("vm-console-{name}-{}", std::process::id()));
        let mut command = Command::new("sh");
        let (output, ended) =
            console(command.args(["-c", script]), limit, &log, &mut Duration::default()).unwrap();
        fs::remove_file(log).unwrap();
        (String::from_utf8(output).unwrap(), ended)
    }

    #[test]
    fn the_exit_code_is_no_verdict() {
        // As isa-debug-exit has it: 128 and more wrap, success among them.
        for code in [0, 1, 33, 127] {
            let script = format!("echo '@w plan k::a'; echo '@w verdict k::a passed 1'; exit {code}");
            let (output, ended) = run("code", &script, Duration::from_secs(60));
            assert!(ended);
            let report = verdict::parse(&output, "w");
            assert_eq!(report.broken.len(), 1, "no end was said: {:?}", report.broken);
        }
    }

    #[test]
    fn a_machine_that_hangs_is_ended_and_what_it_said_is_kept() {
        // `exec`, so that what is ended is what sleeps.
        let (output, ended) = run("hang", "echo said; exec sleep 1000", Duration::from_millis(500));
        assert_eq!((output.as_str(), ended), ("said\n", false));
    }

    #[test]
    fn every_boot_has_a_word_of_its_own() {
        assert_ne!(word("a".as_ref()), word("a".as_ref()));
    }
}
