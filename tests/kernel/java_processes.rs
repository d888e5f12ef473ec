//! Several JVMs in one recording of the whole machine: of different versions where there are two, in another root with
//! namespaces and a user of its own, started during the recording, ended during it. Each has whole stacks and its names.

use profiler_tests::{
    expect,
    jdk::Jdk,
    record::Record,
    skip::skip,
    target::Target,
    view::{Entry, View},
};
use rustix::process::Signal;

use crate::java_stacks::{APART, check_callers, is_worker};

/// Milliseconds, of the one that ends during the recording.
const SHORT: &str = "1500";
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
