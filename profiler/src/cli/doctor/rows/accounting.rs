//! What the commands need that account threads, CPUs, system calls and packets.

use super::{
    super::{
        Check,
        Status::{Degraded, Unavailable},
        facts::Facts,
    },
    works,
};

/// `profiler sched` and `profiler cpu`.
pub(super) fn scheduler(facts: &Facts) -> Check {
    let check = works(
        "scheduler",
        "`profiler sched` and `profiler cpu`",
        "threads are accounted at each switch and wake-up, CPUs at each interrupt",
    );
    match &facts.tried.sched {
        Ok(missing) if missing.is_empty() => check,
        Ok(missing) => check.not(Degraded, missing.join("; ")),
        Err(_) if facts.tried.task_offsets.is_err() => {
            check.not(Unavailable, "needs the kernel's type information: see line `btf`")
        }
        Err(reason) => check.not(Unavailable, reason.clone()),
    }
}

/// `profiler syscalls`.
pub(super) fn syscalls(facts: &Facts) -> Check {
    let check =
        works("syscalls", "`profiler syscalls`", "system calls are seen when they begin and when they end");
    match &facts.tried.syscalls {
        Ok(()) => check,
        Err(_) if facts.tried.task_offsets.is_err() => {
            check.not(Unavailable, "needs the kernel's type information: see line `btf`")
        }
        Err(reason) => check.not(Unavailable, reason.clone()),
    }
}

/// `profiler net`.
pub(super) fn net(facts: &Facts) -> Check {
    let check = works("net", "`profiler net`", "sockets are seen when they are used, and connections change");
    match &facts.tried.net {
        Ok(()) => check,
        Err(_) if facts.tried.task_offsets.is_err() => {
            check.not(Unavailable, "needs the kernel's type information: see line `btf`")
        }
        Err(reason) => check.not(Unavailable, reason.clone()),
    }
}

/// `profiler packets`.
pub(super) fn packets(facts: &Facts) -> Check {
    let check = works(
        "packets",
        "`profiler packets`",
        "packets are seen when they are received, queued, sent and dropped",
    );
    match &facts.tried.packets {
        Ok(missing) if missing.is_empty() => check,
        Ok(missing) => check.not(Degraded, missing.join("; ")),
        Err(_) if facts.tried.task_offsets.is_err() => {
            check.not(Unavailable, "needs the kernel's type information: see line `btf`")
        }
        Err(reason) => check.not(Unavailable, reason.clone()),
    }
}
