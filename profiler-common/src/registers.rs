//! The user registers of a task as the kernel keeps them while the task is in the kernel: where in `struct pt_regs` the
//! ones are that a stack walk starts from, and whether they are a user program's at all.
//!
//! The front of `struct pt_regs` is the layout that ptrace(2) shows to user space, and so does not change; what newer
//! kernels add stands behind it.

/// What a stack walk starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction that the task goes on with in user mode.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer (`rbp`, `x29`).
    pub fp: u64,
    /// Link register (`x30`); 0 on x86-64, where the return address is on the stack.
    pub lr: u64,
}

/// x86-64: arch/x86/include/uapi/asm/ptrace.h.
pub mod x86_64 {
    use super::Registers;

    /// Bytes from the start to `rbp`, behind r15, r14, r13 and r12.
    pub const FRAME_POINTER: usize = 4 * 8;
    /// Bytes from the start to [`Frame`], behind 16 registers: r15 to rdi and `orig_rax`.
    pub const FRAME: usize = 16 * 8;

    /// What the processor itself saved at the entry of the kernel.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    pub struct Frame {
        /// Instruction pointer.
        pub rip: u64,
        /// Code segment. With FRED the bits from 16 up tell of the event.
        pub cs: u64,
        /// Flags.
        pub rflags: u64,
        /// Stack pointer.
        pub rsp: u64,
        /// Stack segment.
        pub ss: u64,
    }

    /// Bytes from the start to the stack pointer.
    pub const STACK_POINTER: usize = FRAME + core::mem::offset_of!(Frame, rsp);

    /// `sizeof(struct pt_regs)`.
    pub const SIZE: usize = FRAME + size_of::<Frame>();
    const _: () = assert!(SIZE == 168);

    /// `__USER_CS`: 64-bit user code (arch/x86/include/asm/segment.h).
    const USER_CS: u16 = 0x33;
    /// The same in a paravirtualized Xen guest (`FLAT_USER_CS64`, include/xen/arch-x86_64).
    const XEN_USER_CS: u16 = 0xe033;

    /// The registers, if they are those of a 64-bit program: kernel threads have zeros, 32-bit programs another segment.
    #[inline(always)]
    pub const fn user(frame: Frame, rbp: u64) -> Option<Registers> {
        match frame.cs as u16 {
            USER_CS | XEN_USER_CS => Some(Registers { pc: frame.rip, sp: frame.rsp, fp: rbp, lr: 0 }),
            _ => None,
        }
    }
}

/// arm64: `struct user_pt_regs`, arch/arm64/include/uapi/asm/ptrace.h.
pub mod aarch64 {
    use super::Registers;

    /// Bytes from the start to [`Frame`], behind x0 to x28.
    pub const FRAME: usize = 29 * 8;

    /// The end of the registers that user space knows.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    pub struct Frame {
        /// Frame pointer.
        pub x29: u64,
        /// Link register.
        pub x30: u64,
        /// Stack pointer.
        pub sp: u64,
        /// Instruction pointer.
        pub pc: u64,
        /// Processor state.
        pub pstate: u64,
    }

    const _: () = assert!(FRAME + size_of::<Frame>() == (31 + 3) * 8);

    /// Bytes from the start to the stack pointer.
    pub const STACK_POINTER: usize = FRAME + core::mem::offset_of!(Frame, sp);

    /// PSR_MODE_MASK and PSR_MODE32_BIT: exception level, stack and whether the code is 32-bit; 0 is 64-bit user mode.
    const MODE: u64 = 0x1f;

    /// The registers, if they are those of a 64-bit program: kernel threads have the mode EL1h.
    #[inline(always)]
    pub const fn user(frame: Frame) -> Option<Registers> {
        if frame.pstate & MODE != 0 {
            return None;
        }
        Some(Registers { pc: frame.pc, sp: frame.sp, fp: frame.x29, lr: frame.x30 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_bit_user_mode_has_user_registers_on_x86() {
        let frame = |cs| x86_64::Frame { rip: 1, cs, rflags: 0, rsp: 2, ss: 0 };
        let registers = Some(Registers { pc: 1, sp: 2, fp: 3, lr: 0 });
        // 64-bit, with FRED's event bits, under Xen.
        for cs in [0x33, 0x0003_0000_0000_0033, 0xe033] {
            assert_eq!(x86_64::user(frame(cs), 3), registers, "{cs:#x}");
        }
        // Kernel thread, kernel code, 32-bit.
        for cs in [0, 0x10, 0x23] {
            assert_eq!(x86_64::user(frame(cs), 3), None, "{cs:#x}");
        }
    }

    #[test]
    fn only_64_bit_user_mode_has_user_registers_on_arm() {
        let frame = |pstate| aarch64::Frame { x29: 3, x30: 4, sp: 2, pc: 1, pstate };
        let registers = Some(Registers { pc: 1, sp: 2, fp: 3, lr: 4 });
        // Flags (Z, C), and the bits for single step and speculation.
        assert_eq!(aarch64::user(frame(0x6000_1000)), registers);
        // EL1h, 32-bit user mode.
        for pstate in [0x5, 0x10] {
            assert_eq!(aarch64::user(frame(pstate)), None, "{pstate:#x}");
        }
    }
}
