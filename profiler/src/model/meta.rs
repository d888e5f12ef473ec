//! The circumstances of a recording.

use serde::{Deserialize, Serialize};

/// What was recorded, where, when and how. Stored in the recording, shown in every header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Version of the profiler that made the recording.
    pub profiler_version: String,
    /// Host name.
    pub host: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Machine (`uname -m`).
    pub arch: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Start of sampling, ns since the Unix epoch.
    pub start_unix_ns: u64,
    /// Time from the start to the end of sampling, ns.
    pub duration_ns: u64,
    /// The events, in the order of the sample types: `cpu`, ...
    pub events: Vec<String>,
    /// What drives the samples: `cycles`, `cpu-clock`, or the tracepoint that is hit.
    pub sampler: String,
    /// Why it is not the hardware's cycle counter, if it is not.
    pub sampler_reason: Option<String>,
    /// Samples per second and CPU; 0 if no timer makes them.
    pub frequency_hz: u64,
    /// What was sampled, in words: `all processes`, `pid 42 and its children`, ...
    pub target: String,
    /// The profiler's command line.
    pub command: Vec<String>,
    /// Time resolution of the samples' window starts, ns.
    pub window_ns: u64,
    /// Samples that hit an idle CPU (they are in the profile only if asked for).
    pub idle_samples: u64,
    /// Timer ticks delivered on all CPUs (hits, of a tracepoint), idle and filtered ones included.
    pub ticks: u64,
    /// Timer ticks that rate, duration and CPUs should have given (0 with a hardware event, whose rate varies, and with
    /// a tracepoint).
    pub expected_ticks: u64,
    /// CPU time that the hypervisor took from all CPUs meanwhile (`steal` of /proc/stat), ns, to a tick of the kernel's. A
    /// kernel with `CONFIG_PARAVIRT_TIME_ACCOUNTING` leaves it out of the threads' CPU times; samples hit it.
    pub stolen_ns: u64,
    /// Limitations of this run that the reader should know: features that were off, and why.
    pub notes: Vec<String>,
}

impl Meta {
    /// Whether this profiler made the recording. Another tool's file says nothing about losses and cost.
    pub fn is_own(&self) -> bool {
        !self.profiler_version.is_empty()
    }
}
