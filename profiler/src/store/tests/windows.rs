//! Windows for tests, and what is known of them.

use std::collections::BTreeMap;

use crate::{
    model::{
        Profile, SampleType, StackEnd, Thread, Unit,
        window::{Account, Distribution, Kind, METRICS, Number, Place, Rates, Series, Window},
    },
    render::fixture::{self, At, Builder},
};

pub const SECOND: u64 = 1_000_000_000;

/// 2026-01-02 03:00:00 UTC.
pub const START: u64 = 1_767_322_800 * SECOND;

pub const RATES: Rates =
    Rates { frequency_hz: 19, min_block_ns: Some(1_000_000), blocked_every: 1, stack_depth: 127 };

pub fn place(name: &str) -> Place {
    Place {
        cgroup: format!("/system.slice/{name}.service"),
        unit: Some(format!("{name}.service")),
        ..Place::default()
    }
}

pub fn series(pid: u32, comm: &str) -> Series {
    Series {
        pid: Some(pid),
        start_ns: 5 * SECOND + u64::from(pid),
        comm: comm.to_owned(),
        place: place(comm),
    }
}

/// What one thread did: series, thread name, function, samples, ns on the CPU, ns blocked.
#[derive(Clone, Debug)]
pub struct Did {
    pub series: Series,
    pub thread: String,
    pub function: String,
    pub samples: i64,
    pub cpu_ns: i64,
    pub offcpu_ns: i64,
}

/// A number of one series.
pub type Counted = (Series, Number);

/// A window that starts some seconds after [`START`].
pub fn window(number: u64, after_s: u64, did: &[Did], counted: &[Counted]) -> Window {
    let mut builder = Builder::default();
    let mut accounts: Vec<Account> = Vec::new();
    let mut of = |series: &Series| {
        let known = accounts.iter().position(|account| account.series == *series);
        known.unwrap_or_else(|| {
            accounts.push(Account { series: series.clone(), ..Account::default() });
            accounts.len() - 1
        })
    };
    let mut series_of = BTreeMap::new();
    let module = fixture::module("/usr/bin/x", crate::model::ModuleKind::Native);
    for (tid, did) in (1..).zip(did) {
        let frames: Vec<At> =
            [did.function.as_str(), "main"].map(|name| fixture::at(&module, 0x10, name)).to_vec();
        let thread = Thread {
            pid: did.series.pid.unwrap_or(tid),
            tid,
            process: did.series.comm.clone(),
            name: did.thread.clone(),
            incarnation: did.series.start_ns,
        };
        series_of.insert(tid, of(&did.series) as u32);
        let values = vec![did.samples, did.cpu_ns, did.offcpu_ns, i64::from(did.offcpu_ns != 0)];
        builder.sample(thread, &frames, StackEnd::Complete, 0, values);
    }
    for (series, _) in counted {
        of(series);
    }
    for (series, number) in counted {
        let account = accounts.iter_mut().find(|account| account.series == *series).unwrap();
        account.numbers.push(number.clone());
    }
    let mut profile = builder.0;
    let types = [
        ("samples", Unit::Count),
        ("cpu", Unit::Nanoseconds),
        ("offcpu", Unit::Nanoseconds),
        ("blocks", Unit::Count),
    ];
    profile.sample_types = types.map(|(name, unit)| SampleType::new(name, unit)).to_vec();
    profile.meta.events = vec!["cpu".to_owned(), "offcpu".to_owned()];
    profile.meta.profiler_version = "0.1.0".to_owned();
    profile.meta.host = "kestrel".to_owned();
    profile.meta.cpus = 4;
    profile.meta.ticks = 760;
    // As it is measured: each window's is another one.
    profile.meta.window_ns = 10 * SECOND + number;
    profile.meta.sampler = "cpu-clock".to_owned();
    profile.meta.target = "all processes".to_owned();
    profile.losses.counters = [("ring_full".to_owned(), number % 2), ("watched".to_owned(), 0)].into();
    profile.losses.lost_sample_causes = vec!["ring_full".to_owned()];
    profile.cost.ebpf_runs = 7;
    let series_of = profile.threads.iter().map(|thread| series_of[&thread.tid]).collect();
    Window {
        start_unix_ns: START + after_s * SECOND,
        duration_ns: 10 * SECOND,
        number,
        boot_id: "boot-1".to_owned(),
        rates: RATES,
        profile,
        series_of,
        accounts,
        host: Account {
            numbers: vec![Number { metric: "cpu", label: String::new(), value: 40 * SECOND }],
            ..Account::default()
        },
    }
}

