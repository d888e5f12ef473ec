//! Probes, user side: what each one is (its [`ProbeSpec`]) and how it is attached.
//!
//! One module per probe under the name it has in `profiler-ebpf/src/probe` and `profiler-common/src/probe`. [`PROBES`]
//! drives the command line's help, `doctor`, `list` and the README's table. A probe never formats and names no symbols.
//! Those in [`PROBES`] count samples by stack ([`crate::bpf::samples`]) and are what `record` records; [`sched`],
//! [`syscalls`], [`net`] and [`packets`] account.

pub mod between;
mod chosen;
pub mod cpu;
mod event;
pub mod java;
pub mod kprobe;
pub mod net;
pub mod net_stacks;
pub mod offcpu;
pub mod packets;
pub mod sched;
pub mod socket_packets;
pub mod switches;
pub mod syscall_stacks;
pub mod syscalls;
pub mod tracepoint;
pub mod uprobe;

use std::io;

pub use chosen::{Chosen, Part, Recorded};
pub use event::Event;
use profiler_common::sample::{Programs, What};

use crate::{
    bpf::{BpfError, load::Kernel, samples::Samples},
    model::Unit,
    perf::sampler::Timer,
};

/// A sample type that a probe yields.
#[derive(Clone, Copy, Debug)]
pub struct SampleTypeSpec {
    /// Name in recordings.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// Which of the kernel side's counts.
    pub what: What,
    /// What of them.
    pub amount: Amount,
    /// One line: what is counted.
    pub summary: &'static str,
}

impl SampleTypeSpec {
    /// The number of hits of an event that the user names by its hook, at its place among these.
    const fn hits(place: usize, name: &'static str, summary: &'static str) -> Self {
        Self { name, unit: Unit::Count, what: What::HOOKS[place], amount: Amount::Count, summary }
    }
}

/// What the values of a sample type are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Their number.
    Count,
    /// Their number times the sampling period.
    Periods,
    /// The sum of their durations.
    Time,
    /// The sum of their sizes.
    Sum,
}

/// What a probe is.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSpec {
    /// Which one.
    pub event: Event,
    /// The event's name for `-e`.
    pub name: &'static str,
    /// One line: what question it answers.
    pub summary: &'static str,
    /// Kernel hooks it attaches to.
    pub hooks: &'static [&'static str],
    /// The kernel function that is hooked, if it is one: frames inside of it are the hook's own.
    pub hooked: Option<&'static str>,
    /// What it yields.
    pub sample_types: &'static [SampleTypeSpec],
    /// Its programs.
    pub programs: Programs,
    /// Oldest kernel it works on, (major, minor).
    pub minimum_kernel: (u32, u32),
    /// `doctor` checks that must pass.
    pub requires: &'static [&'static str],
}

/// All probes.
pub const PROBES: &[ProbeSpec] = &[
    cpu::SPEC,
    switches::SPEC,
    offcpu::SPEC,
    offcpu::RUN_QUEUE,
    syscall_stacks::SPEC,
    syscall_stacks::TIME,
    net_stacks::TX,
    net_stacks::RX,
    net_stacks::CONNECT,
    socket_packets::SENT_AGAIN,
    socket_packets::DROPPED,
    tracepoint::SPECS[0],
    uprobe::SPECS[0],
    uprobe::MARKERS[0],
    kprobe::SPECS[0],
    between::SPECS[0],
    between::CALLS[0],
    java::SPECS[0][0],
    java::SPECS[1][0],
    java::SPECS[2][0],
    java::SPECS[3][0],
    java::SPECS[4][0],
];

/// The probe of that name.
pub fn find(name: &str) -> Option<&'static ProbeSpec> {
    PROBES.iter().find(|probe| probe.name == name)
}

/// A failure to set a probe up.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// eBPF side.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The types of the running kernel, which typed tracepoints are found by.
    #[error("cannot read the kernel's BTF: {0}")]
    KernelTypes(String),
    /// perf_event_open(2) or its ioctls.
    #[error("cannot sample at {frequency_hz} Hz: {source}")]
    Sampler {
        /// The frequency asked for.
        frequency_hz: u64,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// An event of a hook without one.
    #[error("no hook was named")]
    NoHook,
    /// A hook that the user named.
    #[error("cannot attach to {name}: {source}")]
    Hook {
        /// The event.
        name: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// How probes are set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The CPUs that are looked at.
    pub cpus: &'a [u32],
    /// The timer, for events that one makes.
    pub timer: Timer,
    /// Who ends blocked times is of interest.
    pub wakers: bool,
    /// Waits for a CPU are of interest.
    pub queued: bool,
    /// When system calls end is of interest.
    pub timed_calls: bool,
}

impl Setup<'_> {
    /// The CPU to open what is of all of them on.
    fn first_cpu(&self) -> u32 {
        self.cpus.first().copied().unwrap_or(0)
    }
}

/// A probe that is set up.
pub enum Probe {
    /// The `cpu` probe.
    Cpu(cpu::CpuProbe),
    /// The `context-switches` probe.
    Switches(switches::SwitchesProbe),
    /// The `offcpu` and `runq` probe.
    Offcpu(offcpu::OffcpuProbe),
    /// The `tracepoint` probe.
    Tracepoint(tracepoint::HookProbe),
    /// The `uprobe` probe.
    Uprobe(tracepoint::HookProbe),
    /// The `kprobe` probe.
    Kprobe(tracepoint::HookProbe),
    /// The `between` probe.
    Between(between::BetweenProbe),
    /// The `syscalls` and `syscall-time` probe.
    Syscalls(syscall_stacks::SyscallsProbe),
    /// The `net-tx`, `net-rx` or `connect` probe.
    Net(net_stacks::NetStacksProbe),
    /// The `retransmit` or `drops` probe.
    SocketPackets(net_stacks::NetStacksProbe),
}

