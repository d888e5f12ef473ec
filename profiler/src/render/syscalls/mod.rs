//! System calls as text and as JSON (docs/json.md).

mod table;

use std::io::{self, Write};

use super::{
    RenderError,
    json::Document,
    sched::trailer,
    units::{count, seconds, utc},
};
use crate::model::syscalls::Span;

/// What is shown as text.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// Rows at most.
    pub rows: usize,
    /// Errors by name, below each row.
    pub errors: bool,
    /// Histograms, below each row.
    pub histogram: bool,
}

/// Writes a span as one line of JSON: `profiler.syscalls/1`.
///
/// # Errors
/// Those of writing.
pub fn write_json(span: &Span, out: &mut dyn Write) -> Result<(), RenderError> {
    let selection = span.number.map(|number| format!("interval {number}"));
    let mut document =
        Document::of_parts("profiler.syscalls/1", &span.meta, &span.losses, &span.cost, &span.rows);
    document.meta.selection = selection.as_deref();
    document.write(out)
}

/// Writes a span as text.
///
/// # Errors
/// Those of writing.
pub fn write_text(span: &Span, show: Show, out: &mut dyn Write) -> Result<(), RenderError> {
    let which = span.number.map_or("whole run".to_owned(), |number| format!("interval {number}"));
    let meta = &span.meta;
    writeln!(out, "{}  {which}, {}: {}", utc(meta.start_unix_ns), seconds(meta.duration_ns), meta.target)?;
    summary(span, out)?;
    table::write(span, show, out)?;
    if span.number.is_none() {
        trailer(&span.meta, &span.losses, &span.cost, out)?;
    }
    Ok(writeln!(out)?)
}

/// All calls together, and their share of the time that all CPUs had.
fn summary(span: &Span, out: &mut dyn Write) -> io::Result<()> {
    let sum = |value: fn(&crate::model::syscalls::Row) -> Option<u64>| -> u64 {
        span.rows.iter().filter_map(value).sum()
    };
    let calls = sum(|row| Some(row.count));
    let duration = span.meta.duration_ns.max(1) as f64;
    write!(out, "{} calls, {:.0} a second", count(calls), calls as f64 * 1e9 / duration)?;
    if span.timed {
        let (cpu, off) = (sum(|row| row.cpu_ns), sum(|row| row.blocked_ns));
        let capacity = duration * f64::from(span.meta.cpus.max(1));
        write!(
            out,
            "; {} with errors; in calls {}: on a CPU {} ({:.1} % of all CPUs' time), blocked {}; {} in progress",
            count(sum(|row| row.errors)),
            seconds(cpu + off),
            seconds(cpu),
            cpu as f64 * 100.0 / capacity,
            seconds(off),
            count(sum(|row| row.in_progress))
        )?;
    }
    writeln!(out, "\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::syscalls::Row;

    const SHOW: Show = Show { rows: 10, errors: true, histogram: true };

    fn span() -> Span {
        let read = Row {
            pid: Some(7),
            comm: "worker\\n".to_owned(),
            syscall: "read".to_owned(),
            number: Some(0),
            abi: "x86-64",
            count: 1_001,
            returned: Some(1_000),
            errors: Some(3),
            errno: BTreeMap::from([("EAGAIN".to_owned(), 2), ("EBADF".to_owned(), 1)]),
            total_ns: Some(4_000_000),
            cpu_ns: Some(1_000_000),
            blocked_ns: Some(3_000_000),
            avg_ns: Some(4_000),
            p50_ns: Some(900),
            p90_ns: Some(8_000),
            p99_ns: Some(9_000),
            max_ns: Some(10_000),
            in_progress: Some(1),
            in_progress_ns: Some(2_000_000_000),
            histogram: Some(vec![(896, 928, 600), (7_936, 8_192, 400)]),
            ..Row::default()
        };
        let open = Row {
            syscall: "open".to_owned(),
            abi: "i386",
            tid: Some(9),
            errno: BTreeMap::new(),
            ..read.clone()
        };
        let mut span = Span { timed: true, rows: vec![read, open], ..Span::default() };
        (span.meta.duration_ns, span.meta.cpus) = (1_000_000_000, 2);
        span.losses.counters.insert("calls_without_account".to_owned(), 0);
        span
    }

    fn text(span: &Span, show: Show) -> String {
        let mut out = Vec::new();
        write_text(span, show, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_has_a_summary_and_rows_with_their_errors() {
        let text = text(&span(), SHOW);
        assert!(text.contains("2,002 calls, 2002 a second; 6 with errors"), "{text}");
        assert!(text.contains("on a CPU 2.00 ms (0.1 % of all CPUs' time)"), "{text}");
        assert!(text.contains("EAGAIN 2, EBADF 1"), "{text}");
        assert!(text.contains("open (i386)"), "{text}");
        assert!(text.contains("1 in progress for 2.00 s"), "{text}");
        assert!(text.contains("512 ns .. 1.02 us            600"), "{text}");
        assert!(text.contains("lost        nothing"), "{text}");
    }

    #[test]
    fn rows_that_are_not_shown_are_counted() {
        let text = text(&span(), Show { rows: 1, ..SHOW });
        assert!(text.contains("... and 1 more rows with 1,001 calls (--rows, --json)"), "{text}");
    }

    #[test]
    fn counts_alone_are_a_narrow_table() {
        let rows = vec![Row {
            count: 5,
            syscall: "read".to_owned(),
            comm: "x".to_owned(),
            abi: "x86-64",
            ..Row::default()
        }];
        let text = text(&Span { rows, ..Span::default() }, SHOW);
        assert!(!text.contains("P99") && text.contains("COUNT"), "{text}");
    }

    #[test]
    fn json_has_the_documented_keys() {
        let mut out = Vec::new();
        write_json(&Span { number: Some(3), ..span() }, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["schema"], "profiler.syscalls/1");
        assert_eq!(json["meta"]["selection"], "interval 3");
        assert_eq!(json["rows"][0]["tid"], serde_json::Value::Null);
        assert_eq!(json["rows"][0]["errno"]["EAGAIN"], 2);
        assert_eq!(json["rows"][0]["histogram"][1][2], 400);
    }
}
