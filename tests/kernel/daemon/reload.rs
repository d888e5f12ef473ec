//! A configuration that is read again while the daemon records.

use std::fs;

use profiler_tests::target::{said, signal};
use rustix::process::Signal;
use serde_json::Value;

use super::{Daemon, check_calls, numbers, wait_for};
use crate::syscalls::ready;

fn config(frequency_hz: u32, min_block: &str, stack_depth: u32) -> String {
    format!(
        "[sampling]\nfrequency_hz = {frequency_hz}\nmin_block = \"{min_block}\"\nstack_depth = {stack_depth}\n\
         [budget]\ncpu_percent = 100\n"
    )
}

/// How closely a window was looked at: samples a second, least blocked time (ns), frames.
fn rates(window: &Value) -> [u64; 3] {
    ["frequency_hz", "min_block_ns", "stack_depth"].map(|key| window[key].as_u64().unwrap())
}

/// Frames of the blocked times of a program that sleeps 20 ms and 10 ms, twenty times.
fn blocked_frames(daemon: &Daemon) -> String {
    let mut target = ready("times", 20);
    target.go();
    target.wait_until("done");
    daemon.flush();
    let last = daemon.windows().pop().unwrap();
    let arguments = ["--from", last["start"].as_str().unwrap(), "--process", "^calls$", "--event", "offcpu"];
    let output = daemon.query_range(&[&arguments[..], &["-o", "-", "--format", "folded"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.finish();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_reload_of_rates_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daemon.toml");
    fs::write(&file, config(19, "1ms", 100)).unwrap();
    let daemon = Daemon::in_directory(directory, 60, &["--config", file.to_str().unwrap()]);
    let mut target = ready("mixed", 1_000_000);
    daemon.flush();
    target.go();
    fs::write(&file, config(97, "1h", 50)).unwrap();
    signal(daemon.child.id(), Signal::HUP);
    wait_for("the new rate", || daemon.status()["governor"]["frequency_hz"] == 97);
    let said = said(&target.text_until("done"));
    daemon.flush();

    let windows = daemon.windows();
    assert_eq!(
        windows.iter().map(rates).collect::<Vec<_>>(),
        [[19, 1_000_000, 100], [19, 1_000_000, 100], [97, 3_600_000_000_000, 50],]
    );
    for pair in windows.windows(2) {
        assert_eq!(pair[0]["run"], pair[1]["run"], "it is the same recording");
        let (end, start) = (&pair[0]["end_unix_ns"], &pair[1]["start_unix_ns"]);
        assert!(start.as_u64().unwrap().abs_diff(end.as_u64().unwrap()) < 5_000_000, "{end} {start}");
    }
    // In windows of both rates, and none between them.
    check_calls(&numbers(&daemon.query_json(&["--accounts", "--json"]), Some(target.pid())), &said);
    target.finish();

    // The kernel side goes by it.
    let short = blocked_frames(&daemon);
    assert!(!short.contains("nanosleep"), "{short}");
    fs::write(&file, config(97, "1ms", 50)).unwrap();
    signal(daemon.child.id(), Signal::HUP);
    wait_for("the least blocked time", || daemon.status()["governor"]["min_block_ns"] == 1_000_000);
    let long = blocked_frames(&daemon);
    assert!(long.contains("nanosleep"), "{long}");
    daemon.stop();
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daemon.toml");
    fs::write(&file, config(19, "1ms", 100)).unwrap();
    let daemon = Daemon::in_directory(directory, 60, &["--config", file.to_str().unwrap()]);
    fs::write(&file, config(97, "soon", 50)).unwrap();
    signal(daemon.child.id(), Signal::HUP);
    wait_for("what is wrong", || !daemon.status()["trouble"].is_null());
    let status = daemon.status();
    let trouble = status["trouble"].as_str().unwrap();
    let said = format!("{}:3: sampling.min_block is \"soon\"", file.display());
    assert!(trouble.contains("is not used") && trouble.contains(&said), "{trouble}");
    daemon.flush();
    let windows = daemon.windows();
    assert_eq!((windows.len(), rates(&windows[0])), (1, [19, 1_000_000, 100]), "{windows:?}");
    daemon.stop();
}
