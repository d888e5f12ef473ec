//! Profiles for tests: one that is realistic and fixed, and a strategy for arbitrary valid ones.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::model::{
    Cost, FrameKind, Function, FunctionId, Line, Location, LocationId, Losses, Meta, Module, ModuleId,
    ModuleKind, Profile, Reason, Sample, SampleType, Stack, StackEnd, StackId, Thread, ThreadId, Unit,
    name::clean,
};

/// Interns while samples are added, so that every table entry is used and in order of first use.
#[derive(Default)]
pub struct Builder(pub Profile);

/// A location to be interned: module, address, kind, and (function, source line) innermost first.
#[derive(Clone, Debug)]
pub struct At {
    pub module: Module,
    pub address: u64,
    pub kind: FrameKind,
    pub lines: Vec<(Function, u32)>,
}

fn intern<T: PartialEq>(table: &mut Vec<T>, entry: T) -> u32 {
    let at = table.iter().position(|e| *e == entry).unwrap_or_else(|| {
        table.push(entry);
        table.len() - 1
    });
    at as u32
}

impl Builder {
    pub fn sample(
        &mut self,
        thread: Thread,
        frames: &[At],
        end: StackEnd,
        window_start_ns: u64,
        values: Vec<i64>,
    ) {
        let locations = frames.iter().map(|at| self.location(at)).collect();
        let thread = ThreadId(intern(&mut self.0.threads, thread));
        let stack = StackId(intern(&mut self.0.stacks, Stack { locations, end }));
        self.0.samples.push(Sample { thread, stack, window_start_ns, values });
    }

    fn location(&mut self, at: &At) -> LocationId {
        // One kind per module, as in reality.
        let known = |m: &Module| m.path == at.module.path && m.build_id == at.module.build_id;
        let module = self.0.modules.iter().find(|m| known(m)).unwrap_or(&at.module).clone();
        let module = ModuleId(intern(&mut self.0.modules, module));
        let mut lines = Vec::new();
        for (function, line) in &at.lines {
            let function = FunctionId(intern(&mut self.0.functions, function.clone()));
            lines.push(Line { function, line: *line });
        }
        LocationId(intern(
            &mut self.0.locations,
            Location { module, address: at.address, lines, kind: at.kind },
        ))
    }
}

pub fn module(path: &str, kind: ModuleKind) -> Module {
    Module { path: path.to_owned(), build_id: None, kind }
}

pub fn function(name: &str) -> Function {
    Function { name: name.to_owned(), file: None, unresolved: None }
}

/// A frame of one function.
pub fn at(module: &Module, address: u64, name: &str) -> At {
    let kind = super::pprof::usual_frame_kind(module.kind);
    At { module: module.clone(), address, kind, lines: vec![(function(name), 0)] }
}

pub fn unresolved(module: &Module, address: u64, reason: Reason) -> At {
    let mut at = at(module, address, &format!("{}+{address:#x} [{}]", module.name(), reason.words()));
    at.lines[0].0.unresolved = Some(reason);
    at
}

pub fn thread(pid: u32, tid: u32, process: &str, name: &str) -> Thread {
    let incarnation = 5_000_000_000 + u64::from(pid);
    Thread { pid, tid, process: process.to_owned(), name: name.to_owned(), incarnation }
}

/// A hostile name: markup, separators, quotes and what looks like a count.
pub const HOSTILE: &str = "</text><script>alert(\"x\")</script>;&'%s; 42";

/// Two JVM threads, a native program with inlined code, a stripped one, a short-lived one that appears three times, a
/// kernel thread, and names made to break formats. 1,000 samples of 10 ms in three windows of 1 s.
pub fn mixed() -> Profile {
    let mut builder = Builder(Profile {
        meta: meta(),
        sample_types: vec![
            SampleType::new("samples", Unit::Count),
            SampleType::new("cpu", Unit::Nanoseconds),
        ],
        losses: losses(),
        cost: cost(),
        ..Profile::default()
    });
    let mut add = |who: &Thread, frames: &[At], end, counts: [i64; 3]| {
        for (window, count) in counts.into_iter().enumerate().filter(|(_, n)| *n != 0) {
            let start = window as u64 * 1_000_000_000;
            builder.sample(who.clone(), frames, end, start, vec![count, count * 10_000_000]);
        }
    };
    let kernel = module("[kernel]", ModuleKind::Kernel);
    let libc = Module {
        build_id: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        ..module("/usr/lib/x86_64-linux-gnu/libc.so.6", ModuleKind::Native)
    };
    let syscall =
        [at(&kernel, 0xffff_ffff_8100_2000, "vfs_read"), at(&kernel, 0xffff_ffff_8200_0010, "do_syscall_64")];
    jvm(&mut add, &libc, &syscall);
    native(&mut add, &libc, &syscall);
    let flusher = thread(77, 77, "kworker/u8:3", "kworker/u8:3");
    let ext4 = module("[ext4]", ModuleKind::Kernel);
    let kthread =
        [at(&ext4, 0xffff_ffff_c000_1230, "ext4_writepages"), at(&kernel, 0xffff_ffff_8300_0000, "kthread")];
    add(&flusher, &kthread, StackEnd::Complete, [0, 10, 5]);
    let hostile = module("/tmp/<b>&\"evil\";.so", ModuleKind::Native);
    let evil = thread(666, 667, "# ;<i>&", HOSTILE);
    add(
        &evil,
        &[at(&hostile, 0x40, HOSTILE), at(&hostile, 0x80, "a\u{202e}b").cleaned()],
        StackEnd::Complete,
        [5, 5, 0],
    );
    add(&evil, &[], StackEnd::Lost, [0, 0, 2]);
    builder.0
}

