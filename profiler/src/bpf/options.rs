//! What a run sets before the object is loaded.

use profiler_common::{
    filter::FilterConfig,
    probe::{
        net::NetOffsets,
        packets::{DropConfig, PacketOffsets},
        syscall_stacks::CallStackConfig,
        tracepoint::HookFilters,
    },
    sample::What,
    sched::{offsets::SchedOffsets, wait::WaitConfig},
    task::TaskOffsets,
};

use super::calls::Room;

/// What a run that accounts threads sets before load.
#[derive(Clone, Copy)]
pub struct SchedOptions {
    /// Offsets from the kernel's BTF.
    pub offsets: SchedOffsets,
    /// Threads that can be accounted at a time.
    pub threads: u32,
    /// Performance counters that are read at each switch.
    pub counters: u32,
}

/// What a run that accounts system calls sets before load.
#[derive(Clone, Copy)]
pub struct CallOptions {
    /// Offsets from the kernel's BTF.
    pub offsets: SchedOffsets,
    /// Accounts that there is room for.
    pub room: Room,
}

/// What a run that accounts sockets sets before load.
#[derive(Clone, Copy)]
pub struct NetOptions {
    /// Members of sockets, from the kernel's BTF.
    pub offsets: NetOffsets,
    /// Members of tasks and files, from there too; needed for accounts.
    pub sched_offsets: Option<SchedOffsets>,
    /// Accounts of sockets that there is room for.
    pub sockets: u32,
    /// Connections that are asked for are followed until they are there.
    pub connecting: bool,
}

/// What a run sets before load.
#[derive(Clone, Copy)]
pub struct LoadOptions {
    /// The in-kernel filter.
    pub filter: FilterConfig,
    /// Offsets from the kernel's BTF.
    pub offsets: TaskOffsets,
    /// Newer helpers that the programs may call, bits of `profiler_common::task`.
    pub helpers: u32,
    /// Frames a stack can have here (`kernel.perf_event_max_stack`, at most `MAX_FRAMES`).
    pub stack_limit: u32,
    /// Walk user stacks by tables.
    pub unwind: bool,
    /// What is counted of tasks off the CPU, and where the kernel keeps what tells of them. `None`: nothing.
    pub waits: Option<(WaitConfig, SchedOffsets)>,
    /// Which system calls are counted by stack, and where the kernel keeps whose they are. `None`: none.
    pub call_stacks: Option<(CallStackConfig, SchedOffsets)>,
    /// Which hits are counted of the tracepoints that the user named.
    pub hook_filters: HookFilters,
    /// CPUs that there can be, if there are events in user code; else 1.
    pub uprobe_cpus: u32,
    /// Times between two places are counted; of the events at which places they are calls of a function, a bit for each.
    pub between: Option<u32>,
    /// The event whose hits are counted (`Samples::seen`).
    pub seen: What,
    /// Account threads.
    pub sched: Option<SchedOptions>,
    /// Account system calls.
    pub calls: Option<CallOptions>,
    /// Account sockets.
    pub net: Option<NetOptions>,
    /// Look at packets; where the kernel keeps what is read of them. `None`: none.
    pub packets: Option<PacketOffsets>,
    /// Drops are looked at; what the kernel says of them. `None`: they are not.
    pub drops: Option<DropConfig>,
    /// Compile the kernel side's diagnostics in (`--log-level debug`).
    pub log: bool,
}

impl LoadOptions {
    /// Everything is looked at, and nothing done with it: what a run does not ask for.
    pub const fn new(offsets: TaskOffsets) -> Self {
        Self {
            filter: FilterConfig::ALL,
            offsets,
            helpers: 0,
            stack_limit: 1,
            unwind: false,
            waits: None,
            call_stacks: None,
            hook_filters: HookFilters::NONE,
            uprobe_cpus: 1,
            between: None,
            seen: What::Tick,
            sched: None,
            calls: None,
            net: None,
            packets: None,
            drops: None,
            log: false,
        }
    }
}
