//! Failures in the user's words: what it was, what the current state is, which command mends it, which line of
//! `doctor` explains it.

use super::{
    doctor::{Op, explain_errno},
    error::{Exit, Failure},
    report::ReportError,
};
use crate::{
    bpf::BpfError, host::cgroup::CgroupError, perf::counters::CounterError, probe::ProbeError,
    session::SessionError, target::TargetError,
};

/// A recording that could not start or go on.
pub fn session(error: &SessionError) -> Failure {
    let (op, errno) = match error {
        SessionError::Bpf(bpf) | SessionError::Probe(ProbeError::Bpf(bpf)) => (operation(bpf), bpf.errno()),
        SessionError::Probe(ProbeError::Hook { source, .. }) => {
            (Op::PerfEventOpenHook, source.raw_os_error())
        }
        SessionError::Probe(ProbeError::Sampler { source, .. }) | SessionError::Sideband(source) => {
            (Op::PerfEventOpen, source.raw_os_error())
        }
        SessionError::Probe(ProbeError::KernelTypes(_)) => {
            return Failure::new(Exit::Unsupported, error).mend("see `profiler doctor`, line `btf`");
        }
        SessionError::Host { .. }
        | SessionError::Unwinding(_)
        | SessionError::Ring(_)
        | SessionError::Timer(_)
        | SessionError::NoEvent
        | SessionError::Probe(ProbeError::NoHook) => {
            return Failure::new(Exit::Failure, error);
        }
        SessionError::Counter(CounterError::Absent(_)) => {
            return Failure::new(Exit::Unsupported, error).mend(
                "`profiler doctor`, line `pmu`, says why; software events (page-faults, cpu-clock) are counted anywhere",
            );
        }
        SessionError::Counter(CounterError::Refused { source, .. }) => {
            (Op::PerfEventOpenHardware, source.raw_os_error())
        }
        SessionError::NoTables(_) => {
            return Failure::new(Exit::Unsupported, error).mend("walk by frame pointers: --unwind fp");
        }
    };
    let failure = Failure::new(Exit::Unsupported, error);
    match errno {
        Some(errno) => failure.mend(explain_errno(op, errno)),
        None => failure.mend("see `profiler doctor`"),
    }
}

const fn operation(error: &BpfError) -> Op {
    match error {
        BpfError::Program { .. } => Op::ProgramLoad,
        BpfError::Object(_) | BpfError::Missing(_) | BpfError::Map { .. } | BpfError::Call { .. } => {
            Op::MapCreate
        }
    }
}

/// A target that is not there.
pub fn target(error: &TargetError) -> Failure {
    let exit = match error {
        TargetError::Process(_) | TargetError::Cgroup(CgroupError::NotFound { .. }) => Exit::NoTarget,
        TargetError::PidNamespace | TargetError::Cgroup(_) => Exit::Unsupported,
        TargetError::NoPids
        | TargetError::TooManyPids { .. }
        | TargetError::BadComm
        | TargetError::NoCommand => Exit::Usage,
        TargetError::Spawn { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// A recording that cannot be shown.
pub fn report(error: &ReportError) -> Failure {
    let exit = match error {
        ReportError::Input { .. } | ReportError::NoEvent { .. } | ReportError::Output(_) => Exit::Usage,
        ReportError::Outputs(_) => Exit::Failure,
    };
    Failure::new(exit, error)
}
