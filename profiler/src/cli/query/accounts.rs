//! `profiler query --accounts`: exact numbers by process, as table and JSON.

use std::io::{BufWriter, Write};

use serde::Serialize;

use super::{Wrong, list::who};
use crate::{
    model::{
        Unit,
        window::{Account, Kind, Series, metric},
    },
    render::units,
    store::{Query, Reader},
};

/// Metrics of the table if none is asked for, with their headings; labels are summed.
const USUAL: [(&str, &str); 8] = [
    ("cpu", "CPU"),
    ("run_queue", "RUN QUEUE"),
    ("blocked", "BLOCKED"),
    ("voluntary_switches", "SWITCHES"),
    ("involuntary_switches", "PREEMPTED"),
    ("syscalls", "SYSCALLS"),
    ("net_sent", "SENT"),
    ("net_received", "RECEIVED"),
];

/// Rows of the table.
const MAX_ROWS: usize = 60;

/// Writes it.
pub fn write(reader: &Reader, query: &Query, json: bool, out: &mut dyn Write) -> Result<(), Wrong> {
    let mut accounts = reader.accounts(query)?;
    let order = query.events.first().map_or("cpu", String::as_str);
    accounts.sort_by_key(|account| std::cmp::Reverse(sum(account, order)));
    let mut out = BufWriter::new(out);
    if json {
        let host = reader.host(query.range)?;
        let document = Document {
            schema: "profiler.accounts/1",
            from: units::rfc3339(query.range.from_unix_ns),
            to: units::rfc3339(query.range.to_unix_ns),
            host: Values::of(&host),
            rows: accounts.iter().map(Row::of).collect(),
        };
        serde_json::to_writer(&mut out, &document).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        table(&accounts, &query.events, &mut out)?;
    }
    Ok(out.flush()?)
}

/// The sum over the labels of a metric.
fn sum(account: &Account, name: &str) -> u64 {
    let numbers = account.numbers.iter().filter(|number| number.metric == name);
    let counted = account.distributions.iter().filter(|distribution| distribution.metric == name);
    let values = numbers.map(|number| number.value).chain(counted.map(|distribution| distribution.sum));
    values.fold(0, u64::saturating_add)
}

fn table(accounts: &[Account], events: &[String], out: &mut dyn Write) -> Result<(), Wrong> {
    let columns: Vec<(&str, String)> = if events.is_empty() {
        USUAL.iter().map(|(name, heading)| (*name, (*heading).to_owned())).collect()
    } else {
        events.iter().map(|name| (name.as_str(), name.to_uppercase())).collect()
    };
    let width = |heading: &String| heading.len().max(10);
    for (_, heading) in &columns {
        write!(out, "{heading:>width$} ", width = width(heading))?;
    }
    writeln!(out, "{:>8}  PROCESS", "PID")?;
    for account in accounts.iter().take(MAX_ROWS) {
        for (name, heading) in &columns {
            let value = sum(account, name);
            let text = match metric(name).map(|metric| metric.unit) {
                Some(Unit::Nanoseconds) => units::seconds(value),
                Some(Unit::Bytes) => units::bytes(value),
                _ => units::count(value),
            };
            write!(out, "{text:>width$} ", width = width(heading))?;
        }
        let pid = account.series.pid.map_or("-".to_owned(), |pid| pid.to_string());
        writeln!(out, "{pid:>8}  {}", who(&account.series))?;
    }
    if accounts.len() > MAX_ROWS {
        writeln!(out, "{} more processes: --json has all", accounts.len() - MAX_ROWS)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    from: String,
    to: String,
    host: Values<'a>,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    series: &'a Series,
    #[serde(flatten)]
    values: Values<'a>,
}

impl<'a> Row<'a> {
    fn of(account: &'a Account) -> Self {
        Self { series: &account.series, values: Values::of(account) }
    }
}

#[derive(Serialize)]
struct Values<'a> {
    numbers: Vec<NumberRow<'a>>,
    histograms: Vec<HistogramRow<'a>>,
}

#[derive(Serialize)]
struct NumberRow<'a> {
    metric: &'a str,
    label: &'a str,
    unit: &'static str,
    kind: &'static str,
    value: u64,
}

#[derive(Serialize)]
struct HistogramRow<'a> {
    metric: &'a str,
    label: &'a str,
    unit: &'static str,
    sum: u64,
    buckets: &'a [(u64, u64, u64)],
}

impl<'a> Values<'a> {
    fn of(account: &'a Account) -> Self {
        let unit = |name: &str| metric(name).map_or(Unit::Count, |metric| metric.unit).name();
        let kind = |name: &str| metric(name).map_or(Kind::Counter, |metric| metric.kind).name();
        let number = |number: &'a crate::model::window::Number| NumberRow {
            metric: number.metric,
            label: &number.label,
            unit: unit(number.metric),
            kind: kind(number.metric),
            value: number.value,
        };
        let histogram = |distribution: &'a crate::model::window::Distribution| HistogramRow {
            metric: distribution.metric,
            label: &distribution.label,
            unit: unit(distribution.metric),
            sum: distribution.sum,
            buckets: &distribution.buckets,
        };
        Self {
            numbers: account.numbers.iter().map(number).collect(),
            histograms: account.distributions.iter().map(histogram).collect(),
        }
    }
}
