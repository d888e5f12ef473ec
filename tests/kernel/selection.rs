//! Which tasks are recorded: by process, command, cgroup. Each has a control that must have no sample.

use std::{fs, path::PathBuf};

use profiler_tests::{
    expect,
    record::Record,
    skip::skip,
    target::Target,
    view::{Entry, View},
    workload,
};

/// Two burners, of which one is to be seen.
fn burners() -> (Target, Target) {
    (burner(), burner())
}

fn burner() -> Target {
    Target::start(&workload::path("burner"), &["0", "forever"]).giving_way()
}

fn of(target: &Target) -> u64 {
    u64::from(target.pid())
}

#[test]
fn only_the_process_asked_for() {
    let (seen, unseen) = burners();
    let recorded = Record::at_999().args(["-d", "0.5", "-p", &seen.pid().to_string()]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    assert!(view.of_pid(of(&seen)) > 0);
    assert_eq!(view.of_pid(of(&unseen)), 0);
    assert_eq!(view.of_pid(of(&seen)), view.total(), "{}", view.list(|e| e.thread.pid != seen.pid()));
}

#[test]
fn several_processes() {
    let (one, two) = burners();
    let three = burner();
    let pids = format!("{},{}", one.pid(), two.pid());
    let profile = Record::at_999().args(["-d", "0.5", "-p", &pids]).run().succeeded();
    let view = View::of(&profile);
    assert!(view.of_pid(of(&one)) > 0);
    assert!(view.of_pid(of(&two)) > 0);
    assert_eq!(view.of_pid(of(&three)), 0);
    assert_eq!(view.of_pid(of(&one)) + view.of_pid(of(&two)), view.total());
}

#[test]
fn all_processes() {
    let (one, two) = burners();
    let profile = Record::at_999().args(["-a", "-d", "0.5"]).run().succeeded();
    let view = View::of(&profile);
    expect::no_sample_lost(&profile);
    assert!(view.of_pid(of(&one)) > 0);
    assert!(view.of_pid(of(&two)) > 0);
}

#[test]
fn all_processes_while_a_command_runs() {
    let (one, _two) = burners();
    let recorded = Record::at_999().args(["-a"]).command(&workload::path("burner"), ["300"]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    assert!(view.of_pid(of(&one)) > 0);
    let command = profiler_tests::target::number(&recorded.said(), "pid");
    expect::samples("the command", view.of_pid(command), 300_000_000, &profile, 0.05);
}

#[test]
fn only_threads_of_a_name() {
    let (_one, _two) = burners();
    let recorded =
        Record::at_999().args(["-a", "--comm", "beta"]).command(&workload::path("threads"), ["200"]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    // 2 parts of 200 ms.
    expect::samples(&view.list(|_| true), view.with("thread_beta_work"), 400_000_000, &profile, 0.05);
    let other =
        |e: &Entry<'_>| e.thread.name != "beta" || e.has("thread_alpha_work") || e.has("thread_delta_work");
    assert_eq!(view.count(other), 0, "{}", view.list(other));
}

/// A part of a name is not the name.
#[test]
fn a_longer_name_is_another_name() {
    let (_one, _two) = burners();
    let profile = Record::at_999().args(["-d", "0.3", "--comm", "burne"]).run().succeeded();
    assert_eq!(View::of(&profile).total(), 0);
}

#[test]
fn threads_are_kept_apart() {
    let recorded = Record::at_999().command(&workload::path("threads"), ["200"]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    for (name, parts) in [("alpha", 1), ("beta", 2), ("delta", 3)] {
        let function = format!("thread_{name}_work");
        expect::samples(&function, view.with(&function), parts * 200_000_000, &profile, 0.05);
        let wrong = |e: &Entry<'_>| {
            e.has(&function)
                && (e.thread.name != name || e.thread.process != "threads" || e.thread.tid == e.thread.pid)
        };
        assert_eq!(view.count(wrong), 0, "{}", view.list(wrong));
    }
}

/// A cgroup of this test's own. Dropped, it is removed.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    /// `None` where there is no cgroup v2 that can be written.
    pub fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let path = words.next()?;
            (words.next()? == "cgroup2").then(|| path.to_owned())
        })?;
        let path = PathBuf::from(root).join(format!("profiler-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// A burner in it, or in a group below it.
    pub fn burner(&self, below: Option<&str>) -> Target {
        let group = below.map_or_else(|| self.0.clone(), |name| self.0.join(name));
        fs::create_dir_all(&group).unwrap();
        let burner = workload::path("burner");
        let step = format!("cgroup={}", group.display());
        let mut target = Target::ready(
            &workload::path("enter"),
            &[&step, "--", burner.to_str().unwrap(), "0", "forever", "wait"],
        );
        target.go();
        target.giving_way()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(self.0.join("below")));
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn only_a_cgroup_and_those_below() {
    let Some(group) = Cgroup::new() else {
        return skip("only_a_cgroup_and_those_below", "no writable cgroup v2");
    };
    let inside = group.burner(None);
    let below = group.burner(Some("below"));
    let outside = burner();
    let path = group.0.to_str().unwrap();
    let profile = Record::at_999().args(["-d", "0.5", "--cgroup", path]).run().succeeded();
    let view = View::of(&profile);
    assert!(view.of_pid(of(&inside)) > 0, "{}", view.list(|_| true));
    assert!(view.of_pid(of(&below)) > 0, "{}", view.list(|_| true));
    assert_eq!(view.of_pid(of(&outside)), 0);
    assert_eq!(view.of_pid(of(&inside)) + view.of_pid(of(&below)), view.total());
    // The other way round: the group below does not contain the one above.
    let path = group.0.join("below");
    let profile = Record::at_999().args(["-d", "0.5", "--cgroup", path.to_str().unwrap()]).run().succeeded();
    let view = View::of(&profile);
    assert!(view.of_pid(of(&below)) > 0);
    assert_eq!(view.of_pid(of(&below)), view.total());
    drop((inside, below));
}
