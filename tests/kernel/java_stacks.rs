//! Stacks through Java code, with each JDK of this machine: to the thread's first function, with every frame of Java in
//! its place, on the CPU and off it, by both compilers and the interpreter. No option keeps frame pointers.

use std::collections::HashMap;

use profiler::model::{Frame, FrameKind, Profile, StackEnd};
use profiler_tests::{
    expect,
    jdk::{Jdk, each_jdk},
    record::Record,
    target::number,
    view::{Entry, View},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    jvm::recorded,
    jvm_says::{Printed, printed},
};

/// Milliseconds.
const TIME: &str = "2000";
/// Methods stay frames of their own.
pub const APART: &str = "-XX:CompileCommand=dontinline,known.Stacks*::*";
/// Percent of the samples of a thread whose stacks must be whole and right.
pub const WHOLE: f64 = 98.0;

/// Records a mode of the workload in a JVM with these options, and what it says that it did.
fn record(jdk: &Jdk, events: &str, options: &[&str], mode: &str) -> (Profile, Value) {
    let target = jdk.program("known.Stacks", &[&[APART], options].concat(), &[mode, TIME]);
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

/// The names of a stack's frames in user mode, from the innermost one on.
fn names<'a>(entry: &Entry<'a>) -> Vec<&'a str> {
    entry.user_frames().map(|frame| frame.function.name.as_str()).collect()
}

/// Whether a stack reaches the first function of a thread that Java started, by way of the methods that it begins with. The
/// native functions may have no names: those of unpacked JDKs have no debug files.
pub fn is_whole(entry: &Entry<'_>) -> bool {
    let frames: Vec<_> = entry.user_frames().collect();
    let last = |is: &dyn Fn(&Frame<'_>) -> bool| frames.iter().rposition(|frame| is(frame));
    let run = last(&|frame| frame.function.name == "java.lang.Thread.run");
    let stub = last(&|frame| frame.function.name.starts_with("StubRoutines"));
    let native = last(&|frame| frame.module.name() == "libjvm.so");
    let is_in_order = run.is_some() && run < stub && stub < native;
    let is_first = |frame: &&Frame<'_>| {
        // Of the C library, or before glibc 2.34 of a library of its own.
        let is_unnamed = frame.function.unresolved.is_some()
            && (frame.module.name() == "libc.so.6" || frame.module.name().starts_with("libpthread"));
        frame.function.name == "start_thread" || is_unnamed
    };
    entry.end == StackEnd::Complete && is_in_order && frames.last().is_some_and(is_first)
}

pub fn is_worker(entry: &Entry<'_>) -> bool {
    entry.thread.name == "known-worker" && !entry.is_early()
}

/// Checks that the stacks of the worker are whole, and that its time is split between its methods as it says. `least`: the
/// percentage that is spent in what they call.
pub fn check_callers(view: &View<'_>, said: &Value, least: f64) {
    let all = view.list(|e| is_worker(e) && !is_whole(e));
    let (whole, total) = whole(view);
    expect::at_least(&all, whole, total, WHOLE);
    let times = CALLERS.map(|name| (name, number(said, &format!("{name}_ns"))));
    let all_ns: u64 = times.iter().map(|(_, ns)| ns).sum();
    let method = |name: &str| format!("known.Stacks.{name}");
    // Not only somewhere in the stack: below one of them is what it calls, above what calls it.
    let stands = |entry: &Entry<'_>, name: &str| {
        let names = names(entry);
        let at = names.iter().position(|found| *found == method(name));
        at.is_some_and(|at| names[at + 1..].starts_with(&CHAIN))
    };
    let in_several = |e: &Entry<'_>| names(e).contains(&"known.Stacks.several") && is_worker(e);
    let several = view.count(in_several);
    expect::at_least(&all, several, total, least);
    let in_them = |e: &Entry<'_>| is_worker(e) && CALLERS.iter().any(|name| stands(e, name));
    let inside = view.count(in_them);
    for (name, ns) in times {
        let percent = 100.0 * ns as f64 / all_ns as f64;
        let found = view.count(|e| in_them(e) && stands(e, name));
        expect::share(&format!("{name}{}", view.list(in_them)), found, inside, percent);
    }
    let below = view.count(|e| in_several(e) && in_them(e));
    expect::at_least(&view.list(|e| in_several(e) && !in_them(e)), below, several, WHOLE);
    // Controls: nobody calls the one from the other, and nothing else is called so.
    let twice = |e: &Entry<'_>| {
        let callers = ["known.Stacks.half", "known.Stacks.third", "known.Stacks.fifth", "known.Stacks.deep"];
        is_worker(e) && names(e).iter().filter(|name| callers.contains(name)).count() > 1
    };
    assert_eq!(view.count(twice), 0, "{}", view.list(twice));
}

