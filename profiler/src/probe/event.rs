//! What makes a sample.

use super::{
    ProbeSpec, between, cpu,
    java::{self, Java},
    kprobe, net_stacks, offcpu, socket_packets, switches, syscall_stacks, tracepoint, uprobe,
};
use crate::bpf::samples::Sizing;

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
    /// A socket's packet is sent again.
    Retransmit,
    /// A packet is dropped.
    Drops,
    /// A tracepoint of the user's choice is hit; its place among the hooks that the user names.
    Tracepoint(u8),
    /// A place in user code is come to; its place among the hooks that the user names.
    Uprobe(u8),
    /// A marker in user code is come to; its place among the hooks that the user names.
    Usdt(u8),
    /// A place in the kernel's code is come to; its place among the hooks that the user names.
    Kprobe(u8),
    /// The time between two markers; the event's place among the hooks that the user names.
    Between(u8),
    /// The time in a function; the event's place among the hooks that the user names.
    Calls(u8),
    /// What a JVM does, by its markers; the event's place among the hooks that the user names.
    Java(Java, u8),
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
        matches!(self, Self::NetTx | Self::NetRx | Self::Connect) || self.has_owner()
    }

    /// Whether it is of what belongs to a process that need not run then.
    pub const fn has_owner(self) -> bool {
        matches!(self, Self::Retransmit | Self::Drops)
    }

    /// Whether it is of places in user code.
    pub const fn is_user_code(self) -> bool {
        matches!(self, Self::Uprobe(_) | Self::Usdt(_) | Self::Between(_) | Self::Calls(_) | Self::Java(..))
    }

    /// Why its samples cannot be only those of user mode; `None`: they can.
    pub const fn never_in_user_mode(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            _ if self.is_user_code() => None,
            _ => Some("it happens in the kernel"),
        }
    }

    /// Why they cannot be only those of the kernel; `None`: they can.
    pub const fn never_in_kernel(self) -> Option<&'static str> {
        match self {
            _ if self.is_user_code() => Some("what is hooked is user code"),
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
            Self::Retransmit => &socket_packets::SENT_AGAIN,
            Self::Drops => &socket_packets::DROPPED,
            Self::Tracepoint(place) => tracepoint::spec_at(place),
            Self::Uprobe(place) => uprobe::spec_at(place),
            Self::Usdt(place) => uprobe::marker_at(place),
            Self::Kprobe(place) => kprobe::spec_at(place),
            Self::Between(place) => between::spec_at(place),
            Self::Calls(place) => between::calls_at(place),
            Self::Java(java, place) => java::spec_at(java, place),
        }
    }

    /// What kernel functions begin with that are the hook's own where they are innermost.
    pub const fn inside(self) -> &'static [&'static str] {
        match self {
            Self::Tracepoint(_) => tracepoint::INSIDE,
            Self::Kprobe(_) => kprobe::INSIDE,
            Self::NetTx | Self::NetRx | Self::Connect => net_stacks::INSIDE,
            Self::Retransmit | Self::Drops => socket_packets::INSIDE,
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
            Self::NetTx | Self::NetRx | Self::Connect | Self::Retransmit | Self::Drops => {
                net_stacks::sizing(cpus)
            }
            Self::Tracepoint(_)
            | Self::Uprobe(_)
            | Self::Usdt(_)
            | Self::Kprobe(_)
            | Self::Between(_)
            | Self::Calls(_)
            | Self::Java(..) => tracepoint::sizing_of_hooks(cpus),
        }
    }
}
