//! Names of code that is not a plain symbol of a plain file: vDSO, JIT, kernel, inlined functions, separate debug files.

use std::{fs, path::Path};

use profiler::model::{FrameKind, ModuleKind, Reason};
use profiler_tests::{
    expect,
    record::Record,
    view::{Entry, View},
    workload,
};
use tempfile::TempDir;

const TIME: &str = "300";
const TIME_NS: u64 = 300_000_000;
const TOLERANCE: f64 = 0.05;

#[test]
fn the_vdso_is_named() {
    let recorded = Record::at_999().command(&workload::path("vdso"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let leaf_in_vdso = |e: &Entry<'_>| e.user_leaf().is_some_and(|f| f.module.kind == ModuleKind::Vdso);
    // Of each turn of the loop the clock is nearly all, and where every instruction costs the same (an emulated CPU) a
    // third; the rest is the C library's wrapper.
    expect::at_least(&view.list(|_| true), view.count(leaf_in_vdso), view.total(), 20.0);
    let named = |e: &Entry<'_>| {
        e.user_leaf().is_some_and(|f| f.module.kind == ModuleKind::Vdso && f.function.unresolved.is_none())
    };
    // The kernel strips the vDSO to what it exports: on 5.10 a part of reading the clock has no name.
    expect::at_least("named vDSO samples", view.count(named), view.count(leaf_in_vdso), 80.0);
}

/// Runs `perf_map` and removes the files that it left.
fn perf_map(how: &str, check: impl FnOnce(&View<'_>)) {
    let recorded = Record::at_999().command(&workload::path("perf_map"), [TIME, how]).run();
    let pid = &recorded.said()["pid"];
    for name in ["perf", "not-perf"] {
        drop(fs::remove_file(format!("/tmp/{name}-{pid}.map")));
    }
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    check(&View::of(&profile));
}

fn in_jit(entry: &Entry<'_>) -> bool {
    entry.user_leaf().is_some_and(|frame| frame.module.kind == ModuleKind::Jit)
}

/// Samples that a leaf in JIT code without a name has, with this reason.
fn jit_leaves(view: &View<'_>, reason: Reason) -> u64 {
    view.count(|e| in_jit(e) && e.user_leaf().is_some_and(|f| f.function.unresolved == Some(reason)))
}

#[test]
fn jit_code_with_a_perf_map_is_named() {
    perf_map("named", |view| {
        let name = "jit_hot_loop(int, char*) with spaces";
        expect::samples(&view.list(|_| true), view.with(name), TIME_NS, view.profile, TOLERANCE);
        let kinds = |e: &Entry<'_>| e.user_leaf().is_some_and(|f| f.kind == FrameKind::Jit);
        assert_eq!(
            view.count(|e| e.has(name) && !kinds(e)),
            0,
            "{}",
            view.list(|e| e.has(name) && !kinds(e))
        );
        let called = view.count(|e| e.has(name) && e.has("jit_caller"));
        expect::at_least("called by jit_caller", called, view.with(name), 99.0);
    });
}

#[test]
fn jit_code_without_a_perf_map_says_so() {
    perf_map("none", |view| {
        let nameless = jit_leaves(view, Reason::NoPerfMap);
        expect::samples(&view.list(|_| true), nameless, TIME_NS, view.profile, TOLERANCE);
    });
}

#[test]
fn a_perf_map_that_is_a_link_is_not_followed() {
    perf_map("symlink", |view| {
        let named = view.count(|e| e.frames.iter().any(|f| f.function.name.starts_with("jit_hot_loop")));
        assert_eq!(named, 0, "{}", view.list(|_| true));
        expect::samples(&view.list(|_| true), view.count(in_jit), TIME_NS, view.profile, TOLERANCE);
    });
}

#[test]
fn a_hostile_perf_map_is_cleaned() {
    perf_map("garbage", |view| {
        let named = view.count(|e| e.has(r"jit_\x1b[31m<b>_loop"));
        expect::samples(&view.list(|_| true), named, TIME_NS, view.profile, TOLERANCE);
    });
}

#[test]
fn kernel_functions_are_named() {
    let recorded = Record::at_999().command(&workload::path("kernel"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let in_kernel = |e: &Entry<'_>| e.frames.first().is_some_and(|f| f.kind == FrameKind::Kernel);
    let reads = view.count(|e| in_kernel(e) && e.has("kernel_caller"));
    // The loop around the system calls is a few instructions for each megabyte.
    expect::at_least(&view.list(|e| !in_kernel(e)), reads, view.with("kernel_caller"), 95.0);
    // arm64's loop keeps no frame, so that the kernel's own walk passes over its caller.
    let functions = ["read_zero", "read_iter_zero", "__arch_clear_user"];
    let read_zero = view.count(|e| functions.iter().any(|name| e.has(name)));
    expect::at_least(&view.list(in_kernel), read_zero, reads, 90.0);
    let nameless = |e: &Entry<'_>| {
        e.frames.iter().any(|f| f.kind == FrameKind::Kernel && f.function.unresolved.is_some())
    };
    assert_eq!(view.count(nameless), 0, "{}", view.list(nameless));
}

#[test]
fn inlined_functions_are_shown_with_their_lines() {
    let recorded = Record::at_999().command(&workload::path("inlined"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let chain = ["inline_leaf", "inline_middle", "inline_outer"];
    let is_chain = |e: &Entry<'_>| {
        let mut frames = e.user_frames();
        chain.iter().all(|name| frames.next().is_some_and(|f| f.function.name == *name))
    };
    expect::samples(&view.list(|_| true), view.count(is_chain), TIME_NS, &profile, TOLERANCE);
    let entry = view.entries.iter().find(|e| is_chain(e)).unwrap();
    let kinds: Vec<_> = entry.user_frames().take(3).map(|f| f.kind).collect();
    assert_eq!(kinds, [FrameKind::Inlined, FrameKind::Inlined, FrameKind::Native]);
    for frame in entry.user_frames().take(3) {
        let file = frame.function.file.as_deref().unwrap_or("none");
        assert!(file.ends_with("inlined.c"), "{}: {file}", frame.function.name);
        assert!((8..40).contains(&frame.line), "{}: line {}", frame.function.name, frame.line);
    }
}

/// Without inlined functions there is no such frame: the control of the test above.
#[test]
fn nothing_is_inlined_without_debug_information() {
    let recorded = Record::at_999().command(&workload::path("burner"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let in_burner =
        |e: &Entry<'_>| e.frames.iter().any(|f| f.module.name() == "burner" && f.kind == FrameKind::Inlined);
    assert_eq!(view.count(in_burner), 0, "{}", view.list(in_burner));
}

#[test]
fn a_stripped_binary_says_that_it_has_no_symbols() {
    let directory = TempDir::new().unwrap();
    let program = workload::copy("burner-stripped", &directory.path().join("burner"));
    let recorded = Record::at_999().command(&program, [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    assert_eq!(view.with("burner_work"), 0);
    let says_so = |e: &Entry<'_>| {
        e.user_leaf().is_some_and(|f| {
            f.module.name() == "burner"
                && f.function.unresolved == Some(Reason::NoSymbols)
                && f.function.name.starts_with("burner+0x")
                && f.function.name.ends_with("[no symbols]")
        })
    };
    expect::samples(&view.list(|_| true), view.count(says_so), TIME_NS, &profile, TOLERANCE);
    let unresolved = profile.losses.unresolved.get(&Reason::NoSymbols).copied().unwrap_or(0);
    assert!(unresolved >= view.count(says_so), "{:?}", profile.losses.unresolved);
}

#[test]
fn a_stripped_binary_is_named_by_its_debug_file() {
    let directory = TempDir::new().unwrap();
    let program = workload::copy("burner-stripped", &directory.path().join("burner"));
    let id = workload::BURNER_BUILD_ID;
    // The profiler alone sees this directory in place of the system's.
    let tree = directory.path().join("debug");
    let folder = tree.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&folder).unwrap();
    workload::copy("burner-dbgfile", &folder.join(format!("{}.debug", &id[2..])));
    fs::create_dir_all("/usr/lib/debug").unwrap();
    let bind = format!("bind={}:/usr/lib/debug", tree.display());
    let recorded = Record::at_999()
        .under(&workload::path("enter"), [bind.as_str(), "--"])
        .command(&program, [TIME])
        .run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::samples(&view.list(|_| true), view.with("burner_work"), TIME_NS, &profile, TOLERANCE);
    let has_line = |e: &Entry<'_>| {
        e.frames.iter().any(|f| {
            f.function.name == "burner_work"
                && f.line > 0
                && f.function.file.as_deref().is_some_and(|file| file.ends_with("burner.c"))
        })
    };
    expect::at_least("with file and line", view.count(has_line), view.with("burner_work"), 95.0);
}

#[test]
fn modules_have_their_build_ids() {
    let program = workload::path("burner-debug");
    let recorded = Record::at_999().command(&program, [TIME]).run();
    let profile = recorded.succeeded();
    let module = profile.modules.iter().find(|m| m.name() == "burner-debug").expect("the program");
    assert_eq!(module.build_id.as_deref(), Some(workload::BURNER_BUILD_ID));
    assert_eq!(Path::new(&module.path), program);
}
