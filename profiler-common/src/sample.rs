//! Samples of the current task, counted by stack: what a count is keyed by, what is kept for it, and the programs of a
//! probe that takes them.
//!
//! Probes of one recording count in one map, each under its own [`What`].

use crate::Comm;

/// What a count is of.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// Ticks of a CPU's timer.
    Tick = 0,
    /// Switches away from a task.
    Switch = 1,
    /// Times that a task was blocked (`sched::wait`).
    Blocked = 2,
    /// Times that a task waited for a CPU (same place).
    Queued = 3,
    /// Hits of the first event that the user named by its hook (`probe::tracepoint`).
    Hook0 = 4,
    /// Of the second.
    Hook1 = 5,
    /// Of the third.
    Hook2 = 6,
    /// Of the fourth.
    Hook3 = 7,
    /// System calls, when they are entered (`probe::syscall_stacks`).
    Call = 8,
    /// System calls, when they return.
    CallTime = 9,
    /// Messages sent (`probe::net_stacks`); their sum is of bytes.
    Sent = 10,
    /// Messages received.
    Received = 11,
    /// Connections that were asked for, when they are there, or have failed.
    Connect = 12,
    /// Packets of a socket that were sent again (`probe::socket_packets`); their sum is of bytes.
    SentAgain = 13,
    /// Packets that were dropped; their sum is of bytes.
    Dropped = 14,
}

/// Events of a recording that the user names by their hooks: each has programs of its own.
pub const MAX_HOOKS: usize = 4;

impl What {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Tick,
        Self::Switch,
        Self::Blocked,
        Self::Queued,
        Self::Hook0,
        Self::Hook1,
        Self::Hook2,
        Self::Hook3,
        Self::Call,
        Self::CallTime,
        Self::Sent,
        Self::Received,
        Self::Connect,
        Self::SentAgain,
        Self::Dropped,
    ];

    /// Those of events that the user names by their hooks, in the order that they were named.
    pub const HOOKS: [Self; MAX_HOOKS] = [Self::Hook0, Self::Hook1, Self::Hook2, Self::Hook3];

    /// Whether it is of packets, which belong to a socket's process that need not run then (`probe::socket_packets`).
    pub const fn is_of_packets(self) -> bool {
        matches!(self, Self::SentAgain | Self::Dropped)
    }

    /// Reads a number written by the kernel side; unknown numbers are `None`.
    pub fn from_u32(value: u32) -> Option<Self> {
        Self::ALL.get(value as usize).copied()
    }
}

const _: () = {
    let mut i = 0;
    while i < What::ALL.len() {
        assert!(What::ALL[i] as usize == i);
        i += 1;
    }
};

/// Key of the counts map: who was hit, and where.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountKey {
    /// Process id in the initial pid namespace (`tgid`).
    pub pid: u32,
    /// Thread id in the initial pid namespace; 0 is a CPU's idle task.
    pub tid: u32,
    /// Tells processes apart that had the same id, and images that the same process executed: start time (ns since
    /// boot) + number of `execve`s. 0 where the kernel has no BTF. For an idle task: its CPU, so that no two CPUs ever
    /// write the same key.
    pub incarnation: u64,
    /// Name of the kernel stack, `EMPTY_STACK` for a sample that hit user mode.
    pub kernel_stack: u64,
    /// Name of the user stack, `EMPTY_STACK` for a kernel thread.
    pub user_stack: u64,
    /// A [`What`] as a number.
    pub what: u32,
    /// Of which kind: its meaning depends on `what`, 0 where there is only one kind.
    pub detail: u32,
}

const _: () = assert!(size_of::<CountKey>() == 40);

/// Value of the counts map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountValue {
    /// Samples.
    pub count: u64,
    /// Their time together, ns, or the bytes of all of them; 0 of what has neither.
    pub ns: u64,
    /// `CLOCK_MONOTONIC` of the first of them, ns, before its user stack was walked.
    pub first_ns: u64,
    /// The thread's command name at the first of them.
    pub comm: Comm,
}

const _: () = assert!(size_of::<CountValue>() == 40);

/// Index of a per-CPU counter of the probe (monotonic, never reset).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Times that the event hit (timer ticks; switches where there is no timer), whatever became of it.
    Hits = 0,
    /// Of these: rejected by the filter.
    Filtered = 1,
    /// Of these: hit the idle task (whether it is recorded or not).
    IdleTask = 2,
}

impl Seen {
    /// Number of counters.
    pub const COUNT: usize = 3;
}

/// The programs of a probe, by the names that they have in the object.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// What is attached.
    pub sample: &'static str,
    /// The program array through which a walk by tables goes on: [`WALK`] and [`COUNT`] are its indices.
    pub calls: &'static str,
    /// What walks.
    pub walk: &'static str,
    /// What counts a sample whose user stack has been walked.
    pub count: &'static str,
}

/// Index of the program that walks.
pub const WALK: u32 = 0;
/// Index of the program that counts what was walked.
pub const COUNT: u32 = 1;

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for CountKey {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for CountValue {}
