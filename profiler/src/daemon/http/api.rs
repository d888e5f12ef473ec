//! `/api/v1`: the history, read from the store.
//!
//! Reads run in threads of their own, few at a time: a long one keeps nobody waiting but other reads.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::State,
    http::{StatusCode, Uri},
};
use serde::Serialize;
use serde_json::json;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    App,
    answer::{Answer, JSON, Problem, content},
    params::Params,
};
use crate::{
    model::{Profile, when::unix_ns},
    render::{Format, RenderError, RenderOptions, diff, format_by_name},
    store::{Query, Range, Reader, SeriesInfo, StoreError},
};

/// Parameters of `/api/v1/windows`.
pub const WINDOWS: &[&str] = &["from", "to", "last"];

/// Parameters of `/api/v1/series`.
pub const SERIES: &[&str] = &["from", "to", "last", "process", "container", "pid"];

/// Parameters of `/api/v1/profile`.
pub const PROFILE: &[&str] = &["from", "to", "last", "process", "container", "pid", "event", "format"];

/// Parameters of `/api/v1/diff`.
pub const DIFF: &[&str] = &[
    "from",
    "to",
    "last",
    "base_from",
    "base_to",
    "base_last",
    "process",
    "container",
    "pid",
    "event",
    "format",
];

/// Longest wait for a read that is before this one.
const WAIT: Duration = Duration::from_secs(10);

/// Largest answer, bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Most windows of an answer: a day of 10 s.
const MAX_WINDOWS: usize = 8640;

/// Most series of an answer.
const MAX_SERIES: usize = 10_000;

/// Formats of profiles, with their content types.
const FORMATS: [(&str, &str); 4] = [
    ("json", JSON),
    ("folded", "text/plain; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("pprof", "application/octet-stream"),
];

/// `/api/v1/windows`
pub async fn windows(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let range = Params::read(&uri, WINDOWS)?.range("", unix_ns())?;
    let text = read(&app, move |reader| {
        let windows = reader.windows(range)?;
        let left_out = windows.len().saturating_sub(MAX_WINDOWS);
        let rows = &windows[left_out..];
        Ok(json!({ "schema": "profiler.windows/1", "left_out": left_out, "windows": rows }).to_string())
    });
    Ok(content(JSON, text.await?))
}

/// `/api/v1/series`
pub async fn series(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let params = Params::read(&uri, SERIES)?;
    let query = query(&params, params.range("", unix_ns())?)?;
    let text = read(&app, move |reader| {
        let series = reader.series(&query)?;
        let shown = &series[..series.len().min(MAX_SERIES)];
        let rows: Vec<SeriesRow<'_>> = shown.iter().map(SeriesRow::of).collect();
        let left_out = series.len() - shown.len();
        Ok(json!({ "schema": "profiler.series/1", "left_out": left_out, "series": rows }).to_string())
    });
    Ok(content(JSON, text.await?))
}

/// `/api/v1/profile`
pub async fn profile(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let params = Params::read(&uri, PROFILE)?;
    let query = query(&params, params.range("", unix_ns())?)?;
    let (format, kind) = format(&params, &FORMATS.map(|(name, _)| name))?;
    let bytes = read(&app, move |reader| {
        let profile = kept(reader, &query)?;
        let options = options(&query)(&profile);
        bounded(|out| (format.write)(&profile, &options, out))
    });
    let bytes = bytes.await?;
    Ok(content(kind, bytes))
}

/// `/api/v1/diff`: a range against another one, the base.
pub async fn diff(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let params = Params::read(&uri, DIFF)?;
    let now = unix_ns();
    let range = params.range("", now)?;
    if ["base_from", "base_last"].iter().all(|name| params.get(name).is_none()) {
        return Err(Problem::request(
            "`base_from` (and `base_to`) or `base_last` must say what to compare with",
        ));
    }
    // What lasted so long before the range, if nothing else is said of its end.
    let base = params.range("base_", range.from_unix_ns)?;
    let (after, before) = (query(&params, range)?, query(&params, base)?);
    let (format, kind) = format(&params, &["json", "folded", "svg"])?;
    let write = diff::writer(format.name).ok_or_else(|| Problem::internal("the format has no comparison"))?;
    let bytes = read(&app, move |reader| {
        let options = options(&after);
        let (before, after) = (kept(reader, &before)?, kept(reader, &after)?);
        if before.sample_types != after.sample_types {
            return Err(Failed::Different);
        }
        let pair = diff::Pair { before: &before, after: &after };
        let options = options(&after);
        bounded(|out| write(pair, &options, out))
    });
    Ok(content(kind, bytes.await?))
}

/// Why a read gives nothing.
pub enum Failed {
    Store(StoreError),
    Render(RenderError),
    TooLarge,
    Empty,
    Different,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(error @ StoreError::NoEvent { .. }) => Self::request(error.to_string()),
            Failed::Store(error @ StoreError::Missing { .. }) => Self::unavailable(error.to_string()),
            Failed::Store(error) => Self::internal(error.to_string()),
            Failed::Render(error) => Self::internal(error.to_string()),
            Failed::Empty => {
                Self { status: StatusCode::NOT_FOUND, message: "there is no window in that range".to_owned() }
            }
            Failed::Different => {
                Self::request("the ranges have other sample types: `event` names one that both have")
            }
            Failed::TooLarge => Self::request(format!(
                "the answer is larger than {MAX_ANSWER} bytes: ask for a shorter range"
            )),
        }
    }
}

