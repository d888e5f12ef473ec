//! Time off the CPU: known waits with their causes and stacks, against what the workload and the kernel measure.

use profiler::model::{Profile, StackEnd};
use profiler_tests::{
    expect,
    record::{Record, Recorded, fails_with},
    target::{Target, number},
    view::{Entry, View},
    workload,
};
use serde_json::Value;

/// Time that the profiler has for making the program's tables, ms.
const WARM: &str = "500";

/// A wait of the workload: its function, and its cause.
const WAITS: [(&str, &str); 7] = [
    ("sleep", "[blocked: sleep]"),
    ("futex", "[blocked: futex]"),
    ("pipe", "[blocked: pipe]"),
    ("poll", "[blocked: poll]"),
    ("socket", "[blocked: socket-read]"),
    ("mutex", "[blocked: futex]"),
    ("child", "[blocked: wait]"),
];

/// What a time may be off: 2 %, or 1 ms. The kernel reads its clock for the CPU time a moment before it hits the
/// tracepoint; an emulated CPU that the host stops between the two, for some slices of its scheduler, puts that time into
/// both or into neither.
fn tolerance(ns: u64) -> u64 {
    if expect::is_emulated() { 20_000_000 } else { (ns / 50).max(1_000_000) }
}

fn label<'a>(entry: &Entry<'a>) -> &'a str {
    entry.frames.first().map_or("", |frame| &frame.function.name)
}

/// `functions`: from the one that waits outwards. Between it and the kernel are the C library's.
fn stands_below(entry: &Entry<'_>, functions: &[&str]) -> bool {
    let names: Vec<_> = entry.user_frames().map(|frame| frame.function.name.as_str()).collect();
    let at = names.iter().position(|name| *name == functions[0]);
    at.is_some_and(|at| at <= 5 && names[at..].starts_with(functions))
}

fn record(events: &str) -> Record {
    Record::new().args(["-e", events])
}

fn waits(record: Record) -> Recorded {
    record.command(&workload::path("waits"), [WARM]).run()
}

/// Checks all waits of the workload, but for those that were hidden, which are fewer than half.
fn check_waits(profile: &Profile, said: &Value) {
    let wrong: Vec<_> =
        WAITS.iter().filter_map(|(name, cause)| check_wait(profile, said, name, cause).err()).collect();
    let hidden = expect::hidden_switches(profile).min(WAITS.len() as u64 / 2);
    assert!(wrong.len() as u64 <= hidden, "{wrong:?}");
}

/// Checks a wait: blocked for its cause, with its stack; what the workload measured is that, the wait for a CPU behind
/// it, and the CPU time of its function. `Err`: not all of that time was found.
fn check_wait(profile: &Profile, said: &Value, name: &str, cause: &str) -> Result<(), String> {
    let (blocked, queued) = (View::of_type(profile, "offcpu"), View::of_type(profile, "runq"));
    let [wall, cpu] = [0, 1].map(|i| said[name][i].as_u64().expect("the workload says its times"));
    let (function, outer) = (format!("known_{name}"), format!("known_{name}_outer"));
    let pid = number(said, "pid");
    let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && e.has(&function);
    let off = blocked.count(of_it);
    let waited = queued.count(|e| u64::from(e.thread.pid) == pid && e.has(&outer));
    let found = off + waited + cpu;
    let times = format!(
        "{name}: {off} ns blocked + {waited} ns runnable + {cpu} ns on the CPU = {found}, measured {wall}"
    );
    assert!(found <= wall + tolerance(wall), "{times}{}", blocked.list(of_it));
    if found + tolerance(wall) < wall || off <= wall / 2 {
        return Err(times + &blocked.list(of_it));
    }
    let right = |e: &Entry<'_>| {
        of_it(e)
            && label(e) == cause
            && stands_below(e, &[&function, &outer])
            && e.has("main")
            && e.end == StackEnd::Complete
    };
    // The page of a function may have to be read, once.
    expect::at_least(&blocked.list(|e| of_it(e) && !right(e)), blocked.count(right), off, 98.0);
    Ok(())
}

