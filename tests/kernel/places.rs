//! Binaries that are not where the profiler sees them: deleted, replaced, in a chroot, in other namespaces.

use std::{ffi::OsStr, fs, path::Path};

use profiler_tests::{
    expect,
    record::{Record, Recorded},
    target::Target,
    view::{Entry, View},
    workload,
};
use tempfile::TempDir;

/// CPU time of the workloads; the tolerance is derived in `processes`.
const TIME: &str = "300";
const TIME_NS: u64 = 300_000_000;
const TOLERANCE: f64 = 0.05;

/// Checks that the work is in `burner_work` of a module that is named like `module`.
fn is_named(recorded: &Recorded, module: &str) {
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    let in_place = |e: &Entry<'_>| {
        e.frames.iter().any(|f| f.function.name == "burner_work" && f.module.name().starts_with(module))
    };
    let all = view.list(|_| true);
    assert!(view.count(in_place) > 0, "no burner_work in {module}{all}");
    expect::samples("burner_work", view.count(in_place), TIME_NS, &profile, TOLERANCE);
}

/// Checks the share of the work in `burner_work` for a target that runs all the time.
fn is_mostly_named(recorded: &Recorded) {
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::at_least(&view.list(|e| !e.has("burner_work")), view.with("burner_work"), view.total(), 98.0);
}

#[test]
fn a_binary_deleted_while_recorded() {
    let directory = TempDir::new().unwrap();
    let burner = workload::copy("burner", directory.path());
    let recorded = Record::at_999().command(&burner, [TIME, "unlink"]).run();
    assert!(!burner.exists(), "the workload deletes itself");
    is_named(&recorded, "burner");
}

#[test]
fn a_binary_deleted_before() {
    let directory = TempDir::new().unwrap();
    let burner = workload::copy("burner", directory.path());
    let mut target = Target::ready(&burner, &["0", "unlink", "forever", "wait"]);
    assert!(!burner.exists(), "the workload deletes itself");
    target.go();
    let recorded = Record::at_999().args(["-d", "0.5", "-p", &target.pid().to_string()]).run();
    is_mostly_named(&recorded);
}

#[test]
fn a_binary_replaced_before_is_not_named_after_its_replacement() {
    let directory = TempDir::new().unwrap();
    let burner = workload::copy("burner", directory.path());
    let mut target = Target::ready(&burner, &["0", "forever", "wait"]);
    let impostor = workload::copy("impostor", directory.path());
    fs::rename(impostor, &burner).unwrap();
    target.go();
    let recorded = Record::at_999().args(["-d", "0.5", "-p", &target.pid().to_string()]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    let wrong = |e: &Entry<'_>| e.frames.iter().any(|f| f.function.name.starts_with("impostor"));
    assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
    is_mostly_named(&recorded);
}

/// Runs a workload behind `enter`'s steps.
fn entered(steps: &[&OsStr], program: &str) -> Recorded {
    let mut arguments: Vec<&OsStr> = steps.to_vec();
    arguments.extend(["--", program, TIME].map(OsStr::new));
    Record::at_999().command(&workload::path("enter"), arguments).run()
}

fn step(name: &str, path: &Path) -> std::ffi::OsString {
    let mut step = std::ffi::OsString::from(name);
    step.push("=");
    step.push(path);
    step
}

#[test]
fn a_binary_in_a_chroot() {
    let root = TempDir::new().unwrap();
    workload::copy("burner-static", &root.path().join("burner"));
    is_named(&entered(&[&step("chroot", root.path())], "/burner"), "burner");
}

#[test]
fn a_binary_in_a_mount_namespace_that_ends_with_it() {
    let mount = TempDir::new().unwrap();
    let inside = mount.path().join("burner");
    let mut copy = step("copy", &workload::path("burner"));
    copy.push(":");
    copy.push(&inside);
    let recorded = entered(&[&step("tmpfs", mount.path()), &copy], inside.to_str().unwrap());
    assert!(!inside.exists(), "the file is only in the other namespace");
    is_named(&recorded, "burner");
}

#[test]
fn a_process_in_a_pid_namespace() {
    let burner = workload::path("burner");
    let recorded = entered(&["pidns".as_ref()], burner.to_str().unwrap());
    is_named(&recorded, "burner");
    let profile = recorded.profile();
    let inside = |e: &Entry<'_>| e.thread.process == "burner" && e.thread.pid == 1;
    assert_eq!(View::of(&profile).count(inside), 0, "its id is 1 only in its own namespace");
    assert_eq!(recorded.said()["pid"], 1);
}

#[test]
fn a_process_in_a_chroot_and_a_pid_namespace() {
    let root = TempDir::new().unwrap();
    workload::copy("burner-static", &root.path().join("burner"));
    is_named(&entered(&["pidns".as_ref(), &step("chroot", root.path())], "/burner"), "burner");
}

#[test]
fn a_running_process_in_a_chroot() {
    let root = TempDir::new().unwrap();
    workload::copy("burner-static", &root.path().join("burner"));
    let chroot = step("chroot", root.path());
    let arguments = ["pidns", chroot.to_str().unwrap(), "--", "/burner", "0", "forever", "wait"];
    let mut target = Target::ready(&workload::path("enter"), &arguments);
    target.go();
    // The target is the launcher: the process in the namespace is its child.
    let recorded = Record::at_999().args(["-d", "0.5", "-p", &target.pid().to_string()]).run();
    is_mostly_named(&recorded);
    // The launcher's death does not end its child, but the end of its input does not either: it is killed by name of
    // its parent.
    kill_children(target.pid());
}

fn kill_children(parent: u32) {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        profiler_tests::target::signal(child.parse().unwrap(), rustix::process::Signal::KILL);
    }
}

#[test]
fn a_static_pie_binary() {
    let recorded = Record::at_999().command(&workload::path("burner-pie"), [TIME]).run();
    is_named(&recorded, "burner-pie");
}

#[test]
fn a_static_binary() {
    let recorded = Record::at_999().command(&workload::path("burner-static"), [TIME]).run();
    is_named(&recorded, "burner-static");
}
