//! The command line: arguments, commands, errors with their exit codes.

pub mod args;
pub mod doctor;
pub mod error;
mod event;
pub mod explain;
pub mod generate;
pub mod java;
mod java_events;
pub mod jvm;
mod kernel_facts;
mod kprobe;
pub mod list;
mod near;
pub mod net;
pub mod packets;
pub mod record;
pub mod report;
pub mod sched;
pub mod spans;
pub mod stat;
pub mod syscalls;
mod target;
mod tracepoint;
pub mod unwind_table;
mod uprobe;
mod usdt;
