//! Java names: everything that a JVM has compiled against what it says of it itself, address for address, and the time
//! of a program by its methods. With each JDK of this machine.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    process::Command,
};

use profiler::{
    model::{FrameKind, Profile, Reason},
    symbolize::runtime::{
        jvm::{Fault, Jvm, Listed, Tier, open},
        memory::{Memory as _, ProcessMemory},
    },
};
use profiler_tests::{
    expect,
    record::{Record, Recording, profiler},
    skip::skip,
    target::{Target, number},
    view::{Entry, View},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Split.java");
const SOURCES: [&str; 4] = [
    SOURCE,
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Stacks.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Reuse.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Deopt.java"),
];
/// Milliseconds.
const TIME: &str = "2000";

/// A JDK, and the workloads compiled by it.
pub struct Jdk {
    /// Where its programs are.
    pub bin: PathBuf,
    classes: TempDir,
}

impl Jdk {
    /// All of this machine; those whose compiler does not work are left out.
    fn all() -> Vec<Self> {
        let mut places: Vec<PathBuf> = fs::read_dir("/usr/lib/jvm")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin/javac"))
            .chain(
                std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                    .map(|dir| dir.join("javac")),
            )
            .filter_map(|javac| Some(fs::canonicalize(javac).ok()?.parent()?.to_path_buf()))
            .collect();
        places.sort();
        places.dedup();
        places.into_iter().filter_map(Self::new).collect()
    }

    fn new(bin: PathBuf) -> Option<Self> {
        let classes = tempfile::tempdir().unwrap();
        let status = Command::new(bin.join("javac")).arg("-d").arg(classes.path()).args(SOURCES).status();
        let has_tools = ["java", "jcmd"].iter().all(|tool| bin.join(tool).exists());
        (has_tools && status.is_ok_and(|status| status.success())).then_some(Self { bin, classes })
    }

    /// Starts the workload and waits until it is ready.
    fn ready(&self, options: &[&str], arguments: &[&str]) -> Target {
        // The name of the JVM's own file for its perf map is that of its process id: one that is there is an old one.
        let keep = ["three", "one"].map(|name| format!("-XX:CompileCommand=dontinline,known.Split::{name}"));
        let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
        self.program("known.Split", &[&keep, options].concat(), arguments)
    }

    /// Starts a program and waits until it is ready.
    pub fn program(&self, class: &str, options: &[&str], arguments: &[&str]) -> Target {
        let classes = self.classes.path().to_str().unwrap();
        let fixed = ["-Xmx128m", "-Xbatch", "-XX:CompileCommand=quiet", "-cp", classes];
        Target::ready(&self.bin.join("java"), &[&fixed, options, &[class], arguments].concat())
    }

    /// What the JVM itself says that its code is: length and name by address.
    fn perf_map(&self, pid: u32) -> BTreeMap<u64, (u64, String)> {
        let path = format!("/tmp/perf-{pid}.map");
        let output =
            Command::new(self.bin.join("jcmd")).arg(pid.to_string()).arg("Compiler.perfmap").output();
        let output = output.unwrap();
        let map = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}: {output:?}"));
        fs::remove_file(&path).unwrap();
        let entry = |line: &str| -> (u64, (u64, String)) {
            let mut parts = line.splitn(3, ' ');
            let mut number = || {
                let digits = parts.next().unwrap();
                u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).unwrap()
            };
            (number(), (number(), parts.next().unwrap().to_owned()))
        };
        map.lines().map(entry).collect()
    }
}

/// Calls `test` for each JDK, says so, and skips the test where there is none.
pub fn each_jdk(name: &str, test: impl Fn(&Jdk)) {
    let all = Jdk::all();
    if all.is_empty() {
        return skip(name, "no JDK is installed");
    }
    for jdk in all {
        println!("{name}: {}", jdk.bin.display());
        test(&jdk);
    }
}

