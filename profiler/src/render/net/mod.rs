//! Sockets and connections as text and as JSON (docs/json.md).

mod table;

use std::io::{self, Write};

use super::{
    RenderError,
    json::Document,
    sched::trailer,
    units::{bytes, count, seconds, utc},
};
use crate::model::net::{Row, Span};

/// Writes a span as one line of JSON: `profiler.net/1`.
///
/// # Errors
/// Those of writing.
pub fn write_json(span: &Span, out: &mut dyn Write) -> Result<(), RenderError> {
    let selection = span.number.map(|number| format!("interval {number}"));
    let mut document = Document::of_parts("profiler.net/1", &span.meta, &span.losses, &span.cost, &span.rows);
    document.meta.selection = selection.as_deref();
    document.write(out)
}

/// Writes a span as text, with so many rows at most.
///
/// # Errors
/// Those of writing.
pub fn write_text(span: &Span, rows: usize, out: &mut dyn Write) -> Result<(), RenderError> {
    let which = span.number.map_or("whole run".to_owned(), |number| format!("interval {number}"));
    let meta = &span.meta;
    writeln!(out, "{}  {which}, {}: {}", utc(meta.start_unix_ns), seconds(meta.duration_ns), meta.target)?;
    summary(span, out)?;
    table::write(span, rows, out)?;
    if span.number.is_none() {
        trailer(&span.meta, &span.losses, &span.cost, out)?;
    }
    Ok(writeln!(out)?)
}

/// All sockets together.
fn summary(span: &Span, out: &mut dyn Write) -> io::Result<()> {
    let sum = |value: fn(&Row) -> u64| -> u64 { span.rows.iter().map(value).sum() };
    writeln!(
        out,
        "sent {} in {} calls, received {} in {}; connections: {} asked for ({} failed), {} taken; {} segments sent again, \
         {} resets, {} drops\n",
        bytes(sum(|row| row.tx_bytes)),
        count(sum(|row| row.tx_calls)),
        bytes(sum(|row| row.rx_bytes)),
        count(sum(|row| row.rx_calls)),
        count(sum(|row| row.connects)),
        count(sum(|row| row.failed)),
        count(sum(|row| row.accepts)),
        count(sum(|row| row.retransmits)),
        count(sum(|row| row.resets_in + row.resets_out)),
        count(sum(|row| row.drops)),
    )
}
