//! What the profiler itself used.

use serde::{Deserialize, Serialize};

/// The profiler's own consumption, measured by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Run time of the eBPF programs, all CPUs, ns (`BPF_ENABLE_STATS`; includes about 60 ns of clock per run).
    pub ebpf_run_ns: u64,
    /// Runs of the eBPF programs.
    pub ebpf_runs: u64,
    /// User-mode CPU time of the profiler while recording, ns.
    pub user_cpu_ns: u64,
    /// Kernel-mode CPU time of the profiler while recording, ns.
    pub system_cpu_ns: u64,
    /// CPU time, user and kernel, of the start (loading, reading the processes that exist) and of naming after the
    /// recording, ns.
    pub setup_and_naming_cpu_ns: u64,
    /// Peak resident set while recording, bytes.
    pub recording_peak_rss_bytes: u64,
    /// Peak resident set over all, naming included, bytes.
    pub peak_rss_bytes: u64,
    /// Kernel memory of the eBPF maps, bytes.
    pub kernel_map_bytes: u64,
    /// Unwind tables in the kernel at the end.
    pub unwind_tables: u64,
    /// Kernel memory of unwind tables and mappings, bytes; a part of `kernel_map_bytes`.
    pub unwind_bytes: u64,
    /// Time of a thread of its own for making unwind tables (or reading them from the cache), ns.
    pub unwind_tables_ns: u64,
    /// Time from start to the first possible sample (programs attached), ns.
    pub start_ns: u64,
    /// Time from the end of sampling to the report, ns (resolving names).
    pub naming_ns: u64,
}
