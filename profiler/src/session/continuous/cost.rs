//! What the daemon itself uses, window by window.

use std::fs;

use super::measured::Measured;
use crate::{
    model::Cost,
    perf::clock::monotonic_ns,
    session::cost::{cpu_ns, peak_rss_bytes},
};

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
