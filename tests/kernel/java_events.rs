//! Events of a JVM, with each JDK of this machine: against the JVM's log of the same time, and its own counters.

use std::{collections::HashMap, fs, path::Path, thread, time::Duration};

use profiler::model::{Profile, StackEnd};
use profiler_tests::{
    expect,
    jdk::{Jdk, each_jdk},
    record::{Record, fails_with, profiler},
    target::{Target, number},
    view::{Entry, View},
    workload,
};
use rustix::process::Signal;
use serde_json::Value;

/// What a run yields.
struct Run {
    profile: Profile,
    said: Value,
    /// What the JVM logged between `ready` and what it said.
    log: Vec<String>,
    /// What its counters were more behind than before.
    counters: HashMap<String, u64>,
}

/// Records events of a JVM that does something so often, and is idle before and behind. The last of them takes time.
fn run(jdk: &Jdk, events: &str, options: &[&str], arguments: [&str; 2]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = format!(
        "-Xlog:gc,safepoint,class+load,jit+compilation=debug:file={}:tags:filecount=0",
        path.display()
    );
    // No safepoints at regular times, which can be while it is idle.
    let fixed = [log.as_str(), "-XX:+UnlockDiagnosticVMOptions", "-XX:GuaranteedSafepointInterval=0"];
    let mut target = jdk.program("known.Events", &[&fixed, options].concat(), &arguments);
    let pid = target.pid();
    let mut recording = Record::new().args(["-e", events, "-p", &pid.to_string()]).start();
    recording.wait_until_attached(2);
    let state = || (lines(&path), counters(pid));
    let before = settled(state);
    target.go();
    let said = target.says();
    let behind = settled(state);
    recording.signal(Signal::INT);
    let profile = recording.finish().succeeded();
    drop(target);
    expect::no_sample_lost(&profile);
    for counter in ["spans_without_both_ends", "open_spans_map_full", "uprobe_hits_left_out"] {
        assert_eq!(profile.losses.counters.get(counter), Some(&0), "{counter}");
    }
    let more = |(name, value): (&String, &u64)| (name.clone(), value - before.1.get(name).unwrap_or(&0));
    let log = behind.0[before.0.len()..].to_vec();
    Run { profile, said, log, counters: behind.1.iter().map(more).collect() }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// What is the same for a tenth of a second. Nothing tells when the threads of a JVM are done with what they were asked for.
fn settled<T: PartialEq>(read: impl Fn() -> T) -> T {
    let mut last = read();
    let mut same = 0;
    while same < 20 {
        thread::sleep(Duration::from_millis(5));
        let now = read();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// The numbers among a JVM's counters (`src/hotspot/share/runtime/perfMemory.hpp`, `PerfDataPrologue` and `PerfDataEntry`).
fn counters(pid: u32) -> HashMap<String, u64> {
    let directories = fs::read_dir("/tmp")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("hsperfdata_")));
    let bytes = directories.filter_map(|entry| fs::read(entry.path().join(pid.to_string())).ok()).next();
    let bytes = bytes.expect("the JVM has counters");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut counters = HashMap::new();
    let mut entry = word(24);
    for _ in 0..word(28) {
        let (len, name, elements, data) = (word(entry), word(entry + 4), word(entry + 8), word(entry + 16));
        let (kind, variability) = (bytes[entry + 12], bytes[entry + 15]);
        // A long that grows.
        if kind == b'J' && elements == 0 && variability == 2 {
            let name = bytes[entry + name..].split(|&byte| byte == 0).next().unwrap();
            let value = u64::from_le_bytes(bytes[entry + data..entry + data + 8].try_into().unwrap());
            counters.insert(String::from_utf8(name.to_vec()).unwrap(), value);
        }
        entry += len;
    }
    // Time of the clock itself, which goes on.
    counters.retain(|name, _| COUNTERS.iter().any(|known| name.starts_with(known)));
    counters
}

/// The counters that are looked at, by what their names begin with.
const COUNTERS: [&str; 5] =
    ["sun.gc.collector.", "sun.rt.safepoints", "sun.rt.safepointTime", "java.ci.totalTime", "java.cls."];

impl Run {
    /// The sum of some counters.
    fn counted(&self, is_of_it: impl Fn(&str) -> bool) -> u64 {
        self.counters.iter().filter(|(name, _)| is_of_it(name)).map(|(_, value)| value).sum()
    }

    /// Lines of the log with these tags.
    fn logged<'a>(&'a self, tags: &'a str) -> impl Iterator<Item = &'a str> {
        let of = move |line: &'a String| {
            let (found, text) = line.strip_prefix('[')?.split_once(']')?;
            (found.trim_end() == tags).then_some(text)
        };
        self.log.iter().filter_map(of)
    }

    fn view(&self, event: &str) -> View<'_> {
        View::of_type(&self.profile, event)
    }
}

/// The number before a unit at a line's end, or behind a word, as a log has it: ns.
fn time(line: &str, from: &str, unit: &str, ns: f64) -> f64 {
    let rest = &line[line.find(from).unwrap_or_else(|| panic!("no `{from}`: {line}")) + from.len()..];
    let number = rest.split(unit).next().and_then(|rest| rest.rsplit(' ').next());
    ns * number.and_then(|number| number.parse::<f64>().ok()).unwrap_or_else(|| panic!("no number: {line}"))
}

