//! Where the time of threads went, as text and as JSON (docs/json.md).

mod text;

use std::io::Write;

use serde::Serialize;

use super::{RenderError, json::Document, units::percent};
use crate::model::stat::{Counts, Function, Part, Stat, Syscall};

pub use text::write as write_text;

/// The common shape, with what was counted.
#[derive(Serialize)]
struct StatDocument<'a> {
    #[serde(flatten)]
    document: Document<'a, Vec<Row<'a>>>,
    thread_ns: u64,
    samples: u64,
    counts: &'a Counts,
}

/// A part.
#[derive(Serialize)]
struct Row<'a> {
    part: &'static str,
    cause: Option<&'static str>,
    ns: u64,
    percent: f64,
    exact: bool,
    functions: &'a [Function],
    syscalls: &'a [Syscall],
}

fn row(part: &Part, thread_ns: u64) -> Row<'_> {
    Row {
        part: part.kind.key(),
        cause: part.kind.cause(),
        ns: part.ns,
        percent: share(part.ns, thread_ns),
        exact: part.estimated_by.is_none(),
        functions: &part.functions,
        syscalls: &part.syscalls,
    }
}

/// The share that a time has of another one, in percent.
fn share(ns: u64, of: u64) -> f64 {
    let whole = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    percent(whole(ns), whole(of))
}

/// Writes the whole run as one line of JSON: `profiler.stat/1`.
///
/// # Errors
/// Those of writing.
pub fn write_json(stat: &Stat, out: &mut dyn Write) -> Result<(), RenderError> {
    let rows = stat.parts.iter().map(|part| row(part, stat.thread_ns)).collect();
    let document = Document::of_parts("profiler.stat/1", &stat.meta, &stat.losses, &stat.cost, rows);
    let whole =
        StatDocument { document, thread_ns: stat.thread_ns, samples: stat.samples, counts: &stat.counts };
    serde_json::to_writer(&mut *out, &whole).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
