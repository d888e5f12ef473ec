//! A daemon that is to do with little: what it leaves out, and what it looks at again when there is room.

use std::fs;

use profiler_tests::{
    target::{Target, signal},
    workload,
};
use rustix::process::Signal;

use super::{Daemon, lost, metric, numbers, off_cpu_ns, wait_for};
use crate::syscalls::ready;

/// Off the CPU, by stack: what the process was blocked for, folded.
fn blocked(daemon: &Daemon, pid: u32) -> String {
    let output =
        daemon.query(&["--event", "offcpu", "-p", &pid.to_string(), "-o", "-", "--format", "folded"]);
    String::from_utf8(output.stdout).unwrap()
}

/// A program that sleeps 20 ms and 10 ms, twenty times, in windows that are in the store; its process id, and how long it was
/// blocked as its account says, ns.
fn sleeps(daemon: &Daemon) -> (u32, u64) {
    let mut target = ready("times", 20);
    let pid = target.pid();
    target.go();
    target.wait_until("done");
    daemon.flush();
    let accounts = daemon.query_json(&["--accounts", "--json", "-p", &pid.to_string()]);
    target.finish();
    (pid, metric(&numbers(&accounts, Some(pid)), "blocked"))
}

#[test]
fn blocked_times_that_are_not_looked_at_are_accounted_and_looked_at_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daemon.toml");
    let configure = |percent: &str| fs::write(&file, format!("[budget]\ncpu_percent = {percent}\n")).unwrap();
    configure("100");
    let daemon = Daemon::in_directory(directory, 1, &["--config", file.to_str().unwrap()]);
    let mut waiting = Target::ready(&workload::path("waits"), &["1", "forever"]);
    waiting.go();
    let said = waiting.says();
    daemon.flush();
    let every = || daemon.windows().last().map(|window| window["blocked_every"].as_u64().unwrap());
    assert_eq!(every(), Some(1));

    // No daemon can do with that little.
    configure("0.01");
    signal(daemon.child.id(), Signal::HUP);
    wait_for("the last step", || every() == Some(0));
    let (asleep, blocked_ns) = sleeps(&daemon);
    assert!(blocked_ns > 20 * 30_000_000, "{blocked_ns}");
    assert_eq!(blocked(&daemon, asleep), "", "nothing is known of it but its account");
    // What went on then is there as far as it came.
    let waited = blocked(&daemon, waiting.pid());
    assert!(off_cpu_ns(&waited, &["[blocked: futex, until the end]"]) > 0, "{waited} of {said}");

    configure("100");
    signal(daemon.child.id(), Signal::HUP);
    wait_for("a step back", || every() != Some(0));
    let hidden = lost(&daemon, &["switches_not_traced"]);
    let (asleep, blocked_ns) = sleeps(&daemon);
    let seen_ns = off_cpu_ns(&blocked(&daemon, asleep), &["[blocked: "]);
    // The kernel hides the ends of some from the tracepoint, which is said.
    let hidden = lost(&daemon, &["switches_not_traced"]) - hidden;
    let least_ns = (20 * 30_000_000_u64).saturating_sub(hidden * 20_000_000);
    assert!(seen_ns <= blocked_ns && seen_ns > least_ns, "{seen_ns} of {blocked_ns}, {hidden} hidden");
    assert!(least_ns > 300_000_000, "{hidden} are hidden of forty");
    waiting.kill();
    daemon.stop();
}
