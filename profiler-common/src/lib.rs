//! What the eBPF programs and user space must agree on: map keys and values, loss counters, the stack hash.
//!
//! Everything here is `no_std`, has a fixed layout (`repr(C)`, no implicit padding, asserted sizes) and is plain
//! arithmetic, so that the host's tests cover what the kernel side computes. One file per concept; a probe's own
//! types live in `probe/` under the probe's name, as on both other sides.

#![no_std]

pub mod filter;
pub mod hist;
pub mod loss;
pub mod probe;
pub mod registers;
pub mod sample;
pub mod sched;
pub mod stack;
pub mod task;
pub mod tuning;
pub mod unwind;

/// Bytes of a task's command name in the kernel, the terminating NUL included (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// A task's command name as the kernel stores it: NUL-padded, any bytes (the task chooses them).
pub type Comm = [u8; COMM_LEN];
