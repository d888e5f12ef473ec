//! Sums are exact: through appending, merging and removing.

use std::time::Duration;

use proptest::{
    bool,
    collection::{btree_map, vec},
    prelude::*,
    sample::{select, subsequence},
};

use super::{ALWAYS, WIDE, maintain, windows::*};
use crate::{
    model::window::{Number, Window},
    store::{Limits, Query, Range, Reader, WindowInfo, Writer},
};

#[test]
fn what_is_kept_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let windows = simple(7);
    for window in &windows {
        writer.append(window).unwrap();
    }
    let reader = Reader::open(dir.path()).unwrap();
    let profile = reader.profile(&Query::all(ALWAYS)).unwrap();
    assert_eq!(samples(&profile), sum_of(&windows));
    assert_eq!(numbers(&reader.accounts(&Query::all(ALWAYS)).unwrap()), numbers_in(&windows));
    assert_eq!(reader.host(ALWAYS).unwrap().numbers[0].value, 7 * 40 * SECOND);
    let kept = reader.windows(ALWAYS).unwrap();
    assert_eq!(kept.iter().map(|window| window.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert!(kept.iter().zip(&windows).all(|(kept, window)| kept.start_unix_ns == window.start_unix_ns
        && kept.duration_ns == window.duration_ns
        && kept.boot_id == window.boot_id
        && kept.rates == window.rates
        && kept.merged == 1
        && kept.lost_samples == window.number % 2));
    assert_eq!(profile.meta.duration_ns, 70 * SECOND);
    assert_eq!(profile.meta.ticks, 7 * 760);
    assert_eq!(profile.losses.counters["ring_full"], 4);
    assert_eq!(profile.losses.counters["watched"], 0);
    assert_eq!(profile.losses.lost_samples(), 4);
    assert_eq!(profile.cost.ebpf_runs, 49);
    assert_eq!(profile.meta.notes, [""; 0]);
    assert_eq!(writer.take_notes(), []);
}

/// A window to be made.
#[derive(Clone, Debug)]
struct Planned {
    /// From its start to the next one's, s; below 0: the clock is set back.
    step_s: i64,
    reboot: bool,
    slower: bool,
    missing: bool,
    did: Vec<Did>,
    counted: Vec<Counted>,
    waits: Vec<(u64, u64, u64)>,
}

fn did() -> impl Strategy<Value = Did> {
    let names = |names: &'static [&'static str]| select(names).prop_map(str::to_owned);
    (1u32..4, names(&["a", "b"]), names(&["f", "g", "h"]), 0i64..100, 0i64..1 << 40, 0i64..1 << 40).prop_map(
        |(pid, thread, function, samples, cpu_ns, offcpu_ns)| Did {
            series: series(pid, "web"),
            thread,
            function,
            samples,
            cpu_ns,
            offcpu_ns,
        },
    )
}

