//! Recordings on a kernel that lacks something newer, made on one that has it (`--force-fallback`): they say the same.

use std::collections::{BTreeMap, BTreeSet};

use profiler::{host::features::FEATURES, model::Profile};
use profiler_tests::{
    expect,
    record::{Record, fails_with, profiler},
    target::{Target, number},
    view::{Entry, View},
    workload,
};

/// How the note of a recording begins that used a fallback.
const NOTE: &str = "fallbacks for newer kernel features: ";

/// CPU time of the split program: 1,000 samples.
const MILLISECONDS: &str = "1000";

/// Half of the second that each workload below works.
const PART: &str = "500";
const PART_NS: u64 = 500_000_000;

/// Without a choice, and with each fallback and all of them forced.
fn choices() -> Vec<Option<&'static str>> {
    let names = FEATURES.iter().map(|spec| spec.name).chain(["all"]);
    std::iter::once(None).chain(names.map(Some)).collect()
}

fn force(record: Record, forced: Option<&str>) -> Record {
    let arguments = forced.map(|name| ["--force-fallback", name]);
    record.args(arguments.iter().flatten())
}

/// The features that the recording replaced, with the reason's first words.
fn noted(profile: &Profile) -> BTreeMap<String, String> {
    let notes: Vec<_> = profile.meta.notes.iter().filter_map(|note| note.strip_prefix(NOTE)).collect();
    assert!(notes.len() <= 1, "one note: {notes:?}");
    let parts = notes.into_iter().flat_map(|note| note.split("; "));
    let parts = parts.filter_map(|part| part.split_once(" ("));
    parts.map(|(name, rest)| (name.to_owned(), rest.split(')').next().unwrap().to_owned())).collect()
}

