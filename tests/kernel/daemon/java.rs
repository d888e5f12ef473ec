//! What windows say of JVMs, against what jstat(1) reads of the same JVMs and what the program in them did.

use std::{collections::HashMap, thread, time::Duration};

use profiler_tests::{
    jdk::{Jdk, each_jdk},
    target::{Target, number},
};

use super::{Daemon, metric, numbers};

/// No safepoints at regular times, which can be while it is idle.
const IDLE: [&str; 2] = ["-XX:+UnlockDiagnosticVMOptions", "-XX:GuaranteedSafepointInterval=0"];

/// All counters of a JVM, as the JDK's own program prints them.
fn counters(jdk: &Jdk, pid: u32) -> HashMap<String, String> {
    let mut jstat = jdk.tool("jstat");
    let output = jstat.args(["-J-Djstat.showUnsupported=true", "-snap", &pid.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let counters = text.lines().filter_map(|line| line.split_once('='));
    counters.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// Those that windows are made of, by their metric and label: counts, times in ns, bytes.
fn known(counters: &HashMap<String, String>) -> HashMap<(&'static str, String), u64> {
    let value = |name: &str| counters.get(name).map(|value| value.parse::<u64>().unwrap());
    let ns = |name: &str| Some(value(name)? * 1_000_000_000 / value("sun.os.hrt.frequency")?);
    let mut known = HashMap::new();
    for collector in 0.. {
        let of = |what: &str| format!("sun.gc.collector.{collector}.{what}");
        let Some(name) = counters.get(&of("name")) else { break };
        known.insert(("gc_collections", name.clone()), value(&of("invocations")).unwrap());
        known.insert(("gc", name.clone()), ns(&of("time")).unwrap());
    }
    let classes = ["java.cls.loadedClasses", "java.cls.sharedLoadedClasses"];
    let used = counters.iter().filter(|(name, _)| {
        name.starts_with("sun.gc.generation.") && name.contains(".space.") && name.ends_with(".used")
    });
    let others = [
        ("safepoints", value("sun.rt.safepoints").unwrap()),
        ("safepoint", ns("sun.rt.safepointTime").unwrap()),
        ("jit", ns("java.ci.totalTime").unwrap()),
        ("classes_loaded", classes.iter().filter_map(|name| value(name)).sum()),
        ("heap_used", used.map(|(_, bytes)| bytes.parse::<u64>().unwrap()).sum()),
    ];
    known.extend(others.map(|(metric, value)| ((metric, String::new()), value)));
    known
}

/// The same when nothing goes on any more.
fn settled(jdk: &Jdk, pid: u32) -> HashMap<(&'static str, String), u64> {
    let mut last = known(&counters(jdk, pid));
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = known(&counters(jdk, pid));
        if now == last {
            return now;
        }
        last = now;
    }
}

/// What windows say of it, by metric and label.
fn of_windows(daemon: &Daemon, pid: u32) -> impl Fn(&str, &str) -> u64 + use<> {
    let numbers = numbers(&daemon.query_json(&["--accounts", "--json"]), Some(pid));
    move |metric, label| numbers.get(&(metric.to_owned(), label.to_owned())).copied().unwrap_or(0)
}

fn check(jdk: &Jdk, daemon: &Daemon, target: &mut Target) -> serde_json::Value {
    let pid = target.pid();
    let before = settled(jdk, pid);
    daemon.flush();
    let windows_before = of_windows(daemon, pid);
    assert_eq!(settled(jdk, pid), before, "it is idle");
    target.go();
    let said = target.says();
    let after = settled(jdk, pid);
    daemon.flush();
    let windows = of_windows(daemon, pid);
    daemon.flush();
    let later = of_windows(daemon, pid);
    assert_eq!(settled(jdk, pid), after, "it is idle");
    for ((metric, label), value) in &after {
        let is = windows(metric, label);
        match *metric {
            // A gauge: as it was last, and of one series, also when it does not run.
            "heap_used" => assert_eq!((is, later(metric, label)), (*value, *value), "{metric}"),
            _ => {
                assert_eq!(later(metric, label), is, "{metric} {label} is of one window");
                assert_eq!(
                    is - windows_before(metric, label),
                    value - before[&(*metric, label.clone())],
                    "{metric} {label}"
                );
            }
        }
    }
    said
}

#[test]
fn windows_say_what_jvms_count() {
    each_jdk("windows_say_what_jvms_count", |jdk| {
        let daemon = Daemon::start(60, &[]);
        let mut collects = jdk.program("known.Events", &IDLE, &["collect", "25"]);
        let mut loads = jdk.program("known.Events", &IDLE, &["load", "40"]);
        // They ran in this window. What JVMs counted before they are looked at for the first time, at its end, is of none.
        daemon.flush();
        let said = check(jdk, &daemon, &mut collects);
        let all = numbers(&daemon.query_json(&["--accounts", "--json"]), Some(collects.pid()));
        assert_eq!(metric(&all, "gc_collections"), 25, "{all:?}");
        assert!(metric(&all, "gc") <= number(&said, "around"), "{all:?} {said}");
        check(jdk, &daemon, &mut loads);
        let all = numbers(&daemon.query_json(&["--accounts", "--json"]), Some(loads.pid()));
        assert!(metric(&all, "classes_loaded") >= 40 && metric(&all, "jit") > 0, "{all:?}");
        assert_eq!(metric(&all, "gc_collections"), 0, "control: {all:?}");
        daemon.stop();
    });
}

#[test]
fn a_script_that_executes_java_is_a_jvm() {
    each_jdk("a_script_that_executes_java_is_a_jvm", |jdk| {
        // Several windows see it as what it is before.
        let daemon = Daemon::start(1, &[]);
        let mut collects = jdk.program_of_script(3, "known.Events", &IDLE, &["collect", "25"]);
        daemon.flush();
        daemon.flush();
        collects.go();
        collects.says();
        settled(jdk, collects.pid());
        daemon.flush();
        assert!(of_windows(&daemon, collects.pid())("heap_used", "") > 0, "it is a JVM");
        let all = numbers(&daemon.query_json(&["--accounts", "--json"]), Some(collects.pid()));
        assert_eq!(metric(&all, "gc_collections"), 25, "{all:?}");
        daemon.stop();
    });
}