/// Samples of the worker that are whole, and all.
fn whole(view: &View<'_>) -> (u64, u64) {
    (view.count(|e| is_worker(e) && is_whole(e)), view.count(is_worker))
}

/// Says how many of the worker's samples are whole, of which kind of code.
fn note(jdk: &Jdk, kind: &str, view: &View<'_>) {
    let (whole, total) = whole(view);
    println!("{}", ends(view));
    jdk.note(&format!("whole stacks, {kind}"), whole, total);
}

/// Methods that each have a part of the worker's time.
pub const CALLERS: [&str; 3] = ["half", "third", "fifth"];
const CHAIN: [&str; 2] = ["known.Stacks.round", "known.Stacks.callers"];

#[test]
fn java_callers_have_their_shares_and_their_callers() {
    each_jdk("java_callers_have_their_shares_and_their_callers", |jdk| {
        for options in [&[][..], &["-XX:TieredStopAtLevel=1"], &["-XX:+UseParallelGC"]] {
            let (profile, said) = record(jdk, "cpu", options, "callers");
            let view = View::of(&profile);
            note(jdk, "compiled", &view);
            check_callers(&view, &said, 60.0);
        }
    });
}

/// The shares of what stacks of the worker end with.
fn ends(view: &View<'_>) -> String {
    let of = |end: StackEnd| (end.key(), view.count(|e| e.thread.name == "known-worker" && e.end == end));
    let ends = StackEnd::ALL.map(of).into_iter().filter(|(_, count)| *count != 0);
    ends.map(|(key, count)| format!("{key} {count}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn interpreted_java_frames_are_named_by_their_methods() {
    each_jdk("interpreted_java_frames_are_named_by_their_methods", |jdk| {
        let (profile, said) = record(jdk, "cpu", &["-Xint"], "callers");
        let view = View::of(&profile);
        note(jdk, "interpreted", &view);
        check_callers(&view, &said, 60.0);
        // One that is never compiled between others that are.
        let exclude =
            ["third", "round"].map(|name| format!("-XX:CompileCommand=exclude,known.Stacks::{name}"));
        let (profile, said) = record(jdk, "cpu", &exclude.each_ref().map(String::as_str), "callers");
        let view = View::of(&profile);
        note(jdk, "interpreted", &view);
        // The loop takes most of the time then.
        check_callers(&view, &said, 20.0);
        let kinds = |e: &Entry<'_>, name: &str, kind: FrameKind| {
            e.frames.iter().filter(|f| f.function.name == name).all(|f| f.kind == kind)
        };
        let wrong = |e: &Entry<'_>| {
            is_worker(e)
                && !(kinds(e, "known.Stacks.third", FrameKind::Interpreted)
                    && kinds(e, "known.Stacks.round", FrameKind::Interpreted)
                    && kinds(e, "known.Stacks.half", FrameKind::Jit))
        };
        assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
    });
}

#[test]
fn java_recursion_has_all_its_frames() {
    each_jdk("java_recursion_has_all_its_frames", |jdk| {
        for options in [&[][..], &["-XX:TieredStopAtLevel=1"], &["-Xint"]] {
            let (profile, _) = record(jdk, "cpu", options, "deep");
            let view = View::of(&profile);
            let in_work = |e: &Entry<'_>| is_worker(e) && names(e).first() == Some(&"known.Stacks.work");
            let is_right = |e: &Entry<'_>| {
                let names = names(e);
                let deep = names[1..].iter().take_while(|name| **name == "known.Stacks.deep").count();
                deep == 60 && names.get(61) == Some(&"known.Stacks.dive") && is_whole(e)
            };
            note(jdk, "recursion", &view);
            let all = view.list(|e| in_work(e) && !is_right(e));
            expect::at_least(&all, view.count(in_work), view.count(is_worker), 80.0);
            expect::at_least(&all, view.count(|e| in_work(e) && is_right(e)), view.count(in_work), WHOLE);
            // The control: none is too many.
            let too_many =
                |e: &Entry<'_>| names(e).iter().filter(|name| **name == "known.Stacks.deep").count() > 60;
            assert_eq!(view.count(too_many), 0, "{}", view.list(too_many));
        }
    });
}

#[test]
fn waits_of_java_threads_have_their_stacks() {
    each_jdk("waits_of_java_threads_have_their_stacks", |jdk| {
        // Compiled, or by the interpreter, which tells by its bytecode.
        for options in [&[][..], &["-Xint"]] {
            let (profile, _) = record(jdk, "offcpu", options, "waits");
            check_waits(jdk, &View::of_type(&profile, "offcpu"));
        }
    });
}

