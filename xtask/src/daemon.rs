//! A daemon under measurement: started with a store of its own, asked what it used, ended.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    process::{Failure, capture},
    workspace,
};

/// Longest wait for it to record.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child that is ended when it is dropped.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It can have ended by itself.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A daemon that records.
pub struct Daemon {
    child: Ended,
    directory: PathBuf,
    /// From its start until it recorded.
    pub started: Duration,
}

/// Resident memory, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// All of it.
    pub all: u64,
    /// Without pages of files and of kernel maps.
    pub anonymous: u64,
}

/// What it used and wrote until a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Own CPU time, ns.
    pub own_ns: u64,
    /// Run time of its eBPF programs, ns.
    pub ebpf_ns: u64,
    /// Runs of them.
    pub ebpf_runs: u64,
    /// Resident memory, bytes.
    pub rss: u64,
    /// The kernel's memory for it, bytes.
    pub maps: u64,
    /// Its history on disk, bytes.
    pub store: u64,
    /// Step of its governor; 0: as configured.
    pub step: u64,
}

impl Daemon {
    /// Starts it in a directory that there is; returns when it records.
    pub fn start(directory: &Path, arguments: &[&str]) -> Result<Self, Failure> {
        let profiler = workspace::release_binary()?;
        let log = directory.join("log");
        let log = fs::File::create(&log).map_err(|e| Failure::io(&log, &e))?;
        let mut command = Command::new(&profiler);
        command.args(["daemon", "--http-listen", "off", "--store-directory"]).arg(directory.join("store"));
        command.arg("--control-socket").arg(directory.join("control.sock")).args(arguments);
        let begun = Instant::now();
        let child = command.stdin(Stdio::null()).stderr(log).spawn();
        let child = Ended(child.map_err(|e| Failure::io(&profiler, &e))?);
        let mut daemon = Self { child, directory: directory.to_owned(), started: Duration::ZERO };
        while !daemon.status().is_ok_and(|status| status["state"] == "recording") {
            daemon.check()?;
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new("the daemon does not record"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        daemon.started = begun.elapsed();
        Ok(daemon)
    }

    /// Whether it is still there.
    ///
    /// # Errors
    /// How it ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.0.try_wait() {
            Ok(Some(status)) => Err(Failure::new(format!("the daemon ended: {status}"))),
            _ => Ok(()),
        }
    }

    /// Resident memory now (proc_pid_statm(5)).
    pub fn resident(&self) -> Resident {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.0.id())).unwrap_or_default();
        let pages = statm.split_ascii_whitespace().skip(1).map(|pages| pages.parse::<u64>().unwrap_or(0));
        // 4 KiB: the architectures that this runs on.
        let mut bytes = pages.map(|pages| pages * 4096);
        let (all, shared) = (bytes.next().unwrap_or(0), bytes.next().unwrap_or(0));
        Resident { all, anonymous: all.saturating_sub(shared) }
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String, Failure> {
        let socket = self.directory.join("control.sock");
        let mut command = Command::new(workspace::release_binary()?);
        capture(command.args(["ctl", "--socket"]).arg(socket).args(arguments).stderr(Stdio::null()))
    }

    /// What it says of itself.
    pub fn status(&self) -> Result<Value, Failure> {
        parse(&self.ctl(&["status", "--json"])?)
    }

    /// Ends the window; what was used until then.
    pub fn flush(&self) -> Result<Used, Failure> {
        self.ctl(&["flush"])?;
        Ok(Used::of(&self.status()?))
    }

    /// What `profiler query ARGUMENTS --json` says of all that it has kept.
    pub fn query(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let mut query = Command::new(workspace::release_binary()?);
        query.args(["query", "--last", "30d", "--json", "--store"]).arg(self.directory.join("store"));
        parse(&capture(query.args(arguments))?)
    }
}

impl Used {
    /// Out of a status.
    pub fn of(status: &Value) -> Self {
        let number = |at: &str| status.pointer(at).and_then(Value::as_u64).unwrap_or(0);
        Self {
            own_ns: number("/cost/user_cpu_ns") + number("/cost/system_cpu_ns"),
            ebpf_ns: number("/cost/ebpf_run_ns"),
            ebpf_runs: number("/cost/ebpf_runs"),
            rss: number("/cost/rss_bytes"),
            maps: number("/cost/map_bytes"),
            store: number("/store/bytes"),
            step: number("/governor/step"),
        }
    }
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|e| Failure::new(format!("the profiler wrote no JSON: {e}")))
}
