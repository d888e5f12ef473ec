//! Program images over time: fork, exec, exit, and samples that are looked up later.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use profiler::{
    perf::record::{FileIdentity, ProcessEvent},
    symbolize::{FrameId, Owner, Symbolizer, Watch},
};

use crate::program::{PROGRAM, Resolved, Running, compile, look_up, owner, symbolizer_of};

/// Ids above PID_MAX_LIMIT: no process can have them.
const PARENT: u32 = 1 << 23;
const CHILD: u32 = (1 << 23) + 1;
const BASE: u64 = 0x5000_0000;

fn exec(pid: u32, comm: &str, time_ns: u64) -> ProcessEvent {
    ProcessEvent::Comm { pid, tid: pid, time_ns, comm: comm.into(), exec: true }
}

fn fork(pid: u32, parent_pid: u32, time_ns: u64) -> ProcessEvent {
    ProcessEvent::Fork { pid, parent_pid, tid: pid, time_ns }
}

fn exit(pid: u32, time_ns: u64) -> ProcessEvent {
    ProcessEvent::Exit { pid, tid: pid, time_ns }
}

fn mmap(pid: u32, program: &str, time_ns: u64) -> ProcessEvent {
    ProcessEvent::Mmap {
        pid,
        time_ns,
        start: BASE,
        len: 0x10_0000,
        file_offset: 0,
        path: program.into(),
        identity: Some(FileIdentity::BuildId(program.bytes().collect())),
    }
}

/// Module path and process name at a time, or the unresolved name.
struct Lookup {
    symbolizer: Symbolizer,
    frames: Vec<FrameId>,
    comms: Vec<String>,
}

impl Lookup {
    fn new(watch: Watch) -> Self {
        Self { symbolizer: Symbolizer::new(watch), frames: Vec::new(), comms: Vec::new() }
    }

    fn observe(&mut self, events: &[ProcessEvent]) {
        events.iter().for_each(|event| self.symbolizer.observe(event));
    }

    fn sample(&mut self, pid: u32, first_ns: u64) {
        let owner = Owner { pid, incarnation: 0, first_ns };
        let comm = self.symbolizer.process_comm(owner).unwrap_or_default();
        self.comms.push(String::from_utf8_lossy(&comm).trim_end_matches('\0').to_owned());
        self.symbolizer.user_stack(owner, &[BASE + 0x1234], &mut self.frames);
    }

    fn results(self) -> Vec<(String, String)> {
        let resolved = Resolved::new(self.symbolizer, self.frames);
        let modules = (0..resolved.frames.len()).map(|index| resolved.module(index).path.clone());
        self.comms.into_iter().zip(modules).collect()
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(comm, module)| (comm.to_string(), module.to_string())).collect()
}

/// Everything happens between two drains; samples come last and in any order.
#[test]
fn samples_belong_to_the_image_of_their_time() {
    let mut lookup = Lookup::new(Watch::All);
    lookup.observe(&[
        exec(PARENT, "shell", 10),
        mmap(PARENT, "/bin/shell", 11),
        fork(CHILD, PARENT, 20),
        exec(CHILD, "first", 30),
        mmap(CHILD, "/bin/first", 31),
        exec(CHILD, "second", 40),
        mmap(CHILD, "/bin/second", 41),
        exit(CHILD, 50),
        fork(CHILD, PARENT, 60),
        exec(CHILD, "reused", 61),
        mmap(CHILD, "/bin/reused", 62),
    ]);
    for (pid, time) in [(CHILD, 65), (CHILD, 45), (CHILD, 35), (CHILD, 25), (PARENT, 15), (CHILD, 49)] {
        lookup.sample(pid, time);
    }
    let expected = pairs(&[
        ("reused", "/bin/reused"),
        ("second", "/bin/second"),
        ("first", "/bin/first"),
        ("shell", "/bin/shell"),
        ("shell", "/bin/shell"),
        ("second", "/bin/second"),
    ]);
    assert_eq!(lookup.results(), expected);
}

