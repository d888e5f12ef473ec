//! Which series are on the page: so many, those with most CPU time, all others together exactly as `[other]`.
//!
//! A series that is shown stays as long as it is among those with most, so that its counters go on. Another one takes its
//! place only with more than twice its CPU time, on average over some minutes, and only few do so in a window: names that a
//! hostile process makes up cannot drive the others out quickly. What an evicted series had counted moves into `[other]`,
//! once: the sum over all series is what was counted since the start, always. `profiler_series_evicted_total` tells when
//! that happened: a rate of `[other]` over such a moment has in it what was counted before. Should the series come back, it
//! begins anew, at 0.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use super::{
    family::{Sample, Value},
    histogram::Buckets,
};
use crate::model::window::{Account, Kind, METRICS, OTHER, Series};

/// Labels of one metric that a series has numbers of its own for; the rest is exact in the label `[other]`.
const MAX_LABELS: usize = 24;

/// The same of the whole machine and of `[other]`: more than there are system calls.
const MAX_SHARED_LABELS: usize = 600;

/// Windows that the CPU time of a series is averaged over.
const AVERAGED: u64 = 32;

/// Part of the series that can be replaced in a window.
const REPLACED_PART: usize = 8;

/// What tells series apart on the page.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    comm: String,
    unit: String,
    container: String,
    pod: String,
}

impl Key {
    /// Of the series that is no other.
    fn other() -> Self {
        Self { comm: OTHER.to_owned(), ..Self::default() }
    }

    fn labels(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let all =
            [("comm", &self.comm), ("unit", &self.unit), ("container", &self.container), ("pod", &self.pod)];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, value.as_str().into()))
    }
}

impl From<&Series> for Key {
    fn from(series: &Series) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let place = &series.place;
        Self {
            comm: series.comm.clone(),
            unit: text(&place.unit),
            container: text(&place.container),
            pod: text(&place.pod),
        }
    }
}

/// Numbers that windows add up to, of one series.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By metric (index of [`METRICS`]) and label.
    numbers: BTreeMap<(usize, String), u64>,
    /// The same of the last window alone.
    gauges: BTreeMap<(usize, String), u64>,
    histograms: BTreeMap<(usize, String), Buckets>,
    /// Most labels of a metric.
    max_labels: usize,
    /// Histograms of each label, or of all together.
    split_histograms: bool,
    since_unix_ns: u64,
}

impl Totals {
    /// Of the whole machine, or of all that is not shown: as fine as it is counted.
    pub fn shared(since_unix_ns: u64) -> Self {
        Self { max_labels: MAX_SHARED_LABELS, split_histograms: true, since_unix_ns, ..Self::default() }
    }

    fn of_series(since_unix_ns: u64) -> Self {
        Self { max_labels: MAX_LABELS, since_unix_ns, ..Self::default() }
    }

    /// Forgets the last window's gauges.
    pub fn next_window(&mut self) {
        self.gauges.clear();
    }

    /// Adds what happened in a window. Numbers of metrics that are not in the table are left out.
    pub fn add(&mut self, account: &Account) {
        let mut numbers: Vec<_> = account
            .numbers
            .iter()
            .filter_map(|number| Some((index(number.metric)?, number)))
            .filter(|(_, number)| number.value > 0)
            .collect();
        // The largest ones get the labels, as far as there is room.
        numbers.sort_by_key(|(_, number)| std::cmp::Reverse(number.value));
        for (metric, number) in numbers {
            self.add_number(metric, &number.label, number.value);
        }
        for distribution in &account.distributions {
            let Some(metric) = index(distribution.metric) else { continue };
            let label = if self.split_histograms { distribution.label.as_str() } else { "" };
            let place = slot(&mut self.histograms, metric, label, self.max_labels);
            place.add(distribution.sum, &distribution.buckets, METRICS[metric].unit);
        }
    }

