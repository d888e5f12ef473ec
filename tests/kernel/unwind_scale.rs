//! The walk by tables with many files and processes: what is loaded and unloaded in a loop, thousands of processes,
//! hundreds of programs, more tables than fit.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use profiler::model::{Profile, StackEnd};
use profiler_tests::{
    expect,
    record::Record,
    target::number,
    view::{Entry, View},
    workload,
};

const MIB: u64 = 1 << 20;

/// What the profiler may use however much there is to record: its code and libraries, the rings of the side band, one
/// window of stacks and the largest table while it is made, 30 MiB in all; the rest is for what it learns of each file
/// and process.
const RSS_BYTES: u64 = 96 * MIB;

fn names<'a>(entry: &'a Entry<'_>) -> Vec<&'a str> {
    entry.user_frames().map(|frame| frame.function.name.as_str()).collect()
}

/// A stack that was walked by tables, by whatever was known of its process.
fn is_walked(entry: &Entry<'_>) -> bool {
    entry.end != StackEnd::FirstSample
}

fn bounded(profile: &Profile, unwind_bytes: u64) {
    let cost = &profile.cost;
    assert!(cost.recording_peak_rss_bytes < RSS_BYTES, "{cost:?}");
    assert!(cost.unwind_bytes <= unwind_bytes, "{cost:?}");
}

/// The frames of a stack are a beginning of the right ones, or all of them. A stack that is not whole says why.
fn check_callers(view: &View<'_>, work: &str, expected: &[&str]) {
    let in_work =
        |e: &Entry<'_>| e.user_leaf().is_some_and(|leaf| leaf.function.name == work) && is_walked(e);
    let wrong = |e: &Entry<'_>| {
        let found = names(e);
        let known = found.len().min(expected.len());
        in_work(e)
            && (found[..known] != expected[..known]
                || (e.end == StackEnd::Complete && known < expected.len()))
    };
    assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
}

/// Libraries whose mappings are the same, and whose code at the same addresses has other frames.
#[test]
fn libraries_that_replace_each_other() {
    const MILLISECONDS: u64 = 40;
    const ROUNDS: u64 = 25;
    const LIBRARIES: [&str; 4] = ["a", "b", "c", "d"];
    let mut arguments: Vec<OsString> =
        vec![MILLISECONDS.to_string().into(), ROUNDS.to_string().into(), "unload".into()];
    arguments.extend(LIBRARIES.map(|name| workload::path(&format!("reload_{name}.so")).into()));
    let recorded = Record::at_999().command(&workload::path("reload"), arguments).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::no_sample_lost(&profile);
    for name in LIBRARIES {
        let work = format!("{name}_work");
        let inner = format!("{name}_inner");
        let expected = [&*work, &inner, "library_entry", "reload_call", "reload_library", "main"];
        check_callers(&view, &work, &expected);
        let in_work = |e: &Entry<'_>| e.user_leaf().is_some_and(|leaf| leaf.function.name == work);
        let all = view.count(in_work);
        expect::samples(&work, all, MILLISECONDS * ROUNDS * 1_000_000, &profile, 0.1);
        // The kernel side is told of a library within 20 ms of its 40, if the machine has time for it: what was walked
        // before is cut.
        let whole = view.count(|e| in_work(e) && e.end == StackEnd::Complete);
        expect::at_least(&view.list(|e| in_work(e) && e.end != StackEnd::Complete), whole, all, 25.0);
        let elsewhere = |e: &Entry<'_>| {
            e.frames.iter().any(|f| f.function.name == work && f.module.name() != format!("reload_{name}.so"))
        };
        assert_eq!(view.count(elsewhere), 0, "{}", view.list(elsewhere));
    }
    bounded(&profile, 8 * MIB);
}