fn counted() -> impl Strategy<Value = Vec<Counted>> {
    let metrics = select(vec![("cpu", ""), ("syscalls", "read"), ("syscalls", "write"), ("threads", "")]);
    let numbers = btree_map((1u32..5, metrics), 0u64..1 << 50, 0..6);
    numbers.prop_map(|numbers| {
        let number = |((pid, (metric, label)), value): ((u32, (&'static str, &str)), u64)| {
            (series(pid, "web"), Number { metric, label: label.to_owned(), value })
        };
        numbers.into_iter().map(number).collect()
    })
}

fn planned() -> impl Strategy<Value = Planned> {
    let step = prop_oneof![20 => Just(10i64), 2 => 10i64..5000, 1 => -5000i64..10];
    let waits = subsequence(vec![(0, 1024, 3), (1024, 1152, 1), (1152, 1280, 7)], 0..=3);
    let chance = |percent| bool::weighted(f64::from(percent) / 100.0);
    (step, chance(3), chance(3), chance(5), vec(did(), 0..5), counted(), waits).prop_map(
        |(step_s, reboot, slower, missing, did, counted, waits)| Planned {
            step_s,
            reboot,
            slower,
            missing,
            did,
            counted,
            waits,
        },
    )
}

fn made(planned: &[Planned]) -> Vec<Window> {
    let (mut number, mut at, mut boot, mut hz) = (0, 100_000i64, 1, 19);
    let mut windows = Vec::new();
    for plan in planned {
        number += 1 + u64::from(plan.missing);
        if plan.reboot {
            (number, boot) = (1, boot + 1);
        }
        hz -= u64::from(plan.slower && hz > 1);
        let mut window = window(number, at as u64, &plan.did, &plan.counted);
        window.boot_id = format!("boot-{boot}");
        window.rates.frequency_hz = hz;
        if let (Some(account), false) = (window.accounts.first_mut(), plan.waits.is_empty()) {
            account.distributions = vec![waits(&plan.waits)];
        }
        windows.push(window);
        at = (at + plan.step_s).max(0);
    }
    windows
}

/// What the store has is the sum of the windows that are in what it keeps.
fn check(reader: &Reader, windows: &[Window]) -> Vec<WindowInfo> {
    let kept = reader.windows(ALWAYS).unwrap();
    let is_in = |window: &Window, info: &WindowInfo| {
        info.boot_id == window.boot_id && (info.number..=info.last_number).contains(&window.number)
    };
    for info in &kept {
        let parts: Vec<_> = windows.iter().filter(|window| is_in(window, info)).collect();
        assert_eq!(parts.len() as u64, info.merged);
        assert!(parts.iter().all(|window| window.rates == info.rates));
        assert_eq!(parts.iter().map(|window| window.duration_ns).sum::<u64>(), info.duration_ns);
        assert_eq!(parts.iter().map(|window| window.number % 2).sum::<u64>(), info.lost_samples);
        assert_eq!(parts[0].start_unix_ns, info.start_unix_ns);
        // Windows that are merged overlap by 50 ms at most.
        let overlaps_ns = 50_000_000 * (info.merged - 1);
        let from_start_to_end_ns = info.end_unix_ns - info.start_unix_ns;
        assert!(from_start_to_end_ns + overlaps_ns >= info.duration_ns, "gaps stay visible");
    }
    let left: Vec<_> = windows.iter().filter(|window| kept.iter().any(|info| is_in(window, info))).collect();
    let profile = reader.profile(&Query::all(ALWAYS)).unwrap();
    let mut expected = sum_of(left.iter().copied());
    expected.retain(|_, values| values.iter().any(|value| *value != 0));
    assert_eq!(samples(&profile), expected);
    let accounts = reader.accounts(&Query::all(ALWAYS)).unwrap();
    assert_eq!(numbers(&accounts), numbers_in(left.iter().copied()));
    assert_eq!(waits_of(&accounts), waits_of(left.iter().flat_map(|window| &window.accounts)));
    let host = reader.host(ALWAYS).unwrap();
    let cpu = host.numbers.iter().map(|number| number.value).sum::<u64>();
    assert_eq!(cpu, left.len() as u64 * 40 * SECOND);
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sums_are_exact_however_windows_are_merged_and_removed(
        planned in vec(planned(), 1..150),
        ages in vec(0u64..200_000, 1..4),
        max_age in 0u64..200_000,
    ) {
        let windows = made(&planned);
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), WIDE).unwrap();
        for window in &windows {
            writer.append(window).unwrap();
        }
        let reader = Reader::open(dir.path()).unwrap();
        prop_assert_eq!(check(&reader, &windows).len(), windows.len());
        let end = windows.iter().map(|window| window.start_unix_ns).max().unwrap() + 10 * SECOND;
        let mut now = end;
        for age in ages {
            now += age * SECOND;
            let done = maintain(&mut writer, now);
            prop_assert_eq!((done.expired, done.evicted), (0, 0));
            let merged: u64 = check(&reader, &windows).iter().map(|info| info.merged).sum();
            prop_assert_eq!(merged, windows.len() as u64);
        }
        writer.set_limits(Limits { max_age: Duration::from_secs(max_age), ..WIDE });
        let expired = maintain(&mut writer, now).expired;
        let kept = check(&reader, &windows);
        prop_assert_eq!(kept.iter().map(|info| info.merged).sum::<u64>() + expired, windows.len() as u64);
        prop_assert!(kept.iter().all(|info| info.end_unix_ns + max_age * SECOND >= now));
        prop_assert_eq!(writer.take_notes(), []);
    }
}

#[test]
fn old_windows_are_merged_to_minutes_and_then_to_ten() {
    let windows = simple(360);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    windows.iter().for_each(|window| writer.append(window).unwrap());
    let reader = Reader::open(dir.path()).unwrap();
    let end = START + 3600 * SECOND;
    let durations = |writer: &mut Writer, now| {
        maintain(writer, now);
        check(&reader, &windows).iter().map(|info| info.duration_ns / SECOND).collect::<Vec<_>>()
    };
    assert_eq!(durations(&mut writer, end), vec![10; 360]);
    let half = [vec![60; 30], vec![10; 180]].concat();
    assert_eq!(durations(&mut writer, end + 1800 * SECOND), half);
    assert_eq!(durations(&mut writer, end + 1859 * SECOND), half, "only whole minutes");
    assert_eq!(durations(&mut writer, end + 3600 * SECOND), vec![60; 60]);
    assert_eq!(durations(&mut writer, end + 86_400 * SECOND), vec![600; 6]);
    let part = Range { from_unix_ns: START + 700 * SECOND, to_unix_ns: START + 800 * SECOND };
    assert_eq!(reader.windows(part).unwrap().len(), 1);
    let notes = reader.profile(&Query::all(part)).unwrap().meta.notes;
    let whole = "windows of this age are merged and shown as a whole: \
        from 2026-01-02 03:10:00.000 UTC to 2026-01-02 03:20:00.000 UTC";
    assert_eq!(notes, [whole]);
}

