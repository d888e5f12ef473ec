//! User mode, kernel mode, idle.

use profiler::{model::FrameKind, symbolize::idle::is_idle_leaf};
use profiler_tests::{
    expect,
    record::Record,
    view::{Entry, View},
    workload,
};

const TIME: &str = "300";
const TIME_NS: u64 = 300_000_000;

fn leaf_in_kernel(entry: &Entry<'_>) -> bool {
    entry.frames.first().is_some_and(|frame| frame.kind == FrameKind::Kernel)
}

#[test]
fn user_mode_only() {
    let recorded = Record::at_999().args(["--user-only"]).command(&workload::path("kernel"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let kernel = |e: &Entry<'_>| e.frames.iter().any(|f| f.kind == FrameKind::Kernel);
    assert_eq!(view.count(kernel), 0, "{}", view.list(kernel));
    expect::samples("user_work", view.with("user_work"), TIME_NS, &profile, 0.05);
}

#[test]
fn kernel_mode_only() {
    let recorded = Record::at_999().args(["--kernel-only"]).command(&workload::path("kernel"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let user = |e: &Entry<'_>| !leaf_in_kernel(e);
    assert_eq!(view.count(user), 0, "{}", view.list(user));
    let caller = view.with("kernel_caller");
    expect::ticks_at_least(&view.list(|_| true), caller, 300, &profile, 90.0);
    // Its clock is a system call of 0.5 us every 40 us or so.
    assert!(view.with("user_work") <= 30, "{}", view.list(|e| e.has("user_work")));
}

/// The two modes are two halves of one: together they are the samples without a choice.
#[test]
fn the_modes_add_up() {
    let run = |mode: &[&str]| {
        let recorded = Record::at_999().args(mode).command(&workload::path("kernel"), [TIME]).run();
        let profile = recorded.succeeded();
        (View::of(&profile).total(), expect::undelivered(&profile.meta))
    };
    let ((user, missed_a), (kernel, missed_b), (both, missed_c)) =
        (run(&["--user-only"]), run(&["--kernel-only"]), run(&[]));
    // 5 %, and what was not delivered: on one side, the halves', or on the other, the whole's.
    let slack = both / 20 + (missed_a + missed_b).max(missed_c);
    let error = (user + kernel).abs_diff(both);
    assert!(error <= slack, "{user} user + {kernel} kernel samples, {both} of both, +- {slack}");
}

/// Idle time of all CPUs since boot, in ticks of 10 ms.
fn idle_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let words = stat.lines().next().unwrap().split_whitespace();
    // cpu user nice system idle iowait
    words.skip(4).take(2).map(|word| word.parse::<u64>().unwrap()).sum()
}

/// Records everything for half a second; with the least idle time that there was, in ticks of 10 ms.
fn all(arguments: &[&str]) -> (profiler::model::Profile, u64) {
    let recording = Record::at_999().args(["-a", "-d", "0.5"]).args(arguments);
    let before = idle_ticks();
    let profile = recording.run().succeeded();
    let idle = idle_ticks() - before;
    // The profiler's own start and end, in which it works itself, may have been idle on the other CPUs: 0.3 s.
    (profile, idle.saturating_sub(30 * u64::from(std::thread::available_parallelism().unwrap().get() as u32)))
}

#[test]
fn idle_is_left_out_but_counted() {
    let (profile, idle_ticks) = all(&[]);
    let view = View::of(&profile);
    // An interrupt's work that hit an idle CPU is work, and stays. Its leaf is never a function that idles.
    let idles = |e: &Entry<'_>| e.frames.first().is_some_and(|leaf| is_idle_leaf(&leaf.function.name));
    let idle = |e: &Entry<'_>| e.thread.process == "[idle]" || e.thread.tid == 0 && idles(e);
    assert_eq!(view.count(idle), 0, "{}", view.list(idle));
    let meta = &profile.meta;
    assert!(meta.idle_samples > 0 || idle_ticks == 0, "idle for {idle_ticks}0 ms, but no idle sample");
    assert_eq!(meta.idle_samples + view.total(), meta.ticks, "every tick is a sample or idle");
}

#[test]
fn idle_is_shown_if_so_asked() {
    let (profile, idle_ticks) = all(&["--idle"]);
    let view = View::of(&profile);
    let idle = view.count(|e| e.thread.process == "[idle]");
    assert_eq!(idle, profile.meta.idle_samples);
    assert!(idle > 0 || idle_ticks == 0, "idle for {idle_ticks}0 ms, but no idle sample");
    assert_eq!(view.total(), profile.meta.ticks);
}
