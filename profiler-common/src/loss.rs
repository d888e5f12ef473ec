//! Loss counters: one slot of a per-CPU array for every way the kernel side can lose or shorten something.
//!
//! The slots are monotonic and never reset. A new slot is added here once; its name and meaning then appear in every
//! report by themselves.

/// A way to lose data in the kernel, the index of its counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// A sample was dropped: the counts map of this generation was full.
    CountsFull = 0,
    /// A sample kept its count but lost a stack: the stacks map of this generation was full.
    StacksFull = 1,
    /// A sample was dropped: no per-CPU scratch or no current generation (cannot happen unless a map is missing).
    NoScratch = 2,
    /// A user stack could not be read (`bpf_get_stack` failed).
    UserStackFailed = 3,
    /// A kernel stack could not be read (`bpf_get_stack` failed).
    KernelStackFailed = 4,
    /// A user stack was cut at `MAX_FRAMES`.
    UserStackTruncated = 5,
    /// A kernel stack was cut at `MAX_FRAMES`.
    KernelStackTruncated = 6,
    /// A child of a target was not followed: the map of followed processes was full.
    TargetsFull = 7,
    /// A process's stacks were not walked by tables: the map of processes was full.
    UnwindProcessesFull = 8,
    /// User space was not asked for a process's mappings (it is again later): the ring of requests was full.
    UnwindRequestsFull = 9,
    /// A task off the CPU was not followed, its waits are missing: the map of waits was full.
    WaitsFull = 10,
    /// A switch that the kernel counts was not seen: a wait is missing, or its end is not known.
    SwitchNotTraced = 11,
    /// An event of a thread that is not accounted: the map of threads was full.
    ThreadsFull = 12,
    /// The account of a thread that ended was overwritten by another thread's before user space had read it.
    EndedThreads = 13,
    /// A thread began to run, but its wake-up was not seen: its wait for a CPU counts as blocked.
    WakeupsMissed = 14,
    /// A CPU left another task than the one that it was seen to come to: switches in between were not seen. The time
    /// since then counts as unknown where it is not clear whose it is.
    SwitchesMissed = 15,
    /// A performance counter could not be read at a switch: what it counted for one thread is missing.
    CountersNotRead = 16,
    /// System calls of a thread that has no account, because there was no room: counted in `[other]`, not timed.
    CallersFull = 17,
    /// System calls that have no account of their own, because there was no room: they are in `[other]`.
    CallsFull = 18,
    /// An error of a system call whose number is not known: the map of errors was full.
    ErrorsFull = 19,
    /// A system call of a thread that is not followed is missing: the map of threads that make calls was full.
    InCallsFull = 20,
    /// A hit of a uprobe was not counted: the program at another one was preempted on that CPU, and used its memory.
    UprobeBusy = 21,
    /// A socket, or one more process that uses it, has no account of its own: there was no room. What it sends and receives
    /// is in `[other]`. Counted at each call.
    SocketsFull = 22,
    /// Connections that a listening socket takes are not known to be its process's until they are used: there was no room.
    ListenersFull = 23,
    /// A connection that was asked for was not followed: the map of these was full.
    ConnectingFull = 24,
    /// The time that a packet was queued is not known: the map of queued packets was full.
    QueuedFull = 25,
    /// A packet or poll of an interface that has no account: it is in `[other]`.
    InterfacesFull = 26,
    /// A dropped packet of a kind that has no account: it is in `[other]`.
    DropsFull = 27,
    /// The time between two places is missing: the map of times that have begun was full.
    OpenSpansFull = 28,
    /// The time between two places is missing: its end was come to and its beginning had not been seen, or a function was left
    /// without a return.
    SpanUnpaired = 29,
}

