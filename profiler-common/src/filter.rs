//! The in-kernel filter: which tasks a probe looks at, decided before any stack is walked.
//!
//! User space writes one [`FilterConfig`] into a read-only global before load, so that the verifier removes the code of
//! every part that is off.

use crate::{COMM_LEN, Comm};

/// What is compared for each event. All parts that are on must match.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterConfig {
    /// 1: the task's process id must be in the `TARGETS` map.
    pub by_process: u32,
    /// 1: processes forked by a target become targets.
    pub follow_children: u32,
    /// Not 0: the task's cgroup (v2) or one of its ancestors must have this id.
    pub cgroup_id: u64,
    /// The level of that cgroup below the root, for `bpf_get_current_ancestor_cgroup_id`.
    pub cgroup_level: u32,
    /// Bytes of `comm` that are compared; 0: any command.
    pub comm_len: u32,
    /// The command name, compared with the task's own (a thread's name) as a whole, NUL-padded.
    pub comm: Comm,
    /// A process that is never sampled: the profiler itself, if `--exclude-self`. 0: none.
    pub exclude_pid: u32,
    /// 1: only samples that hit user mode. 2: only samples that hit kernel mode. 0: both.
    pub mode: u32,
}

/// [`FilterConfig::mode`]: sample user mode only.
pub const MODE_USER: u32 = 1;
/// [`FilterConfig::mode`]: sample kernel mode only.
pub const MODE_KERNEL: u32 = 2;

const _: () = assert!(size_of::<FilterConfig>() == 4 + 4 + 8 + 4 + 4 + COMM_LEN + 4 + 4);

impl FilterConfig {
    /// Matches everything.
    pub const ALL: Self = Self {
        by_process: 0,
        follow_children: 0,
        cgroup_id: 0,
        cgroup_level: 0,
        comm_len: 0,
        comm: [0; COMM_LEN],
        exclude_pid: 0,
        mode: 0,
    };

    /// Whether every process is looked at, but for one at most.
    #[inline(always)]
    pub const fn is_open(&self) -> bool {
        self.by_process == 0 && self.comm_len == 0 && self.cgroup_id == 0
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for FilterConfig {}
