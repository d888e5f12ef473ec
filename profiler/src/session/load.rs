//! The object loaded for a recording: with what this kernel has, to walk by tables if that can be done.

use profiler_common::{
    probe::offcpu::WAKERS,
    sample::{Programs, What},
    stack::MAX_FRAMES,
};

use super::{RecordOptions, SessionError, UnwindMode, fallbacks::TaskAccess, unwinding::Unwinding};
use crate::{
    bpf::{
        load::{Kernel, LoadOptions, NetOptions},
        samples::WalkPrograms,
    },
    host::{cpus, limits::Limits},
    probe::{Chosen, Event, between, tracepoint},
};

/// The loaded object, and what walks by tables.
pub struct Loaded {
    /// The object.
    pub kernel: Kernel,
    /// What supplies the walk, and its programs.
    pub walk: Option<(Unwinding, Vec<WalkPrograms>)>,
    /// Why nothing does, although it was to.
    pub note: Option<String>,
}

/// The event whose hits are told: the timer's, if there is one.
fn seen(events: &[Chosen]) -> What {
    let of = |chosen: &Chosen| match chosen.event.spec().sample_types[0].what {
        // What a switch begins with, in either case.
        What::Queued => What::Blocked,
        What::CallTime => What::Call,
        what => what,
    };
    events.iter().find(|chosen| chosen.event.is_timed()).or(events.first()).map_or(What::Tick, of)
}

/// Loads the object, to walk by tables if so asked and if it can be done.
pub fn load(options: &RecordOptions, access: &TaskAccess) -> Result<Loaded, SessionError> {
    let kernel = |unwind| {
        Kernel::load(&LoadOptions {
            filter: options.filter,
            offsets: access.offsets,
            helpers: access.helpers,
            stack_limit: stack_limit(),
            unwind,
            waits: options.waits,
            call_stacks: options.call_stacks,
            hook_filters: tracepoint::filters(&options.events),
            uprobe_cpus: uprobe_cpus(&options.events),
            between: between::asked(&options.events),
            seen: seen(&options.events),
            sched: None,
            calls: None,
            net: net(options),
            packets: None,
            drops: options.net.as_ref().and_then(|facts| facts.drops.as_ref()).map(|(config, _)| *config),
            log: options.log,
        })
    };
    let by_tables = || -> Result<_, SessionError> {
        if access.offsets.known == 0 {
            return Err(SessionError::NoTables(
                "the kernel's BTF is not known, see `profiler doctor`".to_owned(),
            ));
        }
        let mut kernel = kernel(true)?;
        let unwinding = Unwinding::start(&mut kernel, options.unwind_memory)?;
        let programs = walk_programs(options, &mut kernel)?;
        Ok(Loaded { kernel, walk: Some((unwinding, programs)), note: None })
    };
    match options.unwind {
        UnwindMode::EhFrame => by_tables(),
        UnwindMode::FramePointer => Ok(Loaded { kernel: kernel(false)?, walk: None, note: None }),
        UnwindMode::Auto => by_tables().or_else(|error| {
            let note = format!("user stacks are walked by frame pointers only: {error}");
            Ok(Loaded { kernel: kernel(false)?, walk: None, note: Some(note) })
        }),
    }
}

/// Loads the programs that walk for these events. Events can share theirs.
fn walk_programs(options: &RecordOptions, kernel: &mut Kernel) -> Result<Vec<WalkPrograms>, SessionError> {
    let mut programs: Vec<Programs> = Vec::new();
    for chosen in &options.events {
        let wanted = chosen.event.spec().programs;
        if !programs.iter().any(|known| known.calls == wanted.calls) {
            programs.push(wanted);
        }
    }
    if options.wakers() {
        programs.push(WAKERS);
    }
    let all: Vec<_> =
        programs.iter().flat_map(|programs| [programs.sample, programs.walk, programs.count]).collect();
    kernel.load_together(&all)?;
    Ok(programs.iter().map(|programs| WalkPrograms::load(kernel, programs)).collect::<Result<_, _>>()?)
}

/// What is read of sockets, if there are events of them.
fn net(options: &RecordOptions) -> Option<NetOptions> {
    let connecting = options.events.iter().any(|chosen| chosen.event == Event::Connect);
    let facts = options.net.as_ref()?;
    let (sockets, sched_offsets) = facts.owners.unzip();
    Some(NetOptions { offsets: facts.offsets, sched_offsets, sockets: sockets.unwrap_or(1), connecting })
}

/// CPUs that there can be, if there are events in user code; else 1.
fn uprobe_cpus(events: &[Chosen]) -> u32 {
    if !events.iter().any(|chosen| chosen.event.is_user_code()) {
        return 1;
    }
    // All that there can be, whatever their numbers are.
    cpus::possible().map_or(1024, |cpus| cpus.len() as u32)
}

/// Frames that the kernel's walker gives at most here.
fn stack_limit() -> u32 {
    let limit = Limits::read().perf_event_max_stack.and_then(|limit| u32::try_from(limit).ok());
    limit.unwrap_or(u32::MAX).min(MAX_FRAMES as u32)
}
