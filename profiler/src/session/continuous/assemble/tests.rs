//! Windows of made accounts: sums are exact whatever there is room for.

use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::{
    host::syscalls::Abi,
    model::{Meta, Sample, SampleType, Stack, StackEnd, StackId, Thread, ThreadId, Unit, named::Named},
};

/// When the window begins, ns since boot.
const BEGIN: u64 = 1_000_000;

fn process(pid: u32, comm: &str, start_ns: u64, is_alive: bool, cpu_ns: u64) -> Process {
    let row = sched::Row {
        comm: comm.to_owned(),
        cpu_ns,
        voluntary: 2,
        threads: 1,
        ended: u64::from(!is_alive),
        blocked: [("futex", 5)].into_iter().collect::<Named>(),
        blocked_ns: 5,
        ..sched::Row::default()
    };
    Process { pid, start_ns, is_alive, row }
}

fn call(pid: Option<u32>, number: u32, count: u64) -> Called {
    Called {
        pid,
        comm: *b"caller\0\0\0\0\0\0\0\0\0\0",
        number: Some((Abi::X86_64, number)),
        count,
        errors: 1,
        total_ns: 10 * count,
        latencies: vec![(8, count)],
    }
}

fn raw(processes: Vec<Process>) -> RawWindow {
    RawWindow { start_boot_ns: BEGIN, processes, ..RawWindow::default() }
}

fn sum(window: &Window, metric: &str) -> u64 {
    let numbers = window.accounts.iter().flat_map(|account| &account.numbers);
    numbers.filter(|number| number.metric == metric).map(|number| number.value).sum()
}

fn of<'a>(window: &'a Window, comm: &str) -> Vec<&'a Account> {
    window.accounts.iter().filter(|account| account.series.comm == comm).collect()
}

fn value(account: &Account, metric: &str, label: &str) -> u64 {
    let found = account.numbers.iter().find(|number| number.metric == metric && number.label == label);
    found.map_or(0, |number| number.value)
}

#[test]
fn short_lived_processes_of_a_name_are_one_series() {
    let ended = |pid, cpu_ns| process(pid, "sh", BEGIN + 1, false, cpu_ns);
    let long = process(9, "sh", BEGIN + 1, false, LONG_CPU_NS);
    let old = process(8, "sh", BEGIN - 1, false, 1);
    let window = window(
        raw(vec![ended(1, 10), ended(2, 20), process(3, "sh", BEGIN + 1, true, 7), long, old]),
        Profile::default(),
        &BTreeMap::new(),
        100,
    );
    let rows = of(&window, "sh");
    let short: Vec<_> = rows.iter().filter(|account| account.series.pid.is_none()).collect();
    assert_eq!((rows.len(), short.len()), (4, 1), "{rows:?}");
    assert_eq!((value(short[0], "cpu", ""), value(short[0], "processes", "")), (30, 2));
    assert_eq!((value(short[0], "threads_ended", ""), value(short[0], "blocked", "futex")), (2, 10));
}

#[test]
fn places_tell_series_apart() {
    let mut raw = raw(vec![process(1, "sh", BEGIN + 1, false, 10), process(2, "sh", BEGIN + 1, false, 20)]);
    let place = Arc::new(Place { cgroup: "/a".to_owned(), ..Place::default() });
    raw.places.insert(1, place);
    let window = window(raw, Profile::default(), &BTreeMap::new(), 100);
    assert_eq!(of(&window, "sh").len(), 2);
}

#[test]
fn a_process_that_slept_has_the_series_that_it_has_when_it_runs() {
    let mut asleep = process(4, "java", 33, true, 0);
    (asleep.row.voluntary, asleep.row.involuntary, asleep.row.ended) = (0, 0, 0);
    assert!(!asleep.has_run());
    let mut raw = raw(vec![process(3, "a", 5, true, 10), asleep, process(5, "b", 5, true, 10)]);
    raw.places.insert(4, Arc::new(Place { cgroup: "/j".to_owned(), ..Place::default() }));
    let heap = Number { metric: "heap_used", label: String::new(), value: 9 };
    let window = window(raw, Profile::default(), &BTreeMap::from([(4, vec![heap])]), 100);
    let rows = of(&window, "java");
    assert_eq!((rows.len(), value(rows[0], "heap_used", "")), (1, 9));
    let series = &rows[0].series;
    assert_eq!((series.pid, series.start_ns, series.place.cgroup.as_str()), (Some(4), 33, "/j"));
}