#[test]
fn known_waits_have_their_times_causes_and_stacks() {
    let recorded = waits(record("offcpu,runq"));
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    check_waits(&profile, &said);
    let types: Vec<_> = profile.sample_types.iter().map(|t| (t.name.as_str(), t.unit.name())).collect();
    assert_eq!(
        types,
        [("offcpu", "nanoseconds"), ("blocks", "count"), ("runq", "nanoseconds"), ("runq-waits", "count")]
    );
    assert_eq!(profile.meta.events, ["offcpu", "runq"]);
    // The last frame before the label is where the scheduler takes the CPU.
    let blocks = View::of_type(&profile, "blocks");
    let scheduled = |e: &Entry<'_>| e.frames.get(1).is_some_and(|f| f.function.name == "__schedule");
    assert_eq!(blocks.count(|e| !scheduled(e)), 0, "{}", blocks.list(|e| !scheduled(e)));
    // Each wake-up is followed by a wait for a CPU.
    let woken = View::of_type(&profile, "runq-waits").count(|e| label(e) == "[runnable: woken]");
    let hidden = expect::hidden_switches(&profile);
    assert!(
        woken.abs_diff(blocks.total()) <= 2 + hidden,
        "{woken} woken, {} blocked, {hidden} hidden",
        blocks.total()
    );
}

#[test]
fn causes_and_times_are_the_same_by_frame_pointers() {
    let recorded = waits(record("offcpu").args(["--unwind", "fp"]));
    let profile = recorded.succeeded();
    expect::no_sample_lost(&profile);
    let (view, said) = (View::of_type(&profile, "offcpu"), recorded.said());
    for (cause, names) in [("[blocked: pipe]", &["pipe"][..]), ("[blocked: socket-read]", &["socket"])] {
        let wall: u64 = names.iter().map(|name| said[name][0].as_u64().unwrap()).sum();
        let found = view.count(|e| u64::from(e.thread.pid) == number(&said, "pid") && label(e) == cause);
        // Behind the wake-up it waits for a CPU, which is not recorded here.
        assert!(found <= wall && found >= wall / 2, "{cause}: {found} of {wall} ns");
    }
}

/// Checks the waits for a CPU of a process against the kernel's run delay. Both begin and end in `__schedule`, so that
/// they differ by what two clocks do. The process reads the kernel's just outside of its function, where it may wait
/// too: what is in the function is a part of it, and all of the process's (but for the first, before it ever ran) is not
/// less.
fn close_to_run_delay(queued: &View<'_>, pid: u64, delay: u64) {
    let inside = queued.count(|e| u64::from(e.thread.pid) == pid && e.has("spin_here"));
    let all = queued.of_pid(pid);
    let slack = delay / 100;
    assert!(
        inside <= delay + slack && delay <= all + slack,
        "{inside} ns recorded in the function, {all} of the process, {delay} by the kernel"
    );
}

/// Two that share a CPU and never wait: each is queued while the other one runs.
#[test]
fn those_that_are_preempted_are_queued_and_never_blocked() {
    let recorded = record("runq,offcpu").command(&workload::path("waits"), ["200", "spin", "1500"]).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    let (blocked, queued) = (View::of_type(&profile, "offcpu"), View::of_type(&profile, "runq"));
    for spin in said["spin"].as_array().expect("two processes") {
        let [pid, delay] = [0, 1].map(|i| spin[i].as_u64().expect("a number"));
        let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && e.has("spin_here");
        assert_eq!(blocked.count(of_it), 0, "{}", blocked.list(of_it));
        let found = queued.count(of_it);
        close_to_run_delay(&queued, pid, delay);
        assert!(delay > 500_000_000, "two share a CPU: {delay} ns");
        let preempted = |e: &Entry<'_>| of_it(e) && label(e) == "[runnable: preempted]";
        assert_eq!(queued.count(preempted), found, "{}", queued.list(|e| of_it(e) && !preempted(e)));
        let whole = |e: &Entry<'_>| of_it(e) && e.has("main") && e.end == StackEnd::Complete;
        expect::at_least("whole stacks", queued.count(whole), found, 95.0);
    }
}

