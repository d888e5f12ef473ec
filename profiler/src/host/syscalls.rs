//! Names of system calls and of their errors: the numbers of the kernels' tables, from the crate `syscalls`.

use std::borrow::Cow;

use profiler_common::probe::syscalls::COMPAT;
use syscalls::{Errno, aarch64, arm, x86, x86_64};

/// `__X32_SYSCALL_BIT` (arch/x86/include/uapi/asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// `__ARM_NR_COMPAT_BASE` (arch/arm64/include/asm/unistd.h), and the calls behind it.
const ARM_PRIVATE: [(u32, &str); 5] = [
    (0xf_0001, "breakpoint"),
    (0xf_0002, "cacheflush"),
    (0xf_0003, "usr26"),
    (0xf_0004, "usr32"),
    (0xf_0005, "set_tls"),
];

/// Whose numbers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// 64-bit programs on x86.
    X86_64,
    /// Programs with 32-bit pointers in 64-bit mode on x86.
    X32,
    /// 32-bit programs on x86.
    I386,
    /// 64-bit programs on arm.
    Aarch64,
    /// 32-bit programs on arm.
    Arm,
}

impl Abi {
    /// That of a number as the kernel side gives it, and the number itself.
    pub const fn of(number: u32) -> (Self, u32) {
        let is_x86 = cfg!(target_arch = "x86_64");
        let plain = number & !COMPAT;
        match (is_x86, number & COMPAT != 0) {
            (true, true) => (Self::I386, plain),
            (false, true) => (Self::Arm, plain),
            (true, false) if plain & X32_BIT != 0 => (Self::X32, plain & !X32_BIT),
            (true, false) => (Self::X86_64, plain),
            (false, false) => (Self::Aarch64, plain),
        }
    }

    /// As reports have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::X32 => "x32",
            Self::I386 => "i386",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The name of a call; `syscall_NNN` if it is not known.
    pub fn call(self, number: u32) -> Cow<'static, str> {
        let index = number as usize;
        let found = match self {
            Self::X86_64 => x86_64::Sysno::new(index).map(|call| call.name()),
            // The numbers from 512 on are its own, and no other's.
            Self::X32 => x86_64::Sysno::new(index).filter(|_| number < 512).map(|call| call.name()),
            Self::I386 => x86::Sysno::new(index).map(|call| call.name()),
            Self::Aarch64 => aarch64::Sysno::new(index).map(|call| call.name()),
            Self::Arm => arm::Sysno::new(index).map(|call| call.name()).or_else(|| {
                ARM_PRIVATE.iter().find(|&&(private, _)| private == number).map(|&(_, name)| name)
            }),
        };
        found.map_or_else(|| Cow::Owned(format!("syscall_{number}")), Cow::Borrowed)
    }
}

/// What a call that returns a number of bytes does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transfer {
    /// From a file, pipe, socket or device.
    Read,
    /// To one.
    Written,
    /// From a socket.
    Received,
    /// To one.
    Sent,
    /// From one file to another inside of the kernel.
    Copied,
}

impl Transfer {
    /// That of the call of this name; `None` if it returns something else: `sendmmsg` and `recvmmsg` return a number of
    /// messages.
    pub fn of(syscall: &str) -> Option<Self> {
        Some(match syscall {
            "read" | "readv" | "pread64" | "preadv" | "preadv2" => Self::Read,
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => Self::Written,
            "recv" | "recvfrom" | "recvmsg" => Self::Received,
            "send" | "sendto" | "sendmsg" => Self::Sent,
            "sendfile" | "sendfile64" | "splice" | "vmsplice" | "tee" | "copy_file_range" => Self::Copied,
            _ => return None,
        })
    }
}

/// The name of an error, those included that the kernel keeps to itself (`ERESTARTSYS`); `errno_NNN` if it is not known.
pub fn error(errno: u32) -> String {
    let known = i32::try_from(errno).ok().and_then(|errno| Errno::new(errno).name());
    known.map_or_else(|| format!("errno_{errno}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_their_abi() {
        for (abi, number, name) in [
            (Abi::X86_64, 0, "read"),
            (Abi::X86_64, 110, "getppid"),
            (Abi::X86_64, 15, "rt_sigreturn"),
            (Abi::X86_64, 462, "mseal"),
            (Abi::X86_64, 9_999, "syscall_9999"),
            (Abi::X32, 0, "read"),
            (Abi::X32, 520, "syscall_520"),
            (Abi::I386, 3, "read"),
            (Abi::I386, 64, "getppid"),
            (Abi::Aarch64, 63, "read"),
            (Abi::Aarch64, 173, "getppid"),
            (Abi::Aarch64, 452, "fchmodat2"),
            (Abi::Arm, 3, "read"),
            (Abi::Arm, 0xf_0002, "cacheflush"),
        ] {
            assert_eq!(abi.call(number), name, "{abi:?} {number}");
        }
    }

    #[test]
    fn the_names_are_those_of_this_machines_headers() {
        for (number, name) in [
            (libc::SYS_openat, "openat"),
            (libc::SYS_futex, "futex"),
            (libc::SYS_clone3, "clone3"),
            (libc::SYS_exit_group, "exit_group"),
            (libc::SYS_nanosleep, "nanosleep"),
            (libc::SYS_pselect6, "pselect6"),
            (libc::SYS_restart_syscall, "restart_syscall"),
        ] {
            let (abi, number) = Abi::of(number as u32);
            assert_eq!(abi.call(number), name);
        }
        for (errno, name) in [
            (libc::EBADF, "EBADF"),
            (libc::EAGAIN, "EAGAIN"),
            (libc::ENOENT, "ENOENT"),
            (libc::EINTR, "EINTR"),
            (libc::EHWPOISON, "EHWPOISON"),
        ] {
            assert_eq!(error(errno as u32), name);
        }
        assert_eq!(
            (error(512), error(516), error(4000)),
            ("ERESTARTSYS".to_owned(), "ERESTART_RESTARTBLOCK".to_owned(), "errno_4000".to_owned())
        );
    }

    #[test]
    fn calls_that_return_bytes_are_known_by_name() {
        let of = |number: i64| Transfer::of(&Abi::of(number as u32).0.call(number as u32));
        assert_eq!(
            [libc::SYS_pread64, libc::SYS_writev, libc::SYS_recvfrom, libc::SYS_sendmsg].map(of),
            [Transfer::Read, Transfer::Written, Transfer::Received, Transfer::Sent].map(Some)
        );
        assert_eq!(
            [libc::SYS_sendfile, libc::SYS_sendmmsg, libc::SYS_mmap].map(of),
            [Some(Transfer::Copied), None, None]
        );
    }

    #[test]
    fn compat_numbers_are_another_abis() {
        let (abi, number) = Abi::of(COMPAT | 4);
        assert_eq!((&*abi.call(number), number), ("write", 4));
    }
}
