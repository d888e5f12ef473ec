//! Whole stacks of code without frame pointers, and of every shape that a walk meets.

use std::ffi::OsStr;

use profiler::model::{Profile, StackEnd};
use profiler_tests::{
    expect,
    record::{Record, Recorded},
    target::number,
    view::{Entry, View},
    workload,
};

/// CPU time of the split.
const MILLISECONDS: &str = "5000";

/// Calls from the work function up to the function that shares the time out, which is in no chain.
const CHAIN: usize = 19;

/// As for the split with frame pointers (`ground_truth`).
const COUNT_TOLERANCE: f64 = 0.02;

/// Of the samples that are taken when the tables are there.
const FULL_PERCENT: f64 = 99.0;

/// A sample of a process, or in a library, whose mappings or tables were not there yet.
fn is_early(entry: &Entry<'_>) -> bool {
    entry.is_early() || (entry.end == StackEnd::NoMapping && entry.user_frames().count() <= 2)
}

/// Checks that early samples are few: fewer than fit into half of the time that the profiler itself took to start, in
/// which it read and did much more than for one process; on a machine of today 1 % of the split. Gives their number.
fn early(view: &View<'_>, profile: &Profile) -> u64 {
    let count = view.count(is_early);
    let most = profile.meta.frequency_hz * profile.cost.start_ns / 2 / 1_000_000_000;
    assert!(
        count <= most.max(view.total() / 100),
        "{count} early samples, {most} allowed{}",
        view.list(is_early)
    );
    count
}

/// Checks one build by names: each caller's share, and that stacks reach from the work function to the thread's start.
fn by_names(program: &str, work: &str, callers: [&str; 3]) {
    let recorded = Record::of_split().command(&workload::path(program), [MILLISECONDS]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let total = check_total(&recorded, &profile, &view);
    let walked = total - early(&view, &profile);
    let calls = |e: &Entry<'_>, caller: &str| e.frames.iter().any(|f| f.function.name.contains(caller));
    let shared = view.count(|e| callers.iter().any(|caller| calls(e, caller)));
    for (caller, percent) in callers.into_iter().zip([50.0, 30.0, 20.0]) {
        expect::share(caller, view.count(|e| calls(e, caller)), shared, percent);
    }
    let is_full = |entry: &Entry<'_>| {
        let names: Vec<_> = entry.user_frames().map(|frame| frame.function.name.as_str()).collect();
        entry.end == StackEnd::Complete
            && names.len() > CHAIN + 1
            && names[0] == work
            && names[CHAIN + 1].ends_with("main")
            && callers.iter().any(|caller| names[1..=CHAIN].iter().all(|name| name.contains(caller)))
    };
    let in_work =
        |e: &Entry<'_>| !is_early(e) && e.user_leaf().is_some_and(|leaf| leaf.function.name == work);
    let (full, all) = (view.count(|e| in_work(e) && is_full(e)), view.count(in_work));
    expect::at_least(&view.list(|e| in_work(e) && !is_full(e)), full, all, FULL_PERCENT);
    // The rest is the workload's clock, and under emulation interrupts.
    expect::at_least("in the work function", all, walked, 90.0);
    // The control: no stack has functions of two callers.
    let mixed = |entry: &Entry<'_>| {
        let in_stack = |caller: &&&str| entry.frames.iter().any(|f| f.function.name.contains(**caller));
        callers.iter().filter(in_stack).count() > 1
    };
    assert_eq!(view.count(mixed), 0, "{}", view.list(mixed));
}

