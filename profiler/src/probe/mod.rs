//! Probes, user side: what each one is (its [`ProbeSpec`]) and how it is attached.
//!
//! One module per probe under the name it has in `profiler-ebpf/src/probe` and `profiler-common/src/probe`. [`PROBES`]
//! drives the command line's help, `doctor`, `list` and the README's table. A probe never formats and names no symbols.
//! Those in [`PROBES`] count samples by stack ([`crate::bpf::samples`]) and are what `record` records; [`sched`], [`syscalls`] and [`net`]
//! account.
//! Those in [`PROBES`] count samples by stack ([`crate::bpf::samples`]) and are what `record` records; [`sched`], [`syscalls`]
//! and [`packets`] account.

mod chosen;
pub mod cpu;
pub mod kprobe;
pub mod net;
pub mod net_stacks;
pub mod offcpu;
pub mod packets;
pub mod sched;
pub mod switches;
pub mod syscall_stacks;
pub mod syscalls;
pub mod tracepoint;
pub mod uprobe;

use std::io;

pub use chosen::{Chosen, Part, Recorded};
use profiler_common::sample::{Programs, What};

use crate::{
    bpf::{
        BpfError,
        load::Kernel,
        samples::{Samples, Sizing},
    },
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
    tracepoint::SPECS[0],
    uprobe::SPECS[0],
    uprobe::MARKERS[0],
    kprobe::SPECS[0],
];

/// The probe of that name.
pub fn find(name: &str) -> Option<&'static ProbeSpec> {
    PROBES.iter().find(|probe| probe.name == name)
}

/// What makes a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A tick of each CPU's timer, or so many cycles.
    Cpu,
    /// A task leaves the CPU.
    ContextSwitches,
    /// A task is blocked.
    OffCpu,
    /// A task waits for a CPU.
    RunQueue,
    /// A system call is made.
    Syscalls,
    /// A system call returns.
    SyscallTime,
    /// A task sends.
    NetTx,
    /// A task receives.
    NetRx,
    /// A task asks for a connection.
    Connect,
    /// A tracepoint of the user's choice is hit; its place among the hooks that the user names.
    Tracepoint(u8),
    /// A place in user code is come to; its place among the hooks that the user names.
    Uprobe(u8),
    /// A marker in user code is come to; its place among the hooks that the user names.
    Usdt(u8),
    /// A place in the kernel's code is come to; its place among the hooks that the user names.
    Kprobe(u8),
}

impl Event {
    /// Whether a timer makes it.
    pub const fn is_timed(self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// Whether it is of tasks that are off the CPU.
    pub const fn is_wait(self) -> bool {
        matches!(self, Self::OffCpu | Self::RunQueue)
    }

    /// Whether it is of system calls.
    pub const fn is_call(self) -> bool {
        matches!(self, Self::Syscalls | Self::SyscallTime)
    }

    /// Whether it is of sockets.
    pub const fn is_net(self) -> bool {
        matches!(self, Self::NetTx | Self::NetRx | Self::Connect)
    }

    /// Why its samples cannot be only those of user mode; `None`: they can.
    pub const fn never_in_user_mode(self) -> Option<&'static str> {
        match self {
            Self::Cpu | Self::Uprobe(_) | Self::Usdt(_) => None,
            _ => Some("it happens in the kernel"),
        }
    }

