//! One module per probe, under the name that the probe has on the kernel side and in user space.

pub mod between;
pub mod cpu;
pub mod kprobe;
pub mod net;
pub mod net_stacks;
pub mod offcpu;
pub mod packets;
pub mod sched;
pub mod socket_packets;
pub mod switches;
pub mod syscall_stacks;
pub mod syscalls;
pub mod tracepoint;
pub mod uprobe;
