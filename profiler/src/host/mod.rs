//! Every fact about the host: the kernel and its limits, privileges, CPUs, cgroups, namespaces, processes.
//!
//! One small typed module per source. Readers are bounded and tolerant: a file that is missing or may not be read is a
//! fact (`None`, or a typed error that says which), never a panic. What parses bytes is a pure function of those bytes,
//! tested on fixtures. Facts that no file tells truthfully (may this process call bpf(2)?) are found by trying.
//!
//! Knows nothing of probes, reports or the command line.

pub mod bpf;
pub mod btf;
pub mod caps;
pub mod cgroup;
pub mod container;
pub mod cpu_times;
pub mod cpus;
pub mod features;
pub mod file;
pub mod fs;
pub mod heap;
pub mod kernel;
pub mod kernel_stack;
pub mod limits;
pub mod namespaces;
pub mod network;
pub mod pmu;
pub mod process;
pub mod services;
pub mod sockets;
pub mod symbols;
pub mod syscalls;
pub mod tracefs;
