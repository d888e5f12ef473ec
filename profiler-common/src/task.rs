//! What the programs must be told about the kernel to read its tasks: offsets in `task_struct`, and which of the newer
//! ways to a task there are.

/// Offsets of `task_struct` members that the programs read, from the running kernel's BTF; patched in before load.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskOffsets {
    /// 1: the offsets below are known.
    pub known: u32,
    /// `task_struct.tgid`, bytes.
    pub tgid: u32,
    /// `task_struct.pid`, bytes.
    pub pid: u32,
    /// `task_struct.group_leader`, bytes.
    pub group_leader: u32,
    /// `task_struct.start_boottime` (`real_start_time` before 5.5), bytes.
    pub start_boottime: u32,
    /// `task_struct.self_exec_id`, bytes. The low 32 bits are read: it was u32 before 5.7.
    pub self_exec_id: u32,
    /// `task_struct.stack`, bytes: the kernel stack's lowest address.
    pub stack: u32,
    /// From there to the user registers (`struct pt_regs`) at the stack's upper end, bytes. 0: not known, or not needed
    /// because [`TASK_PT_REGS`] gives them.
    pub user_registers: u32,
    /// `task_struct.flags` (`PF_*`), bytes.
    pub flags: u32,
}

/// `PF_EXITING` of `task_struct.flags` (include/linux/sched.h).
pub const PF_EXITING: u32 = 0x4;

/// `PF_KTHREAD`, as above.
pub const PF_KTHREAD: u32 = 0x20_0000;

const _: () = assert!(size_of::<TaskOffsets>() == 36);

impl TaskOffsets {
    /// Nothing known: incarnations are 0 and children cannot be followed.
    pub const UNKNOWN: Self = Self {
        known: 0,
        tgid: 0,
        pid: 0,
        group_leader: 0,
        start_boottime: 0,
        self_exec_id: 0,
        stack: 0,
        user_registers: 0,
        flags: 0,
    };
}

/// Bit of the programs' global `HELPERS`: `bpf_get_current_task_btf` is there, so members are read by plain loads.
pub const TASK_BTF: u32 = 1 << 0;
/// Bit of the programs' global `HELPERS`: `bpf_task_pt_regs` is there. Only together with [`TASK_BTF`], whose result it
/// takes.
pub const TASK_PT_REGS: u32 = 1 << 1;

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for TaskOffsets {}