impl Loss {
    /// All slots, in index order.
    pub const ALL: [Self; 30] = [
        Self::CountsFull,
        Self::StacksFull,
        Self::NoScratch,
        Self::UserStackFailed,
        Self::KernelStackFailed,
        Self::UserStackTruncated,
        Self::KernelStackTruncated,
        Self::TargetsFull,
        Self::UnwindProcessesFull,
        Self::UnwindRequestsFull,
        Self::WaitsFull,
        Self::SwitchNotTraced,
        Self::ThreadsFull,
        Self::EndedThreads,
        Self::WakeupsMissed,
        Self::SwitchesMissed,
        Self::CountersNotRead,
        Self::CallersFull,
        Self::CallsFull,
        Self::ErrorsFull,
        Self::InCallsFull,
        Self::UprobeBusy,
        Self::SocketsFull,
        Self::ListenersFull,
        Self::ConnectingFull,
        Self::QueuedFull,
        Self::InterfacesFull,
        Self::DropsFull,
        Self::OpenSpansFull,
        Self::SpanUnpaired,
    ];

    /// Those of probes that count samples by stack.
    pub const SAMPLING: &[Self] = &[
        Self::CountsFull,
        Self::StacksFull,
        Self::NoScratch,
        Self::UserStackFailed,
        Self::KernelStackFailed,
        Self::UserStackTruncated,
        Self::KernelStackTruncated,
        Self::TargetsFull,
        Self::UnwindProcessesFull,
        Self::UnwindRequestsFull,
        Self::WaitsFull,
        Self::SwitchNotTraced,
        Self::InCallsFull,
        Self::ConnectingFull,
        Self::SocketsFull,
        Self::ListenersFull,
        Self::OpenSpansFull,
        Self::SpanUnpaired,
    ];

    /// Those of the accounting of threads.
    pub const ACCOUNTING: &[Self] = &[
        Self::ThreadsFull,
        Self::EndedThreads,
        Self::WakeupsMissed,
        Self::SwitchesMissed,
        Self::CountersNotRead,
    ];

    /// Those of the accounting of system calls.
    pub const SYSCALLS: &[Self] =
        &[Self::TargetsFull, Self::CallersFull, Self::CallsFull, Self::ErrorsFull, Self::SwitchesMissed];

    /// Those of the accounting of sockets.
    pub const NET: &[Self] = &[Self::TargetsFull, Self::SocketsFull, Self::ListenersFull];
    /// Those of the host's network.
    pub const PACKETS: &[Self] = &[Self::QueuedFull, Self::InterfacesFull, Self::DropsFull];

    /// The key of this loss in reports (snake_case, stable).
    pub const fn name(self) -> &'static str {
        match self {
            Self::CountsFull => "counts_map_full",
            Self::StacksFull => "stacks_map_full",
            Self::NoScratch => "no_scratch",
            Self::UserStackFailed => "user_stack_failed",
            Self::KernelStackFailed => "kernel_stack_failed",
            Self::UserStackTruncated => "user_stack_truncated",
            Self::KernelStackTruncated => "kernel_stack_truncated",
            Self::TargetsFull => "targets_map_full",
            Self::UnwindProcessesFull => "unwind_processes_full",
            Self::UnwindRequestsFull => "unwind_requests_full",
            Self::WaitsFull => "waits_map_full",
            Self::SwitchNotTraced => "switches_not_traced",
            Self::ThreadsFull => "threads_map_full",
            Self::EndedThreads => "ended_threads_overwritten",
            Self::WakeupsMissed => "wakeups_missed",
            Self::SwitchesMissed => "switches_missed",
            Self::CountersNotRead => "counters_not_read",
            Self::CallersFull => "calls_of_unknown_threads",
            Self::CallsFull => "calls_without_account",
            Self::ErrorsFull => "errors_map_full",
            Self::InCallsFull => "calling_threads_map_full",
            Self::UprobeBusy => "uprobe_hits_left_out",
            Self::SocketsFull => "calls_of_sockets_without_account",
            Self::ListenersFull => "listeners_map_full",
            Self::ConnectingFull => "connecting_map_full",
            Self::QueuedFull => "queued_packets_map_full",
            Self::InterfacesFull => "packets_without_account",
            Self::DropsFull => "drops_without_account",
            Self::OpenSpansFull => "open_spans_map_full",
            Self::SpanUnpaired => "spans_without_both_ends",
        }
    }
}

const _: () = {
    let mut i = 0;
    while i < Loss::ALL.len() {
        assert!(Loss::ALL[i] as usize == i);
        i += 1;
    }
};
