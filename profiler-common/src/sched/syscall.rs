//! What system calls wait for, by their numbers: arch/x86/entry/syscalls/syscall_64.tbl and
//! include/uapi/asm-generic/unistd.h. Numbers from 424 on are the same everywhere.
//!
//! Calls that do not wait, or for nothing that has a name of its own here, are [`Class::Other`].

use super::cause::{Cause, FileKind};

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Always the same.
    Waits(Cause),
    /// Data from the file that its first argument names.
    Reads,
    /// Room in the file that its first argument names.
    Writes,
    /// Something else.
    Other,
}

impl Class {
    /// Whether the file that the first argument names must be known.
    #[inline(always)]
    pub const fn asks_for_file(self) -> bool {
        matches!(self, Self::Reads | Self::Writes)
    }

    /// What is waited for.
    #[inline(always)]
    pub const fn cause(self, file: FileKind) -> Cause {
        match (self, file) {
            (Self::Waits(cause), _) => cause,
            (Self::Other, _) | (_, FileKind::Unknown) => Cause::Other,
            (Self::Reads, FileKind::Socket) => Cause::SocketRead,
            (Self::Writes, FileKind::Socket) => Cause::SocketWrite,
            (_, FileKind::Pipe) => Cause::Pipe,
            (_, FileKind::Stored) => Cause::File,
            (_, FileKind::Device) => Cause::Device,
            (_, FileKind::Anonymous) => Cause::EventFile,
        }
    }
}

/// Whose numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86-64; x32 programs set [`X32_BIT`] in addition.
    X86_64,
    /// arm64.
    Aarch64,
}

/// `__X32_SYSCALL_BIT` (arch/x86/include/uapi/asm/unistd.h).
pub const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// What the call of that number waits for.
    #[inline(always)]
    pub const fn class(self, number: u32) -> Class {
        match self {
            Self::X86_64 => x86_64(number & !X32_BIT),
            Self::Aarch64 => aarch64(number),
        }
    }
}

#[inline(always)]
const fn x86_64(number: u32) -> Class {
    match number {
        // read, readv, pread64, preadv, preadv2, splice, tee
        0 | 17 | 19 | 275 | 276 | 295 | 327 => Class::Reads,
        // write, writev, pwrite64, pwritev, pwritev2, sendfile, vmsplice
        1 | 18 | 20 | 40 | 278 | 296 | 328 => Class::Writes,
        202 => Class::Waits(Cause::Futex),
        // poll, select, epoll_wait, pselect6, ppoll, epoll_pwait
        7 | 23 | 215 | 232 | 270 | 271 | 281 => Class::Waits(Cause::Poll),
        45 | 47 | 299 => Class::Waits(Cause::SocketRead),
        44 | 46 | 307 => Class::Waits(Cause::SocketWrite),
        43 | 288 => Class::Waits(Cause::SocketAccept),
        42 => Class::Waits(Cause::SocketConnect),
        // fcntl, flock
        72 | 73 => Class::Waits(Cause::FileLock),
        35 | 230 => Class::Waits(Cause::Sleep),
        // clone and vfork (until the child has executed a program), wait4, waitid
        56 | 58 | 61 | 247 => Class::Waits(Cause::Wait),
        // pause, rt_sigtimedwait, rt_sigsuspend
        34 | 128 | 130 => Class::Waits(Cause::Signal),
        // semop, msgsnd, msgrcv, semtimedop, mq_timedsend, mq_timedreceive
        65 | 69 | 70 | 220 | 242 | 243 => Class::Waits(Cause::Ipc),
        // open, close, stat, lseek, access, msync, execve, fsync ... chown, utime, mknod, statfs, sync, mount, readahead,
        // extended attributes, io_getevents, io_submit, getdents64, fadvise64, utimes, openat ... faccessat,
        // sync_file_range, utimensat, fallocate, file handles, syncfs, renameat2, execveat, copy_file_range, statx,
        // io_pgetevents
        2..=6
        | 8
        | 21
        | 26
        | 59
        | 74..=94
        | 132
        | 133
        | 137
        | 138
        | 162
        | 165
        | 166
        | 187..=199
        | 208
        | 209
        | 217
        | 221
        | 235
        | 257..=269
        | 277
        | 280
        | 285
        | 303
        | 304
        | 306
        | 316
        | 322
        | 326
        | 332
        | 333 => Class::Waits(Cause::File),
        number => generic(number),
    }
}

