//! Side-band records (`enum perf_event_type`, include/uapi/linux/perf_event.h) as typed events.

/// What identifies the file of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileIdentity {
    /// GNU build id, up to 20 bytes.
    BuildId(Vec<u8>),
    /// Device and inode, where the file has no build id or the kernel does not read it (before 5.12).
    Inode {
        /// Device, as `(major, minor)`.
        device: (u32, u32),
        /// Inode number.
        inode: u64,
    },
}

/// A process event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// A new executable mapping.
    Mmap {
        /// Process id.
        pid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
        /// First address.
        start: u64,
        /// Length, bytes.
        len: u64,
        /// Offset of the first byte in the file.
        file_offset: u64,
        /// Path as the process sees it (raw bytes; `//anon` for memory without a file, `[vdso]`).
        path: Vec<u8>,
        /// Identity of the file, if it is one.
        identity: Option<FileIdentity>,
    },
    /// A thread's command name changed, by `execve` or by itself.
    Comm {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
        /// Command (raw bytes, at most 15).
        comm: Vec<u8>,
        /// By `execve`: all older mappings are gone.
        exec: bool,
    },
    /// A process or thread was made.
    Fork {
        /// Process id of the new task.
        pid: u32,
        /// Process id of its parent (equal to `pid`: a new thread).
        parent_pid: u32,
        /// Thread id of the new task.
        tid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
    },
    /// A thread ended.
    Exit {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
    },
    /// Kernel text appeared or went: a BPF program, an ftrace trampoline ...
    KernelSymbol {
        /// First address.
        start: u64,
        /// Length, bytes.
        len: u32,
        /// Name (raw bytes).
        name: Vec<u8>,
        /// True: it went.
        unregistered: bool,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
    },
    /// Records were lost: the ring buffer was full.
    Lost {
        /// Number of records.
        count: u64,
    },
}
