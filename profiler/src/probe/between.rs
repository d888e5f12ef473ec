//! Probe `between`, user side: breakpoints at all places in files that begin a span of time and at all that end it, for each
//! such event that the user names; or at the beginning and the return of a function.

use std::os::fd::OwnedFd;

use profiler_common::{
    probe::between::{ENDS, LEFT, PROGRAMS},
    sample::{MAX_HOOKS, What},
};

use super::{
    Amount, Chosen, Event, Part, ProbeError, ProbeSpec, SampleTypeSpec,
    uprobe::{self, Place},
};
use crate::{
    bpf::{
        load::{Attached, Kernel},
        samples::Samples,
    },
    model::Unit,
    perf::hook::Hook,
};

/// What names of functions begin with whose time is asked for.
pub const PREFIX: &str = "uspan:";

/// What stands between the names of the markers that begin and end a span.
pub const DOTS: &str = "..";

/// What is appended to an event's name for the number of spans.
pub const NUMBER: &str = ":count";

/// The registry entries of spans between markers, by the place of the event among those that the user names by their hooks.
pub const SPECS: [ProbeSpec; MAX_HOOKS] = [spec(0), spec(1), spec(2), spec(3)];

/// Those of calls of functions, likewise.
pub const CALLS: [ProbeSpec; MAX_HOOKS] = [calls(0), calls(1), calls(2), calls(3)];

const NAME: &str = "usdt:PATH:PROVIDER:BEGIN..END";
const CALLS_NAME: &str = "uspan:PATH:SYMBOL";

const TYPES: [[SampleTypeSpec; 2]; MAX_HOOKS] = [
    types(0, [NAME, "usdt:PATH:PROVIDER:BEGIN..END:count"]),
    types(1, [NAME, "usdt:PATH:PROVIDER:BEGIN..END:count"]),
    types(2, [NAME, "usdt:PATH:PROVIDER:BEGIN..END:count"]),
    types(3, [NAME, "usdt:PATH:PROVIDER:BEGIN..END:count"]),
];

const CALL_TYPES: [[SampleTypeSpec; 2]; MAX_HOOKS] = [
    types(0, [CALLS_NAME, "uspan:PATH:SYMBOL:count"]),
    types(1, [CALLS_NAME, "uspan:PATH:SYMBOL:count"]),
    types(2, [CALLS_NAME, "uspan:PATH:SYMBOL:count"]),
    types(3, [CALLS_NAME, "uspan:PATH:SYMBOL:count"]),
];

/// The sample types of an event at a place: time and number.
pub(super) const fn types(place: usize, [time, number]: [&'static str; 2]) -> [SampleTypeSpec; 2] {
    let what = What::HOOKS[place];
    [
        SampleTypeSpec {
            name: time,
            unit: Unit::Nanoseconds,
            what,
            amount: Amount::Time,
            summary: "time from the beginning to the end, in the same thread",
        },
        SampleTypeSpec {
            name: number,
            unit: Unit::Count,
            what,
            amount: Amount::Count,
            summary: "times that the end was come to, or was still to come when the recording or the thread ended",
        },
    ]
}

const fn spec(place: usize) -> ProbeSpec {
    ProbeSpec {
        event: Event::Between(place as u8),
        name: NAME,
        summary: "time between two markers of one provider, in the same thread, by the stack at the first one",
        hooks: &[
            "a breakpoint at each of their places in the file (uprobe)",
            "raw tracepoints: sched_process_exit, sched_process_exec",
        ],
        hooked: None,
        sample_types: &TYPES[place],
        programs: PROGRAMS[place],
        minimum_kernel: (5, 8),
        requires: &["perf-events", "bpf", "uprobes"],
    }
}

const fn calls(place: usize) -> ProbeSpec {
    ProbeSpec {
        event: Event::Calls(place as u8),
        name: CALLS_NAME,
        summary: "time in a function of a program or library and what it calls, by the stack that calls it",
        hooks: &[
            "breakpoints at its beginning and its return (uprobe, uretprobe)",
            "raw tracepoints: sched_process_exit, sched_process_exec",
        ],
        sample_types: &CALL_TYPES[place],
        ..spec(place)
    }
}

/// The registry entry of a place.
pub const fn spec_at(place: u8) -> &'static ProbeSpec {
    const ALL: &[ProbeSpec; MAX_HOOKS] = &SPECS;
    &ALL[place as usize % MAX_HOOKS]
}

/// The registry entry of calls of a function.
pub const fn calls_at(place: u8) -> &'static ProbeSpec {
    const ALL: &[ProbeSpec; MAX_HOOKS] = &CALLS;
    &ALL[place as usize % MAX_HOOKS]
}

/// Spans to record as one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As recordings name it.
    pub name: String,
    /// As they name the number of spans.
    pub number: String,
    /// Where spans begin.
    pub begins: Vec<Place>,
    /// Where they end; of calls, the functions that begin there return.
    pub ends: Vec<Place>,
}

/// Which of some events are calls of a function, a bit for each place, if any event is of this probe.
pub fn asked(events: &[Chosen]) -> Option<u32> {
    let bit = |chosen: &Chosen| match (chosen.event, &chosen.part) {
        (Event::Calls(place), Part::Between(_)) => Some(1 << place),
        (_, Part::Between(_)) => Some(0),
        _ => None,
    };
    events.iter().filter_map(bit).reduce(|all, bit| all | bit)
}

/// The attached probe.
pub struct BetweenProbe {
    name: String,
    programs: [OwnedFd; 2],
    hooks: [Vec<Hook>; 2],
    is_last: bool,
    attached: Vec<Attached>,
}

/// Loads the programs of that event; they do not run yet. `calls`: of a function.
///
/// # Errors
/// Those of the programs, and of perf_event_open(2).
pub fn open(
    kernel: &mut Kernel,
    cpu: u32,
    place: u8,
    asked: &Asked,
    calls: bool,
) -> Result<BetweenProbe, ProbeError> {
    let at = usize::from(place) % MAX_HOOKS;
    let programs = [kernel.load_and_share(PROGRAMS[at].sample)?, kernel.load_and_share(ENDS[at])?];
    kernel.load_program(LEFT)?;
    let hooks = |places: &[Place], returns| uprobe::hooks(&asked.name, places, returns, cpu);
    let hooks = [hooks(&asked.begins, false)?, hooks(&asked.ends, calls)?];
    Ok(BetweenProbe { name: asked.name.clone(), programs, hooks, is_last: false, attached: Vec::new() })
}

impl BetweenProbe {
    /// It is the last one that is enabled, and attaches what all of them need: kernels before 6.10 (d4dfc5700e86) attach a
    /// program to a tracepoint once only, and say EEXIST else.
    pub const fn be_last(&mut self) {
        self.is_last = true;
    }

    /// The programs run at each hit from now on, and count nothing until [`Samples::begin_spans`].
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<(), ProbeError> {
        let failed = |source| ProbeError::Hook { name: self.name.clone(), source };
        for (program, hooks) in self.programs.iter().zip(&self.hooks) {
            hooks.iter().try_for_each(|hook| hook.set(program)).map_err(failed)?;
        }
        let tracepoints: &[&str] =
            if self.is_last { &["sched_process_exit", "sched_process_exec"] } else { &[] };
        for tracepoint in tracepoints {
            self.attached.push(kernel.attach(LEFT, tracepoint)?);
        }
        Ok(())
    }

    /// Takes the programs away and waits until they run nowhere.
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), ProbeError> {
        self.hooks.iter_mut().for_each(Vec::clear);
        self.attached.clear();
        Ok(samples.wait_for_programs()?)
    }
}