fn check_waits(jdk: &Jdk, view: &View<'_>) {
    let park = if jdk.major == 8 { "sun.misc.Unsafe.park" } else { "jdk.internal.misc.Unsafe.park" };
    let read = match jdk.major {
        ..13 => "java.net.SocketInputStream.read",
        _ => "java.net.Socket$SocketInputStream.read",
    };
    for (thread, wait, method, caller) in [
        ("known-parks", "[blocked: park]", park, "known.Stacks.parks"),
        ("known-sleeps", "[blocked: thread-sleep]", "java.lang.Thread.sleep", "known.Stacks.sleeps"),
        ("known-locks", "[blocked: monitor]", "known.Stacks.locks", "known.Stacks.locks"),
        ("known-awaits", "[blocked: object-wait]", "java.lang.Object.wait", "known.Stacks.awaits"),
        ("known-reads", "[blocked: socket-read]", read, "known.Stacks.reads"),
    ] {
        let label = |e: &Entry<'_>| e.frames.first().map(|frame| frame.function.name.clone());
        // Between its locks it parks too.
        let is_between = |e: &Entry<'_>| thread == "known-locks" && e.has(park);
        let of_it = |e: &Entry<'_>| e.thread.name == thread && !e.is_early();
        let is_right = |e: &Entry<'_>| {
            let names = names(e);
            let first = names.iter().position(|name| *name == caller);
            let wait = if is_between(e) { "[blocked: park]" } else { wait };
            is_whole(e) && names.contains(&method) && first.is_some() && label(e).as_deref() == Some(wait)
        };
        let wrong = view.list(|e| of_it(e) && !is_right(e));
        jdk.note("whole stacks, waits", view.count(|e| of_it(e) && is_right(e)), view.count(of_it));
        expect::at_least(&wrong, view.count(|e| of_it(e) && is_right(e)), view.count(of_it), WHOLE);
        // The control: each waits in its own method only.
        let others =
            ["parks", "sleeps", "locks", "awaits", "reads"].map(|name| format!("known.Stacks.{name}"));
        let strange = |e: &Entry<'_>| of_it(e) && others.iter().any(|name| name != caller && e.has(name));
        assert_eq!(view.count(strange), 0, "{}", view.list(strange));
    }
}

/// A name up to what tells lambdas apart: before JDK 15 that is not in the class's name.
fn without_lambda(name: &str) -> &str {
    name.split_once("$$Lambda").map_or(name, |(class, _)| class)
}

#[test]
fn blocked_java_threads_are_where_the_jvm_prints_them() {
    each_jdk("blocked_java_threads_are_where_the_jvm_prints_them", |jdk| {
        let mut target = jdk.program("known.Stacks", &["-Xint"], &["waits", TIME]);
        let mut recording = Record::new().args(["-e", "offcpu", "-p", &target.pid().to_string()]).start();
        recording.wait_until_attached(2);
        target.go();
        // When its threads are there. Of several, for some may be printed between two waits.
        let is_there = |print: &HashMap<u64, Vec<Printed>>| {
            print.values().flatten().any(|line| line.method == "known.Stacks.reads")
        };
        let prints = (0..50).map(|_| printed(jdk, target.pid()));
        let printed: Vec<_> = prints.filter(is_there).take(3).collect();
        target.says();
        recording.signal(Signal::INT);
        let profile = recording.finish().succeeded();
        expect::no_sample_lost(&profile);
        let view = View::of_type(&profile, "offcpu");
        for name in ["known-parks", "known-sleeps", "known-awaits", "known-reads"] {
            let of_it = |e: &Entry<'_>| e.thread.name == name && !e.is_early();
            let is_printed = |e: &Entry<'_>| {
                let frames = e.user_frames().filter(|frame| frame.kind == FrameKind::Interpreted);
                let frames: Vec<_> =
                    frames.map(|frame| (without_lambda(&frame.function.name), frame.line)).collect();
                let is_like = |print: &HashMap<u64, Vec<Printed>>| {
                    let lines = print.get(&u64::from(e.thread.tid)).into_iter().flatten();
                    lines.map(|line| (without_lambda(&line.method), line.line)).eq(frames.iter().copied())
                };
                is_whole(e) && printed.iter().any(is_like)
            };
            let lines = format!("{printed:?}{}", view.list(|e| of_it(e) && !is_printed(e)));
            jdk.note("stacks as printed", view.count(|e| of_it(e) && is_printed(e)), view.count(of_it));
            expect::at_least(&lines, view.count(|e| of_it(e) && is_printed(e)), view.count(of_it), WHOLE);
        }
    });
}
