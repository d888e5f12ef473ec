//! Code of a JVM that is freed while its samples wait for names, with other code at its addresses: no sample gets the name of
//! what came later. With each JDK of this machine.

use profiler::model::{Profile, Reason};
use profiler_tests::{
    expect,
    record::Record,
    target::number,
    view::{Entry, View},
};
use serde_json::Value;

use crate::jvm::{Jdk, each_jdk, recorded};

/// Milliseconds.
const TIME: &str = "3000";
const FIRST: &str = "known.Reuse$First.";
const SECOND: &str = "known.Reuse$Second.";
/// All of it is compiled, at its first call and only that, into a code cache that is hardly larger than what a JVM itself
/// needs, and unloaded by a collector that takes a millisecond.
const OPTIONS: [&str; 7] = [
    "-Xcomp",
    "-XX:+UseSerialGC",
    "-XX:-SegmentedCodeCache",
    "-XX:ReservedCodeCacheSize=5m",
    "-XX:CompileCommand=compileonly,known.Reuse$First::*",
    "-XX:CompileCommand=compileonly,known.Reuse$Second::*",
    "-XX:CompileCommand=dontinline,known.Reuse*::*",
];

fn record(jdk: &Jdk, events: &str, mode: &str) -> (Profile, Value) {
    let target = jdk.program("known.Reuse", &OPTIONS, &[mode, TIME]);
    let rate: &[&str] = if events == "cpu" { &["-F", "997"] } else { &[] };
    let record = Record::new().args(["-e", events, "-p", &target.pid().to_string()]).args(rate);
    let mut recording = record.start();
    if events == "cpu" {
        recording.wait_until_sampling();
    } else {
        recording.wait_until_attached(2);
    }
    recorded(target, recording)
}

fn is_in(entry: &Entry<'_>, class: &str) -> bool {
    entry.user_frames().any(|frame| frame.function.name.starts_with(class))
}

/// Whether a stack has code that was gone when it was to be named.
fn has_gone(entry: &Entry<'_>) -> bool {
    let gone = [Some(Reason::CodeChanged), Some(Reason::CodeFreed)];
    entry.user_frames().any(|frame| gone.contains(&frame.function.unresolved))
}

#[test]
fn reused_addresses_of_java_code_get_no_wrong_name() {
    each_jdk("reused_addresses_of_java_code_get_no_wrong_name", |jdk| {
        let (profile, said) = record(jdk, "cpu", "cpu");
        let view = View::of(&profile);
        let (mut named, mut gone, mut total) = (0, 0, 0);
        for (thread, own, other) in [("known-first", FIRST, SECOND), ("known-second", SECOND, FIRST)] {
            let of_it = |e: &Entry<'_>| e.thread.name == thread && !e.is_early();
            let wrong = |e: &Entry<'_>| of_it(e) && is_in(e, other);
            assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
            named += view.count(|e| of_it(e) && is_in(e, own));
            gone += view.count(|e| of_it(e) && has_gone(e));
            total += view.count(of_it);
        }
        println!("{said}: {named} samples named, {gone} with code that was gone, of {total}");
        let all = view.list(|e| e.thread.name.starts_with("known-") && !e.is_early());
        expect::at_least(&all, named, total, 5.0);
        expect::at_least(&all, gone, total, 5.0);
    });
}

/// Waits whose stacks are kept from one to the next: at the same addresses, in the same place of the stack, in other code.
#[test]
fn kept_stacks_of_java_code_are_of_the_code_that_was_there() {
    each_jdk("kept_stacks_of_java_code_are_of_the_code_that_was_there", |jdk| {
        let (profile, said) = record(jdk, "offcpu", "waits");
        let view = View::of_type(&profile, "offcpu");
        let of_it = |e: &Entry<'_>| e.thread.name == "known-both" && !e.is_early();
        let (first, second) =
            (view.count(|e| of_it(e) && is_in(e, FIRST)), view.count(|e| of_it(e) && is_in(e, SECOND)));
        let gone = view.count(|e| of_it(e) && has_gone(e));
        println!("{said}: {first} and {second} named, {gone} with code that was gone");
        let all = view.list(of_it);
        let (of_first, of_second) = (number(&said, "first"), number(&said, "second"));
        let percent = 100.0 * of_first as f64 / (of_first + of_second) as f64;
        expect::share(&all, first, first + second, percent);
    });
}