    /// Adds what an evicted series had counted.
    fn absorb(&mut self, evicted: &Self) {
        for ((metric, label), value) in &evicted.numbers {
            self.add_number(*metric, label, *value);
        }
        for ((metric, label), buckets) in &evicted.histograms {
            slot(&mut self.histograms, *metric, label, self.max_labels).merge(buckets);
        }
    }

    fn add_number(&mut self, metric: usize, label: &str, value: u64) {
        let numbers = if METRICS[metric].kind == Kind::Gauge { &mut self.gauges } else { &mut self.numbers };
        let place = slot(numbers, metric, label, self.max_labels);
        *place = place.saturating_add(value);
    }

    /// Adds its samples of a metric to a family's. `labels`: those of the series.
    fn samples<'a>(&'a self, metric: usize, key: Option<&'a Key>, samples: &mut Vec<Sample<'a>>) {
        let range = (metric, String::new())..(metric + 1, String::new());
        let mut push = |label: &'a str, value| {
            let own = METRICS[metric].label.filter(|_| !label.is_empty()).map(|name| (name, label.into()));
            let labels = key.into_iter().flat_map(Key::labels).chain(own).collect();
            samples.push(Sample { labels, value, since_unix_ns: self.since_unix_ns });
        };
        match METRICS[metric].kind {
            Kind::Counter => {
                self.numbers.range(range).for_each(|((_, label), value)| push(label, Value::Number(*value)));
            }
            Kind::Gauge => {
                self.gauges.range(range).for_each(|((_, label), value)| push(label, Value::Number(*value)));
            }
            Kind::Histogram => {
                self.histograms
                    .range(range)
                    .for_each(|((_, label), buckets)| push(label, Value::Buckets(buckets)));
            }
        }
    }

    /// Its samples of a metric, without labels of a series.
    pub fn host_samples(&self, metric: usize) -> Vec<Sample<'_>> {
        let mut samples = Vec::new();
        self.samples(metric, None, &mut samples);
        samples
    }

    #[cfg(test)]
    pub fn number(&self, metric: &str, label: &str) -> u64 {
        self.numbers.get(&(index(metric).unwrap(), label.to_owned())).copied().unwrap_or(0)
    }
}

/// The place of a label's value: its own if it has one or there is room, else that of `[other]`.
fn slot<'a, T: Default>(
    map: &'a mut BTreeMap<(usize, String), T>,
    metric: usize,
    label: &str,
    most: usize,
) -> &'a mut T {
    let mut key = (metric, label.to_owned());
    if !map.contains_key(&key) {
        let range = (metric, String::new())..(metric + 1, String::new());
        if !label.is_empty() && map.range(range).count() >= most {
            key.1 = OTHER.to_owned();
        }
    }
    map.entry(key).or_default()
}

fn index(metric: &str) -> Option<usize> {
    METRICS.iter().position(|known| known.name == metric)
}

#[derive(Debug)]
struct Entered {
    totals: Totals,
    /// CPU time of a window, ns, averaged.
    average: u64,
}

/// The series of the page.
#[derive(Debug)]
pub struct Shown {
    most: usize,
    series: BTreeMap<Key, Entered>,
    other: Totals,
    other_key: Key,
    /// Series that had to go.
    pub evicted: u64,
}

impl Shown {
    /// Room for so many.
    pub fn new(most: usize, since_unix_ns: u64) -> Self {
        Self {
            most,
            series: BTreeMap::new(),
            other: Totals::shared(since_unix_ns),
            other_key: Key::other(),
            evicted: 0,
        }
    }

