//! The scheduler as the programs see it: why a task is blocked, and where the kernel keeps what tells it.

pub mod cause;
pub mod offsets;
pub mod syscall;
pub mod wait;
pub mod waker;
