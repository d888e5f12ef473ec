//! Probe `syscalls`, user side: tracepoints of system calls. It counts no samples: what it yields are accounts of calls
//! by thread and number ([`crate::bpf::calls`]).

use aya::{Btf, BtfError};

use super::ProbeError;
use crate::{
    bpf::{
        accounts::wait_for_programs,
        calls::{Calls, Room},
        load::{Attached, Kernel},
    },
    perf::clock::monotonic_ns,
};

/// Programs and the raw tracepoints that they are attached to, whatever is wanted of a call.
const ALWAYS: &[(&str, &str)] = &[
    ("syscalls_end", "sched_process_exit"),
    ("syscalls_exec", "sched_process_exec"),
    ("syscalls_rename", "task_rename"),
];

/// The same if calls are timed.
const TIMED: &[(&str, &str)] = &[(SWITCH, "sched_switch"), ("syscalls_exit", "sys_exit")];

/// What tells of the time off the CPU.
const SWITCH: &str = "syscalls_switch";

/// The same if nothing is to be done with calls, which is what the rest is measured against.
const NOTHING: &[(&str, &str)] = &[("syscalls_nothing", "sys_enter")];

/// What is wanted of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Nothing: a program runs at each, and that is all.
    Nothing,
    /// That it was made.
    Counted,
    /// How long it took, where the time went, and what it returned.
    Timed,
}

impl Depth {
    /// Programs and raw tracepoints. The time off the CPU is told by the accounts of threads, if there are any
    /// (`CALLS_OF_THREADS`).
    fn programs(self, kernel: &Kernel) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let own = match self {
            Self::Nothing => NOTHING,
            Self::Counted => &[],
            Self::Timed => TIMED,
        };
        let told = kernel.is_loaded(super::sched::SWITCH).then_some(SWITCH);
        ALWAYS.iter().chain(own).copied().filter(move |(program, _)| Some(*program) != told)
    }

    /// The program of the BTF tracepoint `sys_enter`. It is attached last: what follows an entry must be seen.
    const fn entry(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Counted => Some("syscalls_count"),
            Self::Timed => Some("syscalls_enter"),
        }
    }
}

/// Oldest kernel it works on, (major, minor).
pub const MINIMUM_KERNEL: (u32, u32) = (5, 8);

/// `doctor` checks that must pass.
pub const REQUIRES: &[&str] = &["bpf", "btf"];

/// Kernel hooks, for documents.
pub const HOOKS: &str = "BTF tracepoint: sys_enter; raw tracepoints: sys_exit, sched_switch, sched_process_exit, \
sched_process_exec, task_rename";

/// The attached probe.
pub struct SyscallsProbe {
    attached: Vec<Attached>,
    /// What it yields.
    pub calls: Calls,
    start_ns: u64,
}

impl SyscallsProbe {
    /// Loads the programs, unless they are: what takes most of the time to open it.
    pub fn load(kernel: &mut Kernel, depth: Depth) -> Result<(), ProbeError> {
        for (program, _) in depth.programs(kernel) {
            kernel.load_program(program)?;
        }
        if let Some(entry) = depth.entry()
            && !kernel.is_loaded(entry)
        {
            // The kernel's types are gone again before the accounts are mapped: both are large.
            let btf =
                Btf::from_sys_fs().map_err(|error: BtfError| ProbeError::KernelTypes(error.to_string()))?;
            kernel.load_typed(entry, "sys_enter", &btf)?;
        }
        Ok(())
    }

    /// Attaches the programs; calls are accounted from then on.
    pub fn open(kernel: &mut Kernel, room: Room, depth: Depth) -> Result<Self, ProbeError> {
        Self::load(kernel, depth)?;
        let calls = Calls::new(&mut kernel.ebpf, room)?;
        let mut attached = Vec::new();
        for (program, tracepoint) in depth.programs(kernel) {
            attached.push(kernel.attach(program, tracepoint)?);
        }
        if let Some(entry) = depth.entry() {
            attached.push(kernel.attach_typed(entry)?);
        }
        Ok(Self { attached, calls, start_ns: monotonic_ns() })
    }

    /// Stops; gives the time (`CLOCK_MONOTONIC`, ns) from which on calls are not accounted any more. What programs are
    /// doing at that moment they finish.
    pub fn disable(&mut self) -> u64 {
        // What begins last ends first: a call that is entered no more is not taken for one in progress.
        while self.attached.pop().is_some() {}
        wait_for_programs();
        monotonic_ns()
    }

    /// When it began, `CLOCK_MONOTONIC`, ns.
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_name_every_hook() {
        for &(_, tracepoint) in ALWAYS.iter().chain(TIMED) {
            assert!(HOOKS.contains(tracepoint), "{tracepoint}");
        }
    }
}
