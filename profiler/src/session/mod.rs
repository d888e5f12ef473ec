//! A recording from attach to report data: attach -> wait -> drain -> resolve. The only place that puts probes, process
//! events and names together.
//!
//! Order of the start: side band, programs, sampling events (disabled), targets; then sampling is enabled and only then
//! a stopped command released and existing processes' mappings read, so that nothing runs unseen.

mod accounts;
pub mod build;
pub mod collect;
pub mod continuous;
mod cost;
mod facts;
mod fallbacks;
mod histogram;
mod interrupts;
pub mod java;
mod jvms;
mod label;
mod load;
pub mod net;
mod owners;
mod pace;
pub mod packets;
mod recording;
pub mod sched;
pub mod spans;
pub mod stat;
pub mod syscalls;
mod timer;
mod together;
mod unwinding;
mod wakers;

use std::{path::PathBuf, time::Duration};

use profiler_common::{
    filter::FilterConfig,
    probe::{net::NetOffsets, packets::DropConfig, syscall_stacks::CallStackConfig},
    sched::{offsets::SchedOffsets, wait::WaitConfig},
    task::TaskOffsets,
};

pub use crate::perf::clock::monotonic_ns;
pub use cost::peak_rss_bytes;
pub use recording::{Closeness, Progress, Recording, Stop, at};

use crate::{
    bpf::BpfError,
    host::{btf::DropReasons, features::Feature},
    model::Profile,
    perf::{
        counters::CounterError,
        sampler::{Clock, Timer},
    },
    probe::{Chosen, ProbeError},
};

/// Frequencies that make sense: below 1 nothing is sampled, above 20 kHz the kernel does little else.
pub const FREQUENCY_HZ: std::ops::RangeInclusive<u64> = 1..=20_000;

/// How user stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnwindMode {
    /// By unwind tables where they can be used, else by frame pointers.
    Auto,
    /// By frame pointers.
    FramePointer,
    /// By unwind tables, or not at all.
    EhFrame,
}

/// What to record, resolved: no part of it can be wrong any more but for the host's permission.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// What makes samples, each once; not empty.
    pub events: Vec<Chosen>,
    /// Samples per second and CPU; 0 if no timer makes them.
    pub frequency_hz: u64,
    /// What makes the timer's samples; `None`: hardware cycles where there is a counter, and no other event.
    pub sampler: Option<Clock>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// In-kernel filter.
    pub filter: FilterConfig,
    /// Processes to begin with, if the filter is by process.
    pub targets: Vec<u32>,
    /// The target in words.
    pub target_words: String,
    /// Offsets from BTF.
    pub offsets: TaskOffsets,
    /// The BTF file.
    pub btf: PathBuf,
    /// Kernel features that are not used even if they are there.
    pub force_fallback: Vec<Feature>,
    /// What is counted of tasks off the CPU, and where the kernel keeps what tells of them; there if one of the events
    /// is of them.
    pub waits: Option<(WaitConfig, SchedOffsets)>,
    /// Which system calls are counted and timed, and where the kernel keeps whose they are; there if one of the events is
    /// of them.
    pub call_stacks: Option<(CallStackConfig, SchedOffsets)>,
    /// What is read of sockets; there if one of the events is of them.
    pub net: Option<SocketFacts>,
    /// Maps of a quarter of the usual size, which are drained more often instead when there is much in them.
    pub small: bool,
    /// Keep samples of idle CPUs.
    pub idle: bool,
    /// How user stacks are walked.
    pub unwind: UnwindMode,
    /// Kernel memory for unwind tables, bytes.
    pub unwind_memory: u64,
    /// Ask JVMs whose tables are not known for the names of their code, which runs code in them.
    pub allow_attach: bool,
    /// Measure the run time of the eBPF programs, which adds to it.
    pub ebpf_cost: bool,
    /// Have the kernel side log.
    pub log: bool,
    /// The profiler's command line, for the recording's header.
    pub command_line: Vec<String>,
    /// What was found out before that the reader of the recording should know.
    pub notes: Vec<String>,
}

/// What a recording is told of sockets.
#[derive(Clone, Debug)]
pub struct SocketFacts {
    /// Members of sockets and packets.
    pub offsets: NetOffsets,
    /// Whose they are is kept, for this many; and where the kernel keeps what tells of tasks.
    pub owners: Option<(u32, SchedOffsets)>,
    /// Drops are recorded; what the kernel says of them.
    pub drops: Option<(DropConfig, DropReasons)>,
}

impl SocketFacts {
    /// What of them this kernel does not tell, for the recording's reader.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some((config, _)) = &self.drops {
            if config.reasons == 0 {
                notes
                    .push("why packets are dropped is not known: kernels say it since Linux 5.17".to_owned());
            }
            if config.receiver == 0 {
                notes.push(
                    "packets that are dropped on their way in have no owner: kernels say it since Linux 6.11"
                        .to_owned(),
                );
            }
        }
        if self.owners.is_some() && !cfg!(target_arch = "x86_64") {
            notes.push(
                "all packets count as outside of their process: on which stack the kernel runs is told on x86-64 only"
                    .to_owned(),
            );
        }
        notes
    }
}

impl RecordOptions {
    /// Whether the time of system calls is recorded.
    pub fn timed_calls(&self) -> bool {
        self.call_stacks.is_some_and(|(config, _)| config.timed.is_any())
    }

    /// Whether who ends blocked times is recorded.
    pub fn wakers(&self) -> bool {
        self.waits.is_some_and(|(config, _)| config.wakers != 0)
    }

    /// Whether waits for a CPU are recorded.
    pub fn queued(&self) -> bool {
        self.waits.is_some_and(|(config, _)| config.queued != 0)
    }

    /// What is wanted of the timer. Maps that programs of several events share must not be met by the interrupts of a
    /// counter, which nothing masks: kernels before 5.11 (20b6cc34ea74) may wait for themselves then.
    pub fn timer(&self) -> Timer {
        let together = (self.events.len() > 1).then_some(Clock::CpuClock);
        Timer { frequency_hz: self.frequency_hz, clock: self.sampler.or(together) }
    }
}

/// A failure of a recording.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// eBPF object, programs or maps.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The probe.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Nothing was asked for.
    #[error("no event to record")]
    NoEvent,
    /// The stream of process events.
    #[error("cannot open perf's stream of process events: {0}")]
    Sideband(#[source] std::io::Error),
    /// A performance counter that was asked for.
    #[error(transparent)]
    Counter(CounterError),
    /// The ring of accounts of ended threads.
    #[error("cannot wait for the ring of ended threads: {0}")]
    Ring(#[source] std::io::Error),
    /// A timer.
    #[error("cannot make a timer: {0}")]
    Timer(#[source] std::io::Error),
    /// What keeps the kernel side supplied with unwind tables.
    #[error("cannot walk stacks by unwind tables: {0}")]
    Unwinding(#[source] std::io::Error),
    /// Unwind tables were asked for and cannot be used here.
    #[error("stacks cannot be walked by unwind tables here: {0}")]
    NoTables(String),
    /// A fact about the host that everything rests on could not be read.
    #[error("cannot read {path}: {source}")]
    Host {
        /// What was read.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// What a recording yields.
pub struct Outcome {
    /// The profile, complete.
    pub profile: Profile,
    /// Why it ended.
    pub stop: Stop,
}