fn listing(pid: u32) -> Value {
    let output = profiler(["jvm", "-p", &pid.to_string(), "--code", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn all_java_code_is_what_the_jvm_says() {
    each_jdk("all_java_code_is_what_the_jvm_says", |jdk| {
        let target = jdk.ready(&[], &["many"]);
        let before = jdk.perf_map(target.pid());
        let listing = listing(target.pid());
        let after = jdk.perf_map(target.pid());
        assert_eq!(listing["losses"]["unread"], 0);
        let rows = listing["rows"].as_array().unwrap();
        let text = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
        let ours: BTreeMap<u64, (u64, String)> = rows
            .iter()
            .map(|row| {
                let name = text(row, "signature").or_else(|| text(row, "name")).unwrap();
                (number(row, "address"), (number(row, "code_bytes"), name))
            })
            .collect();
        // The compilers may be at work meanwhile: what was there before and after was there.
        let mut compared = 0;
        for (address, theirs) in before.iter().filter(|(address, theirs)| after.get(address) == Some(theirs))
        {
            assert_eq!(ours.get(address), Some(theirs), "at {address:#x}");
            compared += 1;
        }
        for (address, row) in &ours {
            let theirs = [before.get(address), after.get(address)];
            assert!(theirs.contains(&Some(row)), "at {address:#x}: {row:?}, the JVM says {theirs:?}");
        }
        let of_kind = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).count();
        let counts = ["c1", "c2", "native", "interpreter", "stub"].map(|kind| (kind, of_kind(kind)));
        println!("{compared} of {} entries compared; {counts:?}", before.len());
        // What is compiled depends on the version; that the comparison is about something does not.
        assert!(of_kind("c1") + of_kind("c2") > 300 && of_kind("c2") > 30, "{counts:?}");
        assert!(of_kind("interpreter") == 1 && of_kind("native") > 0 && of_kind("stub") > 100, "{counts:?}");
    });
}

/// Addresses of everything compiled, not only those that a walk can stop at: all have a name, and the outermost is
/// that of the compiled method.
#[test]
fn every_address_of_java_code_has_a_name() {
    each_jdk("every_address_of_java_code_has_a_name", |jdk| {
        let target = jdk.ready(&[], &["many"]);
        let mut jvm = open::open(target.pid()).unwrap();
        let code = compiled(&mut jvm);
        let mut named = Vec::new();
        for listed in &code {
            let blob = &listed.blob;
            let addresses = (blob.code_begin..blob.code_end).step_by(11);
            named.push(addresses.map(|address| (address, jvm.name(address))).collect::<Vec<_>>());
            jvm.refresh().unwrap();
        }
        let still: HashMap<u64, Listed> =
            compiled(&mut jvm).into_iter().map(|l| (l.blob.address, l)).collect();
        let (mut addresses, mut inlined, mut lines) = (0, 0, 0);
        for (listed, named) in code.iter().zip(named).filter(|(l, _)| still.get(&l.blob.address) == Some(l)) {
            let method = listed.method.as_ref().unwrap().qualified();
            for (address, code) in named {
                let code = code.unwrap_or_else(|fault| panic!("{method} at {address:#x}: {fault}"));
                let outermost = code.frames.last().unwrap().activation();
                assert_eq!((&outermost.name, code.tier), (&method, listed.tier), "at {address:#x}");
                addresses += 1;
                inlined += usize::from(code.frames.len() > 1);
                lines += usize::from(outermost.line > 0);
            }
        }
        println!("{addresses} addresses, {inlined} in inlined methods, {lines} with a line");
        assert!(addresses > 20_000 && inlined * 5 > addresses && lines * 2 > addresses);
    });
}

fn compiled(jvm: &mut Jvm<ProcessMemory>) -> Vec<Listed> {
    let code = jvm.all_code().unwrap().into_iter().flatten();
    code.filter(|listed| matches!(listed.tier, Tier::C1 | Tier::C2)).collect()
}

/// The numbers for a walk lie where the code says that they must.
#[test]
fn the_numbers_for_a_walk_fit_the_code() {
    each_jdk("the_numbers_for_a_walk_fit_the_code", |jdk| {
        let target = jdk.ready(&[], &["many"]);
        let mut jvm = open::open(target.pid()).unwrap();
        let layout = jvm.layout().unwrap();
        let (low, high) = layout.interpreter;
        for address in [low, high - 1] {
            assert_eq!(jvm.name(address).unwrap().tier, Tier::Interpreter, "{layout:?}");
        }
        assert_eq!(jvm.name(layout.call_stub_return).unwrap().tier, Tier::Stub, "{layout:?}");
        assert!(layout.nmethod_names.iter().all(Option::is_some), "{layout:?}");
        let memory = ProcessMemory::open(target.pid()).unwrap();
        // A walk tells by the length of its header whether a blob is compiled code.
        for listed in jvm.all_code().unwrap().into_iter().flatten() {
            let header = layout.blob_header_size.get(&memory, listed.blob.address).unwrap();
            let is_compilation = header as u64 == layout.nmethod_header_size;
            assert_eq!(is_compilation, listed.blob.compilation().is_some(), "{listed:?}");
        }
        for listed in compiled(&mut jvm) {
            let (blob, compilation) = (&listed.blob, listed.blob.compilation().unwrap());
            let name = memory.u64(blob.address + layout.blob_name).unwrap();
            let id = layout.nmethod_compile_id.get(&memory, blob.address).unwrap();
            let frame = layout.blob_frame_size.get(&memory, blob.address).unwrap();
            let used = memory.u8(blob.address - layout.block_header + layout.block_used).unwrap();
            let seen = (Some(name), id, frame, used);
            let known = (layout.nmethod_names[0], i64::from(compilation.id), i64::from(blob.frame_size), 1);
            assert_eq!(seen, known, "{:#x}", blob.address);
        }
        println!("{layout:?}");
    });
}

/// Code that is made, moved and freed while it is read: an answer or a reason, but never the name of another method
/// than one that the program has.
#[test]
fn code_that_comes_and_goes_gets_no_wrong_name() {
    each_jdk("code_that_comes_and_goes_gets_no_wrong_name", |jdk| {
        let target = jdk.ready(&["-Xmx64m"], &["churn"]);
        let mut jvm = open::open(target.pid()).unwrap();
        let (mut right, mut refused) = (0u32, 0u32);
        let is_java = |name: &str| {
            let known = ["java.", "jdk.", "sun.", "known.", "com.sun."];
            known.iter().any(|package| name.starts_with(package)) && !name.contains('\u{fffd}')
        };
        // By count, not by time: each round reads all there is.
        for _ in 0..30 {
            for listed in jvm.all_code().unwrap() {
                match listed {
                    Ok(Listed { method: Some(method), .. }) => {
                        assert!(is_java(&method.class), "{method:?}");
                        right += 1;
                    }
                    Ok(_) => {}
                    Err(Fault::Missing(_) | Fault::Table(_)) => panic!("the layout is known"),
                    Err(_) => refused += 1,
                }
            }
        }
        println!("{right} named, {refused} refused");
        assert!(right > 10_000, "{right} named");
    });
}

/// The line of a source that ends with this comment.
pub fn line_of(source: &str, comment: &str) -> u32 {
    let path = format!("{}/workload/{source}", env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(path).unwrap();
    let mut lines = source.lines();
    lines.position(|line| line.ends_with(&format!("// {comment}"))).unwrap() as u32 + 1
}

/// Records `split` of a JVM with these options, and what it says that it did.
fn split(jdk: &Jdk, options: &[&str], check: impl FnOnce(&View<'_>, &Value)) {
    let target = jdk.ready(options, &["split", TIME]);
    let record = Record::of_split().args(["-p", &target.pid().to_string()]);
    let mut recording = record.start();
    recording.wait_until_sampling();
    let (profile, said) = recorded(target, recording);
    check(&View::of(&profile), &said);
}

/// Lets a program go that is recorded; the recording up to where it says what it did.
pub fn recorded(mut target: Target, recording: Recording) -> (Profile, Value) {
    target.go();
    let said = target.says();
    recording.signal(Signal::INT);
    let profile = recording.finish().succeeded();
    drop(target);
    expect::no_sample_lost(&profile);
    (profile, said)
}

/// The samples whose leaf is in code that the JVM made, of this kind.
fn of_kind<'a>(kind: FrameKind) -> impl Fn(&Entry<'a>) -> bool {
    move |entry| entry.user_leaf().is_some_and(|leaf| leaf.kind == kind)
}

/// The samples that came when it was known already how the JVM's code is walked: not what precedes that in a start on a busy
/// machine. It is most of them.
fn in_time(view: &View<'_>) -> u64 {
    let in_time = view.count(|e| !e.is_early());
    expect::at_least("known in time", in_time, view.total(), 50.0);
    in_time
}

#[test]
fn java_methods_have_their_shares() {
    each_jdk("java_methods_have_their_shares", |jdk| {
        split(jdk, &[], |view, said| {
            let all = view.list(|_| true);
            let (three, one) = (view.with("known.Split.three"), view.with("known.Split.one"));
            let percent = 100.0 * number(said, "threes") as f64 / number(said, "calls") as f64;
            assert!((percent - 75.0).abs() < 5.0, "{said}");
            expect::share(&all, three, three + one, percent);
            // The rest: the program's own loop, the kernel, the JVM's other threads.
            expect::at_least(&all, three + one, in_time(view), 90.0);
            // Inlined into both: not a frame of its own, and nearly all of their time.
            let inlined = |e: &Entry<'_>| {
                e.frames.iter().any(|f| f.function.name == "known.Split.turn" && f.kind == FrameKind::Inlined)
            };
            expect::at_least(&all, view.count(inlined), three + one, 95.0);
            let line = |e: &Entry<'_>, name: &str, line: u32| {
                let frame = e.frames.iter().find(|f| f.function.name == name);
                frame.is_some_and(|f| f.line == line && f.function.file.as_deref() == Some("Split.java"))
            };
            let turn = view.count(|e| line(e, "known.Split.turn", line_of("Split.java", "turn")));
            expect::at_least(&all, turn, view.count(inlined), 100.0);
            let called = view.count(|e| line(e, "known.Split.three", line_of("Split.java", "three")));
            expect::at_least(&all, called, three, 95.0);
            let compiled = |e: &Entry<'_>| {
                e.frames.iter().any(|f| f.function.name == "known.Split.three" && f.kind == FrameKind::Jit)
            };
            assert_eq!(view.count(compiled), three, "{all}");
            // Controls: nothing in it is called so, and nothing of the JVM's code has no name.
            assert_eq!(view.count(|e| e.has("known.Split.many") || e.has("known.Split.again")), 0, "{all}");
            nothing_nameless(view);
        });
    });
}

