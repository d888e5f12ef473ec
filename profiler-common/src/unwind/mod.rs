//! Unwinding user stacks by table: the tables' layout, and the decisions of one step from a frame to its caller.
//!
//! User space turns `.eh_frame` (or `.debug_frame`) of every executable file into a table: *rows* {address within a
//! 64 KiB page, rule}, found by binary search, and *rules*, which say how the caller's registers follow from the
//! frame's. The eBPF side walks with it at sample time ([`step`]); host tests walk recorded registers and stack memory
//! with the same functions and compare with another unwinder. Everything here is pure: memory is read through a closure.
//!
//! Sources: DWARF 5, section 6.4; System V ABI for x86-64 (CFA, register numbers) and for arm64; the Linux Standard
//! Base, `.eh_frame`.

pub mod java;
pub mod kernel;
pub mod map;
pub mod memo;
pub mod row;
pub mod rule;
pub mod step;

/// The architectures that are unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86-64: the return address is on the stack.
    X86_64,
    /// arm64: the return address is in x30 until a function saves it; it may carry a pointer authentication code.
    Aarch64,
}
