//! What the daemon itself uses, window by window.
//!
//! The run time of eBPF programs is measured in a part of each window only: while the kernel measures it, each run of a
//! program takes some 60 ns more. What was measured is taken for the whole window.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    bpf::stats::{RunTime, run_of},
    model::Cost,
    perf::clock::monotonic_ns,
    session::cost::{cpu_ns, peak_rss_bytes},
};

/// How long it is measured; of short windows, a quarter.
const MEASURE: Duration = Duration::from_secs(1);

/// What was used until a moment.
#[derive(Clone, Debug, Default)]
pub struct Used {
    cpu: (u64, u64),
    at_ns: u64,
    resident: Resident,
    now: Cost,
}

impl Used {
    /// What was used until now; `cost`: what maps hold and what unwind tables took.
    pub fn now(cost: Cost) -> Self {
        Self { cpu: cpu_ns(), at_ns: monotonic_ns(), resident: Resident::now(), now: cost }
    }

    /// Memory at that moment, bytes: this process's that is of no file, and the kernel's for it.
    pub const fn memory(&self) -> u64 {
        self.resident.anonymous_bytes + self.now.kernel_map_bytes
    }

    /// What was used since an earlier moment.
    pub fn since(&self, before: &Self, measured: &Measured) -> Cost {
        let (ebpf_run_ns, ebpf_runs) = measured.in_time(self.at_ns.saturating_sub(before.at_ns));
        Cost {
            ebpf_run_ns,
            ebpf_runs,
            user_cpu_ns: self.cpu.0.saturating_sub(before.cpu.0),
            system_cpu_ns: self.cpu.1.saturating_sub(before.cpu.1),
            setup_and_naming_cpu_ns: 0,
            recording_peak_rss_bytes: self.resident.all_bytes,
            peak_rss_bytes: peak_rss_bytes(),
            unwind_tables_ns: self.now.unwind_tables_ns.saturating_sub(before.now.unwind_tables_ns),
            start_ns: 0,
            naming_ns: 0,
            ..self.now.clone()
        }
    }
}

/// Run time of the eBPF programs, as far as it is measured.
#[derive(Debug, Default)]
pub struct Measured {
    programs: Vec<OwnedFd>,
    window: Duration,
    /// When it is measured next; `None`: it has been.
    due: Option<Instant>,
    /// Why it cannot be measured.
    problem: Option<String>,
    /// Run time, runs, and the time in which they were measured last, ns.
    last: Option<(u64, u64, u64)>,
}

impl Measured {
    /// Of these programs, in windows of that length; nothing is measured yet.
    pub fn of(programs: Vec<OwnedFd>, window: Duration) -> Self {
        Self { programs, window, due: Some(Instant::now() + window / 4), problem: None, last: None }
    }

    /// A window begins.
    pub fn begin_window(&mut self) {
        self.due = Some(Instant::now() + self.window / 4);
    }

    /// Measures a part of the window, then waits without end. May be dropped and begun again.
    pub async fn run(&mut self) {
        let Some(due) = self.due else { return std::future::pending().await };
        sleep_until(due).await;
        let (enabled, problem) = RunTime::enable();
        self.problem = problem;
        let (before, start_ns) = (self.sum(), monotonic_ns());
        sleep(MEASURE.min(self.window / 4)).await;
        let (after, time_ns) = (self.sum(), monotonic_ns().saturating_sub(start_ns));
        drop(enabled);
        self.due = None;
        self.last = Some((after.0.saturating_sub(before.0), after.1.saturating_sub(before.1), time_ns));
        std::future::pending().await
    }

    /// Why it cannot be measured, if it cannot.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn sum(&self) -> (u64, u64) {
        let runs = self.programs.iter().map(|program| run_of(program.as_fd()));
        runs.fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1))
    }

    /// What was measured last, in so much time: run time (ns) and runs.
    pub fn in_time(&self, duration_ns: u64) -> (u64, u64) {
        let Some((run_ns, runs, time_ns)) = self.last else { return (0, 0) };
        let scaled = |value: u64| {
            let scaled = u128::from(value) * u128::from(duration_ns) / u128::from(time_ns.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        (scaled(run_ns), scaled(runs))
    }
}

/// Resident memory of this process (proc_pid_statm(5)); 0 if it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Resident {
    all_bytes: u64,
    /// Without pages of files and of kernel maps.
    anonymous_bytes: u64,
}

impl Resident {
    fn now() -> Self {
        Self::of(&fs::read_to_string("/proc/self/statm").unwrap_or_default())
    }

    fn of(statm: &str) -> Self {
        let mut numbers =
            statm.split_ascii_whitespace().skip(1).map(|pages| pages.parse::<u64>().unwrap_or(0));
        let mut bytes = || numbers.next().unwrap_or(0).saturating_mul(rustix::param::page_size() as u64);
        let (all_bytes, shared) = (bytes(), bytes());
        Self { all_bytes, anonymous_bytes: all_bytes.saturating_sub(shared) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_taken_for_the_whole_window() {
        assert_eq!(Measured::default().in_time(10), (0, 0));
        let measured = Measured { last: Some((2_000, 10, 1_000_000)), ..Measured::default() };
        assert_eq!(measured.in_time(10_000_000), (20_000, 100));
    }

    #[test]
    fn windows_use_what_was_added() {
        let used = |user, at_ns| Used { cpu: (user, 5), at_ns, ..Used::default() };
        let cost = used(30, 2_000_000).since(&used(10, 1_000_000), &Measured::default());
        assert_eq!((cost.user_cpu_ns, cost.system_cpu_ns), (20, 0));
    }

    #[test]
    fn pages_of_files_are_no_memory_of_this_process() {
        let page = rustix::param::page_size() as u64;
        let resident = Resident { all_bytes: 70 * page, anonymous_bytes: 50 * page };
        assert_eq!(Resident::of("900 70 20 3 0 80 0\n"), resident);
        assert_eq!(Resident::of(""), Resident::default());
        assert!(Resident::now().anonymous_bytes > 1 << 18);
        let used = Used { resident, now: Cost { kernel_map_bytes: 7, ..Cost::default() }, ..Used::default() };
        assert_eq!(used.memory(), 50 * page + 7);
    }
}
