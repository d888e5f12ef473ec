//! Where the time of threads went, on one screen: parts that add up, with what stands out in each; and what was counted
//! besides.

use serde::Serialize;

use super::{Cost, Losses, Meta, named::Named};

/// What threads did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// On a CPU in user mode.
    User,
    /// On a CPU inside of a system call.
    Syscalls,
    /// On a CPU in kernel mode otherwise: faults, exceptions, the way into calls and out, the end of a thread.
    Kernel,
    /// On a CPU, in [`Kind::User`] or [`Kind::Kernel`]: there is no sample that tells.
    OutsideSyscalls,
    /// On a CPU, taken by interrupts and soft interrupts.
    Interrupts,
    /// Waiting for a CPU.
    RunQueue,
    /// Waiting for something else.
    Blocked(&'static str),
    /// A switch was not seen.
    Unknown,
}

impl Kind {
    /// Stable key (JSON).
    pub const fn key(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Syscalls => "syscalls",
            Self::Kernel => "kernel",
            Self::OutsideSyscalls => "outside-syscalls",
            Self::Interrupts => "interrupts",
            Self::RunQueue => "run-queue",
            Self::Blocked(_) => "blocked",
            Self::Unknown => "unknown",
        }
    }

    /// What it is blocked by.
    pub const fn cause(self) -> Option<&'static str> {
        match self {
            Self::Blocked(cause) => Some(cause),
            _ => None,
        }
    }
}

/// A part of the threads' time. The times of all parts are the threads' time, to the nanosecond.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What they did.
    pub kind: Kind,
    /// For how long, ns.
    pub ns: u64,
    /// Samples, if they are what tells this part from another one; what both are together is exact.
    pub estimated_by: Option<u64>,
    /// The functions with most of it, at most [`MAX_TOP`].
    pub functions: Vec<Function>,
    /// The system calls with most of it, at most [`MAX_TOP`].
    pub syscalls: Vec<Syscall>,
}

/// Functions and system calls of a part that are kept.
pub const MAX_TOP: usize = 20;

/// A function in a part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Function {
    /// Its name.
    pub function: String,
    /// Its module's.
    pub module: String,
    /// Its time of the part, ns: measured where threads are blocked, else as its samples are of the part's.
    pub ns: u64,
    /// Its samples; `None` where they are blocked.
    pub samples: Option<u64>,
}

/// A system call in a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Syscall {
    /// Its name.
    pub syscall: String,
    /// Its time of the part, ns.
    pub ns: u64,
    /// Times that it was entered, whatever it did then; `None` if there is no account of that name.
    pub count: Option<u64>,
    /// Of these, times that it returned an error.
    pub errors: Option<u64>,
}

/// How many there were of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Number {
    /// In all.
    pub seen: u64,
    /// Of these: not there yet at the start.
    pub started: u64,
    /// Of these: not there any more at the end.
    pub ended: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Processes.
    pub processes: Number,
    /// Threads.
    pub threads: Number,
    /// Switches because a thread waited.
    pub voluntary: u64,
    /// Switches because another thread was to run.
    pub involuntary: u64,
    /// Changes of the CPU.
    pub migrations: u64,
    /// Page faults without disk; `None` if they could not be counted.
    pub minor_faults: Option<u64>,
    /// Page faults with disk.
    pub major_faults: Option<u64>,
    /// System calls entered.
    pub syscalls: u64,
    /// Of these: returned with an error.
    pub syscall_errors: u64,
    /// Bytes read by calls that return their number: of files, pipes, sockets, devices.
    pub read_bytes: u64,
    /// Bytes written so.
    pub written_bytes: u64,
    /// Bytes received by calls for sockets.
    pub received_bytes: u64,
    /// Bytes sent by calls for sockets.
    pub sent_bytes: u64,
    /// Bytes copied inside of the kernel (`sendfile`, `splice` ...).
    pub copied_bytes: u64,
    /// What the processor's counters counted; empty where there are none.
    pub counters: Named,
    /// Cycles for each instruction, if both were counted.
    pub cpi: Option<f64>,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct Stat {
    /// Circumstances.
    pub meta: Meta,
    /// What was lost.
    pub losses: Losses,
    /// The profiler's own consumption.
    pub cost: Cost,
    /// Time of the threads: from the start, or from when they were made, to the end, or to their own; ns.
    pub thread_ns: u64,
    /// The parts of it, none of them 0: on a CPU, waiting for one, blocked (most first), unknown.
    pub parts: Vec<Part>,
    /// Samples of CPUs in these threads.
    pub samples: u64,
    /// What was counted.
    pub counts: Counts,
}
