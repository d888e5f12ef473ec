//! Probe `uprobe`, user side: a breakpoint in the code of a file, for each that the user names; or one at each of the places
//! of a marker.

use std::{fs::File, io, os::fd::AsRawFd as _, path::PathBuf, sync::Arc};

use profiler_common::{probe::uprobe::PROGRAMS, sample::MAX_HOOKS};

use super::{Event, ProbeError, ProbeSpec, SampleTypeSpec, tracepoint::HookProbe};
use crate::{
    bpf::load::Kernel,
    perf::hook::{Hook, UserCode},
};

/// What event names begin with, and whether they are of the return from a function.
pub const PREFIXES: [(&str, bool); 2] = [("uprobe:", false), ("uretprobe:", true)];

/// What names of markers begin with.
pub const MARKER_PREFIX: &str = "usdt:";

/// Most places of a marker that are hooked: each is an event of perf's, which attaching and detaching take time for.
pub const MAX_PLACES: usize = 256;

/// The registry entries, by the place of the event among those that the user names by their hooks.
pub const SPECS: [ProbeSpec; MAX_HOOKS] = [spec(0), spec(1), spec(2), spec(3)];

/// Those of markers, likewise.
pub const MARKERS: [ProbeSpec; MAX_HOOKS] = [marker(0), marker(1), marker(2), marker(3)];

const TYPES: [[SampleTypeSpec; 1]; MAX_HOOKS] = [[hits(0)], [hits(1)], [hits(2)], [hits(3)]];

const MARKER_TYPES: [[SampleTypeSpec; 1]; MAX_HOOKS] =
    [[marker_hits(0)], [marker_hits(1)], [marker_hits(2)], [marker_hits(3)]];

const NAME: &str = "uprobe:PATH:SYMBOL[+OFFSET]";

const fn hits(place: usize) -> SampleTypeSpec {
    SampleTypeSpec::hits(place, NAME, "times that the place in the code was come to")
}

const fn spec(place: usize) -> ProbeSpec {
    ProbeSpec {
        event: Event::Uprobe(place as u8),
        name: NAME,
        summary: "calls of a function of a program or library, by stack; uretprobe: returns from it",
        hooks: &["a breakpoint in the file's code (uprobe)"],
        hooked: None,
        sample_types: &TYPES[place],
        programs: PROGRAMS[place],
        minimum_kernel: (5, 8),
        requires: &["perf-events", "bpf"],
    }
}

const MARKER_NAME: &str = "usdt:PATH:PROVIDER:NAME";

const fn marker_hits(place: usize) -> SampleTypeSpec {
    SampleTypeSpec::hits(place, MARKER_NAME, "times that one of the marker's places was come to")
}

const fn marker(place: usize) -> ProbeSpec {
    ProbeSpec {
        event: Event::Usdt(place as u8),
        name: MARKER_NAME,
        summary: "hits of a marker (USDT) that a program or library has for tracers, by stack",
        hooks: &["a breakpoint at each of its places in the file (uprobe)"],
        sample_types: &MARKER_TYPES[place],
        ..spec(place)
    }
}

/// The registry entry of a place.
pub const fn spec_at(place: u8) -> &'static ProbeSpec {
    const ALL: &[ProbeSpec; MAX_HOOKS] = &SPECS;
    &ALL[place as usize % MAX_HOOKS]
}

/// The registry entry of a marker.
pub const fn marker_at(place: u8) -> &'static ProbeSpec {
    const ALL: &[ProbeSpec; MAX_HOOKS] = &MARKERS;
    &ALL[place as usize % MAX_HOOKS]
}

/// A place in the code of a file.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file, open: its path may be another process's.
    pub file: Arc<File>,
    /// Where in the file, bytes.
    pub offset: u64,
    /// Where in the file the number is that tells the program that somebody listens.
    pub semaphore: Option<u64>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
            && (self.offset, self.semaphore) == (other.offset, other.semaphore)
    }
}

impl Eq for Place {}

/// Places in code to record as one event.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As recordings name it.
    pub name: String,
    /// Where: one place, or all those of a marker.
    pub places: Vec<Place>,
    /// Not when it is come to, but when the function that begins there returns.
    pub returns: bool,
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Asked {}

/// Loads the program of that event; it does not run yet.
///
/// # Errors
/// Those of the program, and of perf_event_open(2).
pub fn open(kernel: &mut Kernel, cpu: u32, place: u8, asked: &Asked) -> Result<HookProbe, ProbeError> {
    let program = kernel.load_and_share(PROGRAMS[usize::from(place) % MAX_HOOKS].sample)?;
    let hooks = hooks(&asked.name, &asked.places, asked.returns, cpu)?;
    Ok(HookProbe::new(&asked.name, program, hooks))
}

/// Hooks at places. `returns`: at the returns of the functions that begin there. `name`: the event's.
///
/// # Errors
/// Those of perf_event_open(2).
pub(super) fn hooks(name: &str, places: &[Place], returns: bool, cpu: u32) -> Result<Vec<Hook>, ProbeError> {
    let hook = |place: &Place| {
        let path = PathBuf::from(format!("/proc/self/fd/{}", place.file.as_raw_fd()));
        let (offset, semaphore) = (place.offset, place.semaphore);
        Hook::user_code(&UserCode { path, offset, semaphore, returns }, cpu)
    };
    let hooks = places.iter().map(hook).collect::<io::Result<_>>();
    hooks.map_err(|source| ProbeError::Hook { name: name.to_owned(), source })
}
