//! `-e java:gc` and the like: from names to the places of markers in the `libjvm.so` of the processes that `-p` names.
//!
//! The library is opened through the mapping of each process, so that containers do not matter. One that several of them
//! have mapped is hooked once; the filter tells the processes apart.

use std::{fs::File, os::unix::fs::MetadataExt as _, sync::Arc};

use profiler_common::sample::MAX_HOOKS;

use super::{
    error::Failure,
    near::near,
    uprobe::refused,
    usdt::{self, Refused},
};
use crate::{
    probe::{
        Chosen, Event, Part, between,
        java::{self, EVENTS, JavaSpec},
        uprobe::{Asked, MARKER_PREFIX, Place},
    },
    symbolize::{
        markers::Markers,
        runtime::jvm::open::{self, OpenError},
    },
};

/// What tells the same of a JVM without its markers.
pub(super) const WITHOUT_MARKERS: &str = "`profiler java -p PID` shows what a JVM counts of collections, safepoints and compilations, \
                               without markers";

/// What tells of monitors in any JVM.
const WITHOUT_MONITORS: &str = "`-e offcpu` has the waits for monitors with their Java stacks, of any JVM, and \
                                `profiler java -p PID` the monitors";

/// The event of that name. `processes`: those that `-p` names. `place`: how many hooks were named before.
pub fn resolve(name: &str, processes: &[u32], place: usize) -> Result<Chosen, Failure> {
    let usage = |what: &str| refused(&format!("-e {name}"), what);
    let Some(event) = java::find(name) else {
        let names = EVENTS.iter().map(JavaSpec::name);
        let found = near(name, names.clone());
        let names: Vec<&str> = if found.is_empty() { names.collect() } else { found };
        return Err(usage("no such event").mend(format!("events of a JVM: {}", names.join(", "))));
    };
    if place >= MAX_HOOKS {
        let message = format!("a recording has {MAX_HOOKS} events at most that are named by their hooks");
        return Err(usage(&message).mend("record the others by themselves"));
    }
    if processes.is_empty() {
        let mend = format!(
            "name one that runs: -p PID; or name the file: -e {MARKER_PREFIX}/path/to/libjvm.so:{}",
            event.markers()
        );
        return Err(usage("it is looked for in the JVM of a process, and none is named").mend(mend));
    }
    let mut begins = Vec::new();
    let mut ends = Vec::new();
    for (pid, file) in libraries(processes).map_err(|what| usage(&what))? {
        let (begin, end) = places(event, &file).map_err(|Refused { what, .. }| {
            usage(&format!("libjvm.so of process {pid}: {what}")).mend(WITHOUT_MARKERS)
        })?;
        begins.extend(begin);
        ends.extend(end);
    }
    if let Some(flag) = event.flag {
        are_set(flag, processes).map_err(|what| usage(&what).mend(WITHOUT_MONITORS))?;
    }
    let part = if event.end.is_some() {
        let (name, number) = (event.name().to_owned(), event.number().to_owned());
        Part::Between(between::Asked { name, number, begins, ends })
    } else {
        Part::Uprobe(Asked { name: event.name().to_owned(), places: begins, returns: false })
    };
    Ok(Chosen { event: Event::Java(event.java, place as u8), part })
}

/// The markers of a process's JVM, or why there are none.
pub(super) fn markers_of(pid: u32) -> Result<Markers, String> {
    let library = open::library(pid).map_err(|error| error.to_string())?;
    usdt::read(&library.file).map_err(|error| format!("the markers of its libjvm.so cannot be read: {error}"))
}

/// Whether all JVMs among some processes come to the markers that take a flag, or why not.
fn are_set(flag: &'static str, processes: &[u32]) -> Result<(), String> {
    for &pid in processes {
        match open::flag(pid, flag) {
            Ok(true) | Err(OpenError::NoJvm) => {}
            Ok(false) => {
                let without = "the JVM was started without";
                return Err(format!(
                    "process {pid}: {without} -XX:+{flag}, and does not come to its markers"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "process {pid}: whether the JVM has -XX:+{flag} cannot be read: {error}"
                ));
            }
        }
    }
    Ok(())
}

/// The libraries of some processes, each once, with the first process that has it. Processes that are no JVMs have none, but
/// for one.
fn libraries(processes: &[u32]) -> Result<Vec<(u32, Arc<File>)>, String> {
    let mut found: Vec<(u32, Arc<File>)> = Vec::new();
    let mut known = Vec::new();
    for &pid in processes {
        let of_process = |error: &dyn std::fmt::Display| format!("process {pid}: {error}");
        let file = match open::library(pid) {
            Ok(library) => library.file,
            Err(OpenError::NoJvm) => continue,
            Err(error) => return Err(of_process(&error)),
        };
        let meta = file.metadata().map_err(|error| of_process(&error))?;
        let identity = (meta.dev(), meta.ino());
        if !known.contains(&identity) {
            known.push(identity);
            found.push((pid, Arc::new(file)));
        }
    }
    match (found.is_empty(), processes) {
        (false, _) => Ok(found),
        (true, [pid]) => Err(format!("process {pid}: {}", OpenError::NoJvm)),
        (true, _) => Err(format!("none of the processes is one: {}", OpenError::NoJvm)),
    }
}

/// Where in the library the event begins and ends; or where it is.
fn places(event: &JavaSpec, file: &Arc<File>) -> Result<(Vec<Place>, Vec<Place>), Refused> {
    let markers = usdt::read(file).map_err(|error| Refused {
        what: format!("the file's markers cannot be read: {error}"),
        mend: String::new(),
    })?;
    match event.end {
        Some(end) => usdt::pair(&markers, file, event.provider, (event.begin, end)),
        None => Ok((usdt::of_marker(&markers, file, event.provider, event.begin)?, Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_what_mends_it() {
        let me = std::process::id();
        for (name, processes, part) in [
            ("java:gcs", &[me][..], "no such event"),
            ("java:gcs", &[me], "java:gc"),
            ("java:", &[me], "java:class-load"),
            (
                "java:gc",
                &[],
                "-p PID; or name the file: -e usdt:/path/to/libjvm.so:hotspot:gc__begin..gc__end",
            ),
            ("java:class-load", &[], "libjvm.so:hotspot:class__loaded"),
            ("java:gc", &[me], "no libjvm.so is mapped"),
            ("java:gc", &[me, me], "none of the processes"),
            ("java:gc", &[u32::MAX >> 1], "mappings: "),
        ] {
            let error = resolve(name, processes, 0).unwrap_err();
            let text = format!("{error} {:?}", error.mend);
            assert!(text.contains(part), "{name} {processes:?}: {text}");
        }
    }

    #[test]
    fn a_library_without_markers_has_another_way_to_tell() {
        let file = Arc::new(File::open("/proc/self/exe").unwrap());
        let refused = places(&EVENTS[0], &file).unwrap_err();
        assert_eq!(refused.what, "gc__begin: the file has no markers");
    }
}
