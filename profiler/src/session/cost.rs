//! The profiler's own consumption, read from the kernel's accounting of this process.

use std::{fs, mem::MaybeUninit, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::{model::Cost, perf::clock::monotonic_ns};

/// CPU time of this process so far, ns: (user, kernel).
pub fn cpu_ns() -> (u64, u64) {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: a buffer of the right type; RUSAGE_SELF cannot fail, and zeroed is a valid rusage anyway.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
    (ns(usage.ru_utime), ns(usage.ru_stime))
}

/// CPU time of this thread so far.
pub fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What has been consumed since the start. `start`: what was known then, and `cpu_at_start`: [`cpu_ns`] then; `ebpf`: the run
/// time of the programs, ns, and their runs, if they are measured.
pub fn since(start: &Cost, cpu_at_start: (u64, u64), ebpf: Option<(u64, u64)>) -> Cost {
    let (user, system) = cpu_ns();
    let (ebpf_run_ns, ebpf_runs) = ebpf.unwrap_or_default();
    Cost {
        ebpf_run_ns,
        ebpf_runs,
        user_cpu_ns: user - cpu_at_start.0,
        system_cpu_ns: system - cpu_at_start.1,
        setup_and_naming_cpu_ns: cpu_at_start.0 + cpu_at_start.1,
        recording_peak_rss_bytes: peak_rss_bytes(),
        ..start.clone()
    }
}

/// What had been consumed when the accounting ended, with what came after: the peak of all, and the time since (`end_ns`,
/// `CLOCK_MONOTONIC`), in which names are looked up.
pub fn finished(cost: Cost, end_ns: u64) -> Cost {
    Cost { peak_rss_bytes: peak_rss_bytes(), naming_ns: monotonic_ns().saturating_sub(end_ns), ..cost }
}

/// Peak resident set of this process so far, bytes (`VmHWM`, fs/proc/task_mmu.c); 0 if not to be read.
pub fn peak_rss_bytes() -> u64 {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return 0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
