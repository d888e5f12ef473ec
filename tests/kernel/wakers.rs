//! Who ended a wait: known wakers, with their stacks on those that waited.

use profiler_tests::{
    expect,
    record::{Record, Recorded, fails_with},
    target::{Target, number},
    view::{Entry, View},
    workload,
};

const WARM: &str = "500";

/// A wait of the workload, and a function of the thread that ends it.
const WAITS: [(&str, &str); 5] = [
    ("futex", "release_futex"),
    ("pipe", "release_file"),
    ("poll", "release_file"),
    ("socket", "release_file"),
    ("mutex", "hold_mutex"),
];

fn record(arguments: &[&str]) -> Record {
    Record::new().args(["-e", "offcpu", "--wakers"]).args(arguments)
}

/// Where the label of the waker is: outside of it is the wait, inside is the waker, outermost function first.
fn at(entry: &Entry<'_>) -> Option<usize> {
    let is_label = |name: &str| name.starts_with("[woken by ") || name == "[waker not seen]";
    entry.frames.iter().position(|frame| is_label(&frame.function.name))
}

fn waker<'a>(entry: &Entry<'a>) -> &'a str {
    at(entry).map_or("", |at| &entry.frames[at].function.name)
}

/// The functions of the waker, outermost first.
fn of_waker<'a>(entry: &Entry<'a>) -> Vec<&'a str> {
    let inside = &entry.frames[..at(entry).unwrap_or(0)];
    inside.iter().map(|frame| frame.function.name.as_str()).collect()
}

/// Whether a function is in the part of the stack that waited.
fn waited_in(entry: &Entry<'_>, function: &str) -> bool {
    entry.frames[at(entry).map_or(0, |at| at + 1)..].iter().any(|frame| frame.function.name == function)
}

/// Frames from the waker's label inwards begin where the kernel wakes; one that called another stands outside of it.
fn is_turned(entry: &Entry<'_>, functions: &[&str]) -> bool {
    let waker = of_waker(entry);
    let places: Vec<_> = functions.iter().map(|f| waker.iter().position(|name| name == f)).collect();
    waker.last() == Some(&"try_to_wake_up") && places.is_sorted() && places.iter().all(Option::is_some)
}

fn waits(arguments: &[&str]) -> Recorded {
    record(arguments).command(&workload::path("waits"), [WARM]).run()
}

#[test]
fn a_known_waker_stands_on_the_wait_that_it_ended() {
    // The child that is waited for is no target, and ends a wait all the same.
    let recorded = waits(&["--no-children"]);
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    let view = View::of_type(&profile, "offcpu");
    let pid = number(&said, "pid");
    let check = |name: &str, right: &dyn Fn(&Entry<'_>) -> bool| {
        let function = format!("known_{name}");
        let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && waited_in(e, &function);
        let (found, wall) = (view.count(of_it), said[name][0].as_u64().expect("the workload says its times"));
        // Behind the wake-up it waits for a CPU, which is not recorded here.
        assert!(found > wall / 2 && found <= wall + wall / 50 + 20_000_000, "{name}: {found} of {wall} ns");
        expect::at_least(&view.list(of_it), view.count(|e| of_it(e) && right(e)), found, 98.0);
    };
    for (name, function) in WAITS {
        check(name, &|e| waker(e) == "[woken by waits]" && is_turned(e, &["helper", function]));
    }
    // The timer's interrupt has no user part, whomever it hit.
    check("sleep", &|e| {
        let kernel_only =
            e.frames[..at(e).unwrap_or(0)].iter().all(|f| f.kind == profiler::model::FrameKind::Kernel);
        waker(e) == "[woken by an interrupt]"
            && is_turned(e, &["hrtimer_interrupt", "hrtimer_wakeup"])
            && kernel_only
    });
    check("child", &|e| {
        waker(e) == "[woken by waits]" && is_turned(e, &["do_exit"]) && !of_waker(e).contains(&"helper")
    });
    // All waits are of the target, and none was ended by anybody else's thread.
    let stranger =
        |e: &Entry<'_>| e.has("known_futex") && !["[woken by waits]", "[waker not seen]"].contains(&waker(e));
    assert_eq!(view.count(stranger), 0, "{}", view.list(stranger));
    let other = |e: &Entry<'_>| u64::from(e.thread.pid) != pid;
    assert_eq!(view.count(other), 0, "{}", view.list(other));
}

/// Two processes wake each other all the time: what is kept of the wakers' stacks must not be taken for another's.
#[test]
fn those_that_wake_each_other_are_told_apart() {
    const PLAY: [&str; 3] = ["400", "20000", "200"];
    let recorded = record(&[]).command(&workload::path("switches"), PLAY).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    let view = View::of_type(&profile, "blocks");
    for (i, [function, other]) in
        [["ping_inner", "pong_inner"], ["pong_inner", "ping_inner"]].into_iter().enumerate()
    {
        let [pid, voluntary] = [0, 1].map(|n| said["counts"][i][n].as_u64().expect("a number"));
        let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && waited_in(e, function);
        let found = view.count(of_it);
        assert!(found.abs_diff(voluntary) <= 4, "{function}: {found} blocks, {voluntary} voluntary switches");
        let right =
            |e: &Entry<'_>| of_it(e) && is_turned(e, &["main", other]) && !of_waker(e).contains(&function);
        if found > 100 {
            expect::at_least(&view.list(|e| of_it(e) && !right(e)), view.count(right), found, 99.0);
        }
    }
}

/// While others work on all CPUs, the timers of one that sleeps interrupt them: that is no wake-up of theirs.
#[test]
fn who_is_interrupted_is_no_waker() {
    const COUNT: &str = "300";
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let _others: Vec<_> = (0..cpus)
        .map(|_| {
            let mut other =
                Target::ready(&workload::path("burner"), &["1000", "forever", "wait"]).giving_way();
            other.go();
            other
        })
        .collect();
    let recorded = record(&[]).command(&workload::path("waits"), [WARM, "in_turn", COUNT]).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    let view = View::of_type(&profile, "blocks");
    let pid = number(&said, "pid");
    let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && waited_in(e, "turn_sleep");
    let found = view.count(of_it);
    assert!(found > 100, "{found} sleeps");
    let right = |e: &Entry<'_>| of_it(e) && waker(e) == "[woken by an interrupt]" && !e.has("burner_work");
    expect::at_least(&view.list(|e| of_it(e) && !right(e)), view.count(right), found, 98.0);
}

#[test]
fn waits_without_stacks_have_no_wakers() {
    let recorded = waits(&["--min-block", "50ms"]);
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    let view = View::of_type(&profile, "blocks");
    let short = |e: &Entry<'_>| e.frames[0].function.name.contains("below --min-block");
    assert!(
        view.count(short) >= 5 && view.count(|e| short(e) && e.frames.len() != 1) == 0,
        "{}",
        view.list(short)
    );
    assert!(view.count(|e| waited_in(e, "known_pipe") && is_turned(e, &["release_file"])) > 0);
    // Those that were not asked for are not there.
    let plain =
        Record::new().args(["-e", "offcpu"]).command(&workload::path("waits"), [WARM]).run().succeeded();
    let view = View::of_type(&plain, "blocks");
    assert_eq!(view.count(|e| at(e).is_some()), 0);
}

#[test]
fn wakers_of_nothing_are_refused() {
    let recorded =
        Record::new().args(["-e", "runq", "--wakers"]).command(&workload::path("burner"), ["0"]).run();
    fails_with("--wakers", recorded.status(), &recorded.stderr(), 2, "-e offcpu");
}
