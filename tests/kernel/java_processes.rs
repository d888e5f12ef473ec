//! Several JVMs in one recording of the whole machine: of different versions where there are two, in another root with
//! namespaces and a user of its own, started during the recording, ended during it. Each has whole stacks and its names.
//! And a large one.

use std::fs;

use profiler::model::StackEnd;
use profiler_tests::{
    expect,
    jdk::{Jdk, each_jdk},
    record::Record,
    skip::skip,
    target::Target,
    view::{Entry, View},
};
use rustix::process::Signal;

use crate::java_stacks::{APART, WHOLE, check_callers, is_whole, is_worker};

/// Milliseconds, of the one that ends during the recording.
const SHORT: &str = "2000";
/// Milliseconds, of the others.
const LONG: &str = "3000";

fn start(jdk: &Jdk, time: &str) -> Target {
    jdk.program("known.Stacks", &[APART], &["callers", time])
}

#[test]
fn java_processes_of_any_time_and_place_have_their_stacks() {
    let all = Jdk::all();
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return skip("java_processes_of_any_time_and_place_have_their_stacks", "no JDK is installed");
    };
    let mut apart = first.program_apart("known.Stacks", &[APART], &["callers", LONG]);
    let mut ending = start(last, SHORT);
    let mut recording = Record::new().args(["-a", "-e", "cpu", "-F", "997"]).start();
    recording.wait_until_sampling();
    apart.target.go();
    ending.go();
    let mut late = start(last, LONG);
    late.go();
    let ending_pid = ending.pid();
    let said_by_ending = ending.says();
    assert!(ending.finish().0.success());
    let said = [(apart.pid, apart.target.says()), (late.pid(), late.says()), (ending_pid, said_by_ending)];
    recording.signal(Signal::INT);
    let profile = recording.finish().succeeded();
    expect::no_sample_lost(&profile);
    for (pid, said) in &said {
        let is_of = |entry: &Entry<'_>| entry.thread.pid == *pid;
        let mut view = View::of(&profile);
        view.entries.retain(is_of);
        println!("{pid}: {} samples of the worker, {said}", view.count(is_worker));
        check_callers(&view, said, 60.0);
    }
}

/// 200 threads, 21,000 compiled methods: how many samples come before its code is known, and what memory that takes.
#[test]
fn a_large_jvm_is_walked_in_little_memory() {
    each_jdk("a_large_jvm_is_walked_in_little_memory", |jdk| {
        let options = [
            "-Xmx256m",
            "-Xcomp",
            "-XX:TieredStopAtLevel=1",
            "-XX:CompileCommand=compileonly,known.Crowd$Small::*",
            "-XX:CompileCommand=dontinline,known.Crowd$Small::*",
        ];
        let mut target = jdk.program("known.Crowd", &options, &["200", "1000", "4000"]);
        let mut recording = Record::new().args(["-p", &target.pid().to_string(), "-F", "999"]).start();
        recording.wait_until_sampling();
        target.go();
        target.says();
        let mb = peak_mb(recording.pid());
        recording.signal(Signal::INT);
        let profile = recording.finish().succeeded();
        expect::no_sample_lost(&profile);
        let view = View::of(&profile);
        let is_crowd = |e: &Entry<'_>| e.thread.name.starts_with("known-crowd");
        // A thread runs native code before and behind its Java code.
        let is_java = |e: &Entry<'_>| e.frames.iter().any(|frame| frame.module.name() == "[jit]");
        let known = |e: &Entry<'_>| is_crowd(e) && !e.is_early() && is_java(e);
        let early = view.count(|e| is_crowd(e) && e.end == StackEnd::NotLoaded);
        let whole = |e: &Entry<'_>| known(e) && is_whole(e);
        let list = view.list(|e| known(e) && !is_whole(e));
        jdk.note("early samples, large", early, view.count(is_crowd));
        jdk.note("whole stacks, large", view.count(whole), view.count(known));
        jdk.note("MB, large", mb, MAX_MB);
        expect::at_least(&list, view.count(whole), view.count(known), WHOLE);
        assert!(mb < MAX_MB, "{mb} MB");
        // The methods are there: the same name from many loaders.
        let in_small = |e: &Entry<'_>| is_crowd(e) && e.has("known.Crowd$Small.applyAsLong");
        expect::at_least(&list, view.count(in_small), view.count(known), 75.0);
    });
}

/// Most memory that a recording of it may take, MB.
const MAX_MB: u64 = 50;

/// The most memory that a process has had until now, MB: `VmHWM` in /proc/PID/status.
fn peak_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    (kib << 10).div_ceil(1_000_000)
}
