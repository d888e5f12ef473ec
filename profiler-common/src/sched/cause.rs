//! Why a task is blocked: decided from its state, the system call that it is in, and the file that the call works on.
//!
//! A task is blocked if it left the CPU of its own accord in a state other than running; a task that was preempted is
//! not, and has no cause. Task states: include/linux/sched.h.

use super::syscall::{self, Class};

/// What a blocked task waits for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Not known: the kernel's types do not tell where the task's registers are.
    Unknown = 0,
    /// A futex: user-space mutexes, condition variables, joins.
    Futex = 1,
    /// Readiness of files: poll, select, epoll.
    Poll = 2,
    /// Data from a socket.
    SocketRead = 3,
    /// Room in a socket.
    SocketWrite = 4,
    /// A connection to be accepted.
    SocketAccept = 5,
    /// A connection to be made.
    SocketConnect = 6,
    /// Data from a pipe, or room in it.
    Pipe = 7,
    /// A file system, but not the disk: reading, writing and naming of files.
    File = 8,
    /// Disk: the kernel counts the task as waiting for I/O (`in_iowait`), in whatever call.
    Disk = 9,
    /// A terminal or another character device.
    Device = 10,
    /// An eventfd, timerfd, signalfd, inotify and the like.
    EventFile = 11,
    /// A lock on a file: flock, fcntl.
    FileLock = 12,
    /// A page of memory, in a fault from user mode.
    PageFault = 13,
    /// Time: nanosleep.
    Sleep = 14,
    /// A child: wait4, waitid, vfork.
    Wait = 15,
    /// A signal: pause, sigsuspend, sigtimedwait.
    Signal = 16,
    /// System V semaphores and messages, POSIX message queues.
    Ipc = 17,
    /// Completions of io_uring.
    IoUring = 18,
    /// A lock of the kernel: uninterruptible in a call that waits interruptibly for what it is about, or in one that is
    /// not about waiting.
    Lock = 19,
    /// Stopped by a signal, a debugger or the freezer.
    Stopped = 20,
    /// A kernel thread without work.
    KernelThread = 21,
    /// A system call of a 32-bit program: their numbers are not told apart.
    Syscall32 = 22,
    /// Another system call.
    Other = 23,
}

impl Cause {
    /// Number of causes; each is less.
    pub const COUNT: usize = 24;

    /// All, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unknown,
        Self::Futex,
        Self::Poll,
        Self::SocketRead,
        Self::SocketWrite,
        Self::SocketAccept,
        Self::SocketConnect,
        Self::Pipe,
        Self::File,
        Self::Disk,
        Self::Device,
        Self::EventFile,
        Self::FileLock,
        Self::PageFault,
        Self::Sleep,
        Self::Wait,
        Self::Signal,
        Self::Ipc,
        Self::IoUring,
        Self::Lock,
        Self::Stopped,
        Self::KernelThread,
        Self::Syscall32,
        Self::Other,
    ];

    /// The cause of that number, [`Cause::Unknown`] if there is none.
    pub const fn from_number(number: u8) -> Self {
        if (number as usize) < Self::COUNT { Self::ALL[number as usize] } else { Self::Unknown }
    }

    /// Its name in reports (stable).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Futex => "futex",
            Self::Poll => "poll",
            Self::SocketRead => "socket-read",
            Self::SocketWrite => "socket-write",
            Self::SocketAccept => "socket-accept",
            Self::SocketConnect => "socket-connect",
            Self::Pipe => "pipe",
            Self::File => "file",
            Self::Disk => "disk",
            Self::Device => "device",
            Self::EventFile => "event-file",
            Self::FileLock => "file-lock",
            Self::PageFault => "page-fault",
            Self::Sleep => "sleep",
            Self::Wait => "wait",
            Self::Signal => "signal",
            Self::Ipc => "ipc",
            Self::IoUring => "io_uring",
            Self::Lock => "lock",
            Self::Stopped => "stopped",
            Self::KernelThread => "kernel-thread",
            Self::Syscall32 => "syscall-32bit",
            Self::Other => "other",
        }
    }
}

const _: () = {
    let mut i = 0;
    while i < Cause::COUNT {
        assert!(Cause::ALL[i] as usize == i);
        i += 1;
    }
};

/// `TASK_UNINTERRUPTIBLE`: `D` in ps(1).
pub const UNINTERRUPTIBLE: u32 = 0x2;
/// `__TASK_STOPPED`, `__TASK_TRACED`, and `TASK_FROZEN` (since 6.1, f5d39b020809).
const STOPPED: u32 = 0x4 | 0x8 | 0x8000;
/// `TASK_DEAD`: the task leaves the CPU for good.
pub const DEAD: u32 = 0x80;
/// `TASK_NOLOAD`: with [`UNINTERRUPTIBLE`] an idle kernel thread.
const NOLOAD: u32 = 0x400;

/// Whether a state is `D` as ps(1) shows it: uninterruptible, and not idle.
#[inline(always)]
pub const fn is_uninterruptible(state: u32) -> bool {
    state & (UNINTERRUPTIBLE | NOLOAD) == UNINTERRUPTIBLE
}

/// How a task came into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It never was elsewhere: a kernel thread.
    Kernel,
    /// By this system call.
    Syscall(u32),
    /// By a system call with the numbers of another architecture.
    Syscall32,
    /// By an exception or an interrupt.
    Exception,
    /// Not known.
    Unknown,
}