impl Probe {
    /// Loads the programs of all events and prepares what hits them. No samples are taken yet.
    pub fn open_all(
        events: &[Chosen],
        kernel: &mut Kernel,
        setup: &Setup<'_>,
    ) -> Result<Vec<Self>, ProbeError> {
        let mut probes = Vec::new();
        for (i, chosen) in events.iter().enumerate() {
            // One probe may be for several events.
            let program = chosen.event.spec().programs.sample;
            if !events[..i].iter().any(|before| before.event.spec().programs.sample == program) {
                probes.push(Self::open(chosen, kernel, setup)?);
            }
        }
        if let Some(Self::Between(last)) =
            probes.iter_mut().rev().find(|probe| matches!(probe, Self::Between(_)))
        {
            last.be_last();
        }
        Ok(probes)
    }

    fn open(chosen: &Chosen, kernel: &mut Kernel, setup: &Setup<'_>) -> Result<Self, ProbeError> {
        match (chosen.event, &chosen.part) {
            (Event::Cpu, _) => Ok(Self::Cpu(cpu::CpuProbe::open(kernel, setup.cpus, setup.timer)?)),
            (Event::ContextSwitches, _) => Ok(Self::Switches(switches::SwitchesProbe::open(kernel)?)),
            (Event::OffCpu | Event::RunQueue, _) => {
                Ok(Self::Offcpu(offcpu::OffcpuProbe::open(kernel, setup.wakers, setup.queued)?))
            }
            (Event::Syscalls | Event::SyscallTime, _) => {
                Ok(Self::Syscalls(syscall_stacks::SyscallsProbe::open(kernel, setup.timed_calls)?))
            }
            (Event::NetTx | Event::NetRx | Event::Connect, _) => {
                Ok(Self::Net(net_stacks::open(kernel, chosen.event)?))
            }
            (Event::Retransmit | Event::Drops, _) => {
                Ok(Self::SocketPackets(socket_packets::open(kernel, chosen.event)?))
            }
            (Event::Tracepoint(place), Part::Tracepoint(asked)) => {
                Ok(Self::Tracepoint(tracepoint::open(kernel, setup.first_cpu(), place, asked)?))
            }
            (Event::Uprobe(place) | Event::Usdt(place) | Event::Java(_, place), Part::Uprobe(asked)) => {
                Ok(Self::Uprobe(uprobe::open(kernel, setup.first_cpu(), place, asked)?))
            }
            (Event::Kprobe(place), Part::Kprobe(asked)) => {
                Ok(Self::Kprobe(kprobe::open(kernel, setup.first_cpu(), place, asked)?))
            }
            (Event::Between(place) | Event::Calls(place) | Event::Java(_, place), Part::Between(asked)) => {
                let calls = matches!(chosen.event, Event::Calls(_));
                Ok(Self::Between(between::open(kernel, setup.first_cpu(), place, asked, calls)?))
            }
            (
                Event::Tracepoint(_)
                | Event::Uprobe(_)
                | Event::Usdt(_)
                | Event::Kprobe(_)
                | Event::Between(_)
                | Event::Calls(_)
                | Event::Java(..),
                _,
            ) => Err(ProbeError::NoHook),
        }
    }

    /// Begins to take samples.
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<(), ProbeError> {
        match self {
            Self::Cpu(probe) => probe.enable(),
            Self::Switches(probe) => Ok(probe.enable(kernel)?),
            Self::Offcpu(probe) => Ok(probe.enable(kernel)?),
            Self::Tracepoint(probe) | Self::Uprobe(probe) | Self::Kprobe(probe) => probe.enable(),
            Self::Syscalls(probe) => Ok(probe.enable(kernel)?),
            Self::Net(probe) | Self::SocketPackets(probe) => Ok(probe.enable(kernel)?),
            Self::Between(probe) => probe.enable(kernel),
        }
    }

    /// Hits that the kernel left out; `None` of events whose hits it does not leave out.
    pub fn missed(&self) -> Option<u64> {
        match self {
            Self::Tracepoint(probe) | Self::Kprobe(probe) => Some(probe.missed()),
            Self::Syscalls(probe) => probe.missed(),
            Self::SocketPackets(probe) => Some(probe.missed()),
            Self::Cpu(_)
            | Self::Switches(_)
            | Self::Offcpu(_)
            | Self::Uprobe(_)
            | Self::Net(_)
            | Self::Between(_) => None,
        }
    }

    /// Stops taking samples; what was taken until now is then complete, to be read by [`Samples::finish`].
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), ProbeError> {
        match self {
            Self::Cpu(probe) => probe.disable(),
            Self::Switches(probe) => Ok(probe.disable(samples)?),
            Self::Offcpu(probe) => Ok(probe.disable(samples)?),
            Self::Tracepoint(probe) | Self::Uprobe(probe) | Self::Kprobe(probe) => probe.disable(samples),
            Self::Syscalls(probe) => Ok(probe.disable(samples)?),
            Self::Net(probe) | Self::SocketPackets(probe) => Ok(probe.disable(samples)?),
            Self::Between(probe) => probe.disable(samples),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_registered_once() {
        for probe in PROBES {
            assert_eq!(find(probe.name).map(|found| found.event), Some(probe.event));
            assert_eq!(probe.event.spec().name, probe.name);
        }
    }
}