/// The same for code that has no names, by the places of the callers in their file.
fn by_places(program: &str, module: &str, arguments: &[&OsStr]) {
    let recorded = Record::of_split().command(&workload::path(program), arguments).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let total = check_total(&recorded, &profile, &view);
    let said = recorded.said();
    let chains: Vec<(u64, u64)> = said["chains"]
        .as_array()
        .expect("the workload says where its callers are")
        .iter()
        .map(|chain| (chain[0].as_u64().expect("an offset"), chain[1].as_u64().expect("an offset")))
        .collect();
    // The last function of a chain is a few instructions long.
    let within = |chain: &(u64, u64), address: u64| (chain.0..chain.1 + 32).contains(&address);
    let length = |entry: &Entry<'_>, chain: &(u64, u64)| {
        let mut frames = entry.user_frames().filter(|frame| frame.module.name() == module);
        // Behind the work function and its caller.
        frames.by_ref().skip(2).take_while(|frame| within(chain, frame.address)).count()
    };
    let mut full = 0;
    let walked = total - early(&view, &profile);
    let shared = view.count(|entry| chains.iter().any(|chain| length(entry, chain) > 0));
    for (chain, percent) in chains.iter().zip([50.0, 30.0, 20.0]) {
        let count = view.count(|entry| length(entry, chain) > 0);
        expect::share(&format!("{chain:x?}"), count, shared, percent);
        full += view.count(|entry| length(entry, chain) == CHAIN - 1 && entry.end == StackEnd::Complete);
    }
    // Without names it is not known which samples are not at the end of a chain: those in `main`, its clock, interrupts.
    expect::at_least(&view.list(|e| e.end != StackEnd::Complete), full, walked, FULL_PERCENT - 9.0);
    let whole = view.count(|entry| entry.end == StackEnd::Complete);
    expect::at_least(&view.list(|e| e.end != StackEnd::Complete), whole, walked, FULL_PERCENT);
}

fn check_total(recorded: &Recorded, profile: &Profile, view: &View<'_>) -> u64 {
    let said = recorded.said();
    let total = view.of_pid(number(&said, "pid"));
    assert_eq!(total, view.total(), "samples of other processes");
    expect::nothing_lost(profile);
    expect::samples("all", total, number(&said, "cpu_ns"), profile, COUNT_TOLERANCE);
    total
}

#[test]
fn split_without_frame_pointers_in_c() {
    by_names("bare-c", "split_work", ["split_half", "split_third", "split_fifth"]);
}

#[test]
fn split_without_frame_pointers_in_cpp() {
    by_names("bare-cpp", "split::work(unsigned long)", ["split::half", "split::third", "split::fifth"]);
}

#[test]
fn split_without_frame_pointers_in_rust() {
    by_names("bare-rust", "split::work", ["split::half::", "split::third::", "split::fifth::"]);
}

#[test]
fn split_without_frame_pointers_at_o3() {
    by_names("bare-o3", "split_work", ["split_half", "split_third", "split_fifth"]);
}

#[test]
fn split_without_frame_pointers_static_pie() {
    by_names("bare-static-pie", "split_work", ["split_half", "split_third", "split_fifth"]);
}

#[test]
fn split_without_frame_pointers_and_names() {
    by_places("bare-stripped", "bare-stripped", &[MILLISECONDS.as_ref()]);
}

#[test]
fn split_in_a_library_without_frame_pointers_and_names() {
    let library = workload::path("bare-library.so");
    by_places("bare-main", "bare-library.so", &[MILLISECONDS.as_ref(), library.as_os_str()]);
}

/// What tables are for: by frame pointers these stacks are not to be had.
#[test]
fn by_frame_pointers_only_the_same_stacks_are_broken() {
    let recorded =
        Record::at_999().args(["--unwind", "fp"]).command(&workload::path("bare-c"), ["500"]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    assert!(view.total() > 300);
    let full = |e: &Entry<'_>| e.end == StackEnd::Complete && e.has("split_half_01");
    assert_eq!(view.count(full), 0, "{}", view.list(full));
}

/// CPU time of a shape.
const SHAPE_MS: &str = "600";
const SHAPE_NS: u64 = 600_000_000;

/// The stacks of a shape that end in the work function: `names` from it outwards, then anything up to the thread's
/// start. Stacks that are not are first samples of their process at most.
fn shape(which: &str, names: &[&str], end: StackEnd) {
    let recorded = Record::at_999().command(&workload::path("shapes"), [which, SHAPE_MS]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    let work = |e: &Entry<'_>| e.user_leaf().is_some_and(|leaf| leaf.function.name == "shape_work");
    let total = view.count(work);
    expect::samples(which, total, SHAPE_NS, &profile, 0.05);
    let is_right = |entry: &Entry<'_>| {
        let found: Vec<_> = entry.user_frames().map(|frame| frame.function.name.as_str()).collect();
        entry.end == end && found.starts_with(names)
    };
    early(&view, &profile);
    let wrong = |e: &Entry<'_>| work(e) && !is_early(e) && !is_right(e);
    let walked = view.count(|e| work(e) && !is_early(e));
    expect::at_least(&view.list(wrong), view.count(|e| work(e) && is_right(e)), walked, FULL_PERCENT);
    // No stack is wrong: one that is not whole is a beginning of the right one.
    let invented = |e: &Entry<'_>| {
        let found: Vec<_> = e.user_frames().map(|frame| frame.function.name.as_str()).collect();
        let known = found.len().min(names.len());
        e.end != StackEnd::FirstSample && work(e) && found[..known] != names[..known]
    };
    assert_eq!(view.count(invented), 0, "{}", view.list(invented));
}

