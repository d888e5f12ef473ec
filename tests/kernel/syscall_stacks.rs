//! Events `syscalls` and `syscall-time`: system calls by stack, against what a program makes and measures and against
//! the accounts of `profiler syscalls` of the same run.

use std::{collections::BTreeMap, time::Duration};

use profiler::model::StackEnd;
use profiler_tests::{
    accounts::{Accounting, number},
    expect,
    record::{Record, Recorded, fails_with},
    target::{Target, said},
    view::{Entry, View},
    workload,
};

use crate::syscalls::{check, ready, wait_until_asleep};

const MS: u64 = 1_000_000;

/// Calls of a storm: an emulated machine makes fewer.
fn calls() -> u64 {
    if expect::is_emulated() { 20_000 } else { 300_000 }
}

/// The call that a sample is of, with what stands beside it.
fn call<'a>(entry: &Entry<'a>) -> &'a str {
    let label = entry.frames.first().map_or("", |frame| &frame.function.name);
    label.strip_prefix("[syscall: ").and_then(|rest| rest.strip_suffix(']')).unwrap_or(label)
}

/// Records a program that waits to be told to go on, until it says that it is done and waits again.
fn beside(
    (events, programs): (&str, usize),
    target: &mut Target,
    between: impl FnOnce(&mut Target) -> String,
) -> (Recorded, String) {
    let pid = target.pid().to_string();
    let mut recording = Record::new().args(["-e", events, "-p", &pid]).start();
    recording.wait_until_attached(programs);
    // The program's tables are made.
    std::thread::sleep(Duration::from_millis(if expect::is_emulated() { 4000 } else { 500 }));
    let text = between(target);
    wait_until_asleep(target.pid());
    recording.signal(rustix::process::Signal::INT);
    (recording.finish(), text)
}

fn go(target: &mut Target) -> String {
    target.go();
    target.text_until("done")
}

#[test]
fn stacks_add_up_to_the_calls_that_were_made_and_to_the_accounts() {
    let mut stranger = Target::ready(&workload::path("calls"), &["mixed", "40000"]);
    let mut target = ready("mixed", calls());
    let pid = target.pid();
    let accounting = Accounting::start(&["syscalls", "--by", "thread", "-p", &pid.to_string()]);
    let (recorded, text) = beside(("syscalls,syscall-time", 3), &mut target, |target| {
        let text = go(target);
        go(&mut stranger);
        text
    });
    let (_, accounts) = accounting.stop();
    check(&accounts);
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    assert_eq!(profile.meta.events, ["syscalls", "syscall-time"]);
    let [entered, time, returned] =
        ["syscalls", "syscall-time", "syscall-returns"].map(|name| View::of_type(&profile, name));
    // By thread and call, both ways.
    let mut counted: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for entry in &entered.entries {
        let key = (u64::from(entry.thread.tid), call(entry).to_owned());
        *counted.entry(key).or_default() += entry.samples;
    }
    let accounted: BTreeMap<(u64, String), u64> = accounts
        .rows()
        .filter(|row| number(row, "count") != 0)
        .map(|row| ((number(row, "tid"), row["syscall"].as_str().unwrap().to_owned()), number(row, "count")))
        .collect();
    assert_eq!(counted, accounted);
    // And what the program says.
    for thread in said(&text)["threads"].as_array().unwrap() {
        let made: Vec<u64> = thread.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        for (name, made_of_it) in ["getppid", "read", "write", "openat"].into_iter().zip(&made[1..]) {
            assert_eq!(counted.get(&(made[0], name.to_owned())), Some(made_of_it), "{name} of {thread}");
            let of_it = |e: &Entry<'_>| u64::from(e.thread.tid) == made[0] && call(e) == name;
            assert_eq!(returned.count(of_it), *made_of_it, "{name} of {thread}");
            // A table may still be missing.
            let early = |e: &Entry<'_>| ["first samples", "without loaded table"].contains(&e.end.words());
            let right = |e: &Entry<'_>| e.has("mix") && e.end == StackEnd::Complete;
            let wrong = |e: &Entry<'_>| of_it(e) && !early(e) && !right(e);
            assert!(entered.count(wrong) <= made_of_it / 100, "{}", entered.list(wrong));
            let whole = entered.count(|e| of_it(e) && right(e));
            expect::at_least(&entered.list(of_it), whole, *made_of_it, 80.0);
        }
    }
    // The first thread waits when it ends: entered, and not returned from.
    let waiting = |e: &Entry<'_>| call(e) == "read, until the end";
    assert_eq!(returned.count(waiting), 1, "{}", returned.list(waiting));
    assert!(time.count(|e| waiting(e) && e.has("main")) > 0, "{}", time.list(waiting));
    assert!(profile.threads.iter().all(|thread| thread.pid == pid), "a process that was not asked for");
}

