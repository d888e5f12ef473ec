//! What the kernel counts of a loaded program: bpf(2)'s `BPF_OBJ_GET_INFO_BY_FD`, one call where its fdinfo takes four, and no text.
//!
//! Layouts: `union bpf_attr` and `struct bpf_prog_info`, include/uapi/linux/bpf.h; bpf_prog_get_info_by_fd in
//! kernel/bpf/syscall.c.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Numbers of one program, or of some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Time in it, ns, while that is accounted ([`super::stats::RunTime`]).
    pub ns: u64,
    /// How often it ran meanwhile.
    pub count: u64,
    /// How often the kernel left it out, because it was running on that CPU (Linux 5.12; older kernels leave none out).
    pub missed: u64,
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// The command's part of `union bpf_attr`.
#[repr(C)]
struct Attr {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    others: [u64; 24],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
}

const _: () = assert!(size_of::<Attr>() == 16 && offset_of!(Info, run_time_ns) == 192);

impl Runs {
    /// Those of a program.
    ///
    /// # Errors
    /// That of bpf(2).
    pub fn of(program: BorrowedFd<'_>) -> io::Result<Self> {
        let mut info = Info::default();
        let attr = Attr {
            fd: program.as_raw_fd() as u32,
            info_len: size_of::<Info>() as u32,
            info: (&raw mut info).addr() as u64,
        };
        // SAFETY: a valid attr of its size. The kernel writes `info_len` bytes at most into `info`, which outlives the call;
        // what it does not know stays 0. Nothing is asked for that would need further buffers: their lengths in `info` are 0.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<Attr>())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { ns: info.run_time_ns, count: info.run_cnt, missed: info.recursion_misses })
    }

    /// What was added since an earlier moment.
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            ns: self.ns.saturating_sub(before.ns),
            count: self.count.saturating_sub(before.count),
            missed: self.missed.saturating_sub(before.missed),
        }
    }

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self { ns: self.ns + other.ns, count: self.count + other.count, missed: self.missed + other.missed }
    }

    /// All together.
    pub fn sum(runs: impl Iterator<Item = Self>) -> Self {
        runs.fold(Self::default(), Self::and)
    }
}
