//! Unwinding native user stacks by table, the user-space side.
//!
//! Most distribution binaries keep no frame pointers, but nearly all of them carry `.eh_frame`, which says for each
//! address how the caller's registers are found. [`eh_frame`] turns it into a [`table::Table`] once per file; the
//! kernel side walks with the table at sample time, by the decisions that `profiler_common::unwind` holds for both.
//! Tables that took long to make are kept on disk ([`cache`]).

pub mod cache;
pub mod eh_frame;
pub mod rules;
pub mod table;