#[test]
fn what_ended_is_forgotten_only_after_the_drain() {
    let mut lookup = Lookup::new(Watch::All);
    lookup.observe(&[exec(CHILD, "short", 10), mmap(CHILD, "/bin/short", 11), exit(CHILD, 20)]);
    lookup.symbolizer.drained(20);
    lookup.sample(CHILD, 15);
    assert_eq!(lookup.symbolizer.held().processes, 1);
    lookup.symbolizer.drained(21);
    assert_eq!(lookup.symbolizer.held().processes, 0);
    assert_eq!(lookup.results(), pairs(&[("short", "/bin/short")]));
}

#[test]
fn only_known_processes_and_their_children_are_followed() {
    let mut lookup = Lookup::new(Watch::Known);
    let me = std::process::id();
    lookup.symbolizer.scan_existing(|pid| pid == me).unwrap();
    lookup.observe(&[exec(PARENT, "stranger", 10), mmap(PARENT, "/bin/stranger", 11)]);
    assert_eq!(lookup.symbolizer.held().processes, 1);
    lookup.observe(&[fork(CHILD, me, 20), exec(CHILD, "child", 30), mmap(CHILD, "/bin/child", 31)]);
    assert_eq!(lookup.symbolizer.held().processes, 2);
    lookup.sample(CHILD, 35);
    assert_eq!(lookup.results(), pairs(&[("child", "/bin/child")]));
}

#[test]
fn threads_do_not_end_or_replace_their_process() {
    let mut lookup = Lookup::new(Watch::All);
    lookup.observe(&[exec(CHILD, "main", 10), mmap(CHILD, "/bin/main", 11)]);
    lookup.observe(&[
        ProcessEvent::Fork { pid: CHILD, parent_pid: CHILD, tid: CHILD + 7, time_ns: 12 },
        ProcessEvent::Comm { pid: CHILD, tid: CHILD + 7, time_ns: 13, comm: b"worker".into(), exec: false },
        ProcessEvent::Exit { pid: CHILD, tid: CHILD + 7, time_ns: 14 },
    ]);
    lookup.symbolizer.drained(100);
    lookup.sample(CHILD, 110);
    lookup.observe(&[ProcessEvent::Comm {
        pid: CHILD,
        tid: CHILD,
        time_ns: 120,
        comm: b"renamed".into(),
        exec: false,
    }]);
    lookup.sample(CHILD, 130);
    assert_eq!(lookup.results(), pairs(&[("main", "/bin/main"), ("renamed", "/bin/main")]));
}

/// The same binary executed again and again is opened once.
#[test]
fn a_busy_exec_loop_opens_its_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "again", PROGRAM, &["-O1"]);
    let output = Command::new("readelf").arg("-n").arg(&program).output().unwrap();
    let notes = String::from_utf8(output.stdout).unwrap();
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap();
    let id: Vec<u8> =
        (0..id.len() / 2).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()).collect();
    let mut symbolizer = Symbolizer::new(Watch::All);
    symbolizer.scan_existing(|pid| pid == std::process::id()).unwrap();
    let before = symbolizer.held().open_files;
    for round in 0..1000u64 {
        let time_ns = round * 10;
        symbolizer.observe(&fork(CHILD, std::process::id(), time_ns));
        symbolizer.observe(&exec(CHILD, "again", time_ns + 1));
        symbolizer.observe(&ProcessEvent::Mmap {
            pid: CHILD,
            time_ns: time_ns + 2,
            start: BASE,
            len: 0x1000,
            file_offset: 0x1000,
            path: program.to_str().unwrap().into(),
            identity: Some(FileIdentity::BuildId(id.clone())),
        });
        symbolizer.observe(&exit(CHILD, time_ns + 3));
    }
    assert_eq!(symbolizer.held().open_files, before + 1);
}