#[test]
fn a_block_is_a_voluntary_switch() {
    const PLAY: [&str; 3] = ["400", "20000", "200"];
    let recorded = record("offcpu").command(&workload::path("switches"), PLAY).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    let view = View::of_type(&profile, "blocks");
    let mut blocks = 0;
    for (i, function) in ["ping_inner", "pong_inner"].into_iter().enumerate() {
        let [pid, voluntary] = [0, 1].map(|n| said["counts"][i][n].as_u64().expect("a number"));
        let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && e.has(function);
        let found = view.count(of_it);
        blocks += voluntary;
        // It reads the kernel's counts just outside of the function (see switches.rs).
        assert!(found.abs_diff(voluntary) <= 4, "{function}: {found} blocks, {voluntary} voluntary switches");
        let right = |e: &Entry<'_>| of_it(e) && label(e) == "[blocked: pipe]" && e.end == StackEnd::Complete;
        if found > 0 {
            expect::at_least(&view.list(|e| of_it(e) && !right(e)), view.count(right), found, 99.0);
        }
        let other = if i == 0 { "pong" } else { "ping" };
        let mixed = |e: &Entry<'_>| of_it(e) && e.has(other);
        assert_eq!(view.count(mixed), 0, "{}", view.list(mixed));
    }
    // One of the two may always be preempted by the other before it has to wait.
    assert!(blocks >= 1000, "{blocks} voluntary switches");
    for i in [2, 3] {
        let pid = said["counts"][i][0].as_u64().expect("a number");
        let spinning = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && e.has("spin_here");
        assert_eq!(view.count(spinning), 0, "{}", view.list(spinning));
    }
}

/// The threads of the workload and its main thread begin once each.
#[test]
fn a_new_thread_waits_once_for_its_first_cpu() {
    let recorded = record("runq,offcpu").command(&workload::path("threads"), ["30"]).run();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    let (waits, time) = (View::of_type(&profile, "runq-waits"), View::of_type(&profile, "runq"));
    let pid = recorded.said()["pid"].as_u64().expect("the workload says its process id");
    let of_threads = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && label(e) == "[runnable: new]";
    assert_eq!(waits.count(of_threads), 3, "{}", waits.list(|e| label(e) == "[runnable: new]"));
    let right =
        |e: &Entry<'_>| e.frames.len() == 1 && e.end == StackEnd::Complete && e.thread.tid != e.thread.pid;
    assert_eq!(waits.count(|e| of_threads(e) && !right(e)), 0, "{}", waits.list(of_threads));
    assert!(time.count(of_threads) > 0, "getting a CPU takes time");
    // Alone, the other event has nothing of them.
    let recorded = record("offcpu").command(&workload::path("threads"), ["30"]).run();
    let profile = recorded.succeeded();
    let blocks = View::of_type(&profile, "blocks");
    assert_eq!(blocks.count(|e| label(e).starts_with("[runnable")), 0);
}

/// Waits by turns: what is kept of one's kernel stack must not be taken for another's.
#[test]
fn each_wait_has_its_own_kernel_stack() {
    const COUNT: u64 = 2000;
    let recorded =
        record("offcpu").command(&workload::path("waits"), [WARM, "in_turn", &COUNT.to_string()]).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    let view = View::of_type(&profile, "blocks");
    let pid = number(&said, "pid");
    // The user side's function, the cause, and a function of the kernel in all versions since 5.10.
    let kinds = [
        ("turn_sleep", "[blocked: sleep]", "do_nanosleep"),
        ("turn_futex", "[blocked: futex]", "futex_wait"),
        ("turn_poll", "[blocked: poll]", "do_sys_poll"),
    ];
    for (function, cause, inside) in kinds {
        let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && e.has(function) && label(e) == cause;
        let found = view.count(of_it);
        // A time-out that is over before the thread has left is no wait.
        assert!(found > COUNT / 2 && found <= COUNT + COUNT / 50, "{function}: {found} waits");
        let right = |e: &Entry<'_>| {
            let others = kinds.iter().filter(|(_, _, other)| *other != inside);
            e.has(inside) && others.into_iter().all(|(_, _, other)| !e.has(other)) && e.has("__schedule")
        };
        assert_eq!(view.count(|e| of_it(e) && !right(e)), 0, "{}", view.list(|e| of_it(e) && !right(e)));
    }
}