/// Windows of 10 s one after the other.
pub fn simple(count: u64) -> Vec<Window> {
    let web = series(10, "web");
    let did = |number: u64| {
        vec![
            Did {
                series: web.clone(),
                thread: "worker".into(),
                function: format!("f{}", number % 3),
                samples: 2,
                cpu_ns: 104_000_000,
                offcpu_ns: 0,
            },
            Did {
                series: series(11, "db"),
                thread: "db".into(),
                function: "wait".into(),
                samples: 0,
                cpu_ns: 0,
                offcpu_ns: 9_000_000_000,
            },
        ]
    };
    let counted = vec![(web.clone(), Number { metric: "cpu", label: String::new(), value: 110_000_000 })];
    (1..=count).map(|number| window(number, (number - 1) * 10, &did(number), &counted)).collect()
}

/// Samples by process, thread, and functions.
pub type Samples = BTreeMap<(u32, String, String, Vec<String>), Vec<i64>>;

/// What a profile has, times and ids left out.
pub fn samples(profile: &Profile) -> Samples {
    let mut sums = Samples::new();
    for sample in &profile.samples {
        let thread = &profile.threads[sample.thread.index()];
        let functions = profile.frames(sample.stack).map(|frame| frame.function.name.clone()).collect();
        let sum =
            sums.entry((thread.pid, thread.process.clone(), thread.name.clone(), functions)).or_default();
        sum.resize(sample.values.len(), 0);
        sum.iter_mut().zip(&sample.values).for_each(|(sum, value)| *sum += value);
    }
    sums
}

/// The sum of several.
pub fn sum_of<'a>(windows: impl IntoIterator<Item = &'a Window>) -> Samples {
    let mut all = Samples::new();
    for window in windows {
        for (key, values) in samples(&window.profile) {
            let sum = all.entry(key).or_insert_with(|| vec![0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    all
}

/// Numbers by series, metric and label: counters summed, of gauges the last. Zeros are left out.
pub type Numbers = BTreeMap<(Series, String, String), u64>;

pub fn numbers(accounts: &[Account]) -> Numbers {
    accounts.iter().flat_map(numbers_of).collect()
}

fn numbers_of(account: &Account) -> Vec<((Series, String, String), u64)> {
    let numbers = account
        .numbers
        .iter()
        .map(|n| ((account.series.clone(), n.metric.to_owned(), n.label.clone()), n.value));
    numbers.filter(|(_, value)| *value != 0).collect()
}

pub fn numbers_in<'a>(windows: impl IntoIterator<Item = &'a Window>) -> Numbers {
    let mut all = Numbers::new();
    for window in windows {
        for (key, value) in window.accounts.iter().flat_map(numbers_of) {
            let is_gauge = METRICS.iter().any(|m| m.name == key.1 && m.kind == Kind::Gauge);
            let sum = all.entry(key).or_default();
            *sum = if is_gauge { value } else { *sum + value };
        }
    }
    all
}

/// A histogram of waits.
pub fn waits(buckets: &[(u64, u64, u64)]) -> Distribution {
    let sum = buckets.iter().map(|(from, _, count)| from * count).sum();
    Distribution { metric: "run_queue_wait", label: String::new(), sum, buckets: buckets.to_vec() }
}

/// Sums and counts of waits by series and bucket.
pub fn waits_of<'a>(accounts: impl IntoIterator<Item = &'a Account>) -> BTreeMap<(Series, u64, u64), u64> {
    let mut all = BTreeMap::new();
    for account in accounts {
        for distribution in &account.distributions {
            *all.entry((account.series.clone(), 0, 0)).or_default() += distribution.sum;
            for &(from, to, count) in &distribution.buckets {
                *all.entry((account.series.clone(), from, to)).or_default() += count;
            }
        }
    }
    all
}