impl At {
    fn cleaned(mut self) -> Self {
        self.lines.iter_mut().for_each(|(function, _)| function.name = clean(function.name.as_bytes()));
        self
    }
}

fn jvm(add: &mut impl FnMut(&Thread, &[At], StackEnd, [i64; 3]), libc: &Module, syscall: &[At]) {
    let jit = module("[jit]", ModuleKind::Jit);
    let libjvm = module("/opt/jdk/lib/server/libjvm.so", ModuleKind::Native);
    let start = at(libc, 0x8_9000, "start_thread");
    let run = at(&libjvm, 0x80_1000, "JavaThread::thread_main_inner()");
    let interpreted = At { kind: FrameKind::Interpreted, ..at(&jit, 0x7f00_1000, "org.example.Server.loop") };
    let worker = |i: u32| thread(4711, 4712 + i, "java", &format!("http-worker-{i}"));
    let hash = at(&jit, 0x7f00_2040, "java.lang.String.hashCode");
    let mut get = at(&jit, 0x7f00_3000, "java.util.HashMap.hash");
    get.lines.push((function("java.util.HashMap.get"), 556));
    add(
        &worker(0),
        &[hash, get.clone(), interpreted.clone(), run.clone(), start.clone()],
        StackEnd::Complete,
        [100, 120, 80],
    );
    let read = at(libc, 0xf_1234, "read");
    let socket = [syscall, &[read, interpreted.clone(), run.clone(), start.clone()]].concat();
    add(&worker(1), &socket, StackEnd::Complete, [50, 50, 50]);
    let stub = unresolved(&jit, 0x7f00_9999, Reason::NotInPerfMap);
    add(&worker(1), &[stub, interpreted, run, start], StackEnd::Complete, [10, 0, 10]);
}

fn native(add: &mut impl FnMut(&Thread, &[At], StackEnd, [i64; 3]), libc: &Module, syscall: &[At]) {
    let exe = module("/usr/local/bin/crunch", ModuleKind::Native);
    let crunch = thread(100, 100, "crunch", "crunch");
    let start =
        [at(&exe, 0x1100, "main"), at(libc, 0x2_7200, "__libc_start_main"), at(&exe, 0x1040, "_start")];
    let mut inlined = at(&exe, 0x2000, "core::slice::sort::insert_head<u64, fn(&u64, &u64) -> bool>");
    inlined.lines[0] = (
        Function {
            file: Some("/rustc/library/core/src/slice/sort.rs".to_owned()),
            ..inlined.lines[0].0.clone()
        },
        120,
    );
    inlined.lines.push((function("crunch::inner"), 33));
    let recursive = [inlined, at(&exe, 0x2100, "crunch::outer"), at(&exe, 0x2180, "crunch::outer")];
    add(&crunch, &[&recursive, &start[..]].concat(), StackEnd::Complete, [90, 110, 100]);
    let write = at(libc, 0xf_5678, "write");
    add(&crunch, &[syscall, &[write], &start[..]].concat(), StackEnd::Complete, [30, 20, 10]);
    let stripped = module("/opt/vendor/libstripped.so.3", ModuleKind::Native);
    let broken = [
        unresolved(&stripped, 0x1f3, Reason::NoSymbols),
        unresolved(&module("[unknown]", ModuleKind::Unknown), 0xdead, Reason::NoMapping),
    ];
    add(&crunch, &broken, StackEnd::Broken, [40, 10, 3]);
    let vdso = module("[vdso]", ModuleKind::Vdso);
    for pid in 200..203 {
        let date = at(&vdso, 0x7ffe_0c10, "__vdso_clock_gettime");
        add(&thread(pid, pid, "date", "date"), &[date, start[1].clone()], StackEnd::Truncated, [20, 5, 5]);
    }
}

