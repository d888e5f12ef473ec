//! `profiler query --list`: windows in spans, gaps, series with totals.

use std::io::{BufWriter, Write};

use serde::Serialize;

use super::Wrong;
use crate::{
    model::window::Series,
    render::units,
    store::{Query, Reader, SeriesInfo, WindowInfo, notes},
};

/// Series in the text.
const MAX_SERIES: usize = 40;

/// Spans and gaps in the text.
const MAX_SPANS: usize = 40;

/// Writes it.
pub fn write(reader: &Reader, query: &Query, json: bool, out: &mut dyn Write) -> Result<(), Wrong> {
    let windows = reader.windows(query.range)?;
    let series = reader.series(query)?;
    let gaps = notes::gaps(&windows.iter().collect::<Vec<_>>(), query.range);
    let mut out = BufWriter::new(out);
    if json {
        let document = Document {
            schema: "profiler.history/1",
            windows: windows.iter().map(WindowRow::of).collect(),
            gaps: &gaps,
            rows: series.iter().map(SeriesRow::of).collect(),
        };
        serde_json::to_writer(&mut out, &document).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        spans(&windows, &mut out)?;
        told(&gaps, &mut out)?;
        table(&series, &mut out)?;
    }
    Ok(out.flush()?)
}

/// Whether a window goes on where the other one ends, as closely.
fn goes_on(a: &WindowInfo, b: &WindowInfo) -> bool {
    let length = |window: &WindowInfo| {
        (window.end_unix_ns.saturating_sub(window.start_unix_ns) + 500_000_000) / 1_000_000_000
    };
    let gap = b.start_unix_ns.abs_diff(a.end_unix_ns);
    a.run == b.run
        && a.boot_id == b.boot_id
        && a.rates == b.rates
        && gap <= 1_000_000_000
        && length(a) == length(b)
}

fn spans(windows: &[WindowInfo], out: &mut dyn Write) -> Result<(), Wrong> {
    if windows.is_empty() {
        writeln!(out, "no windows")?;
        return Ok(());
    }
    writeln!(out, "{:<27}  {:<27} {:>8} {:>10} {:>8}  RATES", "FROM", "TO", "WINDOWS", "OF", "LOST")?;
    let spans: Vec<_> = windows.chunk_by(goes_on).collect();
    for span in spans.iter().rev().take(MAX_SPANS).rev() {
        let (Some(first), Some(last)) = (span.first(), span.last()) else { continue };
        let lost = span.iter().fold(0u64, |sum, window| sum.saturating_add(window.lost_samples));
        writeln!(
            out,
            "{:<27}  {:<27} {:>8} {:>10} {:>8}  {}",
            units::utc(first.start_unix_ns),
            units::utc(last.end_unix_ns),
            span.len(),
            units::seconds(first.end_unix_ns.saturating_sub(first.start_unix_ns)),
            lost,
            notes::rates(&first.rates),
        )?;
    }
    if spans.len() > MAX_SPANS {
        writeln!(out, "{} earlier lines: --json has all", spans.len() - MAX_SPANS)?;
    }
    Ok(())
}

fn told(gaps: &[String], out: &mut dyn Write) -> Result<(), Wrong> {
    for gap in gaps.iter().rev().take(MAX_SPANS).rev() {
        writeln!(out, "no windows {gap}")?;
    }
    Ok(())
}

fn table(series: &[SeriesInfo], out: &mut dyn Write) -> Result<(), Wrong> {
    writeln!(
        out,
        "\n{:>10} {:>10} {:>10} {:>8} {:>8}  PROCESS",
        "CPU", "SAMPLES", "BLOCKED", "WINDOWS", "PID"
    )?;
    for info in series.iter().take(MAX_SERIES) {
        let total =
            |name: &str| info.totals.iter().find(|(t, _)| t.name == name).map_or(0, |(_, total)| *total);
        writeln!(
            out,
            "{:>10} {:>10} {:>10} {:>8} {:>8}  {}",
            units::seconds(info.cpu_ns),
            units::count(total("samples")),
            units::seconds(total("offcpu")),
            info.windows,
            info.series.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            who(&info.series),
        )?;
    }
    if series.len() > MAX_SERIES {
        writeln!(out, "{} more processes: --json has all", series.len() - MAX_SERIES)?;
    }
    Ok(())
}

/// The command and where it belongs, in short.
pub fn who(series: &Series) -> String {
    let place = &series.place;
    let short = |id: &String| id.chars().take(12).collect::<String>();
    let of = place.container.as_ref().map(short).or_else(|| place.unit.clone());
    of.map_or_else(|| series.comm.clone(), |of| format!("{} [{of}]", series.comm))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    windows: Vec<WindowRow<'a>>,
    gaps: &'a [String],
    rows: Vec<SeriesRow<'a>>,
}

#[derive(Serialize)]
struct WindowRow<'a> {
    start: String,
    #[serde(flatten)]
    window: &'a WindowInfo,
}

impl<'a> WindowRow<'a> {
    fn of(window: &'a WindowInfo) -> Self {
        Self { start: units::rfc3339(window.start_unix_ns), window }
    }
}

#[derive(Serialize)]
struct SeriesRow<'a> {
    #[serde(flatten)]
    info: &'a SeriesInfo,
    totals: Vec<Total<'a>>,
}

#[derive(Serialize)]
struct Total<'a> {
    sample_type: &'a str,
    unit: &'static str,
    value: u64,
}

impl<'a> SeriesRow<'a> {
    fn of(info: &'a SeriesInfo) -> Self {
        let total = |(sample_type, value): &'a (crate::model::SampleType, u64)| Total {
            sample_type: &sample_type.name,
            unit: sample_type.unit.name(),
            value: *value,
        };
        Self { info, totals: info.totals.iter().map(total).collect() }
    }
}
