//! Switches away from tasks, counted by stack: against what the kernel itself counts for the process.

use profiler::model::{Profile, StackEnd};
use profiler_tests::{
    expect,
    record::{Record, Recorded, fails_with},
    target::Target,
    view::{Entry, View},
    workload,
};
use rustix::process::Signal;

/// Rounds that a byte is passed; fewer where everything is slow.
fn rounds() -> u64 {
    if expect::is_emulated() { 10_000 } else { 50_000 }
}

/// CPU time of the part that gives the profiler time for the tables, rounds, and CPU time of those that never wait.
fn arguments() -> [String; 3] {
    ["400".to_owned(), rounds().to_string(), "300".to_owned()]
}

/// A process reads its counts just outside of the function that it is looked for in: it may be made to leave the CPU
/// between the two, at either end. More than one such switch at an end would take two time slices for a few
/// microseconds of work.
const SLACK: u64 = 4;

/// What the kernel counted of a process: those that wait, and those that are made to leave.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    pid: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Kernel {
    fn of(value: &serde_json::Value) -> Self {
        let number = |i: usize| value[i].as_u64().expect("the workload says its counts");
        Self { pid: number(0), voluntary: number(1), involuntary: number(2) }
    }

    fn all(self) -> u64 {
        self.voluntary + self.involuntary
    }
}

/// Ping, pong and the two that spin.
fn counted(said: &serde_json::Value) -> [Kernel; 4] {
    [0, 1, 2, 3].map(|i| Kernel::of(&said["counts"][i]))
}

fn close(what: &str, found: u64, counted: u64, slack: u64) {
    assert!(found.abs_diff(counted) <= slack, "{what}: {found} recorded, {counted} counted by the kernel");
}

/// `functions`: from the one that leaves outwards. Between it and the kernel is the C library's wrapper.
fn stands_below(entry: &Entry<'_>, functions: &[&str]) -> bool {
    let names: Vec<_> = entry.user_frames().map(|frame| frame.function.name.as_str()).collect();
    let at = names.iter().position(|name| *name == functions[0]);
    at.is_some_and(|at| at <= 2 && names[at..].starts_with(functions))
}

const PING: [&str; 4] = ["ping", "ping_inner", "ping_outer", "main"];
const PONG: [&str; 4] = ["pong", "pong_inner", "pong_outer", "main"];

/// Checks the counts of the four processes.
fn check_counts(profile: &Profile, said: &serde_json::Value) {
    let view = View::of(profile);
    expect::nothing_lost(profile);
    let [ping, pong, first, second] = counted(said);
    // By a function that both ways of walking find: the kernel's passes over the one that called the C library.
    for (process, function) in [(ping, "ping_inner"), (pong, "pong_inner")] {
        // Pong finds its first byte there if ping was the faster one.
        assert!(process.all() >= rounds() - 1, "{process:?}");
        let in_function = |e: &Entry<'_>| u64::from(e.thread.pid) == process.pid && e.has(function);
        close(function, view.count(in_function), process.all(), SLACK);
    }
    for process in [first, second] {
        assert_eq!(process.voluntary, 0, "it never waits: {process:?}");
        assert!(process.involuntary > 0, "two share a CPU: {process:?}");
        // And what comes before and behind the function: its start, its end.
        close("spin", view.of_pid(process.pid), process.all(), 8);
    }
    let life = Kernel::of(&said["life"]);
    // Not recorded: the wait for the recording to begin, before exec. Not counted: the end.
    close("from exec to exit", view.of_pid(life.pid), life.all(), 8);
}

/// Checks the counts and the stacks of those that play.
fn check(profile: &Profile, said: &serde_json::Value) {
    check_counts(profile, said);
    let view = View::of(profile);
    let [ping, pong, ..] = counted(said);
    for (process, functions) in [(ping, PING), (pong, PONG)] {
        let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == process.pid;
        let right = |e: &Entry<'_>| of_it(e) && stands_below(e, &functions) && e.end == StackEnd::Complete;
        let wrong = view.list(|e| of_it(e) && e.has(functions[0]) && !right(e));
        expect::at_least(&wrong, view.count(right), process.all(), 99.0);
        // The other side's functions are in no stack of this process.
        let other = if functions[0] == "ping" { "pong" } else { "ping" };
        let mixed = |e: &Entry<'_>| of_it(e) && e.has(other);
        assert_eq!(view.count(mixed), 0, "{}", view.list(mixed));
    }
}