    /// Room for so many from now on.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
        while self.series.len() > most {
            let Some(key) = self.least().map(|(key, _)| key.clone()) else { return };
            self.evict(&key);
        }
    }

    /// Adds a window's accounts.
    pub fn add(&mut self, accounts: &[Account], start_unix_ns: u64) {
        let mut cpu: BTreeMap<Key, u64> = BTreeMap::new();
        for account in accounts {
            let used = account.numbers.iter().filter(|n| n.metric == "cpu").map(|n| n.value).sum();
            let sum = cpu.entry(Key::from(&account.series)).or_default();
            *sum = sum.saturating_add(used);
        }
        cpu.remove(&self.other_key);
        self.choose(&cpu, start_unix_ns);
        self.other.next_window();
        self.series.values_mut().for_each(|entered| entered.totals.next_window());
        for account in accounts {
            match self.series.get_mut(&Key::from(&account.series)) {
                Some(entered) => entered.totals.add(account),
                None => self.other.add(account),
            }
        }
    }

    /// Lets in who has most CPU time in this window.
    fn choose(&mut self, cpu: &BTreeMap<Key, u64>, start_unix_ns: u64) {
        for (key, entered) in &mut self.series {
            let used = cpu.get(key).copied().unwrap_or(0);
            entered.average = (entered.average.saturating_mul(AVERAGED - 1).saturating_add(used)) / AVERAGED;
        }
        let mut new: Vec<(&Key, u64)> = cpu
            .iter()
            .filter(|(key, _)| !self.series.contains_key(key))
            .map(|(key, used)| (key, *used))
            .collect();
        new.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
        let mut replaced = 0;
        for (key, used) in new {
            if self.series.len() >= self.most {
                let Some((least, average)) = self.least() else { return };
                if used / 2 <= average || replaced > self.most / REPLACED_PART {
                    return;
                }
                let least = least.clone();
                self.evict(&least);
                replaced += 1;
            }
            if let Entry::Vacant(entry) = self.series.entry(key.clone()) {
                entry.insert(Entered { totals: Totals::of_series(start_unix_ns), average: used });
            }
        }
    }

    fn least(&self) -> Option<(&Key, u64)> {
        self.series.iter().map(|(key, entered)| (key, entered.average)).min_by_key(|(_, average)| *average)
    }

    fn evict(&mut self, key: &Key) {
        if let Some(entered) = self.series.remove(key) {
            self.other.absorb(&entered.totals);
            self.evicted += 1;
        }
    }

    /// The samples of a metric.
    pub fn samples(&self, metric: usize) -> Vec<Sample<'_>> {
        let mut samples = Vec::new();
        for (key, entered) in &self.series {
            entered.totals.samples(metric, Some(key), &mut samples);
        }
        self.other.samples(metric, Some(&self.other_key), &mut samples);
        samples
    }

    /// How many have numbers of their own.
    pub fn count(&self) -> usize {
        self.series.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::window::Number;

    fn account(comm: &str, cpu: u64) -> Account {
        let number = |metric, label: &str, value| Number { metric, label: label.to_owned(), value };
        Account {
            series: Series { comm: comm.to_owned(), pid: Some(1), ..Series::default() },
            numbers: vec![
                number("cpu", "", cpu),
                number("threads", "", 2),
                number("syscalls", "read", cpu / 2),
            ],
            distributions: Vec::new(),
        }
    }

    fn values(shown: &Shown, metric: &str) -> BTreeMap<String, u64> {
        let samples = shown.samples(index(metric).unwrap());
        let value = |sample: &Sample| match sample.value {
            Value::Number(number) => number,
            Value::Buckets(buckets) => buckets.count,
        };
        samples.iter().map(|sample| (sample.labels[0].1.to_string(), value(sample))).collect()
    }

    fn map(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn those_with_most_are_shown_and_the_rest_is_exact() {
        let mut shown = Shown::new(2, 0);
        shown.add(&[account("a", 10), account("b", 300), account("c", 200), account("d", 40)], 1);
        assert_eq!(values(&shown, "cpu"), map(&[("b", 300), ("c", 200), ("[other]", 50)]));
        assert_eq!(values(&shown, "threads"), map(&[("b", 2), ("c", 2), ("[other]", 4)]));
        shown.add(&[account("b", 1), account("b", 2)], 2);
        assert_eq!(values(&shown, "cpu"), map(&[("b", 303), ("c", 200), ("[other]", 50)]));
        assert_eq!(values(&shown, "threads"), map(&[("b", 4)]), "gauges are the last window's");
    }

    #[test]
    fn an_evicted_series_moves_into_other_once_and_comes_back_at_zero() {
        let mut shown = Shown::new(1, 0);
        shown.add(&[account("a", 100)], 1);
        shown.add(&[account("b", 150)], 2);
        assert_eq!(values(&shown, "cpu"), map(&[("a", 100), ("[other]", 150)]), "not twice as much");
        shown.add(&[account("b", 1000)], 3);
        assert_eq!(values(&shown, "cpu"), map(&[("b", 1000), ("[other]", 250)]));
        shown.add(&[account("a", 100_000)], 4);
        assert_eq!(values(&shown, "cpu"), map(&[("a", 100_000), ("[other]", 1250)]));
        assert_eq!(shown.evicted, 2);
        shown.set_most(0);
        assert_eq!(values(&shown, "cpu"), map(&[("[other]", 101_250)]));
    }

    #[test]
    fn a_process_called_other_is_other() {
        let mut shown = Shown::new(5, 0);
        shown.add(&[account(OTHER, 7), account("a", 1)], 1);
        assert_eq!(values(&shown, "cpu"), map(&[("a", 1), ("[other]", 7)]));
        assert_eq!(shown.samples(0).len(), 2);
    }

    #[test]
    fn labels_without_room_are_other() {
        let mut totals = Totals::of_series(0);
        let mut many = account("a", 1);
        many.numbers = (0..100u64)
            .map(|i| Number { metric: "syscalls", label: format!("call{i}"), value: 1 + i })
            .collect();
        totals.add(&many);
        assert_eq!(totals.number("syscalls", "call99"), 100);
        assert_eq!(totals.host_samples(index("syscalls").unwrap()).len(), MAX_LABELS + 1);
        totals.add(&many);
        let sum: u64 = totals.numbers.values().sum();
        assert_eq!(sum, 2 * 5050);
        assert_eq!(totals.number("syscalls", OTHER), 2 * (1..=76).sum::<u64>());
    }

    #[test]
    fn labels_of_metrics_are_no_labels_of_series() {
        let key = Key { comm: "a".into(), unit: "b".into(), container: "c".into(), pod: "d".into() };
        for metric in METRICS {
            assert!(key.labels().all(|(name, _)| metric.label != Some(name) && metric.label != Some("le")));
        }
    }

    proptest! {
        /// Whatever comes and goes, the sum over all series is what was counted, and a counter that stays never goes down.
        #[test]
        fn sums_are_exact_and_counters_only_grow(windows in proptest::collection::vec(proptest::collection::vec((0u8..12, 0u64..1000), 0..12), 1..40), most in 0usize..6) {
            let mut shown = Shown::new(most, 0);
            let (mut total, mut before) = (0, BTreeMap::new());
            for (number, window) in windows.iter().enumerate() {
                let accounts: Vec<_> = window.iter().map(|(who, cpu)| account(&format!("p{who}"), *cpu)).collect();
                total += window.iter().map(|(_, cpu)| cpu).sum::<u64>();
                let evicted = shown.evicted;
                shown.add(&accounts, number as u64);
                let now = values(&shown, "cpu");
                prop_assert_eq!(now.values().sum::<u64>(), total);
                prop_assert!(shown.count() <= most);
                for (name, value) in &before {
                    match now.get(name) {
                        Some(later) => prop_assert!(later >= value || shown.evicted > evicted),
                        None => prop_assert!(shown.evicted > evicted),
                    }
                }
                prop_assert!(now.get(OTHER) >= before.get(OTHER));
                before = now;
            }
        }
    }
}
