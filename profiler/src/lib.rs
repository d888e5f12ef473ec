//! `profiler`: where the time of a Linux host and of its processes goes, from eBPF programs in the kernel to a report.
//!
//! # Tour
//!
//! Data flows one way, and each step has one place:
//!
//! | step | where |
//! |---|---|
//! | a probe's program filters, captures the stack, counts | `profiler-ebpf/src/probe/*.rs`, types in `profiler-common` |
//! | loading, map generations, counters | [`bpf`] |
//! | timer events and the kernel's stream of process events | [`perf`] |
//! | `.eh_frame` to tables that user stacks are walked by | [`unwind`], decisions in `profiler_common::unwind` |
//! | steps through Java code, by what the JVM itself knows of its frames | `profiler-ebpf/src/unwind/java.rs`, decisions in `profiler_common::unwind::java` |
//! | threads and CPUs accounted at each switch | `profiler-ebpf/src/probe/sched.rs`, [`session::sched`], [`model::sched`] |
//! | system calls accounted at entry and exit | `profiler-ebpf/src/probe/syscalls`, [`session::syscalls`], [`model::syscalls`] |
//! | sockets accounted at each call and change of state | `profiler-ebpf/src/probe/net`, [`session::net`], [`model::net`] |
//! | packets received, queued, sent and dropped | `profiler-ebpf/src/probe/packets.rs`, [`session::packets`], [`model::packets`] |
//! | a JVM: accounts, samples and what it says of itself put together | [`session::java`], [`model::java`] |
//! | accounts and samples of one target put together | [`session::stat`], [`model::stat`] |
//! | a probe attached, its maps read into typed records | [`probe`], one file per probe, registry [`probe::PROBES`] |
//! | addresses to modules at once, to names at the end | [`symbolize`] |
//! | Java names from a JVM's own tables, read from outside | [`symbolize::runtime::jvm`] |
//! | facts about the host | [`host`] |
//! | headers of ELF files, read bounded | [`elf`] |
//! | attach, wait, drain, resolve: the only composer | [`session`] |
//! | what a recording is | [`model`] |
//! | windows of the daemon kept, merged, read back | [`store`], [`model::window`] |
//! | text, folded, SVG, pprof, JSON | [`render`], registry [`render::FORMATS`] |
//! | windows added up for Prometheus | [`export`] |
//! | everything at once and without end, window by window | [`session::continuous`] |
//! | the daemon: core, budget, configuration, HTTP, control | [`daemon`] |
//! | arguments, commands, errors and exit codes | [`cli`] |
//!
//! # Invariants
//!
//! - Layers: `cli -> daemon -> {session -> {probe -> bpf, perf; symbolize; render}; store; export} -> model`. `cargo xtask tidy`
//!   checks the imports.
//! - `model` does no I/O and knows no kernel. `render` sees a finished [`model::Profile`]: no addresses to resolve, no
//!   `/proc`, no eBPF. Only `bpf` and `probe` import aya. A probe names no symbols and formats nothing.
//! - Nothing is lost silently: each way to lose or shorten something has a counter in [`model::Losses`], which every
//!   renderer shows. An address without a name stays visible and carries a [`model::Reason`].
//! - What a target controls (names, paths, ELF files, perf maps) is hostile: bounded where it is read, and passed through
//!   [`model::name::clean`] where it enters the model. Renderers add the escaping of their format.
//! - Counts are exact: the kernel side aggregates, a generation is drained only after no program can write it any more
//!   ([`bpf::generation`]).
//!
//! # Deliberately absent
//!
//! No kernel module, no agent in the target, no `BPF_MAP_TYPE_STACK_TRACE` (its ids collide), no private recording
//! format (a recording is a pprof file), no background service for one-shot use.

pub mod bpf;
pub mod cli;
pub mod daemon;
pub mod elf;
pub mod export;
pub mod host;
pub mod model;
pub mod perf;
pub mod probe;
pub mod render;
pub mod session;
pub mod store;
pub mod symbolize;
pub mod target;
pub mod unwind;
