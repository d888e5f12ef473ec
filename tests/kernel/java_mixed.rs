//! Threads that each run another kind of Java code: the time of each, its stacks and the kinds of their frames, against what
//! the program says and is made of. With each JDK of this machine.

use profiler::model::FrameKind;
use profiler_tests::{
    accounts::{self, Accounting, blocked},
    expect,
    jdk::{Jdk, each_jdk},
    record::Record,
    target::{Target, number},
    view::{Entry, View},
};
use serde_json::Value;

use crate::{
    java_stacks::{WHOLE, is_whole},
    jvm::recorded,
};

/// Milliseconds.
const TIME: &str = "4000";
/// Percentage points that a thread's share of the time may differ by.
const POINTS: f64 = 1.0;
/// Stands for any number of frames.
const ANY: &str = "...";

/// A thread, by the name of its method.
struct Worker {
    name: &'static str,
    /// What most of its time is spent in.
    inner: &'static str,
    /// The kind of that, if it is always the same.
    kind: Option<FrameKind>,
    /// Its callers, up to the thread's own method: a name, the start of one (`*`), or [`ANY`].
    callers: &'static [&'static str],
}

const fn worker(name: &'static str, inner: &'static str, callers: &'static [&'static str]) -> Worker {
    Worker { name, inner, kind: None, callers }
}

const LEAF: &str = "known.Mixed.leaf";
const DEEP: [&str; 60] = ["known.Mixed.deep"; 60];

/// All but the one that writes, which has hardly any time.
const WORKERS: [Worker; 11] = [
    worker("recursion", LEAF, &DEEP),
    Worker {
        kind: Some(FrameKind::Inlined),
        ..worker("inlined", "known.Mixed.turn", &["known.Mixed.small"])
    },
    Worker { kind: Some(FrameKind::Interpreted), ..worker("interpreted", "known.Mixed.plain", &[]) },
    worker("megamorphic", LEAF, &["known.Mixed$*"]),
    worker("lambdas", LEAF, &["known.Mixed.lambda$*", "known.Mixed$$Lambda*"]),
    worker("hidden", LEAF, &["known.Mixed$Unnamed*"]),
    worker("compresses", "java.util.zip.Deflater.deflateBytes*", &[ANY, "java.util.zip.Deflater.deflate"]),
    worker("allocates", LEAF, &[]),
    worker("contends-1", LEAF, &[]),
    worker("contends-2", LEAF, &[]),
    worker("reads", LEAF, &[]),
];

impl Worker {
    fn method(&self) -> String {
        format!("known.Mixed.{}", self.name.split('-').next().unwrap_or_default())
    }

    /// Whether an entry is of its thread, and its Java code was known.
    fn is(&self, entry: &Entry<'_>) -> bool {
        entry.thread.name == self.name && !entry.is_early()
    }

    fn is_inside(&self, entry: &Entry<'_>) -> bool {
        self.is(entry) && entry.user_frames().any(|frame| is_like(&frame.function.name, self.inner))
    }

    /// Whether the callers are there, each in its place, nothing between.
    fn is_right(&self, entry: &Entry<'_>) -> bool {
        let frames: Vec<_> = entry.user_frames().collect();
        let names: Vec<&str> = frames.iter().map(|frame| frame.function.name.as_str()).collect();
        let Some(at) = names.iter().position(|name| is_like(name, self.inner)) else { return false };
        let method = self.method();
        let callers = [self.callers, &[&method]].concat();
        let is_kind = self.kind.is_none_or(|kind| frames[at].kind == kind);
        is_kind && is_whole(entry) && begins_with(&names[at + 1..], &callers)
    }
}

fn is_like(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
}

fn begins_with(names: &[&str], patterns: &[&str]) -> bool {
    match patterns {
        [] => true,
        [ANY, rest @ ..] => (0..=names.len()).any(|skipped| begins_with(&names[skipped..], rest)),
        [first, rest @ ..] => {
            names.first().is_some_and(|name| is_like(name, first)) && begins_with(&names[1..], rest)
        }
    }
}

fn start(jdk: &Jdk) -> Target {
    let methods = WORKERS.iter().map(|worker| worker.method().replacen(".Mixed.", ".Mixed::", 1));
    let apart = methods.chain(["leaf", "small"].map(|name| format!("known.Mixed::{name}")));
    let apart = apart.chain(["known.Mixed$*::area".to_owned()]);
    let options = apart.map(|method| format!("-XX:CompileCommand=dontinline,{method}"));
    let options: Vec<_> =
        options.chain(["-XX:CompileCommand=exclude,known.Mixed::plain".to_owned()]).collect();
    jdk.program("known.Mixed", &options.iter().map(String::as_str).collect::<Vec<_>>(), &[TIME])
}

/// Calls `check` for each thread of the workload with its name and its percentage of their CPU time.
fn each_share(said: &Value, check: impl Fn(&str, f64)) {
    let times: Vec<_> =
        said.as_object().unwrap().iter().map(|(name, ns)| (name, ns.as_f64().unwrap())).collect();
    let all: f64 = times.iter().map(|(_, ns)| ns).sum();
    assert_eq!(times.len(), WORKERS.len() + 1, "{said}");
    for (name, ns) in times {
        check(name, 100.0 * ns / all);
    }
}