#[test]
fn short_blocks_keep_their_time_and_cause_without_stacks() {
    let recorded = waits(record("offcpu,runq").args(["--min-block", "50ms"]));
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::nothing_lost(&profile);
    check_waits(&profile, &said);
    let blocks = View::of_type(&profile, "blocks");
    let pid = number(&said, "pid");
    let short = |e: &Entry<'_>| e.frames.len() == 1;
    assert_eq!(blocks.count(|e| e.has("warm_up")), 0, "{}", blocks.list(|e| e.has("warm_up")));
    // It sleeps for a millisecond at a time: at most 50 or so overslept so long that they have a stack.
    let slept = |e: &Entry<'_>| {
        u64::from(e.thread.pid) == pid && short(e) && label(e) == "[blocked: sleep, below --min-block]"
    };
    assert!(blocks.count(slept) >= 5, "{}", blocks.list(short));
    let time = View::of_type(&profile, "offcpu");
    assert!(time.count(slept) >= 5 * 1_000_000, "{}", time.list(short));
    assert_eq!(blocks.count(|e| label(e).contains("below") && !short(e)), 0);
}

/// Recorded by process id: the thread is there before the recording, and still waits when that ends.
#[test]
fn a_wait_that_does_not_end_is_counted_to_the_end_and_marked() {
    let mut target = Target::ready(&workload::path("waits"), &[WARM, "forever"]);
    let pid = target.pid();
    let mut recording = record("offcpu,runq").args(["-p", &pid.to_string()]).start();
    recording.wait_until_attached(3);
    target.go();
    let began: u64 = number(&target.says(), "began");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    recording.signal(rustix::process::Signal::INT);
    let profile = recording.finish().succeeded();
    expect::nothing_lost(&profile);
    let view = View::of_type(&profile, "offcpu");
    let of_it = |e: &Entry<'_>| e.has("never_ends");
    let marked = |e: &Entry<'_>| of_it(e) && label(e) == "[blocked: futex, until the end]";
    let end = profile.meta.start_unix_ns + profile.meta.duration_ns;
    let expected = end.saturating_sub(began);
    let found = view.count(marked);
    assert_eq!(found, view.count(of_it), "{}", view.list(of_it));
    // Two clocks, each read beside the event that it is of: the reader may lose the CPU between.
    assert!(found.abs_diff(expected) <= 100_000_000, "{found} ns, expected {expected}");
    let whole = |e: &Entry<'_>| marked(e) && stands_below(e, &["never_ends", "main"]);
    assert_eq!(view.count(whole), found, "{}", view.list(marked));
    // Where it was before the recording began is not known, and not made up: it waited for its input.
    assert_eq!(view.count(|e| e.has("wait_for_go")), 0);
    let blocks = View::of_type(&profile, "blocks");
    assert_eq!(blocks.count(marked), 1);
}

#[test]
fn time_on_and_off_the_cpu_in_one_recording() {
    let recorded = Record::at_999()
        .args(["-e", "cpu,offcpu,runq"])
        .command(&workload::path("waits"), ["200", "spin", "700"])
        .run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::no_sample_lost(&profile);
    let types: Vec<_> = profile.sample_types.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(types, ["samples", "cpu", "offcpu", "blocks", "runq", "runq-waits"]);
    let (samples, queued) = (View::of_type(&profile, "samples"), View::of_type(&profile, "runq"));
    for spin in said["spin"].as_array().expect("two processes") {
        let pid = spin[0].as_u64().expect("a number");
        let of_it = |e: &Entry<'_>| u64::from(e.thread.pid) == pid && e.has("spin_here");
        expect::samples("spin_here", samples.count(of_it), 700_000_000, &profile, 0.1);
        let delay = spin[1].as_u64().expect("a number");
        close_to_run_delay(&queued, pid, delay);
        let labelled = |e: &Entry<'_>| of_it(e) && label(e).starts_with('[');
        assert_eq!(samples.count(labelled), 0, "{}", samples.list(labelled));
    }
}

#[test]
fn what_does_not_go_with_waits_is_refused() {
    for (arguments, part) in [
        (&["-e", "offcpu", "-F", "99"][..], "-F does not go with"),
        (&["-e", "runq", "--user-only"], "--user-only does not go with"),
        (&["-e", "runq", "--min-block", "1ms"], "--min-block is about"),
    ] {
        let recorded = Record::new().args(arguments).command(&workload::path("burner"), ["0"]).run();
        fails_with(part, recorded.status(), &recorded.stderr(), 2, part);
    }
}
