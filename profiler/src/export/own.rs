//! What the daemon says of itself: its cost, what was lost, its windows, its store.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use super::family::{Family, FamilyKind, Sample, Value};
use crate::model::Unit;

/// What the daemon says of itself; counters are since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Own {
    /// When the daemon was started, ns since the Unix epoch.
    pub started_unix_ns: u64,
    /// Run time of the eBPF programs, all CPUs, ns.
    pub ebpf_run_ns: u64,
    /// Runs of the eBPF programs.
    pub ebpf_runs: u64,
    /// User-mode CPU time of the daemon, ns.
    pub user_cpu_ns: u64,
    /// Kernel-mode CPU time of the daemon, ns.
    pub system_cpu_ns: u64,
    /// Resident memory of the daemon, bytes.
    pub rss_bytes: u64,
    /// Kernel memory of the eBPF maps, unwind tables included, bytes.
    pub map_bytes: u64,
    /// What was lost, by cause.
    pub losses: BTreeMap<String, u64>,
    /// Windows that the store has taken.
    pub windows_written: u64,
    /// Windows that the store could not take.
    pub windows_not_kept: u64,
    /// End of the last window that was written, ns since the Unix epoch; 0: none yet.
    pub last_window_unix_ns: u64,
    /// Size of the store on disk, bytes.
    pub store_bytes: u64,
    /// How far the governor has stepped down; 0: everything is recorded as configured.
    pub governor_step: u64,
    /// Steps of the governor, down and up.
    pub governor_changes: u64,
    /// Samples per second and CPU now; 0: CPUs are not sampled.
    pub frequency_hz: u64,
    /// 1 while it records, 0 while it is paused.
    pub recording: bool,
}

/// A metric of the daemon itself: name, kind, unit, help, value.
type Line = (&'static str, FamilyKind, Unit, &'static str, fn(&Own) -> u64);

use FamilyKind::{Counter, Gauge};
use Unit::{Bytes, Count, Nanoseconds};

/// Those that are one number.
const LINES: [Line; 15] = [
    (
        "profiler_ebpf_run_seconds",
        Counter,
        Nanoseconds,
        "Run time of the eBPF programs, on all CPUs.",
        |own| own.ebpf_run_ns,
    ),
    ("profiler_ebpf_runs", Counter, Count, "Runs of the eBPF programs.", |own| own.ebpf_runs),
    (
        "profiler_own_user_cpu_seconds",
        Counter,
        Nanoseconds,
        "CPU time of the profiler itself in user mode.",
        |own| own.user_cpu_ns,
    ),
    (
        "profiler_own_system_cpu_seconds",
        Counter,
        Nanoseconds,
        "CPU time of the profiler itself in the kernel.",
        |own| own.system_cpu_ns,
    ),
    ("profiler_own_resident_memory_bytes", Gauge, Bytes, "Resident memory of the profiler itself.", |own| {
        own.rss_bytes
    }),
    (
        "profiler_own_map_memory_bytes",
        Gauge,
        Bytes,
        "Kernel memory of the eBPF maps, unwind tables included.",
        |own| own.map_bytes,
    ),
    ("profiler_windows_written", Counter, Count, "Windows that the store has taken.", |own| {
        own.windows_written
    }),
    ("profiler_windows_not_kept", Counter, Count, "Windows that the store could not take.", |own| {
        own.windows_not_kept
    }),
    (
        "profiler_last_window_timestamp_seconds",
        Gauge,
        Nanoseconds,
        "End of the last window that was written; 0: none yet.",
        |own| own.last_window_unix_ns,
    ),
    ("profiler_store_size_bytes", Gauge, Bytes, "Size of the store on disk.", |own| own.store_bytes),
    (
        "profiler_governor_step",
        Gauge,
        Count,
        "How far the governor has stepped down; 0: all is recorded as configured.",
        |own| own.governor_step,
    ),
    ("profiler_governor_changes", Counter, Count, "Steps of the governor, down and up.", |own| {
        own.governor_changes
    }),
    (
        "profiler_sampling_frequency_hertz",
        Gauge,
        Count,
        "Samples a second of each CPU; 0: none are taken.",
        |own| own.frequency_hz,
    ),
    ("profiler_recording", Gauge, Count, "1 while it records, 0 while it is paused.", |own| {
        own.recording as u64
    }),
    ("profiler_start_timestamp_seconds", Gauge, Nanoseconds, "When the daemon was started.", |own| {
        own.started_unix_ns
    }),
];

/// The families.
pub fn families<'a>(own: &'a Own, evicted: u64, since_unix_ns: u64) -> Vec<Family<'a>> {
    let one = |(name, kind, unit, help, value): Line| Family {
        name: name.into(),
        help,
        unit,
        kind,
        samples: vec![Sample {
            labels: Vec::new(),
            value: Value::Number(value(own)),
            since_unix_ns: own.started_unix_ns,
        }],
    };
    let mut families: Vec<Family<'a>> = LINES.into_iter().map(one).collect();
    families.push(Family {
        name: "profiler_lost".into(),
        help: "What was lost or shortened, by cause; a cause at 0 was watched and did not happen.",
        unit: Count,
        kind: Counter,
        samples: own
            .losses
            .iter()
            .map(|(cause, count)| Sample {
                labels: vec![("cause", Cow::Borrowed(cause.as_str()))],
                value: Value::Number(*count),
                since_unix_ns: own.started_unix_ns,
            })
            .collect(),
    });
    families.push(Family {
        name: "profiler_series_evicted".into(),
        help: "Series of this page whose counters have moved into [other].",
        unit: Count,
        kind: Counter,
        samples: vec![Sample { labels: Vec::new(), value: Value::Number(evicted), since_unix_ns }],
    });
    families.push(Family {
        name: "profiler_build".into(),
        help: "Version of the profiler.",
        unit: Count,
        kind: FamilyKind::Info,
        samples: vec![Sample {
            labels: vec![
                ("version", env!("CARGO_PKG_VERSION").into()),
                ("arch", std::env::consts::ARCH.into()),
            ],
            value: Value::Number(1),
            since_unix_ns: 0,
        }],
    });
    families
}
