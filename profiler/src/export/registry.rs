//! Windows added up, and the page made of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Format,
    family::{Family, FamilyKind, base_unit},
    own::{self, Own},
    protobuf,
    shown::{Shown, Totals},
    text,
};
use crate::model::window::{METRICS, Metric, Window};

/// Names of metrics of processes begin so.
const PREFIX: &str = "profiler_";

/// Names of metrics of the whole machine begin so.
const HOST_PREFIX: &str = "profiler_host_";

/// The numbers of the daemon since its start (or [`Registry::reset`]); shared by its threads.
///
/// A page is made once between two windows, however many ask for it in one format.
#[derive(Debug)]
pub struct Registry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    shown: Shown,
    host: Totals,
    own: Own,
    most: usize,
    since_unix_ns: u64,
    /// The last page of these numbers that was asked for; on a large host it has some megabytes.
    page: Option<(Format, Arc<[u8]>)>,
}

impl Registry {
    /// With at most so many series that have labels of their own; `now_unix_ns`: ns since the Unix epoch.
    pub fn new(most_series: usize, now_unix_ns: u64) -> Self {
        Self(Mutex::new(Inner {
            shown: Shown::new(most_series, now_unix_ns),
            host: Totals::shared(now_unix_ns),
            own: Own::default(),
            most: most_series,
            since_unix_ns: now_unix_ns,
            page: None,
        }))
    }

    /// Adds a window.
    pub fn add(&self, window: &Window) {
        let mut inner = self.change();
        inner.shown.add(&window.accounts, window.start_unix_ns);
        inner.host.next_window();
        inner.host.add(&window.host);
    }

    /// What the daemon says of itself from now on.
    pub fn set_own(&self, own: Own) {
        self.change().own = own;
    }

    /// At most so many series from now on.
    pub fn set_most_series(&self, most: usize) {
        let mut inner = self.change();
        inner.most = most;
        inner.shown.set_most(most);
    }

    /// Begins anew at 0, but for what the daemon says of itself.
    pub fn reset(&self, now_unix_ns: u64) {
        let mut inner = self.change();
        inner.shown = Shown::new(inner.most, now_unix_ns);
        inner.host = Totals::shared(now_unix_ns);
        inner.since_unix_ns = now_unix_ns;
    }

    /// The page.
    pub fn page(&self, format: Format) -> Arc<[u8]> {
        let mut inner = self.lock();
        if let Some((known, page)) = &inner.page
            && *known == format
        {
            return Arc::clone(page);
        }
        let families = inner.families();
        let page: Arc<[u8]> = match format {
            Format::Text => text::prometheus(&families).into_bytes().into(),
            Format::OpenMetrics => text::open_metrics(&families).into_bytes().into(),
            Format::Protobuf => protobuf::encode(&families).into(),
        };
        drop(families);
        inner.page = Some((format, Arc::clone(&page)));
        page
    }

    /// Series that have labels of their own now.
    pub fn series(&self) -> usize {
        self.lock().shown.count()
    }

    fn change(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        inner.page = None;
        inner
    }

    /// Numbers that a thread left half added are better than none.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn families(&self) -> Vec<Family<'_>> {
        let mut families = own::families(&self.own, self.shown.evicted, self.since_unix_ns);
        for (index, metric) in METRICS.iter().enumerate() {
            let of_processes = (PREFIX, self.shown.samples(index));
            let of_host = (HOST_PREFIX, self.host.host_samples(index));
            for (prefix, samples) in [of_processes, of_host] {
                if samples.is_empty() {
                    continue;
                }
                let (name, kind) = (name(prefix, metric).into(), metric.kind.into());
                families.push(Family { name, help: metric.help, unit: metric.unit, kind, samples });
            }
        }
        families
    }
}

/// Name of a metric's family: its own and its base unit.
fn name(prefix: &str, metric: &Metric) -> String {
    match base_unit(metric.unit) {
        "" => format!("{prefix}{}", metric.name),
        unit => format!("{prefix}{}_{unit}", metric.name),
    }
}