/// Collections that are asked for.
const COLLECTIONS: u64 = 30;

#[test]
fn collections_and_safepoints_are_those_that_the_jvm_logs() {
    each_jdk("collections_and_safepoints_are_those_that_the_jvm_logs", |jdk| {
        for collector in ["-XX:+UseSerialGC", "-XX:+UseParallelGC", "-XX:+UseG1GC"] {
            let run = run(jdk, "java:gc,java:safepoint", &[collector], ["collect", &COLLECTIONS.to_string()]);
            check_collections(collector, &run);
        }
    });
}

fn check_collections(collector: &str, run: &Run) {
    let pauses: Vec<&str> = run.logged("gc").filter(|line| line.contains("Pause")).collect();
    let safepoints: Vec<&str> =
        run.logged("safepoint").filter(|line| line.contains("At safepoint:")).collect();
    let invocations =
        run.counted(|name| name.starts_with("sun.gc.collector.") && name.ends_with(".invocations"));
    let numbers = ["java:collections", "java:safepoints"].map(|event| run.view(event).total());
    let [gc_ns, safepoint_ns] = ["java:gc", "java:safepoint"].map(|event| run.view(event).total());
    println!("{collector}: {numbers:?}, {gc_ns} and {safepoint_ns} ns; counted {:?}", run.counters);
    // The parallel collector may collect twice in one operation of the JVM, which is one span.
    let twice = collector.contains("Parallel") && pauses.len() as u64 == 2 * COLLECTIONS;
    let logged = pauses.len() as u64 / if twice { 2 } else { 1 };
    assert_eq!((numbers[0], logged), (COLLECTIONS, COLLECTIONS), "{collector}: {pauses:?}");
    assert_eq!(invocations, pauses.len() as u64, "{collector}: {:?}", run.counters);
    let counted = run.counted(|name| name == "sun.rt.safepoints");
    assert_eq!((numbers[1], counted), (safepoints.len() as u64, numbers[1]), "{collector}: {safepoints:?}");
    // What the JVM counts of a collection is inside of the markers, in ticks of a nanosecond. So is what it logs of one, but for
    // G1, whose clock runs already when it comes to the first marker: half a microsecond of it may be rounding.
    let inside = run.counted(|name| name.starts_with("sun.gc.collector.") && name.ends_with(".time"));
    let paused: f64 = pauses.iter().map(|line| time(line, "Pause", "ms", 1e6)).sum();
    let stopped: f64 = safepoints.iter().map(|line| time(line, "At safepoint: ", " ns", 1.0)).sum();
    println!("{collector}: {paused:.0} ns of pauses and {stopped:.0} ns at safepoints in the log");
    let slack = |number: u64| (number * (500 + CLOCKS)) as f64;
    let least = (inside as f64 - slack(numbers[0])).max(if collector.contains("G1") {
        0.0
    } else {
        paused - slack(pauses.len() as u64)
    });
    assert!(gc_ns as f64 >= least, "{collector}: {gc_ns} ns, logged {paused}, counted {inside}");
    assert!(safepoint_ns as f64 >= stopped - slack(numbers[1]), "{collector}: {safepoint_ns} ns, {stopped}");
    // Collections are at safepoints; and if these are only for them, in the time that the program waited for them.
    assert!(gc_ns <= safepoint_ns + numbers[0] * CLOCKS, "{collector}: {gc_ns} in {safepoint_ns} ns");
    let around = number(&run.said, "around");
    if numbers[1] == COLLECTIONS {
        assert!(safepoint_ns <= around + COLLECTIONS * CLOCKS, "{collector}: {safepoint_ns} ns in {around}");
    }
    for event in ["java:collections", "java:safepoints"] {
        let view = run.view(event);
        let is_whole = |e: &Entry<'_>| e.end == StackEnd::Complete || e.is_early();
        let strange = |e: &Entry<'_>| e.thread.name != "VM Thread" || !is_whole(e);
        assert_eq!(view.count(strange), 0, "{}", view.list(strange));
    }
}

/// What the kernel's clock for programs may be off from that of processes (`between`), ns for a span.
const CLOCKS: u64 = 1000;

/// Classes that are loaded, each compiled.
const CLASSES: u64 = 40;

