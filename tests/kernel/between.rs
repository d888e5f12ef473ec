//! Times between two places in user code: of spans of all kinds, as their program measures them.

use profiler::{model::Profile, session::monotonic_ns};
use profiler_tests::{
    expect,
    record::{Record, fails_with, profiler},
    target::{Target, number},
    view::{Entry, View},
    workload,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::generic::nothing_lost;

/// The counter of spans that lack an end or a beginning.
const UNPAIRED: &str = "spans_without_both_ends";

fn arguments() -> [String; 3] {
    let (warm_ms, rounds) = if expect::is_emulated() { (2500, 20) } else { (400, 100) };
    [warm_ms.to_string(), rounds.to_string(), "3".to_owned()]
}

fn spans() -> String {
    format!("usdt:{}:app:begin..end", workload::path("spans").display())
}

fn calls() -> String {
    format!("uspan:{}:timed", workload::path("spans").display())
}

/// What the program says of spans of a kind: their number, and the time that they take at least and at most.
fn said_of(said: &Value, kind: &str) -> [u64; 3] {
    [0, 1, 2].map(|i| said[kind][i].as_u64().unwrap_or_else(|| panic!("no {kind}: {said}")))
}

/// What the kernel's clock for programs may be off from that of processes (`ktime_get_mono_fast_ns`, kernel/time/timekeeping.c),
/// ns for a span.
const CLOCKS: u64 = 1000;

/// Checks that spans of a kind are as many, and as long, as their program says.
fn check(profile: &Profile, event: &str, said: &Value, kind: &str, is_of_it: impl Fn(&Entry<'_>) -> bool) {
    let (time, count) = (View::of_type(profile, event), View::of_type(profile, &format!("{event}:count")));
    let [number, inside, around] = said_of(said, kind);
    let (ns, found) = (time.count(&is_of_it), count.count(&is_of_it));
    println!("{kind}: {found} spans, {ns} ns, {inside} to {around} by their program");
    assert_eq!(found, number, "{kind}{}", count.list(|_| true));
    let (least, most) = (inside.saturating_sub(number * CLOCKS), around + number * CLOCKS);
    assert!((least..=most).contains(&ns), "{kind}: {ns} ns, not {least} to {most}{}", time.list(&is_of_it));
}

/// Whether a span began in that function, called as it is, and ended in the thread.
fn began(entry: &Entry<'_>, functions: &[&str]) -> bool {
    let names: Vec<_> = entry.frames.iter().map(|frame| frame.function.name.as_str()).collect();
    names.starts_with(functions)
}

const LEFT: &str = "[until the thread's end]";

#[test]
fn spans_are_as_many_and_as_long_as_their_program_says() {
    let words = arguments();
    // The same program at the same places, in nobody's filter.
    let mut other =
        Target::ready(&workload::path("spans"), &[&words[0], &words[1], &words[2], &"wait".to_owned()]);
    let other_pid = u64::from(other.pid());
    other.go();
    let (spans, calls) = (spans(), calls());
    let events = format!("{spans},{calls}");
    let recorded = Record::new().args(["-e", &events]).command(&workload::path("spans"), &words).run();
    other.finish();
    let (mut profile, said) = (recorded.succeeded(), recorded.said());
    // An end that nothing has begun, one that another program of the process has begun, and a call in each thread that was
    // left by longjmp.
    assert_eq!(profile.losses.counters.remove(UNPAIRED), Some(4), "{:?}", profile.losses);
    nothing_lost(&profile);
    let types: Vec<_> = profile.sample_types.iter().map(|t| (t.name.clone(), t.unit.name())).collect();
    let named = |event: &String| [(event.clone(), "nanoseconds"), (format!("{event}:count"), "count")];
    assert_eq!(types, [named(&spans), named(&calls)].concat());
    check(&profile, &spans, &said, "short", |e| began(e, &["short_span", "work"]));
    check(&profile, &spans, &said, "wait", |e| began(e, &["wait_span", "work"]));
    check(&profile, &spans, &said, "nested", |e| began(e, &["nested_span", "work"]));
    check(&profile, &spans, &said, "exit", |e| began(e, &[LEFT, "exit_span", "ends_inside"]));
    check(&profile, &spans, &said, "exec", |e| began(e, &[LEFT, "exec_span", "main"]));
    check(&profile, &calls, &said, "timed", |e| began(e, &["timed", "call_timed", "work"]));
    // There are no others, and all have whole stacks.
    for (event, kinds) in [(&spans, &["short", "wait", "nested", "exit", "exec"][..]), (&calls, &["timed"])] {
        let view = View::of_type(&profile, &format!("{event}:count"));
        let numbers: u64 = kinds.iter().map(|kind| said_of(&said, kind)[0]).sum();
        assert_eq!((view.total(), view.of_pid(number(&said, "pid"))), (numbers, numbers));
        assert_eq!(view.of_pid(other_pid), 0);
        let cut = |e: &Entry<'_>| e.end != profiler::model::StackEnd::Complete;
        assert_eq!(view.count(cut), 0, "{}", view.list(cut));
    }
}

#[test]
fn a_span_that_goes_on_is_counted_until_the_end_and_one_from_before_is_not() {
    let words = arguments();
    let mut target = Target::ready(&workload::path("spans"), &[words[0].as_str(), "open"]);
    let spans = spans();
    let mut recording = Record::new().args(["-e", &spans, "-p", &target.pid().to_string()]).start();
    recording.wait_until_attached(2);
    target.go();
    let said = target.says();
    let goes_on_ns = monotonic_ns();
    recording.signal(Signal::INT);
    let mut profile = recording.finish().succeeded();
    let over_ns = monotonic_ns();
    target.finish();
    // The end of the one that had begun before.
    assert_eq!(profile.losses.counters.remove(UNPAIRED), Some(1), "{:?}", profile.losses);
    nothing_lost(&profile);
    let count = View::of_type(&profile, &format!("{spans}:count"));
    let is_open = |e: &Entry<'_>| began(e, &["[until the end]", "open_span"]);
    assert_eq!((count.total(), count.count(is_open)), (1, 1), "{}", count.list(|_| true));
    let ns = View::of_type(&profile, &spans).total();
    let since = [0, 1].map(|i| said["since"][i].as_u64().expect("it says since when"));
    let (least, most) = (goes_on_ns - since[1] - CLOCKS, over_ns - since[0] + CLOCKS);
    assert!((least..=most).contains(&ns), "{ns} ns, not {least} to {most}");
}

#[test]
fn spans_that_cannot_be_are_told_with_what_can() {
    let path = workload::path("spans");
    let at = |marker: &str| format!("usdt:{}:app:{marker}", path.display());
    for (event, part) in [
        (at("begin..ends"), "ends: the provider has no marker of that name; near: end"),
        (at("begin..begin"), "the same marker"),
        (at("begin.."), "two markers are needed"),
        (format!("uspan:{}:time", path.display()), "near: timed"),
        (format!("uspan:{}:timed+4", path.display()), "no offset"),
        ("java:gc".to_owned(), "-p PID; or name the file"),
        ("java:gcs".to_owned(), "java:gc"),
    ] {
        let recorded = Record::new().args(["-e", &event]).command(&workload::path("burner"), ["0"]).run();
        let stderr = recorded.stderr().replace('\n', "; ").replace(";   ", "; ");
        let text = stderr.strip_suffix("; ").unwrap_or(&stderr);
        let found = text.contains(part) || recorded.stderr().contains(part);
        assert!(found, "{event}: {text}");
        fails_with(&event, recorded.status(), &recorded.stderr(), 2, "");
    }
    let listed = profiler(["list", "java:*", "--json"]);
    let value: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let rows: Vec<_> = value["rows"].as_array().unwrap().iter().collect();
    let units = |row: &Value| row["sample_types"].as_array().unwrap().len();
    let events: Vec<_> = rows.iter().map(|row| (row["event"].as_str().unwrap(), units(row))).collect();
    let expected =
        [("java:gc", 2), ("java:safepoint", 2), ("java:jit", 2), ("java:class-load", 1), ("java:monitor", 2)];
    assert_eq!(events, expected);
}
