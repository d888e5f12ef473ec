//! `profiler java`: what a JVM and its threads did against what the program in it says that it did, with each JDK of this machine.

use profiler_tests::{
    accounts::{Accounting, Accounts, blocked, number},
    expect,
    jdk::{Jdk, each_jdk},
    record::{fails_with, profiler},
};
use serde_json::Value;

use crate::{java_stacks::CALLERS, jvm_says::printed};

/// Milliseconds.
const TIME: &str = "2000";
const APART: &str = "-XX:CompileCommand=dontinline,known.Stacks*::*";

/// What was seen of a mode of the workload in a JVM with these options: intervals and the whole run; and what it says.
struct Seen {
    intervals: Vec<Value>,
    whole: Accounts,
    said: Value,
}

impl Seen {
    fn of(jdk: &Jdk, options: &[&str], mode: &str) -> Self {
        let mut target = jdk.program("known.Stacks", &[&[APART], options].concat(), &[mode, TIME]);
        let looking = Accounting::start(&["java", "-p", &target.pid().to_string()]);
        target.go();
        let said = target.says();
        let (intervals, whole) = looking.stop();
        whole.check();
        assert_eq!(whole.0["jvm"]["pid"], target.pid());
        assert!(whole.0["jvm"]["jdk"].as_u64() >= Some(8), "{}", whole.0["jvm"]);
        Self { intervals, whole, said }
    }

    /// The row of the only thread of that name.
    fn thread(&self, name: &str) -> &Value {
        let rows: Vec<_> = self.whole.threads().filter(|row| row["name"] == name).collect();
        assert_eq!(rows.len(), 1, "{name}: {}", self.whole.0);
        rows[0]
    }

    fn counts(&self) -> &Value {
        &self.whole.0["counts"]
    }
}

/// What the JVM says of a thread that runs or is in a system call. JDK 8 does not.
fn runnable(jdk: &Jdk) -> Value {
    if jdk.major == 8 { Value::Null } else { "runnable".into() }
}

/// The entries of a list whose `key` is `value`.
fn with<'a>(list: &'a Value, key: &str, value: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().filter(|entry| entry[key] == value).collect()
}

/// Threads of the workload, and what each waits for.
const WAITS: [(&str, &str); 4] = [
    ("known-parks", "park"),
    ("known-sleeps", "thread-sleep"),
    ("known-awaits", "object-wait"),
    ("known-reads", "socket-read"),
];

#[test]
fn java_threads_are_blocked_by_what_they_wait_for() {
    each_jdk("java_threads_are_blocked_by_what_they_wait_for", |jdk| {
        let seen = Seen::of(jdk, &[], "waits");
        for (name, cause) in WAITS {
            let row = seen.thread(name);
            assert_eq!((&row["java"], &row["ended"]), (&true.into(), &true.into()), "{row}");
            expect::at_least(&row.to_string(), blocked(row, cause), number(row, "blocked_ns"), 95.0);
            // The control: for nothing that the others wait for.
            for other in WAITS.map(|(_, cause)| cause).into_iter().chain(["monitor"]) {
                let most = number(row, "blocked_ns") / 50;
                assert!(other == cause || blocked(row, other) <= most, "{other}: {row}");
            }
        }
        // The kernel keeps 15 bytes of a name.
        assert_eq!(seen.thread("known-holds-\u{65e5}\u{672c}\u{8a9e}")["java"], true);
        // Between its locks it parks.
        let locks = seen.thread("known-locks");
        let both = blocked(locks, "monitor") + blocked(locks, "park");
        expect::at_least(&locks.to_string(), both, number(locks, "blocked_ns"), 95.0);
        let places = &seen.whole.0["monitors"];
        let [place] = with(places, "method", "known.Stacks.locks")[..] else { panic!("{places}") };
        assert_eq!(place["classes"], serde_json::json!(["java.lang.Object"]), "{place}");
        assert_eq!((number(place, "threads"), place["line"].is_u64()), (1, true), "{place}");
        // What it measures itself has waits for a CPU in it, and what it does before it waits.
        let (waited, said) = (number(place, "wait_ns"), number(&seen.said, "waited"));
        let else_ns = number(locks, "run_queue_ns") + number(locks, "cpu_ns") + number(locks, "irq_ns");
        assert!(
            waited <= said + said / 50 && waited + else_ns >= said - said / 50,
            "{waited}, {said}: {locks}"
        );
        expect::at_least(&place.to_string(), blocked(locks, "monitor"), waited, 98.0);
        // The control: nobody else waited there, nor for what the others do.
        for name in ["parks", "sleeps", "awaits", "reads"] {
            assert!(with(places, "method", &format!("known.Stacks.{name}")).is_empty(), "{places}");
        }
    });
}