#[test]
fn compilations_and_loads_are_those_that_the_jvm_logs() {
    each_jdk("compilations_and_loads_are_those_that_the_jvm_logs", |jdk| {
        let run = run(jdk, "java:class-load,java:jit", &[], ["load", &CLASSES.to_string()]);
        let loads = run.logged("class,load").count() as u64;
        let view = run.view("java:class-load");
        let counted =
            run.counted(|name| matches!(name, "java.cls.loadedClasses" | "java.cls.sharedLoadedClasses"));
        println!("{} classes, logged {loads}, counted {counted}", view.total());
        assert_eq!((view.total(), counted), (loads, loads), "{:?}", run.counters);
        let made = |e: &Entry<'_>| {
            ["known.Events.load", "known.Events$Loader.loadClass"].iter().all(|function| e.has(function))
        };
        assert_eq!(view.count(made), CLASSES, "{}", view.list(|e| !made(e)));
        assert!(view.count(|e| made(e) && e.end == StackEnd::Complete) == CLASSES, "{}", view.list(made));

        // What is written of code besides that it is to be compiled: that it is not used any more, bridges to native methods.
        let is_compiled = |line: &&str| !line.contains("made not") && !line.contains("(native)");
        let logged = run.logged("jit,compilation").filter(is_compiled).count() as u64;
        let (time, count) = (run.view("java:jit"), run.view("java:compilations"));
        println!("{} compilations, logged {logged}, {} ns", count.total(), time.total());
        assert_eq!(count.total(), logged);
        assert!(count.total() >= CLASSES);
        let compiles =
            |e: &Entry<'_>| e.thread.name.starts_with("C1 Comp") || e.thread.name.starts_with("C2 Comp");
        assert_eq!(count.count(compiles), count.total(), "{}", count.list(|e| !compiles(e)));
        // The JVM measures inside of the markers, in ticks of a nanosecond.
        let inside = run.counted(|name| name == "java.ci.totalTime");
        let most = run.profile.meta.duration_ns * 16;
        assert!((inside..most).contains(&(time.total() + logged * CLOCKS)), "{} ns, {inside}", time.total());
    });
}

/// How often a monitor is entered that another thread has.
const ENTERS: u64 = 100;
/// Without it a JVM does not come to the markers of monitors.
const MONITORS: &str = "-XX:+DTraceMonitorProbes";

#[test]
fn contended_monitors_are_those_that_threads_wait_for() {
    each_jdk("contended_monitors_are_those_that_threads_wait_for", |jdk| {
        let run = run(jdk, "java:monitor", &[MONITORS], ["contend", &ENTERS.to_string()]);
        let (time, count) = (run.view("java:monitor"), run.view("java:contended-enters"));
        let enters =
            |e: &Entry<'_>| e.thread.name == "known-enters" && (e.has("known.Events.enters") || e.is_early());
        println!("{}: {} enters, {} ns", run.said, count.total(), time.total());
        // Nobody else waits for any.
        assert_eq!((count.count(enters), count.total()), (ENTERS, ENTERS), "{}", count.list(|e| !enters(e)));
        let is_whole = |e: &Entry<'_>| e.end == StackEnd::Complete || e.is_early();
        assert_eq!(count.count(is_whole), ENTERS, "{}", count.list(|e| !is_whole(e)));
        let (held, around) = (number(&run.said, "held"), number(&run.said, "around"));
        // A thread counts as blocked a moment before it comes to the marker: the two traps are in it.
        let least = held - held / 20;
        assert!(
            (least..around + ENTERS * CLOCKS).contains(&time.total()),
            "{} ns: {}",
            time.total(),
            run.said
        );
    });
}

#[test]
fn a_jvm_without_markers_of_monitors_is_told() {
    each_jdk("a_jvm_without_markers_of_monitors_is_told", |jdk| {
        let mut target = jdk.program("known.Events", &[], &["contend", "0"]);
        let pid = target.pid().to_string();
        let recorded = Record::new().args(["-e", "java:monitor", "-d", "1", "-p", &pid]).run();
        fails_with("java:monitor", recorded.status(), &recorded.stderr(), 2, MONITORS);
        let listed = profiler(["list", "java:monitor", "-p", &pid]);
        let said = String::from_utf8_lossy(&listed.stdout) + String::from_utf8_lossy(&listed.stderr);
        assert!(said.contains(MONITORS), "{said}");
        target.kill();
    });
}

#[test]
fn events_of_a_jvm_are_listed_with_their_places() {
    each_jdk("events_of_a_jvm_are_listed_with_their_places", |jdk| {
        let mut target = jdk.program("known.Events", &[MONITORS], &["collect", "0"]);
        let listed = profiler(["list", "java", "-p", &target.pid().to_string(), "--json"]);
        target.kill();
        let value: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let rows = value["rows"].as_array().unwrap();
        let places = |row: &Value| row["places"].as_array().unwrap().len();
        let found: Vec<_> = rows.iter().map(|row| (row["event"].as_str().unwrap(), places(row))).collect();
        // A collection can begin at several places.
        assert!(found[0].0 == "java:gc" && found[0].1 >= 2, "{found:?}");
        assert_eq!(found[1..4], [("java:safepoint", 2), ("java:jit", 2), ("java:class-load", 1)]);
        // A monitor is waited for at several places too.
        assert!(found.len() == 5 && found[4].0 == "java:monitor" && found[4].1 >= 2, "{found:?}");
    });
}

#[test]
fn what_has_no_jvm_is_told() {
    let mut target = Target::ready(&workload::path("spans"), &["0", "open"]);
    let pid = target.pid().to_string();
    let recorded = Record::new().args(["-e", "java:gc", "-p", &pid]).run();
    fails_with("java:gc", recorded.status(), &recorded.stderr(), 2, "no libjvm.so is mapped");
    target.kill();
}