/// No frame in the JVM's code lacks a name; what a broken chain of frame pointers picked up is none.
fn nothing_nameless(view: &View<'_>) {
    let nameless = |e: &Entry<'_>| {
        let reasons = [Reason::NoPerfMap, Reason::NotInPerfMap, Reason::CodeChanged, Reason::UnknownRuntime];
        e.user_leaf().is_some_and(|f| f.function.unresolved.is_some_and(|reason| reasons.contains(&reason)))
    };
    assert_eq!(view.count(nameless), 0, "{}", view.list(nameless));
}

#[test]
fn the_first_compilers_java_code_is_told_apart() {
    each_jdk("the_first_compilers_java_code_is_told_apart", |jdk| {
        split(jdk, &["-XX:TieredStopAtLevel=1"], |view, _| {
            let all = view.list(|_| true);
            let both = view.count(|e| e.has("known.Split.three") || e.has("known.Split.one"));
            expect::at_least(&all, both, in_time(view), 90.0);
            assert_eq!(view.count(of_kind(FrameKind::Jit)), 0, "{}", view.list(of_kind(FrameKind::Jit)));
            nothing_nameless(view);
        });
    });
}

#[test]
fn interpreted_java_code_is_the_interpreters() {
    each_jdk("interpreted_java_code_is_the_interpreters", |jdk| {
        split(jdk, &["-Xint"], |view, _| {
            let all = view.list(|_| true);
            expect::at_least(&all, view.count(of_kind(FrameKind::Interpreted)), in_time(view), 90.0);
            for kind in [FrameKind::Jit, FrameKind::Baseline] {
                assert_eq!(view.count(of_kind(kind)), 0, "{}", view.list(of_kind(kind)));
            }
            nothing_nameless(view);
        });
    });
}

/// A process that is no JVM, and one that is gone.
#[test]
fn what_is_no_jvm_is_told() {
    let output = profiler(["jvm", "-p", &std::process::id().to_string()]);
    expect_failure(&output, 2, "no libjvm.so is mapped");
    let output = profiler(["jvm", "-p", "4194304"]);
    expect_failure(&output, 4, "mappings");
}

fn expect_failure(output: &std::process::Output, code: i32, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    profiler_tests::record::fails_with("profiler jvm", output.status, &stderr, code, part);
}