/// Reads the store, after who asked before.
async fn read<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Reader) -> Result<T, Failed> + Send + 'static,
) -> Result<T, Problem> {
    let permit = match timeout(WAIT, Arc::clone(&app.reads).acquire_owned()).await {
        Ok(Ok(permit)) => permit,
        _ => return Err(Problem::unavailable("other reads of the store take long; try again")),
    };
    let directory = app.state.store.clone();
    let read = spawn_blocking(move || {
        // Until it is done, also if the client has gone.
        let _permit = permit;
        work(&Reader::open(&directory)?)
    });
    Ok(read.await.map_err(|error| Problem::internal(error.to_string()))??)
}

/// The samples of a range that has windows.
fn kept(reader: &Reader, query: &Query) -> Result<Profile, Failed> {
    let profile = reader.profile(query)?;
    if profile.sample_types.is_empty() { Err(Failed::Empty) } else { Ok(profile) }
}

fn query(params: &Params, range: Range) -> Result<Query, Problem> {
    Ok(Query {
        range,
        process: params.pattern("process")?,
        container: params.pattern("container")?,
        pid: params.pid()?,
        events: params.all("event").map(str::to_owned).collect(),
    })
}

/// The format that is asked for, of those that are allowed (the first of them if none is), and its content type.
fn format(params: &Params, allowed: &[&str]) -> Result<(&'static Format, &'static str), Problem> {
    let name = params.get("format").unwrap_or(allowed[0]);
    let known = FORMATS.iter().find(|(known, _)| *known == name && allowed.contains(known));
    known
        .and_then(|(name, kind)| Some((format_by_name(name)?, *kind)))
        .ok_or_else(|| Problem::request(format!("`format` must be one of {}", allowed.join(", "))))
}

/// How the samples are shown: values of the sample type that is named first.
fn options(query: &Query) -> impl Fn(&Profile) -> RenderOptions + use<> {
    let first = query.events.first().cloned();
    move |profile| RenderOptions {
        value: first.as_ref().and_then(|name| profile.column(name)),
        ..RenderOptions::default()
    }
}

/// What is written, if it is not too large.
pub fn bounded(write: impl FnOnce(&mut dyn Write) -> Result<(), RenderError>) -> Result<Vec<u8>, Failed> {
    let mut out = Bounded { bytes: Vec::new(), is_full: false };
    match write(&mut out) {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.is_full => Err(Failed::TooLarge),
        Err(error) => Err(Failed::Render(error)),
    }
}

/// Takes so many bytes and no more.
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_ANSWER {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A series of an answer.
#[derive(Serialize)]
struct SeriesRow<'a> {
    #[serde(flatten)]
    info: &'a SeriesInfo,
    /// By sample type.
    samples: BTreeMap<&'a str, Sum>,
}

#[derive(Serialize)]
struct Sum {
    unit: &'static str,
    sum: u64,
}

impl<'a> SeriesRow<'a> {
    fn of(info: &'a SeriesInfo) -> Self {
        let totals = info.totals.iter();
        let samples =
            totals.map(|(kind, sum)| (kind.name.as_str(), Sum { unit: kind.unit.name(), sum: *sum }));
        Self { info, samples: samples.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn an_answer_is_bounded() {
        let format = format_by_name("json").unwrap();
        let whole = bounded(|out| (format.write)(&fixture::mixed(), &RenderOptions::default(), out));
        assert!(whole.ok().unwrap().starts_with(b"{"));
        let endless = bounded(|out| {
            loop {
                out.write_all(&[b'x'; 1 << 20])?;
            }
        });
        assert!(matches!(endless, Err(Failed::TooLarge)));
    }

    #[test]
    fn formats_of_profiles_are_renderers() {
        for (name, _) in FORMATS {
            assert!(format_by_name(name).is_some(), "{name}");
        }
    }
}