#[test]
fn calls_beyond_the_largest_are_in_sum() {
    let mut raw = raw(vec![process(1, "caller", 5, true, 10)]);
    raw.calls = (0..30).map(|n| call(Some(1), n, 100 - u64::from(n))).collect();
    raw.calls.push(call(None, 202, 7));
    let window = window(raw, Profile::default(), &BTreeMap::new(), 100);
    let rows = of(&window, "caller");
    let labels = rows[0].numbers.iter().filter(|number| number.metric == "syscalls").count();
    assert_eq!((rows.len(), labels), (1, CALLS + 1));
    assert_eq!(value(rows[0], "syscalls", "read"), 100);
    let all: u64 = (0..30).map(|n| 100 - n).sum();
    assert_eq!(sum(&window, "syscalls"), all + 7);
    let host = window.host.numbers.iter().find(|number| number.metric == "syscalls").unwrap();
    assert_eq!((host.value, window.host.distributions.len()), (all + 7, HOST_CALLS));
    assert_eq!(
        value(of(&window, OTHER)[0], "syscalls", OTHER) + value(of(&window, OTHER)[0], "syscalls", "futex"),
        7
    );
}

#[test]
fn threads_with_samples_are_of_their_process() {
    let thread = |pid, tid, process: &str| Thread {
        pid,
        tid,
        process: process.to_owned(),
        name: "worker".to_owned(),
        incarnation: 0,
    };
    let sample = |thread, ns| Sample {
        thread: ThreadId(thread),
        stack: StackId(0),
        window_start_ns: 0,
        values: vec![1, ns],
    };
    let profile = Profile {
        meta: Meta::default(),
        sample_types: vec![
            SampleType::new("samples", Unit::Count),
            SampleType::new("cpu", Unit::Nanoseconds),
        ],
        stacks: vec![Stack { locations: Vec::new(), end: StackEnd::Lost }],
        threads: vec![thread(1, 11, "known"), thread(77, 77, "asleep"), thread(0, 0, "swapper")],
        samples: vec![sample(0, 10), sample(1, 20), sample(2, 30)],
        ..Profile::default()
    };
    let window = window(raw(vec![process(1, "known", 5, true, 10)]), profile, &BTreeMap::new(), 100);
    let comm = |at: usize| window.accounts[window.series_of[at] as usize].series.comm.clone();
    assert_eq!([comm(0), comm(1), comm(2)], ["known", "asleep", "swapper"]);
}

proptest! {
    /// However few series there may be, sums are those of all processes, and each series is there once.
    #[test]
    fn sums_are_exact(
        cpu in proptest::collection::vec(0u64..1_000_000_000, 1..60),
        max in 1usize..80,
    ) {
        let processes = |(pid, ns): (usize, &u64)| {
            process(pid as u32 + 1, &format!("p{}", pid % 7), BEGIN + (pid as u64 % 2), pid % 3 != 0, *ns)
        };
        let processes: Vec<_> = cpu.iter().enumerate().map(processes).collect();
        let ended: u64 = processes.iter().map(|process| process.row.ended).sum();
        let window = window(raw(processes), Profile::default(), &BTreeMap::new(), max);
        prop_assert_eq!(sum(&window, "cpu"), cpu.iter().sum::<u64>());
        prop_assert_eq!(sum(&window, "threads_ended"), ended);
        prop_assert_eq!(sum(&window, "processes"), cpu.len() as u64);
        prop_assert!(window.accounts.len() <= max + 1);
        let mut series: Vec<_> = window.accounts.iter().map(|account| &account.series).collect();
        series.sort();
        series.dedup();
        prop_assert_eq!(series.len(), window.accounts.len());
    }
}