/// Where an object has its class differs by an option of the JVM's, and the default by version.
#[test]
fn names_are_read_whatever_headers_objects_have() {
    each_jdk("names_are_read_whatever_headers_objects_have", |jdk| {
        // Versions that know one layout only run twice with it.
        for headers in ["-XX:+UseCompactObjectHeaders", "-XX:-UseCompactObjectHeaders"] {
            let seen = Seen::of(jdk, &["-XX:+IgnoreUnrecognizedVMOptions", headers], "waits");
            for name in ["known-parks", "known-locks", "known-holds-\u{65e5}\u{672c}\u{8a9e}"] {
                assert_eq!(seen.thread(name)["java"], true, "{headers}");
            }
            let places = &seen.whole.0["monitors"];
            let [place] = with(places, "method", "known.Stacks.locks")[..] else { panic!("{places}") };
            assert_eq!(place["classes"], serde_json::json!(["java.lang.Object"]), "{headers}: {place}");
        }
    });
}

#[test]
fn collections_and_allocations_are_what_the_jvm_did() {
    each_jdk("collections_and_allocations_are_what_the_jvm_did", |jdk| {
        let seen = Seen::of(jdk, &["-XX:+UseSerialGC"], "collect");
        let (counts, said) = (seen.counts(), &seen.said);
        let collectors = counts["collectors"].as_array().unwrap();
        let sum = |key: &str| collectors.iter().map(|collector| number(collector, key)).sum::<u64>();
        assert_eq!(sum("collections"), number(said, "collections"), "{counts}");
        let full: Vec<_> = collectors.iter().map(|collector| number(collector, "collections")).collect();
        assert!(full.contains(&number(said, "asked")), "{counts}");
        assert_eq!(counts["last_gc_cause"], "System.gc()", "{counts}");
        // The JVM tells whole milliseconds, of each of two collectors.
        let (ns, ms) = (sum("ns"), number(said, "ms"));
        assert!(ns.abs_diff(ms * 1_000_000) <= 2_000_000 * (1 + number(said, "collections")), "{ns}: {said}");
        // All of it in safepoints.
        assert!(number(counts, "safepoints") >= number(said, "collections"), "{counts}");
        assert!(number(counts, "safepoint_ns") + 1_000_000 >= ns, "{counts}");
        assert!(number(counts, "heap_used_bytes") <= number(counts, "heap_capacity_bytes"), "{counts}");
        let row = seen.thread("known-allocates-and-asks");
        let (allocated, bytes) = (number(row, "allocated_bytes"), number(said, "allocated"));
        // Of a thread that ended it is known what it had some time before.
        assert!(allocated <= bytes + bytes / 50, "{allocated} of {bytes}: {row}");
        let alive = seen.intervals.iter().map(|interval| {
            let rows = with(&interval["rows"], "name", "known-allocates-and-asks");
            rows.iter().filter_map(|row| row["allocated_bytes"].as_u64()).sum::<u64>()
        });
        // Intervals have what was allocated in them.
        let in_intervals: u64 = alive.sum();
        assert!(in_intervals <= bytes + bytes / 50 && in_intervals >= bytes / 4, "{in_intervals} of {bytes}");
    });
}

