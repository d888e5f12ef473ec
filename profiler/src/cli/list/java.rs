//! What of a JVM's events the JVM of a process has (`profiler list java -p PID`).

use super::{Row, built_in, matches, places};
use crate::{
    cli::{
        error::{Exit, Failure},
        java_events::{self, WITHOUT_MARKERS},
    },
    model::name::clean,
    probe::java::{self, JavaSpec},
    symbolize::{markers::Markers, runtime::jvm::open},
};

/// What the names of the events begin with, as far as a pattern has it.
const WORD: &str = "java";

/// Whether a pattern is about them.
pub(super) fn is_meant(pattern: &str) -> bool {
    pattern.starts_with(WORD)
}

/// The rows of those that are there, and which are not.
pub(super) fn rows(pattern: &str, pid: u32) -> Result<(Vec<Row>, Option<String>), Failure> {
    let message =
        |what: &dyn std::fmt::Display| format!("list {} -p {pid}: {what}", clean(pattern.as_bytes()));
    let markers = java_events::markers_of(pid).map_err(|what| Failure::new(Exit::Usage, message(&what)))?;
    let is_set = |event: &JavaSpec| event.flag.is_none_or(|flag| open::flag(pid, flag).unwrap_or(false));
    let is_there =
        |row: &Row| java::find(&row.event).is_some_and(|event| has(&markers, event) && is_set(event));
    let asked = built_in().filter(|row| java::find(&row.event).is_some() && matches(pattern, &row.event));
    let (mut there, missing): (Vec<_>, Vec<_>) = asked.partition(is_there);
    if there.is_empty() && missing.is_empty() {
        return Err(Failure::new(Exit::Usage, message(&"no such event of a JVM"))
            .mend("`profiler list java:` shows all of them"));
    }
    for row in &mut there {
        row.places = java::find(&row.event).map(|event| places_of(&markers, event));
    }
    Ok((there, note(&markers, &missing)))
}

/// Why events are missing.
fn note(markers: &Markers, missing: &[Row]) -> Option<String> {
    let events = || missing.iter().filter_map(|row| java::find(&row.event));
    let without = events().filter(|event| !has(markers, event)).map(JavaSpec::name).collect::<Vec<_>>();
    let without = (!without.is_empty())
        .then(|| format!("this JVM has no markers for {}; {WITHOUT_MARKERS}", without.join(", ")));
    let unset = events().filter(|event| has(markers, event));
    let unset =
        unset.filter_map(|event| Some(format!("{} needs a JVM with -XX:+{}", event.name(), event.flag?)));
    let notes: Vec<_> = without.into_iter().chain(unset).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// Whether a library has all markers of an event.
fn has(markers: &Markers, event: &JavaSpec) -> bool {
    let is_there =
        |name: &str| markers.markers.iter().any(|m| m.provider == event.provider && m.name == name);
    is_there(event.begin) && event.end.is_none_or(is_there)
}

fn places_of(markers: &Markers, event: &JavaSpec) -> Vec<places::PlaceRow> {
    let names = [Some(event.begin), event.end];
    let is_of_it = |provider: &str, name: &str| provider == event.provider && names.contains(&Some(name));
    let found = markers.markers.iter().filter(|m| is_of_it(&m.provider, &m.name));
    found.flat_map(places::place_rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{probe::java::EVENTS, symbolize::markers::Marker};

    #[test]
    fn an_event_is_there_if_all_its_markers_are() {
        let marker =
            |name: &str| Marker { provider: "hotspot".into(), name: name.into(), places: Vec::new() };
        let markers =
            |names: &[&str]| Markers { markers: names.iter().map(|name| marker(name)).collect(), damaged: 0 };
        let events = |names: &[&str]| EVENTS.iter().filter(|event| has(&markers(names), event)).count();
        assert_eq!(events(&["gc__begin", "gc__end", "class__loaded"]), 2);
        // The provider of safepoints is another one.
        assert_eq!(events(&["gc__begin", "safepoint__begin", "safepoint__end"]), 0);
    }

    #[test]
    fn a_process_without_a_jvm_has_none() {
        let error = rows("java:*", std::process::id()).unwrap_err();
        assert!(error.message.contains("no libjvm.so is mapped"), "{error}");
    }
}
