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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::net::By;

    fn span(by: By) -> Span {
        let row = Row {
            pid: Some(7),
            comm: "worker\\n".to_owned(),
            protocol: "tcp".to_owned(),
            local: Some("10.0.0.1:50000".to_owned()),
            remote: Some("10.0.0.2:443".to_owned()),
            state: Some("ESTABLISHED"),
            port: Some(443),
            service: Some("https".to_owned()),
            tx_bytes: 2_048,
            rx_bytes: 4_096,
            tx_calls: 3,
            connects: 4,
            failed: 2,
            failures: BTreeMap::from([("ECONNREFUSED".to_owned(), 2)]),
            rtt_ns: Some(20_000_000),
            ..Row::default()
        };
        let other =
            Row { comm: "[other]".to_owned(), protocol: "udp".to_owned(), tx_bytes: 1_024, ..Row::default() };
        let mut span = Span { by, rows: vec![row, other], ..Span::default() };
        span.losses.counters.insert("listeners_map_full".to_owned(), 0);
        span
    }

    fn text(span: &Span, rows: usize) -> String {
        let mut out = Vec::new();
        write_text(span, rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_has_a_summary_and_rows_with_what_went_wrong() {
        let text = text(&span(By::Process), 10);
        assert!(
            text.contains(
                "sent 3.0 KiB in 3 calls, received 4.0 KiB in 0; connections: 4 asked for (2 failed)"
            )
        );
        assert!(text.contains("failed: ECONNREFUSED 2"), "{text}");
        assert!(text.contains("20.0 ms"), "{text}");
        assert!(text.contains("lost        nothing"), "{text}");
    }

    #[test]
    fn each_way_to_sum_up_has_its_names() {
        for (by, part) in [
            (By::Connection, "10.0.0.1:50000  10.0.0.2:443    ESTABLISHED"),
            (By::Port, "  443 https"),
            (By::Remote, "10.0.0.2:443"),
            (By::Container, "CONTAINER"),
        ] {
            let text = text(&span(by), 10);
            assert!(text.contains(part), "{text}");
            assert!(text.contains("[other]") || by == By::Connection, "{text}");
        }
    }

    #[test]
    fn rows_that_are_not_shown_are_counted() {
        let text = text(&span(By::Process), 1);
        assert!(text.contains("... and 1 more rows with 1.0 KiB (--rows, --json)"), "{text}");
    }

    #[test]
    fn json_has_the_documented_keys() {
        let mut out = Vec::new();
        write_json(&Span { number: Some(3), ..span(By::Process) }, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["schema"], "profiler.net/1");
        assert_eq!(json["meta"]["selection"], "interval 3");
        assert_eq!(json["rows"][0]["failures"]["ECONNREFUSED"], 2);
        assert_eq!(json["rows"][1]["local"], serde_json::Value::Null);
    }
}
