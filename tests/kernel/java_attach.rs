//! Names by the attach protocol (`--allow-attach`), of JVMs whose tables are of no known version: real ones, in which a field has
//! another name. What is not asked, and what is refused, is left as it was.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
};

use profiler::model::{ModuleKind, Profile};
use profiler_tests::{
    expect,
    jdk::{Jdk, each_jdk},
    record::Record,
    target::Target,
    view::{Entry, View},
    workload,
};

const APART: &str = "-XX:CompileCommand=dontinline,known.Stacks*::*";
/// The oldest version that knows the command.
const SINCE: u32 = 17;
const OPTION: &str = "--allow-attach";

/// A JVM that computes, and the files that it and the profiler make for it. These are removed.
struct Asked {
    target: Target,
    pid: u32,
    /// Its process id as it sees it.
    inner: u32,
}

impl Asked {
    fn start(jdk: &Jdk, options: &[&str]) -> Self {
        let target = jdk.program("known.Stacks", &[&[APART], options].concat(), &["callers", "6000"]);
        let pid = target.pid();
        Self { target, pid, inner: pid }
    }

    fn map(&self) -> PathBuf {
        format!("/tmp/perf-{}.map", self.inner).into()
    }

    fn socket(&self) -> PathBuf {
        format!("/tmp/.java_pid{}", self.inner).into()
    }

    /// Where the request for a socket is put.
    fn requests(&self) -> [PathBuf; 2] {
        let name = format!(".attach_pid{}", self.inner);
        [Path::new(&format!("/proc/{}/cwd", self.pid)).join(&name), Path::new("/tmp").join(name)]
    }

    /// Records it for a second.
    fn record(&self, arguments: &[&str]) -> Profile {
        let pid = self.pid.to_string();
        let profile = Record::at_999().args(["-p", &pid, "-d", "1"]).args(arguments).run().succeeded();
        assert!(fs::exists(format!("/proc/{}", self.pid)).unwrap(), "the JVM ended");
        profile
    }

    /// That it was not asked for anything.
    fn check_untouched(&self) {
        let mut files = vec![self.map(), self.socket()];
        files.extend(self.requests());
        assert!(files.iter().all(|path| path.symlink_metadata().is_err()), "{files:?}");
    }

    /// What it says until it ends has no list of threads, which is what SIGQUIT makes it print.
    fn check_silent(mut self) {
        let text = self.target.text_until_says();
        assert!(text.contains("half") && !text.contains("Full thread dump"), "{text}");
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.target.kill();
        for path in [self.map(), self.socket()] {
            _ = fs::remove_file(path);
        }
    }
}

fn note(profile: &Profile) -> &str {
    let of_it: Vec<_> = profile.meta.notes.iter().filter(|note| note.contains(OPTION)).collect();
    assert_eq!(of_it.len(), 1, "{:?}", profile.meta.notes);
    of_it[0]
}

fn in_jit(entry: &Entry<'_>) -> bool {
    entry.user_leaf().is_some_and(|frame| frame.module.kind == ModuleKind::Jit)
}

fn is_named(entry: &Entry<'_>) -> bool {
    entry.user_leaf().is_some_and(|frame| frame.function.name.contains("known.Stacks"))
}

/// Code that was made at run time has names: the program's methods, most of it, and stubs.
fn check_named(profile: &Profile) {
    let view = View::of(profile);
    let all = view.list(|_| true);
    assert!(view.count(in_jit) >= 100, "{all}");
    let has_name =
        |entry: &Entry<'_>| entry.user_leaf().is_some_and(|frame| frame.function.unresolved.is_none());
    expect::at_least(&all, view.count(|entry| in_jit(entry) && has_name(entry)), view.count(in_jit), 98.0);
    expect::at_least(&all, view.count(|entry| in_jit(entry) && is_named(entry)), view.count(in_jit), 80.0);
}

/// Versions that know the command write names, the others say what they answered.
fn check_answer(jdk: &Jdk, profile: &Profile) {
    let note = note(profile);
    if jdk.major >= SINCE {
        assert!(note.contains("ran code in it") && note.contains("_compile_id"), "{note}");
        check_named(profile);
    } else {
        assert!(note.contains("it answered") && note.contains("DumpPerfMapAtExit"), "{note}");
        check_nameless(profile);
    }
}

fn check_nameless(profile: &Profile) {
    let view = View::of(profile);
    assert!(view.count(in_jit) >= 100 && view.count(is_named) == 0, "{}", view.list(|_| true));
}

#[test]
fn a_jvm_of_unknown_tables_is_asked_if_that_is_allowed() {
    each_jdk("a_jvm_of_unknown_tables_is_asked_if_that_is_allowed", |jdk| {
        let other = jdk.with_other_tables();
        let mut asked = Asked::start(&other, &[]);
        asked.target.go();
        let profile = asked.record(&[]);
        check_nameless(&profile);
        assert!(profile.meta.notes.iter().all(|note| !note.contains("attach")), "{:?}", profile.meta.notes);
        asked.check_untouched();

        let profile = asked.record(&[OPTION]);
        check_answer(jdk, &profile);
        // It listens already.
        check_answer(jdk, &asked.record(&[OPTION]));
        assert!(asked.requests().iter().all(|path| path.symlink_metadata().is_err()));
        asked.check_silent();
    });
}

