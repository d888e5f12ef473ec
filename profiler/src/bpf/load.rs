//! Loading the embedded object with the maps sized for this run and its read-only globals filled in.

use std::{
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{
        BtfTracePoint, FExit, Iter, Program, ProgramError, ProgramFd, RawTracePoint, fexit::FExitLink,
        raw_trace_point::RawTracePointLink, tp_btf::BtfTracePointLink,
    },
};
use aya_log::EbpfLogger;
use profiler_common::{
    filter::FilterConfig,
    probe::{
        between::{MAX_OPEN, OPEN},
        net::NetOffsets,
        net_stacks::MAX_CONNECTING,
        syscall_stacks::{CallStackConfig, MAX_IN_CALLS, Wanted},
        syscalls::{OTHERS, ended_bytes},
        uprobe::BUSY,
    },
    sched::{
        offsets::SchedOffsets,
        wait::{MAX_WAITS, WaitConfig},
    },
    unwind::{
        java::MAX_JVMS,
        map::{MAX_MODULES, MAX_PROCESSES},
    },
};

pub use super::options::{CallOptions, LoadOptions, NetOptions, SchedOptions};
use super::{
    BpfError,
    calls::Room,
    packets,
    stats::{map_fd, map_memory},
    targets::{MAX_TARGETS, Targets},
};

/// The eBPF object, built by build.rs from `profiler-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/profiler.bpf.o"));

/// Smallest size of a ring buffer: one page (4 KiB, or 64 KiB on some arm64 kernels: aya rounds up).
const SMALLEST_RING: u32 = 4096;

/// Size of the ring of requests for tables (`profiler-ebpf/src/unwind/processes.rs`).
const REQUEST_RING: u32 = 64 * 1024;

/// Size of the log's ring buffer while it is used.
const LOG_RING: u32 = 128 * 1024;

/// Size of the ring of ended threads' accounts (`profiler-ebpf/src/probe/sched.rs`).
const ENDED_RING: u32 = 1024 * 1024;

/// Listening sockets (`profiler-ebpf/src/probe/net`).
const MAX_LISTENERS: u32 = 4096;

/// Pairs of call and error number that are counted (`profiler-ebpf/src/probe/syscalls`).
const MAX_ERRORS: u32 = 16_384;