fn meta() -> Meta {
    Meta {
        profiler_version: "0.1.0".to_owned(),
        host: "kestrel".to_owned(),
        kernel: "6.18.0".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 4,
        start_unix_ns: 1_767_323_045_678_000_000,
        duration_ns: 3_000_123_456,
        events: vec!["cpu".to_owned()],
        sampler: "cpu-clock".to_owned(),
        sampler_reason: Some("no hardware counters".to_owned()),
        frequency_hz: 99,
        target: "all processes".to_owned(),
        command: ["profiler", "record", "-a"].map(str::to_owned).to_vec(),
        window_ns: 1_000_000_000,
        idle_samples: 176,
        ticks: 1_188,
        expected_ticks: 1_188,
        stolen_ns: 20_000_000,
        notes: vec!["stacks of code without frame pointers are broken".to_owned()],
    }
}

fn losses() -> Losses {
    let counters = [
        ("counts_map_full", 0),
        ("stacks_map_full", 2),
        ("user_stack_truncated", 90),
        ("ring_buffer_full", 12),
    ];
    Losses {
        counters: counters.map(|(key, n)| (key.to_owned(), n)).into(),
        lost_sample_causes: vec!["counts_map_full".to_owned(), "ring_buffer_full".to_owned()],
        unresolved: BTreeMap::from([
            (Reason::NoSymbols, 53),
            (Reason::NoMapping, 53),
            (Reason::NotInPerfMap, 20),
        ]),
    }
}

fn cost() -> Cost {
    Cost {
        ebpf_run_ns: 1_520_000,
        ebpf_runs: 1_188,
        user_cpu_ns: 8_000_000,
        system_cpu_ns: 4_000_000,
        setup_and_naming_cpu_ns: 310_000_000,
        recording_peak_rss_bytes: 24_222_106,
        peak_rss_bytes: 84_000_000,
        kernel_map_bytes: 4_300_800,
        unwind_tables: 24,
        unwind_bytes: 3_670_016,
        unwind_tables_ns: 31_000_000,
        start_ns: 120_000_000,
        naming_ns: 240_000_000,
    }
}

/// Cleaned names, with a few from a small pool so that they collide.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec![
            "main",
            "[jit]",
            "[kernel]",
            "/a/b.so",
            "a;b",
            HOSTILE,
            "profiler.frame/1 kind=jit",
            "x 1.5"
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|s| clean(s.as_bytes())),
    ]
}

fn locations() -> impl Strategy<Value = At> {
    use ModuleKind::{Jit, Kernel, Native, Unknown, Vdso};
    let module = (names(), option::of("[0-9a-f]{1,40}"), select(vec![Kernel, Native, Vdso, Jit, Unknown]))
        .prop_map(|(path, build_id, kind)| Module { path, build_id, kind });
    let function = (names(), option::of(names()), option::of(select(Reason::ALL.to_vec())))
        .prop_map(|(name, file, unresolved)| Function { name, file, unresolved });
    (module, any::<u64>(), select(FrameKind::ALL.to_vec()), vec((function, any::<u32>()), 1..4))
        .prop_map(|(module, address, kind, lines)| At { module, address, kind, lines })
}

prop_compose! {
    fn threads()(pid: u32, tid: u32, process in names(), name in names(), incarnation: u64) -> Thread {
        Thread { pid, tid, process, name, incarnation }
    }
}

prop_compose! {
    /// Any valid profile whose tables are in order of first use.
    pub fn profiles()(
        pool in vec(locations(), 1..8),
        types in vec((names(), select(vec![Unit::Count, Unit::Nanoseconds, Unit::Bytes])), 1..4),
        who in vec(threads(), 1..4),
        // Thread, frames, end, window, values.
        rows in vec((
            any::<prop::sample::Index>(), vec(any::<prop::sample::Index>(), 0..10), select(StackEnd::ALL.to_vec()),
            0..i64::MAX as u64, vec(-1_000_000_000_000i64..1_000_000_000_000, 3),
        ), 0..20),
        host in names(), notes in vec(names(), 0..3), counter in names(), lost: u64, frequency_hz: u64,
    ) -> Profile {
        let mut builder = Builder::default();
        for (thread, frames, end, window, values) in rows {
            let frames: Vec<_> = frames.iter().map(|i| i.get(&pool).clone()).collect();
            builder.sample(thread.get(&who).clone(), &frames, end, window, values[..types.len()].to_vec());
        }
        let mut profile = builder.0;
        profile.sample_types = types.iter().map(|(name, unit)| SampleType::new(name, *unit)).collect();
        profile.meta = Meta { host, notes, frequency_hz, ..meta() };
        profile.losses = Losses { counters: BTreeMap::from([(counter.clone(), lost)]), lost_sample_causes: vec![counter], ..losses() };
        profile.cost = Cost { ebpf_runs: lost, ..cost() };
        profile
    }
}
