//! What the daemon keeps: windows of some seconds, in each the samples of the host and exact numbers of its processes.
//!
//! A number is one row of {process, metric, label}: what it is, and in which unit, is in [`METRICS`], which the store, the
//! metrics page and the documentation are made from.

use serde::Serialize;

use super::{Profile, Unit, sched::Histogram};

/// What numbers of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What happened in the window; windows add up.
    Counter,
    /// What was so at the end of the window; windows do not add up.
    Gauge,
    /// How what happened in the window is distributed; windows add up, bucket by bucket.
    Histogram,
}

impl Kind {
    /// Stable key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric that windows have numbers of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Stable key: `cpu`, `blocked`, `syscalls`.
    pub name: &'static str,
    /// What it is, one line.
    pub help: &'static str,
    /// Unit of its numbers.
    pub unit: Unit,
    /// What they are.
    pub kind: Kind,
    /// What tells its numbers apart beside the process: `cause`, `call`; `None`: nothing.
    pub label: Option<&'static str>,
}

const fn counter(name: &'static str, unit: Unit, label: Option<&'static str>, help: &'static str) -> Metric {
    Metric { name, help, unit, kind: Kind::Counter, label }
}

/// All of them. What is not in a window was not looked at, or was 0.
pub const METRICS: &[Metric] = &[
    counter("cpu", Unit::Nanoseconds, None, "Time on a CPU, interrupts left out."),
    counter("interrupts", Unit::Nanoseconds, None, "Time of interrupts that hit it on a CPU."),
    counter("run_queue", Unit::Nanoseconds, None, "Time ready to run, waiting for a CPU."),
    counter("run_queue_waits", Unit::Count, None, "Waits for a CPU."),
    counter(
        "blocked",
        Unit::Nanoseconds,
        Some("cause"),
        "Time blocked, of all threads, by what they wait for.",
    ),
    counter("unknown", Unit::Nanoseconds, None, "Time in which a switch was not seen."),
    counter("idle", Unit::Nanoseconds, None, "Time that CPUs had nothing to do (of the host)."),
    counter(
        "switches",
        Unit::Count,
        None,
        "Switches of CPUs, those to and from the idle task included (of the host).",
    ),
    counter("voluntary_switches", Unit::Count, None, "Switches away because it waited."),
    counter("involuntary_switches", Unit::Count, None, "Switches away because another thread was to run."),
    counter("migrations", Unit::Count, None, "Changes of the CPU."),
    counter("syscalls", Unit::Count, Some("call"), "System calls that returned, by call."),
    counter("syscall_errors", Unit::Count, Some("call"), "System calls that failed, by call."),
    counter("syscall_time", Unit::Nanoseconds, Some("call"), "Time in system calls that returned, by call."),
    counter("net_sent", Unit::Bytes, Some("protocol"), "Bytes sent through sockets."),
    counter("net_received", Unit::Bytes, Some("protocol"), "Bytes received through sockets."),
    counter("connects", Unit::Count, Some("protocol"), "Connections asked for."),
    counter("accepts", Unit::Count, Some("protocol"), "Connections taken by listening sockets."),
    counter(
        "connects_failed",
        Unit::Count,
        Some("protocol"),
        "Connections asked for that did not come about.",
    ),
    counter("retransmits", Unit::Count, Some("protocol"), "Segments sent again."),
    counter("threads_ended", Unit::Count, None, "Threads that ended."),
    Metric {
        name: "threads",
        help: "Threads that were there in the window.",
        unit: Unit::Count,
        kind: Kind::Gauge,
        label: None,
    },
    Metric {
        name: "processes",
        help: "Processes that the row is of: more than one where short-lived ones are put together.",
        unit: Unit::Count,
        kind: Kind::Gauge,
        label: None,
    },
    Metric {
        name: "run_queue_wait",
        help: "How long waits for a CPU were.",
        unit: Unit::Nanoseconds,
        kind: Kind::Histogram,
        label: None,
    },
    Metric {
        name: "syscall_duration",
        help: "How long system calls took, by call.",
        unit: Unit::Nanoseconds,
        kind: Kind::Histogram,
        label: Some("call"),
    },
    counter("gc", Unit::Nanoseconds, Some("collector"), "Time of a JVM's collections."),
    counter("gc_collections", Unit::Count, Some("collector"), "A JVM's collections."),
    counter("safepoint", Unit::Nanoseconds, None, "Time in which a JVM stopped all its threads."),
    counter("safepoints", Unit::Count, None, "Times that a JVM stopped all its threads."),
    counter("jit", Unit::Nanoseconds, None, "Time of a JVM's compilations."),
    counter("classes_loaded", Unit::Count, None, "Classes that a JVM loaded."),
    Metric {
        name: "heap_used",
        help: "What a JVM's heap holds, garbage included.",
        unit: Unit::Bytes,
        kind: Kind::Gauge,
        label: None,
    },
];

