//! Probe `syscalls`, user side: tracepoints of system calls. It counts no samples: what it yields are accounts of calls
//! by thread and number ([`crate::bpf::calls`]).

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

/// The same if calls are only counted.
const COUNTED: &[(&str, &str)] = &[("syscalls_count", "sys_enter")];

/// The same if they are timed. The entry comes last: what follows it must be seen.
const TIMED: &[(&str, &str)] =
    &[("syscalls_switch", "sched_switch"), ("syscalls_exit", "sys_exit"), ("syscalls_enter", "sys_enter")];

/// Oldest kernel it works on, (major, minor).
pub const MINIMUM_KERNEL: (u32, u32) = (5, 8);

/// `doctor` checks that must pass.
pub const REQUIRES: &[&str] = &["bpf", "btf"];

/// Kernel hooks, for documents.
pub const HOOKS: &str = "raw tracepoints: sys_enter, sys_exit, sched_switch, sched_process_exit, sched_process_exec, \
task_rename";

/// The attached probe.
pub struct SyscallsProbe {
    attached: Vec<Attached>,
    /// What it yields.
    pub calls: Calls,
    start_ns: u64,
}

impl SyscallsProbe {
    /// Loads and attaches the programs; calls are accounted from then on. `timed`: not only counted.
    pub fn open(kernel: &mut Kernel, room: Room, timed: bool) -> Result<Self, ProbeError> {
        let calls = Calls::new(&mut kernel.ebpf, room)?;
        let programs: Vec<_> = ALWAYS.iter().chain(if timed { TIMED } else { COUNTED }).collect();
        for &&(program, _) in &programs {
            kernel.load_program(program)?;
        }
        let mut attached = Vec::new();
        for &&(program, tracepoint) in &programs {
            attached.push(kernel.attach(program, tracepoint)?);
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
        for &(_, tracepoint) in ALWAYS.iter().chain(COUNTED).chain(TIMED) {
            assert!(HOOKS.contains(tracepoint), "{tracepoint}");
        }
    }
}
