//! Failures in the user's words: what it was, what the current state is, which command mends it, which line of
//! `doctor` explains it.

use super::{
    doctor::{Operation, explain_errno},
    error::{Exit, Failure},
};
use crate::{probe::cpu::CpuError, session::SessionError, target::TargetError};

/// A recording that could not start or go on.
pub fn session(error: &SessionError) -> Failure {
    let (operation, errno) = match error {
        SessionError::Bpf(bpf) | SessionError::Cpu(CpuError::Bpf(bpf)) => (Operation::Bpf, bpf.errno()),
        SessionError::Cpu(CpuError::Perf { source, .. }) | SessionError::Sideband(source) => {
            (Operation::PerfEventOpen, source.raw_os_error())
        }
        SessionError::Host { .. } => return Failure::new(Exit::Failure, error),
    };
    let hint = errno.map(|errno| explain_errno(operation, errno));
    let failure = Failure::new(Exit::Unsupported, error);
    match hint {
        Some(hint) => failure.mend(hint),
        None => failure.mend("see `profiler doctor`"),
    }
}

/// A target that is not there.
pub fn target(error: &TargetError) -> Failure {
    let exit = match error {
        TargetError::Process(_) => Exit::NoTarget,
        TargetError::PidNamespace | TargetError::Cgroup(_) => Exit::Unsupported,
        TargetError::NoPids
        | TargetError::TooManyPids { .. }
        | TargetError::BadComm
        | TargetError::NoCommand => Exit::Usage,
        TargetError::Spawn { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}