#[test]
fn times_are_those_that_the_program_measures() {
    let mut target = ready("times", 20);
    let (recorded, text) = beside(("syscall-time:nanosleep,pselect6,read", 3), &mut target, go);
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    assert_eq!(profile.meta.events, ["syscall-time:nanosleep,pselect6,read"]);
    let [time, returned] = ["syscall-time", "syscall-returns"].map(|name| View::of_type(&profile, name));
    let slack = if expect::is_emulated() { 40 * MS } else { MS };
    for name in ["nanosleep", "pselect6", "read"] {
        let wall = said(&text)[name][0].as_u64().unwrap();
        let of_it = |e: &Entry<'_>| call(e) == name;
        assert_eq!(returned.count(of_it), 20, "{}", returned.list(|_| true));
        let found = time.count(of_it);
        // What is around the calls is the program's, and the walk's.
        assert!(found <= wall && wall - found <= wall / 100 + slack, "{name}: {found} ns, measured {wall}");
    }
    let other = |e: &Entry<'_>| !["nanosleep", "pselect6", "read", "read, until the end"].contains(&call(e));
    assert_eq!(returned.count(other), 0, "{}", returned.list(other));
}

#[test]
fn calls_that_do_not_return_or_return_elsewhere() {
    let recorded =
        Record::new().args(["-e", "syscall-time,syscalls"]).command(&workload::path("calls"), ["odd"]).run();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    let [entered, returned] = ["syscalls", "syscall-returns"].map(|name| View::of_type(&profile, name));
    let one = |names: &[&str]| {
        let of_it = |e: &Entry<'_>| names.contains(&call(e));
        (entered.count(of_it), returned.count(of_it))
    };
    // As the accounts have them (syscalls.rs).
    assert_eq!(one(&["exit_group"]), (10 + 1 + 5 + 1, 0), "{}", entered.list(|e| call(e) == "exit_group"));
    assert_eq!(one(&["exit"]), (3, 0));
    assert_eq!(one(&["execve"]), (1 + 5 + 3, 1 + 5 + 3), "{}", returned.list(|e| call(e) == "execve"));
    assert_eq!(one(&["kill"]), (7 + 2, 7 + 2));
    assert_eq!(one(&["rt_sigreturn"]), (7, 7));
    assert_eq!(one(&["restart_syscall"]), (1, 1));
    assert_eq!(one(&["clone", "fork", "vfork", "clone3"]), (19, 19));
}

#[test]
fn calls_are_chosen_by_name() {
    let mut target = ready("mixed", 3000);
    let (recorded, text) = beside(("syscalls:getppid,openat,syscall-time:write", 3), &mut target, go);
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    assert_eq!(profile.meta.events, ["syscalls:getppid,openat", "syscall-time:write"]);
    let made = |at: usize| -> u64 {
        let text = said(&text);
        text["threads"].as_array().unwrap().iter().map(|thread| thread[at].as_u64().unwrap()).sum()
    };
    let [entered, returned] = ["syscalls", "syscall-returns"].map(|name| View::of_type(&profile, name));
    assert_eq!(entered.count(|e| call(e) == "getppid"), made(1));
    assert_eq!(entered.count(|e| call(e) == "openat"), made(4));
    // The first thread says what it has done.
    assert_eq!(returned.count(|e| call(e) == "write" && e.thread.tid != e.thread.pid), made(3));
    assert_eq!(entered.count(|e| !["getppid", "openat"].contains(&call(e))), 0, "{}", entered.list(|_| true));
    assert_eq!(returned.count(|e| call(e) != "write"), 0, "{}", returned.list(|_| true));
}

#[test]
fn calls_of_32_bit_programs_are_told_apart() {
    let recorded = Record::new()
        .args(["-e", "syscalls:getppid"])
        .command(&workload::path("calls"), ["compat", "100"])
        .run();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    let entered = View::of_type(&profile, "syscalls");
    assert_eq!(entered.count(|e| call(e) == "getppid"), 101);
    // Without the entry it makes none.
    let made = recorded.said()["compat"].as_u64().unwrap() * 100;
    assert_eq!(entered.count(|e| call(e) == "getppid, i386"), made, "{}", entered.list(|_| true));
}

#[test]
fn calls_that_are_not_there_are_refused() {
    for (arguments, part) in [
        (&["-e", "syscalls:opennat"][..], "near: openat"),
        (&["-e", "syscall-time:"], "no system call of that name"),
        (&["-e", "syscall-time:read,cpuu"], "cpuu"),
        (&["-e", "syscalls", "--user-only"], "--user-only does not go with"),
    ] {
        let recorded = Record::new().args(arguments).command(&workload::path("burner"), ["0"]).run();
        fails_with(part, recorded.status(), &recorded.stderr(), 2, part);
    }
}
