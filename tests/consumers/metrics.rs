//! promtool accepts the page of metrics, and Prometheus' own Python library reads the same numbers from it that were put in,
//! by a strict parser, whatever names processes give themselves.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use profiler::{
    export::{Format, Own, Registry},
    model::window::{Account, Distribution, Kind, METRICS, Number, Place, Series, Window},
};
use profiler_tests::{binary::build_directory, skip::skip};
use serde_json::Value;

use crate::tools::find;

/// Names that try to be something else.
pub const NAMES: [&str; 6] =
    ["java", "a\"} 1\nevil 2", "back\\slash\\", "ünïcödé 名", "# EOF", "{le=\"+Inf\"}"];

/// A window in which each of the names did something of everything; the n-th n + 1 times as much.
pub fn window() -> Window {
    let account = |comm: &str, scale: u64| {
        let counted = METRICS.iter().filter(|metric| metric.kind != Kind::Histogram);
        let number = |metric: &'static str, label: &str| Number {
            metric,
            label: label.to_owned(),
            value: 1_250_000_000 * scale,
        };
        let numbers = counted
            .flat_map(|metric| match metric.label {
                Some(_) => vec![number(metric.name, "one"), number(metric.name, comm)],
                None => vec![number(metric.name, "")],
            })
            .collect();
        let waits = Distribution {
            metric: "run_queue_wait",
            label: String::new(),
            sum: 3_000_000 * scale,
            // 0 ns, about 1 µs, about 4 ms.
            buckets: vec![(0, 1, scale), (1024, 1088, 2 * scale), (4_194_304, 4_456_448, 3 * scale)],
        };
        let series = Series {
            pid: Some(1),
            comm: comm.to_owned(),
            place: Place { unit: Some("x.service".to_owned()), ..Place::default() },
            ..Series::default()
        };
        Account { series, numbers, distributions: vec![waits] }
    };
    let accounts = NAMES.iter().zip(1..).map(|(name, scale)| account(name, scale)).collect();
    let host = Account { series: Series::default(), ..account("host", 100) };
    Window { start_unix_ns: 1_700_000_000_000_000_000, accounts, host, ..Window::default() }
}

fn page(format: Format) -> Vec<u8> {
    let registry = Registry::new(100, 1_700_000_000_000_000_000);
    registry.set_own(Own { losses: BTreeMap::from([("ring_full".to_owned(), 3)]), ..Own::default() });
    registry.add(&window());
    registry.page(format).to_vec()
}

/// Runs a program with the page as its input; gives its output.
fn read_by(command: &mut Command, page: &[u8]) -> String {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    // It reads all before it writes.
    child.stdin.take().unwrap().write_all(page).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    assert_eq!(errors, "", "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn promtool_accepts_the_metrics() {
    let Some(promtool) = find("promtool") else {
        return skip("promtool_accepts_the_metrics", "no Prometheus: `cargo xtask setup --tests`");
    };
    // It prints what it does not like of names, units and help, too.
    assert_eq!(read_by(Command::new(promtool).args(["check", "metrics"]), &page(Format::Text)), "");
}

/// A Python with the library.
fn python(test: &str) -> Option<(PathBuf, PathBuf)> {
    let library = build_directory().join("consumers/python");
    match find("python3") {
        Some(python) if library.join("prometheus_client").is_dir() => Some((python, library)),
        _ => {
            skip(test, "no prometheus-client: `cargo xtask setup --tests`");
            None
        }
    }
}

const READ: &str = "
import importlib, json, sys
parser = importlib.import_module(sys.argv[1])
rows = []
for family in parser.text_string_to_metric_families(sys.stdin.buffer.read().decode()):
    assert family.type != 'unknown', family
    for sample in family.samples:
        rows.append([family.name, family.type, family.unit, sample.name, sample.labels, sample.value])
json.dump(rows, sys.stdout)
";

/// Name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// The samples that the library reads.
fn samples(test: &str, module: &str, format: Format) -> Option<Vec<Sample>> {
    let (python, library) = python(test)?;
    let mut command = Command::new(python);
    command.env("PYTHONPATH", library).env("PYTHONUTF8", "1").args(["-c", READ, module]);
    let rows: Value = serde_json::from_str(&read_by(&mut command, &page(format))).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sample = |row: &Value| {
        let labels = row[4].as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value)));
        (text(&row[3]), labels.collect(), row[5].as_f64().unwrap())
    };
    Some(rows.as_array().unwrap().iter().map(sample).collect())
}

fn check(samples: &[Sample]) {
    let value = |name: &str, labels: &[(&str, &str)]| {
        let wanted: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found: Vec<_> = samples.iter().filter(|(n, l, _)| n == name && *l == wanted).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0].2
    };
    for (name, scale) in NAMES.iter().zip(1u32..) {
        let (scale, series) = (f64::from(scale), [("comm", *name), ("unit", "x.service")]);
        assert_eq!(value("profiler_cpu_seconds_total", &series), 1.25 * scale);
        assert_eq!(value("profiler_heap_used_bytes", &series), 1.25e9 * scale);
        let call = [series[0], series[1], ("call", *name)];
        assert_eq!(value("profiler_syscalls_total", &call), 1.25e9 * scale);
        assert_eq!(value("profiler_run_queue_wait_seconds_count", &series), 6.0 * scale);
        assert_eq!(value("profiler_run_queue_wait_seconds_sum", &series), 3.0 * scale / 1000.0);
        let bucket =
            |le: &str| value("profiler_run_queue_wait_seconds_bucket", &[series[0], series[1], ("le", le)]);
        assert_eq!(
            (bucket("0.000001023"), bucket("0.000004095"), bucket("+Inf")),
            (scale, 3.0 * scale, 6.0 * scale)
        );
    }
    assert_eq!(value("profiler_host_cpu_seconds_total", &[]), 125.0);
    assert_eq!(value("profiler_lost_total", &[("cause", "ring_full")]), 3.0);
    assert!(
        samples
            .iter()
            .any(|(name, labels, _)| name == "profiler_build_info" && labels.contains_key("version"))
    );
    assert!(
        samples.iter().all(|(name, _, _)| name.starts_with("profiler_")),
        "no name makes a line of its own"
    );
}

#[test]
fn a_strict_parser_reads_open_metrics() {
    let test = "a_strict_parser_reads_open_metrics";
    if let Some(samples) = samples(test, "prometheus_client.openmetrics.parser", Format::OpenMetrics) {
        check(&samples);
    }
}

#[test]
fn the_parser_reads_prometheus_text() {
    if let Some(samples) =
        samples("the_parser_reads_prometheus_text", "prometheus_client.parser", Format::Text)
    {
        check(&samples);
    }
}