/// What this kernel lacks, as `doctor` says.
fn lacking() -> BTreeSet<String> {
    let output = profiler(["doctor", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = document["rows"].as_array().unwrap();
    let lacks = |name: &str| rows.iter().any(|row| row["id"] == name && row["status"] == "degraded");
    FEATURES.iter().map(|spec| spec.name.to_owned()).filter(|name| lacks(name)).collect()
}

/// The build ids of the files that the samples are in, by path.
fn build_ids(profile: &Profile) -> BTreeMap<&str, &str> {
    let ids = profile.modules.iter().filter_map(|module| Some((&*module.path, module.build_id.as_deref()?)));
    ids.collect()
}

#[test]
fn the_split_is_the_same_with_every_fallback() {
    let lacking: BTreeSet<_> = lacking();
    let mut first_ids = None;
    for forced in choices() {
        let what = forced.unwrap_or("nothing forced");
        let recorded =
            force(Record::at_999(), forced).command(&workload::path("split-c"), [MILLISECONDS]).run();
        let profile = recorded.succeeded();
        let view = View::of(&profile);
        expect::nothing_lost(&profile);
        expect::split(what, &view);
        let used = number(&recorded.said(), "cpu_ns");
        expect::samples(what, view.total(), used, &profile, 0.03);
        let foreign = |e: &Entry<'_>| e.thread.process != "split-c";
        assert_eq!(view.count(foreign), 0, "{what}: {}", view.list(foreign));

        let mut expected = lacking.clone();
        expected.extend(
            FEATURES
                .iter()
                .map(|spec| spec.name.to_owned())
                .filter(|name| forced == Some("all") || forced == Some(name.as_str())),
        );
        if forced == Some("task-btf") {
            // It takes what the other one gives.
            expected.insert("task-pt-regs".to_owned());
        }
        let noted = noted(&profile);
        assert_eq!(noted.keys().cloned().collect::<BTreeSet<_>>(), expected, "{what}: {noted:?}");
        let reasons: Vec<_> = noted.iter().filter(|(name, _)| !lacking.contains(*name)).collect();
        let is_right = |reason: &str| reason == "forced" || reason == "needs task-btf";
        assert!(reasons.iter().all(|(_, reason)| is_right(reason)), "{what}: {reasons:?}");

        let program = workload::path("split-c");
        let id = build_ids(&profile).get(program.to_str().unwrap()).map(|id| (*id).to_owned());
        assert!(id.is_some(), "{what}: the program has a build id");
        assert_eq!(*first_ids.get_or_insert(id.clone()), id, "{what}");
    }
}

#[test]
fn children_are_followed_without_anything_newer() {
    let recorded = force(Record::at_999(), Some("all")).command(&workload::path("forker"), [PART]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    let mut pids = BTreeSet::new();
    for function in ["fork_parent_work", "fork_child_work", "fork_grandchild_work"] {
        expect::samples(function, view.with(function), PART_NS, &profile, 0.05);
        pids.extend(view.entries.iter().filter(|e| e.has(function)).map(|e| (function, e.thread.pid)));
    }
    assert_eq!(pids.len(), 3, "each function is one process's: {pids:?}");
}

#[test]
fn a_program_that_execs_another_is_two_without_anything_newer() {
    let burner = workload::path("burner");
    let arguments = [PART.as_ref(), burner.as_os_str(), PART.as_ref()];
    let recorded =
        force(Record::at_999(), Some("all")).command(&workload::path("exec_chain"), arguments).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    for (function, program) in [("exec_before", "exec_chain"), ("burner_work", "burner")] {
        expect::samples(function, view.with(function), PART_NS, &profile, 0.05);
        let wrong = |e: &Entry<'_>| {
            e.has(function)
                && (e.thread.process != program
                    || e.frames.iter().any(|f| f.function.name == function && f.module.name() != program))
        };
        assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
    }
}

/// What the kernel side's log tells of one sample's task.
#[derive(Debug)]
struct LoggedTask {
    pid: u64,
    incarnation: u64,
    leaf: String,
    pc: String,
}

/// The lines `task pid P incarnation N leaf X pc Y`.
fn logged_tasks(stderr: &str) -> Vec<LoggedTask> {
    let task = |line: &str| {
        let (_, text) = line.split_once("task pid ")?;
        let words: Vec<_> = text.split_whitespace().collect();
        let &[pid, "incarnation", incarnation, "leaf", leaf, "pc", pc] = &words[..] else { return None };
        let (leaf, pc) = (leaf.to_owned(), pc.to_owned());
        Some(LoggedTask { pid: pid.parse().ok()?, incarnation: incarnation.parse().ok()?, leaf, pc })
    };
    stderr.lines().filter_map(task).collect()
}

/// Where the kernel walks itself: a log of these and no more than fit into its ring buffer in a second: 100 or so lines.
const LOGGED: [&str; 4] = ["--log-level", "debug", "--unwind", "fp"];
const LOGGED_HZ: &str = "199";
/// Fewer lines say nothing: half a second at that rate should give 100.
const ENOUGH: usize = 40;

/// The kernel's own walk of a user stack begins at the registers that it saved at its entry. Ours must be the same,
/// also where the sample hit the kernel.
#[test]
fn user_registers_are_those_of_the_kernels_own_walk() {
    for forced in choices() {
        let what = forced.unwrap_or("nothing forced");
        let record = force(Record::timed(LOGGED_HZ), forced).args(LOGGED).args(["--kernel-only"]);
        let recorded = record.command(&workload::path("kernel"), [PART]).run();
        let profile = recorded.succeeded();
        expect::nothing_lost(&profile);
        let logged = logged_tasks(&recorded.stderr());
        assert!(logged.len() >= ENOUGH, "{what}: {} lines\n{}", logged.len(), recorded.stderr());
        let wrong: Vec<_> = logged.iter().filter(|task| task.pc != task.leaf).collect();
        assert!(wrong.is_empty(), "{what}: {wrong:?}");
        let replaces = noted(&profile).contains_key("task-pt-regs");
        let must = matches!(forced, Some("all" | "task-btf" | "task-pt-regs"));
        assert!(replaces || !must, "{what}: {:?}", profile.meta.notes);
    }
}

/// What tells a process from an earlier one with its id: when it began, in ns, plus the number of its execs.
#[test]
fn the_start_of_a_process_is_that_of_proc() {
    /// ns of a tick of /proc (USER_HZ is 100 on x86-64 and arm64).
    const TICK_NS: u64 = 10_000_000;
    /// More execs than the workload has behind it.
    const EXECS: u64 = 100;
    for forced in choices() {
        let what = forced.unwrap_or("nothing forced");
        let mut target = Target::ready(&workload::path("burner"), &[PART, "wait"]);
        let pid = target.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1;
        // The 22nd field; the first two are before the parenthesis.
        let ticks: u64 = fields.split(' ').nth(19).unwrap().parse().unwrap();

        let record = force(Record::timed(LOGGED_HZ), forced).args(LOGGED);
        let mut recording = record.args(["-p", &pid.to_string()]).start();
        recording.wait_until_sampling();
        target.go();
        assert!(target.finish().0.success());
        let recorded = recording.finish();
        expect::nothing_lost(&recorded.succeeded());
        let logged = logged_tasks(&recorded.stderr());
        assert!(logged.len() >= ENOUGH, "{what}: {} lines\n{}", logged.len(), recorded.stderr());
        let began = ticks * TICK_NS..(ticks + 1) * TICK_NS + EXECS;
        let wrong: Vec<_> = logged
            .iter()
            .filter(|task| task.pid != u64::from(pid) || !began.contains(&task.incarnation))
            .collect();
        assert!(wrong.is_empty(), "{what}: began in {began:?}: {wrong:?}");
    }
}

#[test]
fn a_feature_that_does_not_exist_is_named_with_those_that_do() {
    for name in ["nothing", "task-btf,nothing", ""] {
        let recorded = force(Record::new(), Some(name)).command(&workload::path("burner"), ["0"]).run();
        let stderr = recorded.stderr();
        fails_with(name, recorded.status(), &stderr, 2, "no such feature");
        for spec in FEATURES {
            assert!(stderr.contains(spec.name), "{stderr}");
        }
    }
}
