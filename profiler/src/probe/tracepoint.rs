//! Probe `tracepoint`, user side: a program at any tracepoint that the kernel has, for each that the user names.

use std::os::fd::{AsFd as _, OwnedFd};

use profiler_common::{
    probe::tracepoint::{HookFilter, HookFilters, PROGRAMS},
    sample::MAX_HOOKS,
};

use super::{Chosen, Event, Part, ProbeError, ProbeSpec, SampleTypeSpec, switches};
use crate::{
    bpf::{
        load::Kernel,
        samples::{Samples, Sizing},
        stats::missed_of,
    },
    host::kernel::Version,
    perf::hook::Hook,
};

/// What event names begin with.
pub const PREFIX: &str = "tracepoint:";

/// From this kernel on, programs of tracepoints that were left out are counted (dd8657894c11).
pub const MISSES_COUNTED: Version = Version::new(6, 7, 0);

/// What the kernel functions that a hit calls begin with: inside of them is only how the program is reached.
pub const INSIDE: &[&str] = &["__traceiter_", "perf_trace_", "perf_syscall_"];

/// The registry entries, by the place of the event among those that the user names by their hooks.
pub const SPECS: [ProbeSpec; MAX_HOOKS] = [spec(0), spec(1), spec(2), spec(3)];

const TYPES: [[SampleTypeSpec; 1]; MAX_HOOKS] = [[hits(0)], [hits(1)], [hits(2)], [hits(3)]];

const NAME: &str = "tracepoint:CATEGORY:NAME[/FILTER/]";

const fn hits(place: usize) -> SampleTypeSpec {
    SampleTypeSpec::hits(place, NAME, "times that the tracepoint was hit")
}

const fn spec(place: usize) -> ProbeSpec {
    ProbeSpec {
        event: Event::Tracepoint(place as u8),
        name: NAME,
        summary: "hits of any tracepoint of the kernel, by stack",
        hooks: &["the tracepoint, by way of perf"],
        hooked: None,
        sample_types: &TYPES[place],
        programs: PROGRAMS[place],
        minimum_kernel: (5, 8),
        requires: &["perf-events", "bpf", "tracefs"],
    }
}

/// The registry entry of a place.
pub const fn spec_at(place: u8) -> &'static ProbeSpec {
    const ALL: &[ProbeSpec; MAX_HOOKS] = &SPECS;
    &ALL[place as usize % MAX_HOOKS]
}

/// A tracepoint to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As recordings name it: the event's name, with its filter if there is one.
    pub name: String,
    /// What the kernel calls it.
    pub id: u64,
    /// Which hits are counted.
    pub filter: HookFilter,
}

/// The filters of the tracepoints among some events.
pub fn filters(events: &[Chosen]) -> HookFilters {
    let mut filters = HookFilters::NONE;
    for chosen in events {
        if let (Event::Tracepoint(place), Part::Tracepoint(asked)) = (chosen.event, &chosen.part)
            && let Some(filter) = filters.of.get_mut(usize::from(place))
        {
            *filter = asked.filter;
        }
    }
    filters
}

/// As for switches: how many hits there will be is not known either.
pub fn sizing_of_hooks(cpus: usize) -> Sizing {
    switches::sizing(cpus)
}

/// Loads the program of that place; it does not run yet.
///
/// # Errors
/// Those of the program, and of perf_event_open(2).
pub fn open(kernel: &mut Kernel, cpu: u32, place: u8, asked: &Asked) -> Result<HookProbe, ProbeError> {
    let program = kernel.load_and_share(PROGRAMS[usize::from(place) % MAX_HOOKS].sample)?;
    let hook = Hook::tracepoint(asked.id, cpu)
        .map_err(|source| ProbeError::Hook { name: asked.name.clone(), source })?;
    Ok(HookProbe::new(&asked.name, program, vec![hook]))
}

/// The attached probe of an event that the user named by its hook: a program, and all places that it runs at.
pub struct HookProbe {
    name: String,
    program: OwnedFd,
    hooks: Vec<Hook>,
}

impl HookProbe {
    /// A loaded program and what it is to run at.
    pub fn new(name: &str, program: OwnedFd, hooks: Vec<Hook>) -> Self {
        Self { name: name.to_owned(), program, hooks }
    }

    /// The program runs at each hit from now on.
    pub fn enable(&self) -> Result<(), ProbeError> {
        let mut hooks = self.hooks.iter();
        hooks
            .try_for_each(|hook| hook.set(&self.program))
            .map_err(|source| ProbeError::Hook { name: self.name.clone(), source })
    }

    /// Hits that the kernel left out, because a program was running on that CPU.
    pub fn missed(&self) -> u64 {
        missed_of(self.program.as_fd())
    }

    /// Takes the program away and waits until it runs nowhere.
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), ProbeError> {
        self.hooks.clear();
        Ok(samples.wait_for_programs()?)
    }
}