/// The metrics of windows as a table of Markdown.
pub fn metrics_table() -> String {
    let mut out = String::from("| name | of | what it is |\n|---|---|---|\n");
    for metric in METRICS {
        let total = if FamilyKind::from(metric.kind) == FamilyKind::Counter { "_total" } else { "" };
        let kind = match FamilyKind::from(metric.kind) {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
            FamilyKind::Info => "info",
        };
        let label = metric.label.map(|label| format!(", by `{label}`")).unwrap_or_default();
        out.push_str(&format!("| `{}{total}` | {kind}{label} | {} |\n", name(PREFIX, metric), metric.help));
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::window::{Account, Distribution, Number, Place, Series};

    /// A window with something of everything; `name`: what a target names itself.
    pub fn window(name: &str) -> Window {
        let account = |comm: &str, scale: u64| Account {
            series: Series {
                pid: Some(7),
                start_ns: 1,
                comm: comm.to_owned(),
                place: Place {
                    unit: Some(format!("{name}.service")),
                    pod: Some(name.to_owned()),
                    ..Place::default()
                },
            },
            numbers: METRICS
                .iter()
                .filter(|metric| metric.kind != crate::model::window::Kind::Histogram)
                .flat_map(|metric| {
                    let labels = if metric.label.is_some() { vec!["read", name] } else { vec![""] };
                    labels.into_iter().map(move |label| Number {
                        metric: metric.name,
                        label: label.to_owned(),
                        value: 1_500_000_001 * scale,
                    })
                })
                .collect(),
            distributions: vec![
                Distribution {
                    metric: "run_queue_wait",
                    label: String::new(),
                    sum: 5_000_000,
                    buckets: vec![(0, 1, 2), (1024, 1088, 3), (4_194_304, 4_456_448, scale)],
                },
                Distribution {
                    metric: "syscall_duration",
                    label: name.to_owned(),
                    sum: 10,
                    buckets: vec![(10, 11, 1)],
                },
            ],
        };
        Window {
            start_unix_ns: 1_700_000_000_000_000_000,
            accounts: vec![account("java", 3), account(name, 2)],
            host: Account { series: Series::default(), ..account("", 9) },
            ..Window::default()
        }
    }

    pub fn registry(name: &str) -> Registry {
        let registry = Registry::new(10, 1_700_000_000_000_000_000);
        registry.set_own(Own {
            started_unix_ns: 1_700_000_000_000_000_000,
            losses: BTreeMap::from([("lost_samples".to_owned(), 3), (name.to_owned(), 1)]),
            ..Own::default()
        });
        registry.add(&window(name));
        registry
    }

    fn text(registry: &Registry, format: Format) -> String {
        String::from_utf8(registry.page(format).to_vec()).unwrap()
    }

    #[test]
    fn windows_add_up_in_base_units() {
        let registry = registry("x");
        registry.add(&window("x"));
        let page = text(&registry, Format::Text);
        for line in [
            "# TYPE profiler_cpu_seconds_total counter",
            "profiler_cpu_seconds_total{comm=\"java\",unit=\"x.service\",pod=\"x\"} 9.000000006",
            "profiler_syscalls_total{comm=\"x\",unit=\"x.service\",pod=\"x\",call=\"read\"} 6000000004",
            "profiler_threads{comm=\"java\",unit=\"x.service\",pod=\"x\"} 4500000003",
            "profiler_host_cpu_seconds_total 27.000000018",
            "profiler_run_queue_wait_seconds_bucket{comm=\"java\",unit=\"x.service\",pod=\"x\",le=\"0.000004095\"} 10",
            "profiler_run_queue_wait_seconds_count{comm=\"java\",unit=\"x.service\",pod=\"x\"} 16",
            "profiler_run_queue_wait_seconds_sum{comm=\"java\",unit=\"x.service\",pod=\"x\"} 0.01",
            "profiler_lost_total{cause=\"lost_samples\"} 3",
            "# TYPE profiler_build_info gauge",
        ] {
            assert!(page.lines().any(|known| known == line), "{line}\n{page}");
        }
        registry.reset(1);
        let page = text(&registry, Format::Text);
        assert!(!page.contains("profiler_cpu_seconds_total") && page.contains("profiler_lost_total"));
    }

    #[test]
    fn a_page_is_made_once_between_two_windows() {
        let registry = registry("x");
        assert!(Arc::ptr_eq(&registry.page(Format::Text), &registry.page(Format::Text)));
        let before = registry.page(Format::Text);
        registry.add(&window("x"));
        assert!(!Arc::ptr_eq(&before, &registry.page(Format::Text)));
    }

    #[test]
    fn names_of_families_are_distinct() {
        let registry = registry("x");
        let inner = registry.lock();
        let families = inner.families();
        let names: std::collections::BTreeSet<_> = families.iter().map(|family| &family.name).collect();
        assert_eq!(names.len(), families.len());
        assert!(names.iter().all(|name| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')));
    }

    proptest! {
        /// Whatever a target is called, a page has the same lines, and reading it gives the name back.
        #[test]
        fn names_cannot_add_lines(name in "[\\PC\n\r\"\\\\{}=,#\u{2028}]{1,30}") {
            for format in [Format::Text, Format::OpenMetrics] {
                let page = text(&registry(&name), format);
                let plain = text(&registry("zzz"), format);
                prop_assert_eq!(page.split('\n').count(), plain.split('\n').count());
                let mut found = false;
                for line in page.split('\n').filter(|line| line.contains('{')) {
                    let labels = read_labels(line);
                    prop_assert!(labels.is_some(), "{}", line);
                    found |= labels.is_some_and(|labels| labels.iter().any(|(key, value)| key == "comm" && *value == name));
                }
                prop_assert!(found);
            }
        }
    }

    /// The labels of a line, read by the grammar of the formats.
    fn read_labels(line: &str) -> Option<Vec<(String, String)>> {
        let mut rest = line.split_once('{')?.1;
        let mut labels = Vec::new();
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next()?.1 {
                        'n' => value.push('\n'),
                        c @ ('"' | '\\') => value.push(c),
                        _ => return None,
                    },
                    (_, c) => value.push(c),
                }
            };
            labels.push((name.to_owned(), value));
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return rest.strip_prefix("} ")?.parse::<f64>().is_ok().then_some(labels),
            }
        }
    }
}