#[test]
fn java_threads_of_all_kinds_have_their_time_and_their_stacks() {
    each_jdk("java_threads_of_all_kinds_have_their_time_and_their_stacks", |jdk| {
        let target = start(jdk);
        let record = Record::new().args(["-F", "997", "-p", &target.pid().to_string()]);
        let mut recording = record.start();
        recording.wait_until_sampling();
        let (profile, said) = recorded(target, recording);
        let view = View::of(&profile);
        // What the hypervisor took may be nobody's CPU time, and is hit.
        let stolen = 100.0 * profile.meta.stolen_ns as f64 / profile.meta.duration_ns as f64;
        let all = view.count(|e| said.get(&e.thread.name).is_some());
        each_share(&said, |name, percent| {
            let found = view.count(|e| e.thread.name == name);
            println!("{name}: {:.2} %, {percent:.2} % by itself", 100.0 * found as f64 / all as f64);
            expect::share_within(&format!("{name}: {said}"), found, all, percent, POINTS + stolen);
        });
        for worker in &WORKERS {
            let (total, inside) = (view.count(|e| worker.is(e)), view.count(|e| worker.is_inside(e)));
            let right = view.count(|e| worker.is_inside(e) && worker.is_right(e));
            let wrong = view.list(|e| worker.is_inside(e) && !worker.is_right(e));
            let name = worker.name;
            println!("{name}: {total} samples, {inside} in {}, {right} with its callers", worker.inner);
            expect::at_least(&format!("{name}: {}", view.list(|e| worker.is(e))), inside, total, 75.0);
            expect::at_least(&format!("{name}: {wrong}"), right, inside, WHOLE);
            let whole = view.count(|e| worker.is(e) && is_whole(e));
            jdk.note("whole stacks, mixed", whole, total);
            expect::at_least(&view.list(|e| worker.is(e) && !is_whole(e)), whole, total, WHOLE);
            // The control: nobody runs what another does.
            let others = WORKERS.iter().map(Worker::method).filter(|method| *method != worker.method());
            for method in others {
                let strange = |e: &Entry<'_>| worker.is(e) && e.has(&method);
                assert_eq!(view.count(strange), 0, "{}", view.list(strange));
            }
        }
        let parts = ["First", "Second", "Third", "Fourth"].map(|class| format!("known.Mixed${class}.area"));
        for part in parts {
            expect::at_least(&part, view.with(&part), view.with("known.Mixed.megamorphic"), 15.0);
        }
        let is_hidden =
            |e: &Entry<'_>| e.frames.iter().any(|f| f.function.name.starts_with("known.Mixed$Unnamed/0x"));
        // They came with JDK 15.
        assert_eq!(view.count(is_hidden) > 0, jdk.major >= 15);
        let compresses = |e: &Entry<'_>| e.thread.name == "compresses" && !e.is_early();
        let is_library = |e: &Entry<'_>| {
            compresses(e) && e.user_leaf().is_some_and(|leaf| leaf.module.name().starts_with("libz"))
        };
        expect::at_least("in native code", view.count(is_library), view.count(compresses), 60.0);
    });
}

#[test]
fn java_threads_of_all_kinds_have_their_accounts() {
    each_jdk("java_threads_of_all_kinds_have_their_accounts", |jdk| {
        let mut target = start(jdk);
        let looking = Accounting::start(&["java", "-p", &target.pid().to_string()]);
        let steal = expect::steal_ticks();
        target.go();
        let said = target.says();
        let (_, whole) = looking.stop();
        whole.check();
        let rows: Vec<_> =
            whole.threads().filter(|row| said.get(row["name"].as_str().unwrap()).is_some()).collect();
        assert_eq!(rows.len(), WORKERS.len() + 1, "{}", whole.0);
        let time = |row: &Value| accounts::number(row, "cpu_ns") + accounts::number(row, "irq_ns");
        let all = rows.iter().map(|row| time(row)).sum();
        let stolen = 100.0 * expect::steal_since_ns(steal) as f64 / all as f64;
        let row = |name: &str| *rows.iter().find(|row| row["name"] == name).unwrap();
        each_share(&said, |name, percent| {
            let found = time(row(name));
            println!("{name}: {} ns, {} by itself", found, number(&said, name));
            expect::share_within(&format!("{name}: {said}"), found, all, percent, POINTS + stolen);
        });
        for (name, cause) in
            [("reads", "socket-read"), ("contends-1", "monitor"), ("lambdas", "thread-sleep")]
        {
            // Those that contend sleep between.
            let sleeps = if name == "contends-1" { blocked(row(name), "thread-sleep") } else { 0 };
            let found = blocked(row(name), cause);
            assert!(found > 0, "{}", row(name));
            expect::at_least(
                &row(name).to_string(),
                found + sleeps,
                accounts::number(row(name), "blocked_ns"),
                95.0,
            );
        }
        // The control: nobody else reads, or waits for a monitor (but for one of the JDK itself).
        for row in &rows {
            let name = row["name"].as_str().unwrap();
            assert!(name == "reads" || blocked(row, "socket-read") == 0, "{row}");
            let most = accounts::number(row, "blocked_ns") / 50;
            assert!(name.starts_with("contends") || blocked(row, "monitor") <= most, "{row}");
        }
    });
}
