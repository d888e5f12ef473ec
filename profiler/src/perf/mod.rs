//! perf_event_open(2): the timer samples that drive the `cpu` probe, and the kernel's own stream of process events.
//!
//! Process events (exec, fork, exit, executable mmap, command change, BPF symbols) come from perf's side band, a dummy
//! software event per CPU with a ring buffer. It needs no probe on any system call, carries the mapped file's build id
//! (Linux 5.12), and is ordered by the same clock as the samples (`CLOCK_MONOTONIC`).

pub mod clock;
pub mod counters;
pub mod hook;
pub mod record;
pub mod ring;
pub mod sampler;
pub mod sideband;
