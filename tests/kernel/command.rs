//! `record -- COMMAND`: from its first instruction to its exit status; Ctrl-C; the length of a recording.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use profiler::model::FrameKind;
use profiler_tests::{
    expect,
    record::{Record, fails_with, no_panic},
    target::Target,
    view::{Entry, View},
    workload,
};
use rustix::process::Signal;
use tempfile::TempDir;

#[test]
fn the_exit_status_is_passed_on() {
    for (argument, code) in
        [("exit=0", 0), ("exit=3", 3), ("exit=255", 255), ("kill=9", 137), ("kill=15", 143)]
    {
        let recorded = Record::at_999().command(&workload::path("burner"), ["50", argument]).run();
        assert_eq!(recorded.code(), code, "{argument}: {}", recorded.describe());
        let profile = recorded.profile();
        let view = View::of(&profile);
        // 50 ms are few samples, and interrupts that hit them are on top: what is checked here is the status.
        expect::samples(argument, view.with("burner_work"), 50_000_000, &profile, 0.3);
        no_panic(argument, &recorded.stderr());
    }
}

#[test]
fn a_command_that_is_not_there() {
    for command in ["/nonexistent/program", "no_program_has_this_name"] {
        let recorded = Record::new().command(Path::new(command), [""; 0]).run();
        fails_with(command, recorded.status(), &recorded.stderr(), 127, command);
    }
}

#[test]
fn a_command_that_is_not_executable() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    fs::write(&data, "no program").unwrap();
    let recorded = Record::new().command(&data, [""; 0]).run();
    fails_with("no execute permission", recorded.status(), &recorded.stderr(), 126, "data");
    let recorded = Record::new().command(directory.path(), [""; 0]).run();
    fails_with("a directory", recorded.status(), &recorded.stderr(), 126, directory.path().to_str().unwrap());
}

/// The program's first instruction is the start of its work: 50 ms, which at 4,999 Hz are 250 samples.
#[test]
fn the_first_instruction_is_sampled() {
    let recorded = Record::timed("4999").command(&workload::path("first"), [""; 0]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let cpu_ns: u64 =
        recorded.stdout().lines().find_map(|line| line.parse().ok()).expect("it says its CPU time");
    // One tick more or less at each end, and what exec itself takes, which is the kernel's: 2 % are 5.
    expect::samples(&view.list(|_| true), view.total(), cpu_ns, &profile, 0.03);
    // In user mode it does nothing else but to start and to say its CPU time. Before it is executed, its process runs
    // the profiler's code, under another name.
    let in_user = |e: &Entry<'_>| {
        e.thread.name == "first" && e.frames.first().is_some_and(|leaf| leaf.kind != FrameKind::Kernel)
    };
    let other = |e: &Entry<'_>| in_user(e) && !e.has("first_work") && !e.has("_start");
    let slack = view.count(in_user) / 20;
    assert!(view.count(other) <= slack && view.with("first_work") > 0, "{}", view.list(other));
    let first = profile.samples.iter().map(|sample| sample.window_start_ns).min();
    assert_eq!(first, Some(0), "the recording begins with the command");
}

#[test]
fn the_command_gets_its_standard_streams_and_working_directory() {
    let directory = TempDir::new().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/sh\npwd\necho \"$1\" >&2\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let record = Record::new().command(&script, ["to stderr"]);
    let expected = record.directory().canonicalize().unwrap();
    let recorded = record.run();
    assert_eq!(recorded.code(), 0, "{}", recorded.describe());
    assert!(recorded.stdout().lines().any(|line| Path::new(line) == expected), "{}", recorded.stdout());
    assert!(recorded.stderr().lines().any(|line| line == "to stderr"), "{}", recorded.stderr());
}

#[test]
fn ctrl_c_writes_everything() {
    let target = Target::start(&workload::path("burner"), &["0", "forever"]).giving_way();
    let record = Record::at_999().args(["-p", &target.pid().to_string()]);
    let mut recording =
        record.output("out.folded").output("out.svg").output("out.json").output("out.txt").start();
    recording.wait_until_sampling();
    // The target's own CPU time shows when there is something to be written.
    let until = cpu_ticks(target.pid()) + 20;
    while cpu_ticks(target.pid()) < until {
        std::thread::yield_now();
    }
    recording.signal(Signal::INT);
    let recorded = recording.finish();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    let view = View::of(&profile);
    assert!(view.of_pid(u64::from(target.pid())) > 0);
    for name in ["out.folded", "out.svg", "out.json", "out.txt"] {
        let text = String::from_utf8(recorded.output(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(text.contains("burner_work"), "{name}: {text}");
    }
}

/// CPU time of a process in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The command, in parentheses, may have spaces: user and system time are the 12th and 13th behind it.
    let (_, behind) = stat.rsplit_once(')').unwrap();
    behind.split_whitespace().skip(11).take(2).map(|word| word.parse::<u64>().unwrap()).sum()
}

/// Ctrl-C at a terminal reaches the command too; sent to the profiler alone, the command is asked to end.
#[test]
fn ctrl_c_while_a_command_runs_writes_everything() {
    let mut recording = Record::at_999().command(&workload::path("burner"), ["0", "forever"]).start();
    recording.wait_until_sampling();
    let child = loop {
        let path = format!("/proc/{0}/task/{0}/children", recording.pid());
        let children = fs::read_to_string(path).unwrap();
        let named =
            |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "burner");
        if let Some(child) = children.split_whitespace().find(named) {
            break child.parse::<u32>().unwrap();
        }
        std::thread::yield_now();
    };
    while cpu_ticks(child) < 20 {
        std::thread::yield_now();
    }
    recording.signal(Signal::INT);
    let recorded = recording.finish();
    let profile = recorded.succeeded();
    assert!(View::of(&profile).with("burner_work") > 0);
    assert!(!Path::new(&format!("/proc/{child}")).exists(), "the command outlives its recording");
}

#[test]
fn a_duration_ends_the_recording() {
    let target = Target::start(&workload::path("burner"), &["0", "forever"]).giving_way();
    let recorded = Record::at_999().args(["-d", "0.5", "-p", &target.pid().to_string()]).run();
    let profile = recorded.succeeded();
    let duration = profile.meta.duration_ns;
    // Not shorter than asked for; that it is not much longer is the ticks': they are counted over the same time.
    assert!(duration >= 500_000_000, "{duration}");
    assert!(View::of(&profile).total() > 0);
    assert!(
        profile.meta.ticks <= profile.meta.expected_ticks + u64::from(profile.meta.cpus),
        "{:?}",
        profile.meta
    );
}

/// The command is asked to end, and that it was so is no failure.
#[test]
fn a_duration_ends_a_command() {
    let recorded =
        Record::at_999().args(["-d", "0.3"]).command(&workload::path("burner"), ["0", "forever"]).run();
    let profile = recorded.succeeded();
    assert!(View::of(&profile).with("burner_work") > 0);
    assert!(recorded.said().is_null(), "the command reached its end");
}

#[test]
fn without_an_output_the_recording_and_a_summary_are_made() {
    let directory = TempDir::new().unwrap();
    let output = std::process::Command::new(profiler_tests::binary::profiler())
        .args(["record", "-F", "999", "--"])
        .arg(workload::path("burner"))
        .arg("300")
        .current_dir(&directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.contains("burner_work"), "{summary}");
    let file = fs::File::open(directory.path().join("profile.pb.gz")).unwrap();
    let profile = profiler::render::pprof::read(file).unwrap();
    assert!(View::of(&profile).with("burner_work") > 0);
}