/// The loaded object.
pub struct Kernel {
    /// aya's handle; probes take their maps out of it.
    pub ebpf: Ebpf,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// A program's attachment. Dropped, the program is detached.
pub enum Attached {
    /// To a raw tracepoint.
    Raw(RawTracePointLink),
    /// To a tracepoint with types.
    Typed(BtfTracePointLink),
    /// To a function's exit.
    Exit(FExitLink),
}

impl Kernel {
    /// Creates the maps and relocates the programs; loads none of them yet.
    pub fn load(options: &LoadOptions) -> Result<Self, BpfError> {
        let log_level = u8::from(options.log) * log::Level::Debug as u8;
        let targets = if options.filter.by_process != 0 { MAX_TARGETS } else { 1 };
        let (wait_config, wait_offsets) =
            options.waits.unwrap_or((WaitConfig::default(), SchedOffsets::UNKNOWN));
        let waits = if options.waits.is_some() { MAX_WAITS as u32 } else { 1 };
        let for_unwinding = |entries: u32, otherwise: u32| if options.unwind { entries } else { otherwise };
        let (sched_offsets, threads, ended) = match &options.sched {
            Some(sched) => (sched.offsets, sched.threads, ENDED_RING),
            None => (wait_offsets, 1, SMALLEST_RING),
        };
        let (call_stacks, sched_offsets, in_calls) = match options.call_stacks {
            Some((config, offsets)) => (config, offsets, MAX_IN_CALLS as u32),
            None => (CallStackConfig { counted: Wanted::NONE, timed: Wanted::NONE }, sched_offsets, 1),
        };
        let sched_offsets = options.calls.map_or(sched_offsets, |calls| calls.offsets);
        let room = options.calls.map_or(Room { callers: 1, calls: 1, blocks: 1 }, |calls| calls.room);
        let (net_offsets, sched_offsets, sockets) = match &options.net {
            Some(net) => (net.offsets, net.sched_offsets.unwrap_or(sched_offsets), net.sockets),
            None => (NetOffsets::UNKNOWN, sched_offsets, 1),
        };
        let connecting =
            if options.net.is_some_and(|net| net.connecting) { MAX_CONNECTING as u32 } else { 1 };
        let errors = if options.calls.is_some() { MAX_ERRORS } else { 1 };
        let counters = options.sched.map_or(0, |sched| sched.counters);
        let calls_of_threads = u32::from(options.calls.is_some() && options.sched.is_some());
        let mut loader = EbpfLoader::new();
        packets::prepare(&mut loader, options.packets.as_ref(), options.drops.as_ref());
        let mut ebpf = loader
            // The kernel's types, which aya has read to relocate by: there is nothing to be relocated by them, and they are large.
            .btf(None)
            .override_global("FILTER", &options.filter, true)
            .override_global("TASK_OFFSETS", &options.offsets, true)
            .override_global("SCHED_OFFSETS", &sched_offsets, true)
            .override_global("NET_OFFSETS", &net_offsets, true)
            .override_global("HELPERS", &options.helpers, true)
            .override_global("STACK_LIMIT", &options.stack_limit, true)
            .override_global("UNWIND", &u32::from(options.unwind), true)
            .override_global("SEEN_WHAT", &(options.seen as u32), true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .override_global("WAIT_CONFIG", &wait_config, true)
            .override_global("HOOK_FILTERS", &options.hook_filters, true)
            .override_global("CALL_STACKS", &call_stacks, true)
            .override_global("BETWEEN_CALLS", &options.between.unwrap_or(0), true)
            .override_global("SCHED_COUNTERS", &counters, true)
            .override_global("CALLS_OF_THREADS", &calls_of_threads, true)
            .map_max_entries(BUSY, options.uprobe_cpus)
            .map_max_entries(OPEN, if options.between.is_some() { MAX_OPEN as u32 } else { 1 })
            .map_max_entries("TARGETS", targets)
            .map_max_entries("WAITS", waits)
            .map_max_entries("IN_CALLS", in_calls)
            .map_max_entries("WAKERS", if wait_config.wakers != 0 { waits } else { 1 })
            .map_max_entries("MODULES", for_unwinding(MAX_MODULES as u32, 1))
            .map_max_entries("PROCESSES", for_unwinding(MAX_PROCESSES as u32, 1))
            .map_max_entries("JVMS", for_unwinding(MAX_JVMS as u32, 1))
            .map_max_entries("REQUESTS", for_unwinding(REQUEST_RING, SMALLEST_RING))
            .map_max_entries("THREADS", threads)
            .map_max_entries("ENDED", ended)
            .map_max_entries("CALLERS", room.callers)
            .map_max_entries("CALLER_PLACES", room.callers)
            .map_max_entries("FREE_CALLERS", room.callers)
            .map_max_entries("ENDED_CALLERS", ended_bytes(room.callers).max(SMALLEST_RING))
            .map_max_entries("CALLS", room.calls)
            .map_max_entries("FREE_CALLS", room.calls)
            .map_max_entries("CALL_BLOCKS", room.blocks)
            .map_max_entries("FREE_BLOCKS", room.blocks)
            .map_max_entries("CALL_ERRORS", errors)
            .map_max_entries("OTHER_CALLS", if options.calls.is_some() { OTHERS as u32 } else { 1 })
            .map_max_entries("SOCKETS", sockets)
            .map_max_entries("FREE_SOCKETS", sockets)
            .map_max_entries("SOCKET_PLACES", sockets)
            .map_max_entries("SOCKET_USERS", sockets)
            .map_max_entries("ENDED_SOCKETS", sockets)
            .map_max_entries("RTT_BLOCKS", sockets)
            .map_max_entries("FREE_RTT_BLOCKS", sockets)
            .map_max_entries("LISTENERS", if sockets > 1 { MAX_LISTENERS } else { 1 })
            .map_max_entries("CONNECTING", connecting)
            .map_max_entries("AYA_LOGS", if options.log { LOG_RING } else { SMALLEST_RING })
            .load(OBJECT)
            .map_err(|source| BpfError::Object(Box::new(source)))?;
        give_back_free_memory();
        let logger = if options.log { EbpfLogger::init(&mut ebpf).ok() } else { None };
        Ok(Self { ebpf, logger })
    }

    /// Loads and attaches the programs that keep the set of targets (`profiler-ebpf/src/probe/process.rs`).
    pub fn follow_children(&mut self) -> Result<(), BpfError> {
        self.attach_raw("follow_fork", "sched_process_fork")?;
        self.attach_raw("follow_free", "sched_process_free")
    }

    /// Loads and attaches the programs that follow which processes need tables (same place).
    pub fn follow_programs(&mut self) -> Result<(), BpfError> {
        self.attach_raw("unwind_exec", "sched_process_exec")?;
        self.attach_raw("unwind_free", "sched_process_free")
    }

    fn attach_raw(&mut self, program: &'static str, tracepoint: &str) -> Result<(), BpfError> {
        self.load_program(program)?;
        self.raw_tracepoint(program)?.attach(tracepoint).map_err(failed(program))?;
        Ok(())
    }

    /// Attaches a loaded raw tracepoint program until what is returned is dropped. Programs may then still be running.
    pub fn attach(&mut self, program: &'static str, tracepoint: &str) -> Result<Attached, BpfError> {
        let raw = self.raw_tracepoint(program)?;
        let link = raw.attach(tracepoint).map_err(failed(program))?;
        Ok(Attached::Raw(raw.take_link(link).map_err(failed(program))?))
    }

    /// Loads a program of a tracepoint with types. `btf`: the kernel's.
    pub fn load_typed(&mut self, program: &'static str, tracepoint: &str, btf: &Btf) -> Result<(), BpfError> {
        self.typed_tracepoint(program)?.load(tracepoint, btf).map_err(failed(program))
    }

    /// Attaches such a program until what is returned is dropped. Programs may then still be running.
    pub fn attach_typed(&mut self, program: &'static str) -> Result<Attached, BpfError> {
        let typed = self.typed_tracepoint(program)?;
        let link = typed.attach().map_err(failed(program))?;
        Ok(Attached::Typed(typed.take_link(link).map_err(failed(program))?))
    }

    fn typed_tracepoint(&mut self, program: &'static str) -> Result<&mut BtfTracePoint, BpfError> {
        let found = self.ebpf.program_mut(program).ok_or(BpfError::Missing(program))?;
        found.try_into().map_err(failed(program))
    }

    /// Loads and attaches a program of a function's exit, until what is returned is dropped. `btf`: the kernel's.
    pub fn attach_exit(
        &mut self,
        program: &'static str,
        function: &str,
        btf: &Btf,
    ) -> Result<Attached, BpfError> {
        let found = self.ebpf.program_mut(program).ok_or(BpfError::Missing(program))?;
        let exit: &mut FExit = found.try_into().map_err(failed(program))?;
        exit.load(function, btf).map_err(failed(program))?;
        let link = exit.attach().map_err(failed(program))?;
        Ok(Attached::Exit(exit.take_link(link).map_err(failed(program))?))
    }

    /// Loads a program that iterates over all of a kind that the kernel has: `task`, `task_file`. `btf`: the kernel's.
    pub fn load_iterator(&mut self, program: &'static str, over: &str, btf: &Btf) -> Result<(), BpfError> {
        let found = self.ebpf.program_mut(program).ok_or(BpfError::Missing(program))?;
        let iterator: &mut Iter = found.try_into().map_err(failed(program))?;
        iterator.load(over, btf).map_err(failed(program))
    }

    /// Runs such a program once over all.
    pub fn iterate(&mut self, program: &'static str) -> Result<(), BpfError> {
        let found = self.ebpf.program_mut(program).ok_or(BpfError::Missing(program))?;
        let iterator: &mut Iter = found.try_into().map_err(failed(program))?;
        let link = iterator.attach().map_err(failed(program))?;
        let link = iterator.take_link(link).map_err(failed(program))?;
        let read = || -> io::Result<()> {
            let mut file = link.into_file().map_err(io::Error::other)?;
            // The program writes nothing: the end of the file is the end of them.
            file.read_to_end(&mut Vec::new()).map(drop)
        };
        read().map_err(|source| BpfError::Call { command: "BPF_ITER_CREATE", map: program, source })
    }

    fn raw_tracepoint(&mut self, program: &'static str) -> Result<&mut RawTracePoint, BpfError> {
        let found = self.ebpf.program_mut(program).ok_or(BpfError::Missing(program))?;
        found.try_into().map_err(failed(program))
    }

    /// Loads a program, to be attached by the caller; gives its file descriptor.
    pub fn load_and_share(&mut self, program: &'static str) -> Result<OwnedFd, BpfError> {
        let fd = self.load_program(program)?;
        fd.as_fd().try_clone_to_owned().map_err(|source| BpfError::Call {
            command: "dup",
            map: program,
            source,
        })
    }

    /// Loads a program of any of the kinds that the object has.
    pub fn load_program(&mut self, program: &'static str) -> Result<&ProgramFd, BpfError> {
        let found = self.ebpf.program_mut(program).ok_or(BpfError::Missing(program))?;
        if found.fd().is_err() {
            load_one(program, found)?;
        }
        found.fd().map_err(failed(program))
    }

    /// Whether a program has been loaded.
    pub fn is_loaded(&self, program: &str) -> bool {
        self.ebpf.program(program).is_some_and(|program| program.fd().is_ok())
    }

    /// Loads such programs, but for those that need the kernel's types, at the same time, each on a thread of its own: most of a
    /// start is the verifier's time.
    pub fn load_together(&mut self, programs: &[&'static str]) -> Result<(), BpfError> {
        let wanted = |name: &str| programs.iter().copied().find(|program| *program == name);
        let loaded = thread::scope(|scope| {
            let loads = self.ebpf.programs_mut().filter_map(|(name, found)| {
                let program = wanted(name)?;
                let is_new = !matches!(found, Program::BtfTracePoint(_)) && found.fd().is_err();
                is_new.then(|| scope.spawn(move || load_one(program, found)))
            });
            let loads: Vec<_> = loads.collect();
            loads.into_iter().try_for_each(|load| match load.join() {
                Ok(loaded) => loaded,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        });
        give_back_free_memory();
        loaded
    }

    /// Loads programs and puts them into the program array of that name, each under its index. The array must live as
    /// long as they are to be called.
    pub fn tail_calls(
        &mut self,
        array: &'static str,
        programs: &[(u32, &'static str)],
    ) -> Result<ProgramArray<MapData>, BpfError> {
        let failed = |source| BpfError::Map { operation: "fill", map: array, source: Box::new(source) };
        let map = self.ebpf.take_map(array).ok_or(BpfError::Missing(array))?;
        let mut calls: ProgramArray<MapData> = map.try_into().map_err(failed)?;
        for &(index, program) in programs {
            let fd = self.load_program(program)?;
            calls.set(index, fd, 0).map_err(failed)?;
        }
        Ok(calls)
    }

    /// The set of target processes.
    pub fn targets(&mut self) -> Result<Targets, BpfError> {
        Targets::new(&mut self.ebpf)
    }

    /// The set of target processes with these in it, and with their children from now on if the filter follows them.
    pub fn targets_of(&mut self, filter: &FilterConfig, pids: &[u32]) -> Result<Targets, BpfError> {
        let mut targets = self.targets()?;
        if filter.follow_children != 0 {
            self.follow_children()?;
        }
        targets.add_all(pids)?;
        Ok(targets)
    }

    /// Prints what the kernel side logged since the last call.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Kernel memory of the maps that are still in the object, bytes.
    pub fn map_memory(&self) -> u64 {
        self.ebpf.maps().filter_map(|(_, map)| map_fd(map)).map(map_memory).sum()
    }
}

fn load_one(program: &'static str, found: &mut Program) -> Result<(), BpfError> {
    match found {
        Program::PerfEvent(perf) => perf.load(),
        Program::RawTracePoint(raw) => raw.load(),
        Program::TracePoint(tracepoint) => tracepoint.load(),
        Program::UProbe(uprobe) => uprobe.load(),
        Program::KProbe(kprobe) => kprobe.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
    .map_err(failed(program))
}

/// Reading the object and the kernel's types took much more than what is kept of them: what was freed, and the pages of the
/// object itself, which is a part of this program's file.
fn give_back_free_memory() {
    // Only whole pages: on the others there is something else.
    let page = rustix::param::page_size();
    let start = (OBJECT.as_ptr() as usize).next_multiple_of(page);
    let end = (OBJECT.as_ptr() as usize + OBJECT.len()) / page * page;
    if start < end {
        // SAFETY: pages of a constant, read from the file again if they are read again.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition; it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn failed(program: &'static str) -> impl Fn(ProgramError) -> BpfError {
    move |source| BpfError::Program { program, source: Box::new(source) }
}