/// The control: its own tables tell all.
#[test]
fn a_jvm_that_is_known_is_not_asked() {
    each_jdk("a_jvm_that_is_known_is_not_asked", |jdk| {
        let mut asked = Asked::start(jdk, &[]);
        asked.target.go();
        let profile = asked.record(&[OPTION]);
        check_named(&profile);
        assert!(profile.meta.notes.iter().all(|note| !note.contains(OPTION)), "{:?}", profile.meta.notes);
        asked.check_untouched();
        asked.check_silent();
    });
}

/// Records with the option, and gives what is said of a refusal.
fn refused(asked: &mut Asked) -> String {
    asked.target.go();
    let profile = asked.record(&[OPTION]);
    check_nameless(&profile);
    note(&profile).to_owned()
}

#[test]
fn a_jvm_that_does_not_listen_is_left_alone() {
    each_jdk("a_jvm_that_does_not_listen_is_left_alone", |jdk| {
        let other = jdk.with_other_tables();
        let mut asked = Asked::start(&other, &["-XX:+DisableAttachMechanism"]);
        let note = refused(&mut asked);
        let why = "it was started with -XX:+DisableAttachMechanism; start the JVM without";
        assert!(note.contains(why), "{note}");
        asked.check_untouched();
        asked.check_silent();
        // It has no handler for SIGQUIT, and listens from its start on.
        let mut asked = Asked::start(&other, &["-Xrs"]);
        asked.target.go();
        assert!(asked.socket().exists());
        check_answer(jdk, &asked.record(&[OPTION]));
        // Without its socket it cannot be asked, and the signal would end it.
        fs::remove_file(asked.socket()).unwrap();
        let note = self::note(&asked.record(&[OPTION])).to_owned();
        assert!(note.contains("it does not handle SIGQUIT"), "{note}");
        assert!(asked.requests().iter().all(|path| path.symlink_metadata().is_err()));
        asked.check_silent();
    });
}

#[test]
fn what_others_have_put_in_the_way_is_not_followed() {
    each_jdk("what_others_have_put_in_the_way_is_not_followed", |jdk| {
        let other = jdk.with_other_tables();
        let victim = jdk.directory().join("victim");
        // A link where the request is made, where the map is written, and where the socket is.
        for which in 0..3 {
            let mut asked = Asked::start(&other, &[]);
            let path = match which {
                0 => asked.requests()[0].clone(),
                1 => asked.map(),
                _ => asked.socket(),
            };
            symlink(&victim, &path).unwrap();
            let note = refused(&mut asked);
            let is_left = path.is_symlink() && victim.symlink_metadata().is_err();
            fs::remove_file(&path).unwrap();
            assert!(
                is_left && note.contains("remove it") && note.contains(&asked.inner.to_string()),
                "{note}"
            );
            asked.check_untouched();
            asked.check_silent();
        }
        // Somebody else listens.
        let mut asked = Asked::start(&other, &[]);
        let listener = UnixListener::bind(asked.socket()).unwrap();
        let note = refused(&mut asked);
        assert!(note.contains(&format!("process {} listens", std::process::id())), "{note}");
        drop(listener);
        // Now it is a socket that one left who is gone, which the JVM puts its own in the place of.
        let profile = asked.record(&[OPTION]);
        check_answer(jdk, &profile);
        asked.check_silent();
    });
}

/// In another root, with a process namespace of its own, of a user who may not write to its working directory.
#[test]
fn a_jvm_of_another_user_and_place_is_asked_as_that_user() {
    each_jdk("a_jvm_of_another_user_and_place_is_asked_as_that_user", |jdk| {
        let other = jdk.with_other_tables();
        let mut apart = other.program_apart("known.Stacks", &[APART], &["callers", "6000"]);
        let status = fs::read_to_string(format!("/proc/{}/status", apart.pid)).unwrap();
        let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        let inner: u32 = inner.split_whitespace().last().unwrap().parse().unwrap();
        assert_ne!(inner, apart.pid);
        apart.target.go();
        let pid = apart.pid;
        // The place goes with it.
        let (target, _place) = apart.into_parts();
        let asked = Asked { target, pid, inner };
        let profile = asked.record(&[OPTION]);
        check_answer(jdk, &profile);
        assert!(asked.requests().iter().all(|path| path.symlink_metadata().is_err()));
        asked.check_silent();
    });
}

/// The signal would end it, and its code is made at run time too.
#[test]
fn what_is_no_jvm_is_not_asked() {
    // It is still there when the recording ends, on slow machines too.
    let cpu_ms = if expect::is_emulated() { "10000" } else { "3000" };
    let target = Target::start(&workload::path("perf_map"), &[cpu_ms, "none"]);
    let pid = target.pid().to_string();
    let profile = Record::at_999().args(["-p", &pid, "-d", "1", OPTION]).run().succeeded();
    assert!(View::of(&profile).count(in_jit) >= 100);
    assert!(profile.meta.notes.iter().all(|note| !note.contains(OPTION)), "{:?}", profile.meta.notes);
    assert!(target.finish().0.success());
}