#[test]
fn five_thousand_processes_alive() {
    const COUNT: &str = "5000";
    const MICROSECONDS: &str = "2000";
    let recorded = Record::at_999().command(&workload::path("crowd"), [COUNT, MICROSECONDS]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::no_sample_lost(&profile);
    let in_work = |e: &Entry<'_>| e.user_leaf().is_some_and(|leaf| leaf.function.name == "crowd_work");
    let all = view.count(in_work);
    // Each turn is hit by 2 ticks on the average, one more or less: 5,000 of them, sqrt(5000) / 2 = 35; 5 % are 500.
    expect::samples("crowd_work", all, number(&recorded.said(), "work_ns"), &profile, 0.05);
    let processes: std::collections::BTreeSet<_> =
        view.entries.iter().filter(|e| in_work(e)).map(|e| e.thread.pid).collect();
    assert!(processes.len() > 4000, "{} processes", processes.len());
    check_callers(&view, "crowd_work", &["crowd_work", "crowd_turn", "main"]);
    let walked = |e: &Entry<'_>| in_work(e) && is_walked(e);
    let whole = |e: &Entry<'_>| walked(e) && e.end == StackEnd::Complete;
    expect::at_least(&view.list(|e| walked(e) && !whole(e)), view.count(whole), view.count(walked), 95.0);
    // Mappings of 32 bytes, about 6 for each process, in chunks of 256 KiB; tables of 3 files.
    bounded(&profile, 8 * MIB);
}

/// Copies a program as another one: with another build id.
fn as_another(program: &[u8], number: u32, to: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    // A note's head (sizes of name and contents, type NT_GNU_BUILD_ID), its name, 20 bytes of contents.
    const HEAD: [u8; 16] = *b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let mut bytes = program.to_owned();
    let at = bytes.windows(HEAD.len()).position(|window| window == HEAD).expect("it has a build id");
    bytes[at + HEAD.len()..][..4].copy_from_slice(&number.to_ne_bytes());
    fs::write(to, bytes).expect("a temporary directory");
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn copies(name: &str, count: u32, prefix: &Path) -> Vec<PathBuf> {
    let program = fs::read(workload::path(name)).expect("it was built");
    let copy = |number: u32| {
        let path = PathBuf::from(format!("{}{number}", prefix.display()));
        as_another(&program, number, &path);
        path
    };
    (0..count).map(copy).collect()
}

#[test]
fn three_hundred_programs() {
    const COUNT: u32 = 300;
    const AT_ONCE: &str = "4";
    const MILLISECONDS: &str = "30";
    let record = Record::at_999();
    let prefix = record.directory().join("p");
    copies("bare-c", COUNT, &prefix);
    let arguments = [prefix.as_os_str(), COUNT.to_string().as_ref(), AT_ONCE.as_ref(), MILLISECONDS.as_ref()]
        .map(OsString::from);
    let recorded = record.command(&workload::path("run_all"), arguments).run();
    let profile = recorded.succeeded();
    assert_eq!(number(&recorded.said(), "failed"), 0);
    let view = View::of(&profile);
    expect::no_sample_lost(&profile);
    let in_work = |e: &Entry<'_>| e.user_leaf().is_some_and(|leaf| leaf.function.name == "split_work");
    let all = view.count(in_work);
    // Each process runs for 30 ticks, one more or less.
    expect::samples("split_work", all, u64::from(COUNT) * 30_000_000, &profile, 0.1);
    let programs: std::collections::BTreeSet<_> =
        view.entries.iter().filter(|e| in_work(e)).map(|e| e.thread.process.clone()).collect();
    assert_eq!(programs.len(), 300, "each is named after its file");
    let ids: std::collections::BTreeSet<_> = view
        .entries
        .iter()
        .filter(|e| in_work(e))
        .filter_map(|e| e.user_leaf().and_then(|leaf| leaf.module.build_id.clone()))
        .collect();
    assert_eq!(ids.len(), 300, "each has its own build id");
    // No stack has functions of two callers.
    let mixed = |e: &Entry<'_>| {
        let callers = ["split_half", "split_third", "split_fifth"];
        is_walked(e)
            && callers
                .iter()
                .filter(|caller| e.frames.iter().any(|f| f.function.name.contains(**caller)))
                .count()
                > 1
    };
    assert_eq!(view.count(mixed), 0, "{}", view.list(mixed));
    // A program that runs for 30 ms is half over when its table is there.
    let whole = |e: &Entry<'_>| in_work(e) && e.end == StackEnd::Complete;
    expect::at_least(&view.list(|e| in_work(e) && !whole(e)), view.count(whole), all, 50.0);
    bounded(&profile, 16 * MIB);
}

/// Each table has 1 MiB of rows and more: of 8 MiB in all, a part of which is for rules, pages and mappings, five fit.
/// One that was not used for 5 s makes room.
#[test]
fn more_tables_than_fit() {
    const COUNT: u32 = 14;
    const MILLISECONDS: u64 = 450;
    let record = Record::at_999().args(["--unwind-memory", "8"]);
    let libraries = copies("big.so", COUNT, &record.directory().join("big.so."));
    // Twice: what made room in the first round is needed in the second one.
    let mut arguments: Vec<OsString> = vec![MILLISECONDS.to_string().into(), "2".into(), "keep".into()];
    arguments.extend(libraries.into_iter().map(PathBuf::into_os_string));
    let recorded = record.command(&workload::path("reload"), arguments).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::no_sample_lost(&profile);
    let counter = |name: &str| profile.losses.counters.get(name).copied().unwrap_or(0);
    assert!(counter("unwind_tables_evicted") > 0, "{:?}", profile.losses.counters);
    let expected = ["big_work", "big_inner", "library_entry", "reload_call", "reload_library", "main"];
    check_callers(&view, "big_work", &expected);
    let in_work = |e: &Entry<'_>| e.user_leaf().is_some_and(|leaf| leaf.function.name == "big_work");
    let all = view.count(in_work);
    expect::samples("big_work", all, u64::from(COUNT) * 2 * MILLISECONDS * 1_000_000, &profile, 0.05);
    let whole = view.count(|e| in_work(e) && e.end == StackEnd::Complete);
    assert!(whole > 0, "{}", view.list(in_work));
    // What is not whole says why: its table was not there, or, at a library's first samples, its mapping.
    let other = |e: &Entry<'_>| {
        let first = e.end == StackEnd::NoMapping && e.user_frames().count() == 1;
        in_work(e)
            && !first
            && !matches!(e.end, StackEnd::Complete | StackEnd::NotLoaded | StackEnd::FirstSample)
    };
    assert_eq!(view.count(other), 0, "{}", view.list(other));
    bounded(&profile, 8 * MIB);
}
