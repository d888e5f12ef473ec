//! Tasks as the scheduler's tracepoints hand them over: why one is blocked.

pub mod blocked;
pub mod member;
