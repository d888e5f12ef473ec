//! Events `syscalls` and `syscall-time`, user side: raw tracepoints that are hit when a system call begins and when it ends.
//! One probe for both.

use std::os::fd::{AsFd as _, OwnedFd};

use profiler_common::{
    probe::syscall_stacks::{END, EXIT, PROGRAMS},
    sample::What,
};

use super::{Amount, Event, ProbeSpec, SampleTypeSpec, switches};
use crate::{
    bpf::{
        BpfError,
        load::{Attached, Kernel},
        samples::{Samples, Sizing},
        stats::missed_of,
    },
    model::Unit,
};

/// The tracepoint of entries.
pub const TRACEPOINT: &str = "sys_enter";

/// The registry entry of `syscalls`.
pub const SPEC: ProbeSpec = ProbeSpec {
    event: Event::Syscalls,
    name: "syscalls",
    summary: "system calls, by call and by the stack that makes them",
    hooks: &["raw tracepoints: sys_enter, sched_process_exit"],
    hooked: None,
    sample_types: &[SampleTypeSpec {
        name: "syscalls",
        unit: Unit::Count,
        what: What::Call,
        amount: Amount::Count,
        summary: "times that a call was entered",
    }],
    programs: PROGRAMS,
    minimum_kernel: (5, 8),
    requires: &["perf-events", "bpf", "btf"],
};

/// The registry entry of `syscall-time`.
pub const TIME: ProbeSpec = ProbeSpec {
    event: Event::SyscallTime,
    name: "syscall-time",
    summary: "time in system calls, by call and by the stack that makes them",
    hooks: &["raw tracepoints: sys_enter, sys_exit, sched_process_exit"],
    sample_types: &[
        SampleTypeSpec {
            name: "syscall-time",
            unit: Unit::Nanoseconds,
            what: What::CallTime,
            amount: Amount::Time,
            summary: "time from the entry to the return, on the CPU or not",
        },
        SampleTypeSpec {
            name: "syscall-returns",
            unit: Unit::Count,
            what: What::CallTime,
            amount: Amount::Count,
            summary: "times that a call returned, or went on when the recording ended",
        },
    ],
    ..SPEC
};

/// As for switches: a thread makes its calls in few places.
pub fn sizing(cpus: usize) -> Sizing {
    switches::sizing(cpus)
}

/// The attached probe.
pub struct SyscallsProbe {
    timed: bool,
    programs: Vec<OwnedFd>,
    attached: Vec<Attached>,
}

impl SyscallsProbe {
    /// Loads the programs; they are not attached yet. `timed`: those too that are told of the ends of calls.
    pub fn open(kernel: &mut Kernel, timed: bool) -> Result<Self, BpfError> {
        let mut programs = vec![kernel.load_and_share(PROGRAMS.sample)?, kernel.load_and_share(END)?];
        if timed {
            programs.push(kernel.load_and_share(EXIT)?);
        }
        Ok(Self { timed, programs, attached: Vec::new() })
    }

    /// Attaches the programs; what tells of ends first.
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<(), BpfError> {
        self.attached.push(kernel.attach(END, "sched_process_exit")?);
        if self.timed {
            self.attached.push(kernel.attach(EXIT, "sys_exit")?);
        }
        self.attached.push(kernel.attach(PROGRAMS.sample, TRACEPOINT)?);
        Ok(())
    }

    /// Calls that the kernel ran no program at, if there are any: Linux 7.3 and later can preempt programs of these
    /// tracepoints, and runs none of the same meanwhile.
    pub fn missed(&self) -> Option<u64> {
        let missed = self.programs.iter().map(|program| missed_of(program.as_fd())).sum();
        (missed != 0).then_some(missed)
    }

    /// Detaches the programs and waits until they run nowhere.
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), BpfError> {
        self.attached.clear();
        samples.wait_for_programs()
    }
}
