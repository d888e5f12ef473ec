//! Java names: everything that a JVM has compiled against what it says of it itself, address for address, and the time
//! of a program by its methods. With each JDK of this machine.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
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
    jdk::{Jdk, each_jdk},
    record::{Record, Recording, profiler},
    target::{Target, number},
    view::{Entry, View},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::jvm_says::{CompileLog, Logged, perf_map, without_addresses};

/// Milliseconds.
const TIME: &str = "2000";

/// Starts the workload and waits until it is ready.
fn ready(jdk: &Jdk, options: &[&str], arguments: &[&str]) -> Target {
    let keep = ["three", "one"].map(|name| format!("-XX:CompileCommand=dontinline,known.Split::{name}"));
    let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
    jdk.program("known.Split", &[&keep, options].concat(), arguments)
}

fn listing(pid: u32) -> Value {
    let output = profiler(["jvm", "-p", &pid.to_string(), "--code", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn all_java_code_is_what_the_jvm_says() {
    each_jdk("all_java_code_is_what_the_jvm_says", |jdk| {
        if jdk.major < 17 {
            // It has no such command: the next test is about its code.
            return;
        }
        let target = ready(jdk, &[], &["many"]);
        let before = perf_map(jdk, target.pid());
        let listing = listing(target.pid());
        let after = perf_map(jdk, target.pid());
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
        let stubs: BTreeMap<u64, u64> = rows
            .iter()
            .filter(|row| row["kind"] == "stub")
            .map(|row| (number(row, "address"), number(row, "code_bytes")))
            .collect();
        // From JDK 27 on the JVM lists the single stubs in a blob of many.
        let is_part = |address: u64| {
            let (begin, len) = stubs.range(..=address).next_back().unwrap_or((&0, &0));
            jdk.major >= 27 && address - begin < *len
        };
        // The compilers may be at work meanwhile: what was there before and after was there.
        let (mut compared, mut parts) = (0, 0);
        for (address, theirs) in before.iter().filter(|(address, theirs)| after.get(address) == Some(theirs))
        {
            if ours.get(address) != Some(theirs) && is_part(*address) {
                parts += 1;
                continue;
            }
            assert_eq!(ours.get(address), Some(theirs), "at {address:#x}");
            compared += 1;
        }
        for (address, row) in &ours {
            let theirs = [before.get(address), after.get(address)];
            let is_there = theirs.contains(&Some(row)) || is_part(*address);
            assert!(is_there, "at {address:#x}: {row:?}, the JVM says {theirs:?}");
        }
        let of_kind = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).count();
        let counts = ["c1", "c2", "native", "interpreter", "stub"].map(|kind| (kind, of_kind(kind)));
        println!("{counts:?}, {parts} parts of them");
        jdk.note("perf map", compared, before.len() as u64 - parts);
        // What is compiled depends on the version; that the comparison is about something does not.
        assert!(of_kind("c1") + of_kind("c2") > 300 && of_kind("c2") > 30, "{counts:?}");
        assert!(of_kind("interpreter") == 1 && of_kind("native") > 0 && of_kind("stub") > 100, "{counts:?}");
    });
}

/// The same of compiled code, by what the compilers write of it: of every version, and with the number of the compilation.
#[test]
fn compiled_code_is_what_the_compilers_log() {
    each_jdk("compiled_code_is_what_the_compilers_log", |jdk| {
        let path = jdk.directory().join("compilers.xml");
        let options = CompileLog::options(&path);
        let target = ready(jdk, &options.each_ref().map(String::as_str), &["many"]);
        let mut jvm = open::open(target.pid()).unwrap();
        let listed: Vec<Listed> = jvm.all_code().unwrap().into_iter().collect::<Result<_, _>>().unwrap();
        assert!(target.finish().0.success());
        let log = CompileLog::read(&path);
        let mut alive: HashMap<i32, &Logged> = log.compilations.iter().map(|(id, of)| (*id, of)).collect();
        let (mut compared, mut last) = (0, 0);
        for listed in &listed {
            let Some(compilation) = listed.blob.compilation() else { continue };
            let theirs = log.compilations.get(&compilation.id).unwrap_or_else(|| panic!("{listed:?}"));
            let ours = Logged {
                blob: listed.blob.address,
                size: listed.blob.size,
                code_begin: listed.blob.code_begin,
                level: compilation.level,
                osr: compilation.osr,
                method: without_addresses(&listed.method.as_ref().unwrap().external()),
            };
            assert_eq!(&ours, theirs, "{listed:?}");
            alive.remove(&compilation.id);
            compared += 1;
            last = last.max(compilation.id);
        }
        // None is missing but those that are gone, and those that were made when the program came to its end.
        alive.retain(|id, _| *id <= last && !log.ended.contains(id));
        assert!(alive.is_empty(), "{alive:?}");
        jdk.note("compilations", compared, compared + alive.len() as u64);
        assert!(compared > 300, "{compared}");
    });
}

/// Addresses of everything compiled, not only those that a walk can stop at: all have a name, and the outermost is
/// that of the compiled method.
#[test]
fn every_address_of_java_code_has_a_name() {
    each_jdk("every_address_of_java_code_has_a_name", |jdk| {
        let target = ready(jdk, &[], &["many"]);
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
        println!("{inlined} in inlined methods, {lines} with a line");
        jdk.note("addresses", addresses as u64, addresses as u64);
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
        let target = ready(jdk, &[], &["many"]);
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
        let target = ready(jdk, &["-Xmx64m"], &["churn"]);
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
                    // It is dead: to JDK 19 such code stays in the heap for a while.
                    Err(Fault::NoCode) => {}
                    Err(_) => refused += 1,
                }
            }
        }
        jdk.note("named while it changed", u64::from(right), u64::from(right + refused));
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
    let target = ready(jdk, options, &["split", TIME]);
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

/// The samples of the program's own thread that came when it was known already how the JVM's code is walked: not what precedes
/// that in a start on a busy machine. It is most of them. (Of the JVM's other threads, a busy machine makes any share.)
fn in_time(view: &View<'_>) -> u64 {
    let is_main = |e: &Entry<'_>| e.thread.name == "java";
    let in_time = view.count(|e| is_main(e) && !e.is_early());
    expect::at_least("known in time", in_time, view.count(is_main), 50.0);
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
            // The rest: the program's own loop, the kernel.
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
