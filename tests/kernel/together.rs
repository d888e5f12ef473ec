//! All events in one recording: what one counts is what the others count in their way.

use profiler_tests::{
    expect,
    record::Record,
    target::number,
    view::{Entry, View},
    workload,
};

/// Time that the profiler has for making the program's tables, ms.
const WARM: &str = "500";

#[test]
fn all_events_in_one_recording_agree() {
    const EVENTS: &str =
        "cpu,context-switches,offcpu,runq,syscalls,syscall-time,tracepoint:raw_syscalls:sys_enter";
    let recorded =
        Record::at_999().args(["-e", EVENTS, "--wakers"]).command(&workload::path("waits"), [WARM]).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    expect::no_sample_lost(&profile);
    let types: Vec<_> = profile.sample_types.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(
        types,
        [
            "samples",
            "cpu",
            "context-switches",
            "offcpu",
            "blocks",
            "runq",
            "runq-waits",
            "syscalls",
            "syscall-time",
            "syscall-returns",
            "tracepoint:raw_syscalls:sys_enter",
        ]
    );
    assert_eq!(profile.meta.events.join(","), EVENTS);
    let pid = number(&said, "pid");
    let of_pid = |name: &str, is: &dyn Fn(&Entry<'_>) -> bool| {
        View::of_type(&profile, name).count(|e| u64::from(e.thread.pid) == pid && is(e))
    };
    let all = |_: &Entry<'_>| true;
    let has =
        |part: &'static str| move |e: &Entry<'_>| e.frames.iter().any(|f| f.function.name.starts_with(part));
    // A thread leaves the CPU to wait, because another one is to run, or for good.
    let threads = profile.threads.iter().filter(|thread| u64::from(thread.pid) == pid).count() as u64;
    let left = of_pid("context-switches", &all);
    let (blocks, preempted) = (of_pid("blocks", &all), of_pid("runq-waits", &has("[runnable: preempted")));
    // What the kernel hid from one of them: a wait that an unseen wake-up ended.
    let hidden = expect::hidden_switches(&profile);
    assert!(
        left.abs_diff(blocks + preempted) <= threads + 1 + hidden,
        "{left} switches, {blocks} blocks, {preempted} preempted, {threads} threads, {hidden} not traced"
    );
    // The same calls by their own tracepoint and by any tracepoint's way.
    let (calls, hits) = (of_pid("syscalls", &all), of_pid("tracepoint:raw_syscalls:sys_enter", &all));
    assert!(calls > 100 && calls.abs_diff(hits) <= 2, "{calls} calls, {hits} hits");
    let returned = of_pid("syscall-returns", &all);
    // The one that ends each thread or the process, and the one that the command begins with.
    assert!(returned <= calls && calls - returned <= threads + 1, "{calls} calls, {returned} returned");
    // Nobody sleeps longer than the call takes that it sleeps in.
    let slept = of_pid("offcpu", &has("[blocked: sleep"));
    let calling = of_pid("syscall-time", &has("[syscall: clock_nanosleep"))
        + of_pid("syscall-time", &has("[syscall: nanosleep"));
    assert!(slept > 100_000_000 && slept <= calling, "{slept} ns asleep in {calling} ns of calls");
}