/// The metric of that name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Where a process belongs, by its control group. Everything is cleaned (`model::name`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Path of the control group; `/`: the root, or not known.
    pub cgroup: String,
    /// systemd's unit: `ssh.service`, `docker-1f….scope`.
    pub unit: Option<String>,
    /// What runs the container: `docker`, `containerd`, `cri-o`, `podman`, ...
    pub runtime: Option<String>,
    /// The container's id, as its runtime names it (64 hex digits, mostly).
    pub container: Option<String>,
    /// The Kubernetes pod's uid.
    pub pod: Option<String>,
}

/// Whose numbers and samples they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Series {
    /// Process id; `None`: short-lived processes of that name and place together, or with the name [`OTHER`] all that
    /// there was no room for.
    pub pid: Option<u32>,
    /// When it was made, ns since boot (`/proc/PID/stat`); tells processes apart that had the same pid. 0 without a pid.
    pub start_ns: u64,
    /// Command name, cleaned.
    pub comm: String,
    /// Where it belongs.
    #[serde(flatten)]
    pub place: Place,
}

/// Name of the series of all that had no room for one of its own: sums stay exact.
pub const OTHER: &str = "[other]";

/// A number of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// One of [`METRICS`], by name.
    pub metric: &'static str,
    /// What it is about ([`Metric::label`]); empty: nothing.
    pub label: String,
    /// How much.
    pub value: u64,
}

/// A histogram of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// One of [`METRICS`], by name.
    pub metric: &'static str,
    /// What it is about ([`Metric::label`]); empty: nothing.
    pub label: String,
    /// Sum of what is counted, in the metric's unit.
    pub sum: u64,
    /// `(from, to, count)`, ascending, without empty buckets.
    pub buckets: Histogram,
}

/// What one series did in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub series: Series,
    /// Numbers; each {metric, label} once.
    pub numbers: Vec<Number>,
    /// Histograms; each {metric, label} once.
    pub distributions: Vec<Distribution>,
}

/// How closely was looked: it can change from window to window (the governor), and rates are comparable only with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Samples per second and CPU; 0: CPUs were not sampled.
    pub frequency_hz: u64,
    /// Shorter blocked times are counted without their stacks, ns; `None`: blocked times were not recorded by stack.
    pub min_block_ns: Option<u64>,
    /// One in so many blocked times has its stack, all are counted; 0: none.
    pub blocked_every: u32,
    /// Most frames of a user stack.
    pub stack_depth: u32,
}

/// A window.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Start, ns since the Unix epoch, by the clock at that moment.
    pub start_unix_ns: u64,
    /// How long it was, ns of `CLOCK_MONOTONIC`.
    pub duration_ns: u64,
    /// Number of the window since the daemon started, from 1: a gap is a window that is missing.
    pub number: u64,
    /// The boot that it is of (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// How closely was looked.
    pub rates: Rates,
    /// Samples with names. Sample types: `samples` (count), `cpu` (ns), `offcpu` (ns), `blocks` (count), as far as they are
    /// recorded. Losses, cost and notes in it are of this window alone. Its threads are of the series with their pid and
    /// process name, see [`Window::series_of`].
    pub profile: Profile,
    /// For each of [`Profile::threads`]: index into [`Window::accounts`].
    pub series_of: Vec<u32>,
    /// Exact numbers, by series; each series once.
    pub accounts: Vec<Account>,
    /// The whole machine, its series empty: what is known of it only as a whole, and of the rest what it counts of itself,
    /// which [`Window::accounts`] are to be checked against.
    pub host: Account,
}