#[test]
fn numbers_beyond_all_bounds_are_bounded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    for number in 1..=60 {
        let web = series(1, "web");
        let did = Did {
            series: web.clone(),
            thread: "a".into(),
            function: "f".into(),
            samples: 1,
            cpu_ns: i64::MAX,
            offcpu_ns: i64::MIN,
        };
        let huge = (web, Number { metric: "cpu", label: String::new(), value: u64::MAX });
        writer.append(&window(number, number * 10, &[did.clone(), did], &[huge])).unwrap();
    }
    maintain(&mut writer, START + 90_000 * SECOND);
    let reader = Reader::open(dir.path()).unwrap();
    let profile = reader.profile(&Query::all(ALWAYS)).unwrap();
    assert_eq!(profile.losses.counters["store_number_too_large"], 180);
    let sums: Vec<_> = samples(&profile).into_values().collect();
    assert_eq!(sums, [vec![120, 60 << 53, -60 << 53, 120]]);
    assert_eq!(reader.accounts(&Query::all(ALWAYS)).unwrap()[0].numbers[0].value, 60 << 53);
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let mut windows = simple(9);
    for (at, window) in windows.iter_mut().enumerate() {
        window.start_unix_ns = match at {
            0..3 => window.start_unix_ns,
            3..6 => window.start_unix_ns - 5000 * SECOND,
            _ => window.start_unix_ns + 7000 * SECOND,
        };
    }
    windows.iter().for_each(|window| writer.append(window).unwrap());
    maintain(&mut writer, START + 900_000 * SECOND);
    let reader = Reader::open(dir.path()).unwrap();
    let kept = check(&reader, &windows);
    let numbers: Vec<_> = kept.iter().map(|info| (info.number, info.last_number)).collect();
    assert_eq!(numbers, [(1, 3), (4, 6), (7, 9)], "in the order in which they were kept");
    let before = Range { from_unix_ns: 0, to_unix_ns: START };
    let found = reader.windows(before).unwrap();
    assert_eq!(found.iter().map(|info| info.number).collect::<Vec<_>>(), [4]);
    let notes = reader.profile(&Query::all(ALWAYS)).unwrap().meta.notes;
    assert_eq!(
        notes,
        [
            "no windows: from 2026-01-02 01:37:40.000 UTC to 2026-01-02 04:57:40.000 UTC",
            "the clock was set back: 2026-01-02 03:00:30.000 UTC was followed by 2026-01-02 01:37:10.000 UTC"
        ]
    );
}

#[test]
fn gaps_and_changes_of_rates_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let mut windows = simple(12);
    windows.drain(3..5);
    windows[6].rates.frequency_hz = 9;
    windows[7].profile.meta.notes = vec!["a note of its own".to_owned()];
    windows.iter().for_each(|window| writer.append(window).unwrap());
    let reader = Reader::open(dir.path()).unwrap();
    let range = Range { from_unix_ns: START - 60 * SECOND, to_unix_ns: START + 130 * SECOND };
    let profile = reader.profile(&Query::all(range)).unwrap();
    assert_eq!(
        profile.meta.notes,
        [
            "a note of its own",
            "no windows: from 2026-01-02 02:59:00.000 UTC to 2026-01-02 03:00:00.000 UTC; \
            from 2026-01-02 03:00:30.000 UTC to 2026-01-02 03:00:50.000 UTC (2 windows)",
            "rates changed: first 19 Hz, blocked times from 1.00 ms, 127 frames; \
            from 2026-01-02 03:01:30.000 UTC on 9 Hz, blocked times from 1.00 ms, 127 frames; \
            from 2026-01-02 03:01:30.000 UTC on 19 Hz, blocked times from 1.00 ms, 127 frames"
                .replace("03:01:30.000 UTC on 9", "03:01:20.000 UTC on 9")
                .as_str()
        ]
    );
    assert_eq!(profile.meta.frequency_hz, 19);
    assert_eq!(profile.meta.duration_ns, 100 * SECOND);
}