fn play() -> Recorded {
    Record::new().args(["-e", "context-switches"]).command(&workload::path("switches"), arguments()).run()
}

#[test]
fn every_switch_is_counted_with_its_stack() {
    let recorded = play();
    let profile = recorded.succeeded();
    check(&profile, &recorded.said());
    let meta = &profile.meta;
    assert_eq!(meta.events, ["context-switches"]);
    assert_eq!((meta.sampler.as_str(), meta.frequency_hz), ("sched_switch", 0));
    assert_eq!((meta.expected_ticks, meta.idle_samples), (0, 0));
    let view = View::of(&profile);
    assert!(meta.ticks >= view.total(), "{} hits, {} counted", meta.ticks, view.total());
    let types: Vec<_> = profile.sample_types.iter().map(|t| (t.name.as_str(), t.unit.name())).collect();
    assert_eq!(types, [("context-switches", "count")]);
    // A task leaves in the scheduler, and the profiler's own program is not what it left in.
    let scheduled = |e: &Entry<'_>| e.frames.first().is_some_and(|f| f.function.name == "__schedule");
    assert_eq!(view.count(|e| !scheduled(e)), 0, "{}", view.list(|e| !scheduled(e)));
    // The idle task's are nobody's.
    assert_eq!(view.count(|e| e.thread.tid == 0), 0);
}

#[test]
fn by_frame_pointers_the_counts_are_the_same() {
    let record = Record::new().args(["-e", "context-switches", "--unwind", "fp"]);
    let recorded = record.command(&workload::path("switches-fp"), arguments()).run();
    check_counts(&recorded.succeeded(), &recorded.said());
}

#[test]
fn switches_of_others_are_not_counted() {
    // It plays while another one is recorded, and is in nobody's filter.
    let mut other = Target::ready(&workload::path("switches"), &["0", "20000", "0", "wait"]);
    let other_pid = u64::from(other.pid());
    other.go();
    let recorded = play();
    other.finish();
    let profile = recorded.succeeded();
    check(&profile, &recorded.said());
    let view = View::of(&profile);
    assert_eq!(view.of_pid(other_pid), 0);
    let known = counted(&recorded.said()).map(|process| process.pid);
    let stranger = |e: &Entry<'_>| !known.contains(&u64::from(e.thread.pid));
    assert_eq!(view.count(stranger), 0, "{}", view.list(stranger));
}

/// A timer's programs walk stacks on the same CPUs at a high rate meanwhile: neither walk disturbs the other.
#[test]
fn a_walk_at_a_switch_and_a_walk_at_a_tick_do_not_meet() {
    let mut timer = Record::new().args(["-a", "-F", "4999"]).start();
    timer.wait_until_sampling();
    let recorded = play();
    timer.signal(Signal::INT);
    let timer = timer.finish();
    let said = recorded.said();
    check(&recorded.succeeded(), &said);

    let profile = timer.succeeded();
    expect::no_sample_lost(&profile);
    let view = View::of(&profile);
    let [ping, pong, first, second] = counted(&said);
    for (process, functions) in
        [(ping, &PING[..]), (pong, &PONG), (first, &["spin_here"]), (second, &["spin_here"])]
    {
        // Nothing was known yet of a process at its first samples: the timer is fast, and emulation is slow.
        let of_it = |e: &Entry<'_>| {
            u64::from(e.thread.pid) == process.pid && e.has(functions[0]) && e.end != StackEnd::FirstSample
        };
        let right = |e: &Entry<'_>| of_it(e) && stands_below(e, functions) && e.end == StackEnd::Complete;
        let (found, all) = (view.count(right), view.count(of_it));
        assert!(all >= 200, "{process:?}: {all} samples");
        expect::at_least(&view.list(|e| of_it(e) && !right(e)), found, all, 99.0);
    }
}

#[test]
fn what_does_not_go_with_it_is_refused() {
    for (arguments, part) in [
        (&["-e", "context-switches", "-F", "99"][..], "-F does not go with"),
        (&["-e", "cpu,context-switches", "--user-only"], "--user-only does not go with"),
    ] {
        let recorded = Record::new().args(arguments).command(&workload::path("burner"), ["0"]).run();
        fails_with(part, recorded.status(), &recorded.stderr(), 2, part);
    }
}
