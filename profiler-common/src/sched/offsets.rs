//! What the programs must be told about the kernel to tell why a task is blocked; from the running kernel's BTF,
//! patched in before load. `task::TaskOffsets` has the members that all probes read.

/// Offsets in bytes, each from the start of the structure that is named.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedOffsets {
    /// 1: the offsets below are known.
    pub known: u32,
    /// `task_struct.__state` (`state`, a long, before 5.14; its low 32 bits are read).
    pub state: u32,
    /// `task_struct.in_iowait`: the byte that the bit is in.
    pub in_iowait: u32,
    /// The bit in that byte, as a mask.
    pub in_iowait_mask: u32,
    /// `task_struct.nvcsw`: voluntary switches.
    pub nvcsw: u32,
    /// `task_struct.nivcsw`: involuntary switches.
    pub nivcsw: u32,
    /// `task_struct.sched_info.run_delay`: ns that it has waited for a CPU. 0: the kernel does not count it.
    pub run_delay: u32,
    /// `task_struct.comm`.
    pub comm: u32,
    /// `task_struct.exit_state`.
    pub exit_state: u32,
    /// `task_struct.on_cpu`.
    pub on_cpu: u32,
    /// `task_struct.on_rq`.
    pub on_rq: u32,
    /// `task_struct.files`.
    pub files: u32,
    /// `files_struct.fdt`.
    pub fdt: u32,
    /// `fdtable.max_fds`.
    pub max_fds: u32,
    /// `fdtable.fd`.
    pub fd: u32,
    /// `file.f_inode`.
    pub f_inode: u32,
    /// `inode.i_mode`.
    pub i_mode: u32,
    /// `inode.i_sb`.
    pub i_sb: u32,
    /// `super_block.s_magic`.
    pub s_magic: u32,
    /// `task_struct.thread_info` + `thread_info.status` (x86-64) or `thread_info.flags` (arm64).
    pub thread_status: u32,
}

const _: () = assert!(size_of::<SchedOffsets>() == 20 * 4);

impl SchedOffsets {
    /// Nothing known: the programs that need them are not loaded.
    pub const UNKNOWN: Self = Self {
        known: 0,
        state: 0,
        in_iowait: 0,
        in_iowait_mask: 0,
        nvcsw: 0,
        nivcsw: 0,
        run_delay: 0,
        comm: 0,
        exit_state: 0,
        on_cpu: 0,
        on_rq: 0,
        files: 0,
        fdt: 0,
        max_fds: 0,
        fd: 0,
        f_inode: 0,
        i_mode: 0,
        i_sb: 0,
        s_magic: 0,
        thread_status: 0,
    };
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for SchedOffsets {}
