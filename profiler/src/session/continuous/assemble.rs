//! From what was taken out of the kernel's maps to a [`Window`]: pure, away from the recording.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::{RawWindow, processes::Process};
use crate::{
    model::{
        Profile,
        sched::{self, CpuRow, Histogram},
        window::{Account, Distribution, Number, OTHER, Place, Series, Window},
    },
    session::{
        histogram::{merge, ranges},
        syscalls::called::Called,
    },
};

/// Calls of a series that have numbers of their own: those with most time, and those that are made most often. The others
/// are in sum.
const CALLS: usize = 8;
/// Calls of the host that have histograms.
const HOST_CALLS: usize = 24;
/// A process that lives no longer than a window has a series of its own if it used this much of a CPU, ns.
const LONG_CPU_NS: u64 = 500_000_000;

/// Puts a window together. `profile`: its samples, named; `jvms`: what JVMs counted, by process. At most `max_series` series
/// are kept apart.
pub fn window(
    raw: RawWindow,
    profile: Profile,
    jvms: &BTreeMap<u32, Vec<Number>>,
    max_series: usize,
) -> Window {
    let mut builder = Builder::default();
    builder.processes(&raw);
    builder.calls(&raw);
    builder.net(&raw);
    for (pid, numbers) in jvms {
        let at = builder.of_pid(*pid, String::new, &raw);
        for number in numbers {
            builder.add(at, number.metric, &number.label, number.value);
        }
    }
    let series_of = builder.threads(&profile, &raw);
    let (accounts, places) = builder.bounded(max_series, &profile, &series_of);
    Window {
        start_unix_ns: raw.start_unix_ns,
        duration_ns: raw.duration_ns,
        number: raw.number,
        boot_id: raw.boot_id,
        rates: raw.rates,
        series_of: series_of.into_iter().map(|at| places[at]).collect(),
        accounts,
        host: host(&raw.cpus, &raw.calls),
        profile,
    }
}

