//! Code of a JVM that is not what it was when its samples are named: freed, with other code at its addresses, or
//! deoptimized. With each JDK of this machine.

use profiler::model::{FrameKind, Profile, Reason};
use profiler_tests::{
    expect,
    jdk::{Jdk, each_jdk},
    record::Record,
    target::number,
    view::{Entry, View},
};
use serde_json::Value;

use crate::jvm::{line_of, recorded};

/// Milliseconds.
const TIME: &str = "4000";

/// Records a workload in a JVM with these options, and what it says that it did.
fn record(jdk: &Jdk, event: &str, class: &str, options: &[&str]) -> (Profile, Value) {
    let target = jdk.program(class, options, &[TIME]);
    let rate: &[&str] = if event == "cpu" { &["-F", "997"] } else { &[] };
    let record = Record::new().args(["-e", event, "-p", &target.pid().to_string()]).args(rate);
    let mut recording = record.start();
    if event == "cpu" {
        recording.wait_until_sampling();
    } else {
        recording.wait_until_attached(2);
    }
    recorded(target, recording)
}

/// All of it is compiled, at its first call, into a code cache that is hardly larger than what a JVM itself needs, and
/// unloaded by a collector that takes a millisecond. JDK 8 knows no segments.
const REUSE: [&str; 8] = [
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-Xcomp",
    "-XX:+UseSerialGC",
    "-XX:-SegmentedCodeCache",
    "-XX:ReservedCodeCacheSize=5m",
    "-XX:CompileCommand=compileonly,known.Reuse$First::*",
    "-XX:CompileCommand=compileonly,known.Reuse$Second::*",
    "-XX:CompileCommand=dontinline,known.Reuse*::*",
];

#[test]
fn reused_addresses_of_java_code_get_no_wrong_name() {
    /// Compiled code only: what is interpreted is named by the address of its method.
    fn is_in(entry: &Entry<'_>, class: &str) -> bool {
        let mut compiled = entry.user_frames().filter(|frame| frame.kind != FrameKind::Interpreted);
        compiled.any(|frame| frame.function.name.starts_with(class))
    }
    /// Whether a stack has code that was gone when it was to be named.
    fn has_gone(entry: &Entry<'_>) -> bool {
        let gone = [Some(Reason::CodeChanged), Some(Reason::CodeFreed)];
        entry.user_frames().any(|frame| gone.contains(&frame.function.unresolved))
    }
    const FIRST: &str = "known.Reuse$First.";
    const SECOND: &str = "known.Reuse$Second.";
    each_jdk("reused_addresses_of_java_code_get_no_wrong_name", |jdk| {
        let (profile, said) = record(jdk, "cpu", "known.Reuse", &REUSE);
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
        // The first rounds are, which are longer than a window.
        expect::at_least(&all, named, total, 5.0);
        // It is about something: addresses have been used again.
        expect::at_least(&all, gone, total, 5.0);
    });
}

#[test]
fn deoptimized_java_frames_have_their_lines() {
    const OPTIONS: [&str; 2] =
        ["-XX:CompileCommand=dontinline,known.Deopt::doze", "-XX:CompileCommand=inline,known.Deopt::inner"];
    each_jdk("deoptimized_java_frames_have_their_lines", |jdk| {
        for options in [&[][..], &["-XX:TieredStopAtLevel=1"]] {
            let (profile, said) = record(jdk, "offcpu", "known.Deopt", &[&OPTIONS, options].concat());
            let view = View::of_type(&profile, "offcpu");
            let of_it =
                |e: &Entry<'_>| e.thread.name == "known-dozes" && !e.is_early() && e.has("known.Deopt.doze");
            // JDK 8 does not export what such frames are returned to: after that they are their method's, and tell no more.
            let is_bare = |e: &Entry<'_>| {
                let mut frames =
                    e.user_frames().skip_while(|f| f.function.name != "known.Deopt.doze").skip(1);
                jdk.major == 8
                    && frames.next().is_some_and(|f| f.function.name == "known.Deopt.outer" && f.line == 0)
            };
            let is_right = |e: &Entry<'_>| {
                let expected = [("inner", FrameKind::Inlined), ("outer", FrameKind::Jit)];
                let mut frames =
                    e.user_frames().skip_while(|f| f.function.name != "known.Deopt.doze").skip(1);
                is_bare(e)
                    || expected.iter().all(|&(name, kind)| {
                        let is_kind =
                            |found| found == kind || (kind, found) == (FrameKind::Jit, FrameKind::Baseline);
                        frames.next().is_some_and(|f| {
                            f.function.name == format!("known.Deopt.{name}")
                                && is_kind(f.kind)
                                && f.line == line_of("Deopt.java", name)
                        })
                    })
            };
            let (before, after) = (number(&said, "before"), number(&said, "after"));
            println!(
                "{options:?}: {said}, {} of {} ns",
                view.count(|e| of_it(e) && is_right(e)),
                view.count(of_it)
            );
            // Most waits are in the frame that was deoptimized: without its own address they are not right.
            assert!(after > before, "{said}");
            let wrong = view.list(|e| of_it(e) && !is_right(e));
            expect::at_least(&wrong, view.count(|e| of_it(e) && is_right(e)), view.count(of_it), 98.0);
        }
    });
}