const LEADERLESS: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *survivor(void *leader) {
    pthread_join(*(pthread_t *)leader, 0);
    printf("survivor %p\npid 0x%x\nready\n", (void *)survivor, getpid());
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0) {}
    exit(0);
}
int main(void) {
    static pthread_t leader, thread;
    leader = pthread_self();
    pthread_create(&thread, 0, survivor, &leader);
    pthread_exit(0);
}
"#;

/// The first thread has ended, others go on: /proc/PID/maps is empty.
#[test]
fn a_process_without_its_first_thread() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "leaderless", LEADERLESS, &["-O1", "-pthread"]);
    let running = Running::start(&mut Command::new(&program));
    let (pid, survivor) = (running.pid(), running.address("survivor"));
    let resolved = look_up(symbolizer_of(pid), pid, &[survivor]);
    assert_eq!(resolved.name(0), "survivor");
    // Its end was seen, and then samples of it.
    let mut symbolizer = symbolizer_of(pid);
    symbolizer.observe(&exit(pid, 10));
    let mut frames = Vec::new();
    symbolizer.user_stack(owner(pid), &[survivor], &mut frames);
    symbolizer.drained(1000);
    assert_eq!(symbolizer.held().processes, 1, "it lives");
}

/// After a loss of events what is known of a living process is read again.
#[test]
fn lost_events_are_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "program", PROGRAM, &["-O1"]);
    let running = Running::start(&mut Command::new(&program));
    let (pid, main) = (running.pid(), running.address("main"));
    let lookup = |lost: bool| {
        let mut symbolizer = Symbolizer::new(Watch::All);
        symbolizer.observe(&exec(pid, "stale", 10));
        symbolizer.observe(&mmap(pid, "/bin/stale", 20));
        if lost {
            symbolizer.observe(&ProcessEvent::Lost { count: 3 });
        }
        symbolizer.process_comm(owner(pid)).unwrap();
        let mut frames = Vec::new();
        symbolizer.user_stack(owner(pid), &[BASE, main], &mut frames);
        let resolved = Resolved::new(symbolizer, frames);
        resolved.name(1).to_owned()
    };
    assert_eq!(lookup(false), "[unknown] [no mapping]");
    // As a caller's address: inside the function before `main`'s first byte, or `main`'s own.
    assert_ne!(lookup(true), "[unknown] [no mapping]");
}

/// A sample of a process that is gone must not be looked up in a later process of the same id.
#[test]
fn another_incarnation_is_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "program", PROGRAM, &["-O1"]);
    let running = Running::start(&mut Command::new(&program));
    let (pid, main) = (running.pid(), running.address("main"));
    let name = |incarnation| {
        let mut symbolizer = Symbolizer::new(Watch::All);
        let mut frames = Vec::new();
        symbolizer.user_stack(Owner { pid, incarnation, first_ns: u64::MAX }, &[main], &mut frames);
        Resolved::new(symbolizer, frames).name(0).to_owned()
    };
    let start = profiler::symbolize::process_file::start_ns(pid).unwrap();
    assert_eq!(name(start + 5_000_000), "main");
    assert_eq!(name(start - 20_000_000), "[unknown] [process gone]");
    assert_eq!(name(0), "main", "unknown incarnations are believed");
}

/// A process that this one may not look at (of another user, without capabilities) is told apart from one that ended.
#[test]
fn without_permission() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "program", PROGRAM, &["-O1"]);
    let running = Running::start(&mut Command::new(&program));
    // The other user may not be able to reach the directory of this executable.
    let exe = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"])
        .arg(exe)
        .args(["--ignored", "--exact", "images::child_without_permission", "--nocapture"])
        .env("LOOK_AT", running.pid().to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("name: [unknown] [permission denied]"), "{text}");
}

#[test]
#[ignore = "started by `without_permission` as another user"]
fn child_without_permission() {
    let pid = std::env::var("LOOK_AT").unwrap().parse().unwrap();
    println!("name: {}", look_up(symbolizer_of(pid), pid, &[0x1000]).name(0));
}
