//! Limits: the sysctls and resource limits that decide what a profiler may do and how much of it.
//!
//! Sources: /proc/sys/kernel/*, /proc/sys/net/core/bpf_jit_enable (Documentation/admin-guide/sysctl), getrlimit(2).

use rustix::process::{Resource, getrlimit};

use super::file;

/// A sysctl's value, `None` if the kernel has no such file or it may not be read.
pub type Sysctl = Option<i64>;

/// The sysctls, as read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `kernel.perf_event_paranoid`: what perf_event_open(2) allows without CAP_PERFMON (-1 all, 0 whole CPUs, 1 own
    /// processes with the kernel, 2 own processes' user mode, 3 and more nothing on kernels that have that patch).
    pub perf_event_paranoid: Sysctl,
    /// `kernel.perf_event_max_sample_rate`, samples per second and CPU. The kernel lowers it by itself.
    pub perf_event_max_sample_rate: Sysctl,
    /// `kernel.perf_event_mlock_kb`: perf buffer memory per CPU and user beyond RLIMIT_MEMLOCK, KiB.
    pub perf_event_mlock_kb: Sysctl,
    /// `kernel.perf_cpu_time_max_percent`: share of a CPU beyond which the kernel lowers the sample rate.
    pub perf_cpu_time_max_percent: Sysctl,
    /// `kernel.perf_event_max_stack`: most frames of a stack that the kernel walks.
    pub perf_event_max_stack: Sysctl,
    /// `kernel.kptr_restrict`: who sees kernel addresses (0 anyone whom perf trusts, 1 CAP_SYSLOG, 2 nobody).
    pub kptr_restrict: Sysctl,
    /// `kernel.unprivileged_bpf_disabled`: 0 allows bpf(2) without CAP_BPF for a few kinds of program.
    pub unprivileged_bpf_disabled: Sysctl,
    /// `kernel.bpf_stats_enabled`: 1 measures all programs' run time all the time.
    pub bpf_stats_enabled: Sysctl,
    /// `net.core.bpf_jit_enable`: 0 interprets eBPF programs (several times slower).
    pub bpf_jit_enable: Sysctl,
}

impl Limits {
    /// The host's.
    pub fn read() -> Self {
        Self {
            perf_event_paranoid: sysctl("kernel/perf_event_paranoid"),
            perf_event_max_sample_rate: sysctl("kernel/perf_event_max_sample_rate"),
            perf_event_mlock_kb: sysctl("kernel/perf_event_mlock_kb"),
            perf_cpu_time_max_percent: sysctl("kernel/perf_cpu_time_max_percent"),
            perf_event_max_stack: sysctl("kernel/perf_event_max_stack"),
            kptr_restrict: sysctl("kernel/kptr_restrict"),
            unprivileged_bpf_disabled: sysctl("kernel/unprivileged_bpf_disabled"),
            bpf_stats_enabled: sysctl("kernel/bpf_stats_enabled"),
            bpf_jit_enable: sysctl("net/core/bpf_jit_enable"),
        }
    }
}

/// Reads one sysctl, by its path below /proc/sys.
pub fn sysctl(path: &str) -> Sysctl {
    parse_sysctl(&file::read_text(format!("/proc/sys/{path}"), file::SMALL).ok()?)
}

/// The single number of a sysctl file.
pub fn parse_sysctl(text: &str) -> Sysctl {
    text.trim().parse().ok()
}

/// A resource limit: soft and hard, `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// What is enforced.
    pub soft: Option<u64>,
    /// How far the process may raise it.
    pub hard: Option<u64>,
}

impl ResourceLimit {
    fn of(resource: Resource) -> Self {
        let limit = getrlimit(resource);
        Self { soft: limit.current, hard: limit.maximum }
    }

    /// RLIMIT_NOFILE: open files. Two per online CPU (timer, process events), the maps, and the symbol files.
    pub fn open_files() -> Self {
        Self::of(Resource::Nofile)
    }

    /// RLIMIT_MEMLOCK, bytes. Before Linux 5.11 eBPF maps count against it (later: against the memory cgroup).
    pub fn locked_memory() -> Self {
        Self::of(Resource::Memlock)
    }

    /// Whether at least `need` is allowed now.
    pub const fn allows(&self, need: u64) -> bool {
        match self.soft {
            None => true,
            Some(soft) => soft >= need,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_sign_and_newline() {
        assert_eq!(parse_sysctl("-1\n"), Some(-1));
        assert_eq!(parse_sysctl("100000\n"), Some(100_000));
        assert_eq!(parse_sysctl("\n"), None);
        assert_eq!(parse_sysctl("32768\t60999\n"), None);
    }

    #[test]
    fn a_missing_sysctl_is_a_fact() {
        assert_eq!(sysctl("kernel/no_such_limit"), None);
    }

    #[test]
    fn unlimited_allows_everything() {
        assert!(ResourceLimit { soft: None, hard: None }.allows(u64::MAX));
        assert!(!ResourceLimit { soft: Some(9), hard: None }.allows(10));
        assert!(ResourceLimit::open_files().allows(3));
    }
}
