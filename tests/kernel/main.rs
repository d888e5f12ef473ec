//! Tests on this machine's kernel, with the real binary: `cargo xtask test --filter NAME`, or
//! `cargo test -p profiler-tests --test kernel -- --test-threads=1` as root.
//!
//! They run one after the other: each wants the CPUs for itself.

#![expect(clippy::unwrap_used, reason = "these are tests, their helper functions too")]

mod bad_input;
mod between;
mod columns;
mod command;
mod daemon;
mod disk;
mod fallbacks;
mod generic;
mod ground_truth;
mod hostile;
mod java_attach;
mod java_events;
mod java_mixed;
mod java_processes;
mod java_reuse;
mod java_stacks;
mod java_view;
mod jvm;
mod jvm_damage;
mod jvm_says;
mod kernel_code;
mod markers;
mod modes;
mod names;
mod net;
mod offcpu;
// Samples' registers and the rules of the other unwinder are those of this architecture.
#[cfg(target_arch = "x86_64")]
mod oracle;
mod packets;
mod places;
mod processes;
mod sched;
mod selection;
mod socket_packets;
mod stat;
mod switches;
mod syscall_stacks;
mod syscalls;
mod together;
mod unwind;
mod unwind_scale;
mod wakers;
