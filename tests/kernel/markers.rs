//! Markers of USDT. A program comes to each of its own, and to one of a library's, so often.

use std::path::PathBuf;

use profiler_tests::{
    expect,
    record::{Record, fails_with, profiler},
    target::Target,
    view::{Entry, View},
    workload,
};

use crate::generic::{check, nothing_lost};

/// How often the program comes to the marker that it comes to most often.
fn times() -> u64 {
    if expect::is_emulated() { 300 } else { 3000 }
}

fn arguments() -> [String; 3] {
    [path("markers.so").display().to_string(), expect::warm_up_ms().to_string(), times().to_string()]
}

fn path(name: &str) -> PathBuf {
    workload::path(name)
}

/// The event of a marker of the program's.
fn at(marker: &str) -> String {
    format!("usdt:{}:{marker}", path("markers").display())
}

#[test]
fn every_hit_of_a_marker_is_counted_with_its_callers() {
    let words = arguments();
    // The same program at the same markers, in nobody's filter.
    let mut other = Target::ready(&path("markers"), &[&words[0], "0", &words[2], "listened"]);
    let other_pid = u64::from(other.pid());
    other.go();
    let (places, asked) = (at("app:places"), at("app:asked"));
    let library = format!("usdt:{}:library:inside", words[0]);
    let events = format!("{places},{asked},{library}");
    let recorded = Record::new().args(["-e", &events]).command(&path("markers"), &words).run();
    let (profile, said, times) = (recorded.succeeded(), recorded.said(), times());
    nothing_lost(&profile);
    assert_eq!(profile.losses.counters.get("uprobe_hits_left_out"), Some(&0));
    let types: Vec<_> = profile.sample_types.iter().map(|t| (t.name.as_str(), t.unit.name())).collect();
    assert_eq!(types, [places.as_str(), &asked, &library].map(|event| (event, "count")));
    // Both places of a marker are one event.
    check(&profile, &places, times, 0, &["often", "call_both", "main"]);
    check(&profile, &places, times.div_ceil(2), 0, &["rarely", "call_both", "main"]);
    check(&profile, &asked, times, 0, &["when_asked", "ask", "main"]);
    check(&profile, &library, times.div_ceil(3), 0, &["library_inside", "call_library", "main"]);
    for (event, times) in
        [(&places, times + times.div_ceil(2)), (&asked, times), (&library, times.div_ceil(3))]
    {
        let view = View::of_type(&profile, event);
        assert_eq!((view.total(), view.of_pid(other_pid)), (times, 0));
        let odd = |e: &Entry<'_>| e.user_leaf().is_none() || e.user_frames().count() != e.frames.len();
        assert_eq!(view.count(odd), 0, "{}", view.list(odd));
    }
    // The semaphore is up in every process as long as somebody listens, and down before and afterwards.
    assert_eq!((said["first"].as_u64(), said["raised"].as_u64()), (Some(1), Some(times)), "{said}");
    other.wait_until("done");
    let (_, beside) = other.finish();
    assert_eq!((beside["first"].as_u64(), beside["last"].as_u64()), (Some(0), Some(0)), "{beside}");
    assert!(beside["raised"].as_u64() > Some(0), "{beside}");
}

#[test]
fn nobody_listens_to_a_marker_that_is_not_recorded() {
    let words = arguments();
    let event = at("app:places");
    let recorded = Record::new().args(["-e", &event]).command(&path("markers"), &words).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    nothing_lost(&profile);
    check(&profile, &event, times(), 0, &["often", "call_both", "main"]);
    assert_eq!(["first", "raised", "last"].map(|key| said[key].as_u64()), [Some(0); 3], "{said}");
}

#[test]
fn markers_are_listed_as_they_can_be_recorded() {
    let file = path("markers");
    let listed = profiler(["list", &format!("usdt:{}", file.display()), "--json"]);
    assert!(listed.status.success());
    let value: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let rows = value["rows"].as_array().unwrap();
    let markers: Vec<_> = rows
        .iter()
        .map(|row| {
            let places = row["places"].as_array().unwrap();
            let listens = places.iter().any(|place| place["semaphore"].as_bool().unwrap());
            (row["event"].as_str().unwrap(), places.len(), listens)
        })
        .collect();
    let (asked, places) = (at("app:asked"), at("app:places"));
    assert_eq!(markers, [(asked.as_str(), 1, true), (places.as_str(), 2, false)]);
    for pattern in ["app:*", "*asked", "asked"] {
        let listed = profiler(["list", &at(pattern)]);
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(text.lines().any(|line| line.starts_with(&asked) && line.contains("semaphore")), "{text}");
    }
    let functions = profiler(["list", &format!("uprobe:{}:when_*", file.display())]);
    let text = String::from_utf8(functions.stdout).unwrap();
    assert_eq!(text, format!("uprobe:{}:when_asked\n", file.display()));
}

#[test]
fn a_marker_that_is_not_there_is_told_with_those_that_are() {
    for (marker, part) in [
        ("app:place", "near: places"),
        ("ap:places", "its providers: app"),
        (":app:places", "os error 2"),
        ("places", "no path, provider and name"),
    ] {
        let event = at(marker);
        let recorded = Record::new().args(["-e", &event]).command(&path("burner"), ["0"]).run();
        fails_with(&event, recorded.status(), &recorded.stderr(), 2, part);
    }
    let event = format!("usdt:{}:app:places", path("burner").display());
    let recorded = Record::new().args(["-e", &event]).command(&path("burner"), ["0"]).run();
    fails_with(&event, recorded.status(), &recorded.stderr(), 2, "the file has no markers");
}