#[inline(always)]
const fn aarch64(number: u32) -> Class {
    match number {
        // read, readv, pread64, preadv, splice, tee, preadv2
        63 | 65 | 67 | 69 | 76 | 77 | 286 => Class::Reads,
        // write, writev, pwrite64, pwritev, sendfile, vmsplice, pwritev2
        64 | 66 | 68 | 70 | 71 | 75 | 287 => Class::Writes,
        98 => Class::Waits(Cause::Futex),
        // epoll_pwait, pselect6, ppoll
        22 | 72 | 73 => Class::Waits(Cause::Poll),
        207 | 212 | 243 => Class::Waits(Cause::SocketRead),
        206 | 211 | 269 => Class::Waits(Cause::SocketWrite),
        202 | 242 => Class::Waits(Cause::SocketAccept),
        203 => Class::Waits(Cause::SocketConnect),
        // fcntl, flock
        25 | 32 => Class::Waits(Cause::FileLock),
        101 | 115 => Class::Waits(Cause::Sleep),
        // waitid, clone, wait4
        95 | 220 | 260 => Class::Waits(Cause::Wait),
        // rt_sigsuspend, rt_sigtimedwait
        133 | 137 => Class::Waits(Cause::Signal),
        // mq_timedsend, mq_timedreceive, msgrcv, msgsnd, semtimedop, semop
        182 | 183 | 188 | 189 | 192 | 193 => Class::Waits(Cause::Ipc),
        // io_submit, io_getevents, extended attributes, getcwd, mknodat ... mount, statfs ... fchdir, fchmod ... close,
        // getdents64, lseek, readlinkat ... sync_file_range, utimensat, readahead, execve, fadvise64, msync, file
        // handles, syncfs, renameat2, execveat, copy_file_range, statx, io_pgetevents
        2
        | 4..=17
        | 33..=40
        | 43..=50
        | 52..=57
        | 61
        | 62
        | 78..=84
        | 88
        | 213
        | 221
        | 223
        | 227
        | 264
        | 265
        | 267
        | 276
        | 281
        | 285
        | 291
        | 292 => Class::Waits(Cause::File),
        number => generic(number),
    }
}

/// The numbers that all architectures share.
#[inline(always)]
const fn generic(number: u32) -> Class {
    match number {
        426 => Class::Waits(Cause::IoUring),
        // clone3
        435 => Class::Waits(Cause::Wait),
        // openat2, faccessat2
        437 | 439 => Class::Waits(Cause::File),
        // epoll_pwait2
        441 => Class::Waits(Cause::Poll),
        // futex_waitv, futex_wait, futex_requeue
        449 | 455 | 456 => Class::Waits(Cause::Futex),
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_mean_the_same_on_both_architectures() {
        // read, write, futex, ppoll, accept, nanosleep, wait4, fsync, mmap, and a shared number.
        let pairs = [
            (0, 63),
            (1, 64),
            (202, 98),
            (271, 73),
            (43, 202),
            (35, 101),
            (61, 260),
            (74, 82),
            (9, 222),
            (426, 426),
        ];
        for (x86, arm) in pairs {
            assert_eq!(Arch::X86_64.class(x86), Arch::Aarch64.class(arm), "{x86} {arm}");
        }
    }

    #[test]
    fn x32_programs_have_the_same_numbers() {
        assert_eq!(Arch::X86_64.class(202 | X32_BIT), Class::Waits(Cause::Futex));
    }
}
