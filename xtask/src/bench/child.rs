//! A profiler under measurement: when it samples, what it has used until now, how long it takes to end.
//!
//! CPU time is read from /proc/PID/task/*/schedstat (ns) while it runs and from wait4(2) when it has ended.

use std::{
    collections::HashMap,
    fs, io, mem,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::process::{Failure, line};

/// How long a profiler may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running profiler. Dropped, it is killed.
pub struct Measured {
    child: Child,
    ended: bool,
}

/// What a profiler used from its start to its end.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// CPU time, user and kernel, s.
    pub cpu_s: f64,
    /// Largest resident set, MiB.
    pub peak_rss_mib: f64,
    /// Time from Ctrl-C to its end, s.
    pub exit_s: f64,
}

impl Measured {
    /// Starts a profiler in a directory of its own, where its output goes; with the time until it samples: until it
    /// has that many sampling events.
    pub fn start(
        command: &mut Command,
        directory: &Path,
        events: usize,
    ) -> Result<(Self, Duration), Failure> {
        let text = line(command);
        let failure = |e: io::Error| Failure::new(format!("`{text}`: {e}"));
        let output = fs::File::create(directory.join("output")).map_err(failure)?;
        let errors = fs::File::create(directory.join("errors")).map_err(failure)?;
        command.current_dir(directory).stdin(Stdio::null()).stdout(output).stderr(errors);
        let start = Instant::now();
        let child = command.spawn().map_err(failure)?;
        let mut measured = Self { child, ended: false };
        while measured.events() < events {
            if let Some(status) = measured.child.try_wait().map_err(failure)? {
                measured.ended = true;
                let errors = fs::read_to_string(directory.join("errors")).unwrap_or_default();
                let last = errors.lines().last().unwrap_or_default();
                return Err(Failure::new(format!("`{text}` ended ({status}): {last}")));
            }
            if start.elapsed() > PATIENCE {
                return Err(Failure::new(format!("`{text}` does not sample")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok((measured, start.elapsed()))
    }

    /// Sampling events that it holds.
    fn events(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).into_iter().flatten().flatten();
        let links = files.filter_map(|file| fs::read_link(file.path()).ok());
        links.filter(|link| link.as_os_str() == "anon_inode:[perf_event]").count()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Run time of the eBPF programs that it holds, ns: as far as the kernel measures it ([`RunTimes`]).
    pub fn ebpf_ns(&self) -> u64 {
        let files = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).into_iter().flatten().flatten();
        // Several descriptors can be of one program.
        let programs: HashMap<u64, u64> = files
            .filter_map(|file| {
                let text = fs::read_to_string(file.path()).ok()?;
                let number =
                    |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
                Some((number("prog_id:")?, number("run_time_ns:")?))
            })
            .collect();
        programs.values().sum()
    }

    /// CPU time of all its threads until now, s.
    pub fn cpu_s(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let ns = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        });
        ns.sum::<f64>() / 1e9
    }

    /// Resident set now, MiB.
    pub fn rss_mib(&self) -> f64 {
        self.memory_mib("VmRSS:")
    }

    /// A line of /proc/PID/status, MiB.
    fn memory_mib(&self, key: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }

    /// Ctrl-C, and waits for the end.
    pub fn interrupt(mut self) -> Result<Used, Failure> {
        let start = Instant::now();
        self.signal(libc::SIGINT);
        let usage = loop {
            if let Some(usage) = self.wait()? {
                break usage;
            }
            if start.elapsed() > PATIENCE {
                return Err(Failure::new(format!("process {} does not end", self.child.id())));
            }
            thread::sleep(Duration::from_micros(500));
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Ok(Used {
            cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            // KiB (getrusage(2)).
            peak_rss_mib: usage.ru_maxrss as f64 / 1024.0,
            exit_s: start.elapsed().as_secs_f64(),
        })
    }

    fn signal(&self, number: i32) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: a system call on numbers; the process is our child and not waited for, so the id is still its.
            unsafe { libc::kill(pid, number) };
        }
    }

    /// What it used, if it has ended.
    fn wait(&mut self) -> Result<Option<libc::rusage>, Failure> {
        let pid = i32::try_from(self.child.id()).map_err(|e| Failure::new(e.to_string()))?;
        // SAFETY: integers only; all zeros is a valid value.
        let mut usage: libc::rusage = unsafe { mem::zeroed() };
        let mut status = 0;
        // SAFETY: valid pointers to an int and an rusage.
        match unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) } {
            0 => Ok(None),
            ended if ended == pid => {
                self.ended = true;
                Ok(Some(usage))
            }
            _ => Err(Failure::new(format!("wait4: {}", io::Error::last_os_error()))),
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(libc::SIGKILL);
            // It may have ended by itself.
            _ = self.wait();
        }
    }
}

/// Has the kernel measure the run time of all eBPF programs, which adds some 60 ns to each run, until it is dropped.
pub struct RunTimes {
    before: String,
}

impl RunTimes {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    /// Switches it on.
    pub fn measure() -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("{}: {error}", Self::SWITCH));
        let before = fs::read_to_string(Self::SWITCH).map_err(failed)?;
        fs::write(Self::SWITCH, "1").map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RunTimes {
    fn drop(&mut self) {
        _ = fs::write(Self::SWITCH, self.before.trim());
    }
}