/// The file that a system call works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Not known, or none of the others.
    Unknown,
    /// A pipe or FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// A regular file, a directory or a block device.
    Stored,
    /// A character device.
    Device,
    /// One without a name: eventfd, timerfd ...
    Anonymous,
}

/// `ANON_INODE_FS_MAGIC` (include/uapi/linux/magic.h). Such files are regular ones by their mode since Linux 6.16
/// (cfd86ef7e8e7), and of no kind before.
pub const ANONYMOUS_FILES: u64 = 0x0904_1934;

impl FileKind {
    /// From `inode.i_mode`.
    #[inline(always)]
    pub const fn from_mode(mode: u16) -> Self {
        // S_IFMT and S_IF*, include/uapi/linux/stat.h.
        match mode & 0o170_000 {
            0o010_000 => Self::Pipe,
            0o140_000 => Self::Socket,
            0o020_000 => Self::Device,
            0o040_000 | 0o060_000 | 0o100_000 => Self::Stored,
            0 => Self::Anonymous,
            _ => Self::Unknown,
        }
    }
}

/// The class of the system call that a task is in; `None` if it is in none.
#[inline(always)]
pub const fn class(entry: Entry, arch: syscall::Arch) -> Option<Class> {
    match entry {
        Entry::Syscall(number) => Some(arch.class(number)),
        _ => None,
    }
}

/// Why a task in that state (not 0) is blocked. `iowait` is its `in_iowait`; `file` is only looked at where the class
/// asks for it ([`Class::asks_for_file`]).
#[inline(always)]
pub const fn cause(state: u32, iowait: bool, entry: Entry, class: Option<Class>, file: FileKind) -> Cause {
    if state & STOPPED != 0 {
        return Cause::Stopped;
    }
    if let Entry::Exception = entry {
        return Cause::PageFault;
    }
    if iowait {
        return Cause::Disk;
    }
    let waits_for = match (entry, class) {
        (Entry::Kernel, _) => Cause::KernelThread,
        (Entry::Syscall32, _) => return Cause::Syscall32,
        (Entry::Syscall(_), Some(class)) => class.cause(file),
        _ => return Cause::Unknown,
    };
    let by_calls_that_wait_so = matches!(waits_for, Cause::File | Cause::Disk | Cause::Wait | Cause::IoUring);
    if is_uninterruptible(state) && !by_calls_that_wait_so { Cause::Lock } else { waits_for }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::syscall::Arch;

    const S: u32 = 1;
    const D: u32 = 2;

    fn of(state: u32, iowait: bool, entry: Entry, file: FileKind) -> &'static str {
        cause(state, iowait, entry, class(entry, Arch::X86_64), file).name()
    }

    fn call(state: u32, number: u32, file: FileKind) -> &'static str {
        of(state, false, Entry::Syscall(number), file)
    }

    #[test]
    fn the_call_tells_and_for_reads_and_writes_the_file() {
        use FileKind::{Anonymous, Device, Pipe, Socket, Stored, Unknown};
        assert_eq!(call(S, 202, Unknown), "futex");
        assert_eq!(call(S, 232, Unknown), "poll");
        assert_eq!(call(S, 230, Unknown), "sleep");
        assert_eq!(call(S, 61, Unknown), "wait");
        assert_eq!(
            [Pipe, Socket, Stored, Device, Anonymous, Unknown].map(|file| call(S, 0, file)),
            ["pipe", "socket-read", "file", "device", "event-file", "other"]
        );
        assert_eq!([Pipe, Socket].map(|file| call(S, 1, file)), ["pipe", "socket-write"]);
        assert_eq!(call(S, 100_000, Unknown), "other");
    }

    #[test]
    fn the_state_tells_locks_and_disks() {
        let unknown = FileKind::Unknown;
        // mmap, D: the lock of the address space. write to a pipe, D: the pipe's mutex. futex, D: the hash bucket's.
        assert_eq!(call(D, 9, unknown), "lock");
        assert_eq!(call(D, 1, FileKind::Pipe), "lock");
        assert_eq!(call(D, 1, FileKind::Stored), "file");
        assert_eq!(of(D, true, Entry::Syscall(0), FileKind::Stored), "disk");
        // vfork waits killably for its child.
        assert_eq!(call(D | 0x100, 58, unknown), "wait");
        assert_eq!(of(D, true, Entry::Exception, unknown), "page-fault");
        assert_eq!(of(0x8, false, Entry::Syscall(0), unknown), "stopped");
    }

    #[test]
    fn kernel_threads_and_32_bit_programs_are_not_taken_for_others() {
        let unknown = FileKind::Unknown;
        assert_eq!(of(S, false, Entry::Kernel, unknown), "kernel-thread");
        assert_eq!(of(D | NOLOAD, false, Entry::Kernel, unknown), "kernel-thread");
        assert_eq!(of(D, false, Entry::Kernel, unknown), "lock");
        assert_eq!(of(D, true, Entry::Kernel, unknown), "disk");
        assert_eq!(of(S, false, Entry::Syscall32, unknown), "syscall-32bit");
        assert_eq!(of(S, false, Entry::Unknown, unknown), "unknown");
    }

    #[test]
    fn numbers_and_names_are_unique() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_number(cause as u8), cause);
            assert_eq!(Cause::ALL.iter().filter(|other| other.name() == cause.name()).count(), 1);
        }
        assert_eq!(Cause::from_number(200), Cause::Unknown);
    }
}