#[test]
fn the_methods_of_a_jvm_have_their_shares() {
    each_jdk("the_methods_of_a_jvm_have_their_shares", |jdk| {
        let seen = Seen::of(jdk, &["-XX:+UseSerialGC"], "callers");
        let methods = &seen.whole.0["methods"];
        let total = |name: &str| -> u64 {
            with(methods, "method", &format!("known.Stacks.{name}"))
                .iter()
                .map(|row| number(row, "total"))
                .sum()
        };
        let time = |name: &str| number(&seen.said, &format!("{name}_ns"));
        let (all, all_ns) = (CALLERS.map(total).iter().sum(), CALLERS.map(time).iter().sum::<u64>());
        for name in CALLERS {
            let percent = 100.0 * time(name) as f64 / all_ns as f64;
            expect::share(&format!("{name}: {methods}"), total(name), all, percent);
        }
        // A sample is in one method's own code, or below one.
        let rows = methods.as_array().unwrap();
        let own: u64 = rows.iter().map(|row| number(row, "own") + number(row, "native")).sum();
        assert!(own <= number(&seen.whole.0, "samples"), "{own}: {}", seen.whole.0);
        let [work] = with(methods, "method", "known.Stacks.work")[..] else { panic!("{methods}") };
        assert!(
            number(work, "own") > 0 && number(work, "total") == number(work, "own") + number(work, "native")
        );
        // The control, and while it went on they had names too.
        assert!(with(methods, "method", "known.Stacks.deep").is_empty(), "{methods}");
        let named =
            |interval: &&&Value| !with(&interval["methods"], "method", "known.Stacks.round").is_empty();
        let sampled: Vec<_> = seen.intervals.iter().filter(|one| number(one, "samples") >= 5).collect();
        let with_names = sampled.iter().filter(named).count();
        assert!(with_names > 0 && with_names * 2 >= sampled.len(), "{with_names} of {}", sampled.len());
    });
}

/// What is read is the JVM's own memory: it does nothing for it.
#[test]
fn a_jvm_that_is_looked_at_is_left_alone() {
    each_jdk("a_jvm_that_is_looked_at_is_left_alone", |jdk| {
        let options = ["-XX:+UnlockDiagnosticVMOptions", "-XX:GuaranteedSafepointInterval=0"];
        let target = jdk.program("known.Stacks", &options, &["waits", TIME]);
        let whole = Accounts::of_view("java", &["-p", &target.pid().to_string(), "-d", "1", "-F", "999"]);
        whole.check();
        let counts = &whole.0["counts"];
        let numbers = ["safepoints", "compilations", "classes_loaded"].map(|key| number(counts, key));
        assert_eq!(numbers, [0; 3], "{counts}");
        // Its main thread waits for a line, and says in what.
        let main =
            whole.threads().find(|row| row["innermost"].as_str().is_some_and(|at| at.contains("read")));
        assert!(main.is_some_and(|row| row["state"] == runnable(jdk)), "{}", whole.0);
    });
}

#[test]
fn java_threads_are_where_the_jvm_says() {
    each_jdk("java_threads_are_where_the_jvm_says", |jdk| {
        // Until it is told to go on, all its threads wait.
        for options in [&[][..], &["-Xint"]] {
            let target = jdk.program("known.Stacks", options, &["waits", TIME]);
            let whole = Accounts::of_view("java", &["-p", &target.pid().to_string(), "-d", "0.3"]);
            let printed = printed(jdk, target.pid());
            assert!(printed.len() >= 3, "{printed:?}");
            for (tid, frames) in &printed {
                let row = whole.thread(*tid);
                assert_eq!(row["innermost"], *frames[0].method, "{options:?}: {row}");
            }
            // The control: the others run no Java code.
            let others = whole.threads().filter(|row| !printed.contains_key(&number(row, "tid")));
            let strange: Vec<_> = others.filter(|row| !row["innermost"].is_null()).collect();
            assert!(strange.is_empty(), "{strange:?}");
        }
    });
}

#[test]
fn a_jvm_without_counters_says_so() {
    each_jdk("a_jvm_without_counters_says_so", |jdk| {
        let target = jdk.program("known.Stacks", &["-XX:-UsePerfData"], &["waits", TIME]);
        let whole = Accounts::of_view("java", &["-p", &target.pid().to_string(), "-d", "0.3"]);
        assert!(whole.0["counts"].is_null() && whole.0["meta"]["notes"].to_string().contains("UsePerfData"));
        assert!(
            whole.threads().any(|row| row["java"] == true && row["state"] == runnable(jdk)),
            "{}",
            whole.0
        );
    });
}

#[test]
fn what_is_no_jvm_is_not_looked_at() {
    let output = profiler(["java", "-p", &std::process::id().to_string()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    fails_with("profiler java", output.status, &stderr, 2, "no libjvm.so is mapped");
    let output = profiler(["java"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    fails_with("profiler java", output.status, &stderr, 2, "-p PID");
    // A command that turns out to be none is run nevertheless.
    let output = profiler(["java", "--", "sleep", "0.3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("there was no JVM that could be read"), "{text}");
}