/// Numbers by metric and label.
type Numbers = BTreeMap<(&'static str, String), u64>;

#[derive(Default)]
struct Builder {
    series: Vec<(Series, Numbers)>,
    index: HashMap<Series, usize>,
    /// The series of a process id; of several one after the other, the last.
    by_pid: HashMap<u32, usize>,
}

impl Builder {
    fn at(&mut self, series: Series) -> usize {
        if let Some(&at) = self.index.get(&series) {
            return at;
        }
        self.series.push((series.clone(), Numbers::new()));
        self.index.insert(series, self.series.len() - 1);
        self.series.len() - 1
    }

    fn other(&mut self) -> usize {
        self.at(Series { comm: OTHER.to_owned(), ..Series::default() })
    }

    /// The series of a process, which may not have run in the window. `comm`: its name if no account of threads tells it.
    fn of_pid(&mut self, pid: u32, comm: impl FnOnce() -> String, raw: &RawWindow) -> usize {
        if let Some(&at) = self.by_pid.get(&pid) {
            return at;
        }
        let until = raw.processes.partition_point(|process| process.pid <= pid);
        let series = match raw.processes[..until].last() {
            Some(process) if process.pid == pid => series(process, raw),
            _ => Series { pid: Some(pid), start_ns: 0, comm: comm(), place: place(pid, raw) },
        };
        let at = self.at(series);
        self.by_pid.insert(pid, at);
        at
    }

    fn add(&mut self, at: usize, metric: &'static str, label: &str, value: u64) {
        if value != 0 {
            let sum = self.series[at].1.entry((metric, label.to_owned())).or_default();
            *sum = sum.saturating_add(value);
        }
    }

    fn processes(&mut self, raw: &RawWindow) {
        for process in &raw.processes {
            if !process.has_run() {
                continue;
            }
            let at = self.at(series(process, raw));
            self.by_pid.insert(process.pid, at);
            self.row(at, &process.row);
            self.add(at, "processes", "", 1);
        }
        if let Some(rest) = &raw.rest {
            let at = self.other();
            self.row(at, rest);
        }
    }

    fn row(&mut self, at: usize, row: &sched::Row) {
        let numbers = [
            ("cpu", row.cpu_ns),
            ("interrupts", row.irq_ns),
            ("run_queue", row.run_queue_ns),
            ("run_queue_waits", row.run_queue_count),
            ("unknown", row.unknown_ns),
            ("voluntary_switches", row.voluntary),
            ("involuntary_switches", row.involuntary),
            ("migrations", row.migrations),
            ("threads", row.threads),
            ("threads_ended", row.ended),
        ];
        for (metric, value) in numbers {
            self.add(at, metric, "", value);
        }
        for (cause, ns) in row.blocked.iter() {
            self.add(at, "blocked", cause, ns);
        }
    }

    fn calls(&mut self, raw: &RawWindow) {
        let mut by_series: BTreeMap<usize, ByName> = BTreeMap::new();
        for called in &raw.calls {
            let at = match called.pid {
                Some(pid) => self.of_pid(pid, || called.comm(), raw),
                None => self.other(),
            };
            by_series.entry(at).or_default().entry(called.name()).or_default().add(called);
        }
        for (at, calls) in by_series {
            let apart = largest(&calls, CALLS);
            for (name, sum) in &calls {
                let label = if apart.contains(&&**name) { name } else { OTHER };
                self.add(at, "syscalls", label, sum.count);
                self.add(at, "syscall_errors", label, sum.errors);
                self.add(at, "syscall_time", label, sum.total_ns);
            }
        }
    }

    fn net(&mut self, raw: &RawWindow) {
        for row in &raw.net {
            let at = match row.pid {
                Some(pid) => self.of_pid(pid, || row.comm.clone(), raw),
                None => self.other(),
            };
            let numbers = [
                ("net_sent", row.tx_bytes),
                ("net_received", row.rx_bytes),
                ("connects", row.connects),
                ("accepts", row.accepts),
                ("connects_failed", row.failed),
                ("retransmits", row.retransmits),
            ];
            for (metric, value) in numbers {
                self.add(at, metric, &row.protocol, value);
            }
        }
    }

    /// The series of each thread that has samples.
    fn threads(&mut self, profile: &Profile, raw: &RawWindow) -> Vec<usize> {
        let mut series_of = Vec::with_capacity(profile.threads.len());
        for thread in &profile.threads {
            series_of.push(match thread.pid {
                0 => self.at(Series { comm: thread.process.clone(), ..Series::default() }),
                pid => self.of_pid(pid, || thread.process.clone(), raw),
            });
        }
        series_of
    }

    /// The accounts of at most so many series, those with most CPU time and samples first, and where each series is among
    /// them.
    fn bounded(self, max: usize, profile: &Profile, series_of: &[usize]) -> (Vec<Account>, Vec<u32>) {
        let mut weight: Vec<u64> = self
            .series
            .iter()
            .map(|(_, numbers)| numbers.get(&("cpu", String::new())).copied().unwrap_or(0))
            .collect();
        let cpu = profile.column("cpu");
        for sample in &profile.samples {
            weight[series_of[sample.thread.index()]] += sample.amount(cpu);
        }
        let is_other = |at: usize| self.series[at].0.comm == OTHER && self.series[at].0.pid.is_none();
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        order.sort_by_key(|&at| (is_other(at), Reverse(weight[at])));
        let mut places = vec![0; self.series.len()];
        let mut accounts: Vec<(Series, Numbers)> = Vec::new();
        let mut other: Option<usize> = None;
        let mut series: Vec<Option<(Series, Numbers)>> = self.series.into_iter().map(Some).collect();
        for (rank, at) in order.into_iter().enumerate() {
            let Some((who, numbers)) = series[at].take() else { continue };
            if rank < max.max(1) && who.comm != OTHER {
                places[at] = accounts.len() as u32;
                accounts.push((who, numbers));
                continue;
            }
            let place = *other.get_or_insert_with(|| {
                accounts.push((Series { comm: OTHER.to_owned(), ..Series::default() }, Numbers::new()));
                accounts.len() - 1
            });
            places[at] = place as u32;
            for (key, value) in numbers {
                let sum = accounts[place].1.entry(key).or_default();
                *sum = sum.saturating_add(value);
            }
        }
        let account = |(series, numbers): (Series, Numbers)| Account {
            series,
            numbers: numbers
                .into_iter()
                .map(|((metric, label), value)| Number { metric, label, value })
                .collect(),
            distributions: Vec::new(),
        };
        (accounts.into_iter().map(account).collect(), places)
    }
}

/// Where a process belongs.
fn place(pid: u32, raw: &RawWindow) -> Place {
    raw.places.get(&pid).map(|place| Place::clone(place)).unwrap_or_default()
}

/// The series of a process: its own, or that of the short-lived ones of its name and place.
fn series(process: &Process, raw: &RawWindow) -> Series {
    let place = place(process.pid, raw);
    let comm = process.row.comm.clone();
    let is_short = !process.is_alive && process.start_ns >= raw.start_boot_ns;
    if is_short && process.row.cpu_ns < LONG_CPU_NS {
        return Series { pid: None, start_ns: 0, comm, place };
    }
    Series { pid: Some(process.pid), start_ns: process.start_ns, comm, place }
}

/// Calls by name, which those of 32-bit programs have too.
type ByName = BTreeMap<Cow<'static, str>, Calls>;

/// All calls of a name.
#[derive(Default)]
struct Calls {
    count: u64,
    errors: u64,
    total_ns: u64,
    /// By bucket; where nobody asks for them, none.
    latencies: Vec<(u16, u64)>,
}

impl Calls {
    /// Adds numbers, without times by bucket.
    const fn add(&mut self, called: &Called) {
        self.count += called.count;
        self.errors += called.errors;
        self.total_ns += called.total_ns;
    }
}

/// The names of the calls with most time, and of those that are made most often.
fn largest(calls: &ByName, most: usize) -> Vec<&str> {
    let mut by: Vec<_> = calls.iter().collect();
    let mut names = Vec::new();
    let keys: [fn(&Calls) -> u64; 2] = [|calls| calls.total_ns, |calls| calls.count];
    for key in keys {
        by.sort_by_key(|(_, calls)| Reverse(key(calls)));
        names.extend(by.iter().take(most).map(|(name, _)| &***name));
    }
    names
}

/// What is known of the machine as a whole.
fn host(cpus: &CpuRow, calls: &[Called]) -> Account {
    let numbers = [
        ("cpu", cpus.busy_ns),
        ("interrupts", cpus.hardirq_ns + cpus.softirq_ns),
        ("idle", cpus.idle_ns),
        ("unknown", cpus.unknown_ns),
        ("switches", cpus.switches),
    ];
    let number = |(metric, value)| Number { metric, label: String::new(), value };
    let mut numbers: Vec<Number> = numbers.into_iter().map(number).collect();
    numbers.retain(|number| number.value != 0);
    let mut distributions = Vec::new();
    if !cpus.run_queue.is_empty() {
        distributions.push(distribution("run_queue_wait", "", &cpus.run_queue, None));
    }
    let mut by_name = ByName::new();
    for called in calls {
        let sum = by_name.entry(called.name()).or_default();
        sum.add(called);
        merge(&mut sum.latencies, called.latencies.iter().copied());
    }
    let total: u64 = by_name.values().map(|sum| sum.count).sum();
    if total != 0 {
        numbers.push(number(("syscalls", total)));
    }
    let mut calls: Vec<_> = by_name.into_iter().collect();
    calls.sort_by_key(|(_, calls)| Reverse(calls.count));
    for (call, Calls { total_ns, latencies, .. }) in calls.into_iter().take(HOST_CALLS) {
        let buckets = ranges(&latencies);
        if !buckets.is_empty() {
            distributions.push(distribution("syscall_duration", &call, &buckets, Some(total_ns)));
        }
    }
    Account { series: Series::default(), numbers, distributions }
}

/// `sum`: `None` if it is not known better than by the buckets' middles.
fn distribution(metric: &'static str, label: &str, buckets: &Histogram, sum: Option<u64>) -> Distribution {
    let middle = |&(from, to, count): &(u64, u64, u64)| (from + (to - from) / 2).saturating_mul(count);
    let sum = sum.unwrap_or_else(|| buckets.iter().map(middle).fold(0, u64::saturating_add));
    Distribution { metric, label: label.to_owned(), sum, buckets: buckets.clone() }
}

#[cfg(test)]
mod tests;