#[test]
fn a_signal_handler() {
    // Between the handler and the function that raised the signal are the kernel's frame and the C library's functions.
    let recorded = Record::at_999().command(&workload::path("shapes"), ["signal", SHAPE_MS]).run();
    below_a_signal(&recorded.succeeded(), "shape_raiser");
}

#[test]
fn a_signal_handler_on_an_alternate_stack() {
    let recorded = Record::at_999().command(&workload::path("shapes"), ["altstack", SHAPE_MS]).run();
    below_a_signal(&recorded.succeeded(), "shape_raiser");
}

#[test]
fn a_signal_that_interrupts_a_function_that_calls_nothing() {
    let recorded = Record::at_999().command(&workload::path("shapes"), ["interrupted", SHAPE_MS]).run();
    below_a_signal(&recorded.succeeded(), "shape_interrupted");
}

/// The handler's stack goes on in what was interrupted, to the thread's start.
fn below_a_signal(profile: &Profile, interrupted: &str) {
    let view = View::of(profile);
    expect::nothing_lost(profile);
    let work = |e: &Entry<'_>| e.user_leaf().is_some_and(|leaf| leaf.function.name == "shape_work");
    let total = view.count(work);
    expect::samples(interrupted, total, SHAPE_NS, profile, 0.05);
    let is_right = |e: &Entry<'_>| {
        let names: Vec<_> = e.user_frames().map(|frame| frame.function.name.as_str()).collect();
        let at = |name: &str| names.iter().position(|found| *found == name);
        let (Some(handler), Some(below), Some(main)) = (at("shape_handler"), at(interrupted), at("main"))
        else {
            return false;
        };
        handler == 1 && handler < below && below < main && e.end == StackEnd::Complete
    };
    early(&view, profile);
    let walked = view.count(|e| work(e) && !is_early(e));
    let right = view.count(|e| work(e) && !is_early(e) && is_right(e));
    expect::at_least(&view.list(|e| !is_right(e)), right, walked, FULL_PERCENT);
}

#[test]
fn a_coroutine_on_a_stack_of_its_own() {
    // The C library's unwind information for the start of such a stack (`__start_context`) does not say that it is one:
    // what follows is no address of code, and is not taken for one.
    shape("coroutine", &["shape_work", "shape_coroutine"], StackEnd::NoMapping);
}

#[test]
fn a_child_that_shares_its_parents_memory() {
    shape("vfork", &["shape_work", "shape_child", "shape_vfork", "main"], StackEnd::Complete);
}

#[test]
fn a_thread() {
    shape("thread", &["shape_work", "shape_thread"], StackEnd::Complete);
}

#[test]
fn a_realigned_stack() {
    shape("realigned", &["shape_work", "shape_realigned", "main"], StackEnd::Complete);
}

#[test]
fn a_hundred_calls_are_whole() {
    let mut names = vec!["shape_work"];
    names.resize(101, "shape_deep");
    names.push("main");
    shape("deep-100", &names, StackEnd::Complete);
}

#[test]
fn what_is_deeper_than_is_kept_is_cut_and_says_so() {
    let mut names = vec!["shape_work"];
    names.resize(127, "shape_deep");
    shape("deep-200", &names, StackEnd::Truncated);
}