    /// Why they cannot be only those of the kernel; `None`: they can.
    pub const fn never_in_kernel(self) -> Option<&'static str> {
        match self {
            Self::Uprobe(_) | Self::Usdt(_) => Some("what is hooked is user code"),
            _ => None,
        }
    }

    /// The probe's registry entry.
    pub const fn spec(self) -> &'static ProbeSpec {
        match self {
            Self::Cpu => &cpu::SPEC,
            Self::ContextSwitches => &switches::SPEC,
            Self::OffCpu => &offcpu::SPEC,
            Self::RunQueue => &offcpu::RUN_QUEUE,
            Self::Syscalls => &syscall_stacks::SPEC,
            Self::SyscallTime => &syscall_stacks::TIME,
            Self::NetTx => &net_stacks::TX,
            Self::NetRx => &net_stacks::RX,
            Self::Connect => &net_stacks::CONNECT,
            Self::Tracepoint(place) => tracepoint::spec_at(place),
            Self::Uprobe(place) => uprobe::spec_at(place),
            Self::Usdt(place) => uprobe::marker_at(place),
            Self::Kprobe(place) => kprobe::spec_at(place),
        }
    }

    /// What kernel functions begin with that are the hook's own where they are innermost.
    pub const fn inside(self) -> &'static [&'static str] {
        match self {
            Self::Tracepoint(_) => tracepoint::INSIDE,
            Self::Kprobe(_) => kprobe::INSIDE,
            Self::NetTx | Self::NetRx | Self::Connect => net_stacks::INSIDE,
            _ => &[],
        }
    }

    /// Sizes of the maps that its samples are counted in. The frequency is that of the timer, if there is one.
    pub fn sizing(self, frequency_hz: u64, cpus: usize) -> Sizing {
        match self {
            Self::Cpu => cpu::sizing(frequency_hz, cpus),
            Self::ContextSwitches => switches::sizing(cpus),
            Self::OffCpu | Self::RunQueue => offcpu::sizing(cpus),
            Self::Syscalls | Self::SyscallTime => syscall_stacks::sizing(cpus),
            Self::NetTx | Self::NetRx | Self::Connect => net_stacks::sizing(cpus),
            Self::Tracepoint(_) | Self::Uprobe(_) | Self::Usdt(_) | Self::Kprobe(_) => {
                tracepoint::sizing_of_hooks(cpus)
            }
        }
    }
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
    /// The `syscalls` and `syscall-time` probe.
    Syscalls(syscall_stacks::SyscallsProbe),
    /// The `net-tx` or `net-rx` probe.
    Net(net_stacks::NetStacksProbe),
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
        Ok(probes)
    }

    fn open(chosen: &Chosen, kernel: &mut Kernel, setup: &Setup<'_>) -> Result<Self, ProbeError> {
        match (chosen.event, &chosen.part) {
            (Event::Cpu, _) => Ok(Self::Cpu(cpu::CpuProbe::open(kernel, setup.cpus, setup.timer)?)),
            (Event::ContextSwitches, _) => Ok(Self::Switches(switches::SwitchesProbe::open(kernel)?)),
            (Event::OffCpu | Event::RunQueue, _) => {
                Ok(Self::Offcpu(offcpu::OffcpuProbe::open(kernel, setup.wakers)?))
            }
            (Event::Syscalls | Event::SyscallTime, _) => {
                Ok(Self::Syscalls(syscall_stacks::SyscallsProbe::open(kernel, setup.timed_calls)?))
            }
            (Event::NetTx | Event::NetRx | Event::Connect, _) => {
                Ok(Self::Net(net_stacks::NetStacksProbe::open(kernel, chosen.event)?))
            }
            (Event::Tracepoint(place), Part::Tracepoint(asked)) => {
                Ok(Self::Tracepoint(tracepoint::open(kernel, setup.first_cpu(), place, asked)?))
            }
            (Event::Uprobe(place) | Event::Usdt(place), Part::Uprobe(asked)) => {
                Ok(Self::Uprobe(uprobe::open(kernel, setup.first_cpu(), place, asked)?))
            }
            (Event::Kprobe(place), Part::Kprobe(asked)) => {
                Ok(Self::Kprobe(kprobe::open(kernel, setup.first_cpu(), place, asked)?))
            }
            (Event::Tracepoint(_) | Event::Uprobe(_) | Event::Usdt(_) | Event::Kprobe(_), _) => {
                Err(ProbeError::NoHook)
            }
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
            Self::Net(probe) => Ok(probe.enable(kernel)?),
        }
    }

    /// Hits that the kernel left out; `None` of events whose hits it does not leave out.
    pub fn missed(&self) -> Option<u64> {
        match self {
            Self::Tracepoint(probe) | Self::Kprobe(probe) => Some(probe.missed()),
            Self::Syscalls(probe) => probe.missed(),
            Self::Cpu(_) | Self::Switches(_) | Self::Offcpu(_) | Self::Uprobe(_) | Self::Net(_) => None,
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
            Self::Net(probe) => Ok(probe.disable(samples)?),
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
