//! The host's network as text and as JSON (docs/json.md).

mod tables;

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;

use super::{
    RenderError,
    json::Document,
    sched::trailer,
    units::{seconds, utc},
};
use crate::model::packets::{DropRow, InterfaceRow, Softirqs, Span};

/// What is shown as text.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// Rows of each table at most.
    pub rows: usize,
    /// Histograms, below each interface.
    pub histogram: bool,
}

/// The common shape, whose rows are the interfaces, with what else was counted.
#[derive(Serialize)]
struct PacketsDocument<'a> {
    #[serde(flatten)]
    document: Document<'a, &'a [InterfaceRow]>,
    drops: &'a [DropRow],
    softirqs: &'a Softirqs,
    counters: &'a BTreeMap<&'static str, u64>,
}

/// Writes a span as one line of JSON: `profiler.packets/1`.
///
/// # Errors
/// Those of writing.
pub fn write_json(span: &Span, out: &mut dyn Write) -> Result<(), RenderError> {
    let selection = span.number.map(|number| format!("interval {number}"));
    let mut document =
        Document::of_parts("profiler.packets/1", &span.meta, &span.losses, &span.cost, &span.interfaces[..]);
    document.meta.selection = selection.as_deref();
    let whole =
        PacketsDocument { document, drops: &span.drops, softirqs: &span.softirqs, counters: &span.counters };
    serde_json::to_writer(&mut *out, &whole).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Writes a span as text.
///
/// # Errors
/// Those of writing.
pub fn write_text(span: &Span, show: Show, out: &mut dyn Write) -> Result<(), RenderError> {
    let which = span.number.map_or("whole run".to_owned(), |number| format!("interval {number}"));
    let meta = &span.meta;
    writeln!(out, "{}  {which}, {}: {}", utc(meta.start_unix_ns), seconds(meta.duration_ns), meta.target)?;
    tables::drops(span, show.rows, out)?;
    tables::interfaces(span, show, out)?;
    tables::softirqs(span, out)?;
    tables::counters(span, out)?;
    if span.number.is_none() {
        trailer(&span.meta, &span.losses, &span.cost, out)?;
    }
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOW: Show = Show { rows: 10, histogram: true };

    fn span() -> Span {
        let eth0 = InterfaceRow {
            interface: "eth0".to_owned(),
            ifindex: Some(2),
            netns: Some(4_026_531_840),
            is_own_netns: true,
            received: 1_000,
            received_bytes: 64_000,
            sent: 2_000,
            sent_bytes: 2_048_000,
            queued: 2_000,
            queued_p50_ns: Some(900),
            queued_p99_ns: Some(20_000_000),
            queued_max_ns: Some(21_000_000),
            polls: 40,
            polls_exhausted: 3,
            histogram: Some(vec![(896, 928, 1_900), (19_922_944, 20_971_520, 100)]),
            ..InterfaceRow::default()
        };
        let inside = InterfaceRow { interface: "veth1".to_owned(), is_own_netns: false, ..eth0.clone() };
        let drop = DropRow {
            reason: Some("NO_SOCKET".to_owned()),
            location: "__udp4_lib_rcv+0x4c1".to_owned(),
            protocol: "IPv4".to_owned(),
            packets: 77,
            bytes: 7_700,
        };
        let unknown = DropRow { reason: None, location: "x+0x1".to_owned(), packets: 1, ..drop.clone() };
        let mut span = Span {
            interfaces: vec![eth0, inside],
            drops: vec![drop, unknown],
            softirqs: Softirqs {
                receive_count: 500,
                receive_ns: 2_500_000,
                squeezed: Some(4),
                ..Softirqs::default()
            },
            counters: [("tcp_listen_overflows", 0), ("udp_no_port", 77)].into(),
            ..Span::default()
        };
        (span.meta.duration_ns, span.meta.cpus) = (1_000_000_000, 2);
        span.losses.counters.insert("queued_packets_map_full".to_owned(), 0);
        span
    }

    fn text(span: &Span, show: Show) -> String {
        let mut out = Vec::new();
        write_text(span, show, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_has_every_table() {
        let text = text(&span(), SHOW);
        assert!(text.contains("78 packets dropped"), "{text}");
        assert!(text.contains("NO_SOCKET"), "{text}");
        assert!(text.contains("__udp4_lib_rcv+0x4c1"), "{text}");
        assert!(text.contains("veth1@4026531840"), "{text}");
        assert!(text.contains("500 in 2.50 ms (0.1 % of all CPUs' time)"), "{text}");
        assert!(text.contains("udp_no_port 77") && !text.contains("tcp_listen_overflows"), "{text}");
        assert!(text.contains("512 ns .. 1.02 us          1,900"), "{text}");
        assert!(text.contains("lost        nothing"), "{text}");
    }

    #[test]
    fn rows_that_are_not_shown_are_counted() {
        let text = text(&span(), Show { rows: 1, histogram: false });
        assert!(text.contains("... and 1 more with 1 packets (--rows, --json)"), "{text}");
        assert!(text.contains("... and 1 more with 3,000 packets (--rows, --json)"), "{text}");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let text = text(&Span::default(), SHOW);
        assert!(text.contains("0 packets dropped") && text.contains("no interface"), "{text}");
    }

    #[test]
    fn json_has_the_documented_keys() {
        let mut out = Vec::new();
        write_json(&Span { number: Some(3), ..span() }, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["schema"], "profiler.packets/1");
        assert_eq!(json["meta"]["selection"], "interval 3");
        assert_eq!(json["rows"][0]["interface"], "eth0");
        assert_eq!(json["drops"][0]["packets"], 77);
        assert_eq!(json["drops"][1]["reason"], serde_json::Value::Null);
        assert_eq!(json["softirqs"]["squeezed"], 4);
        assert_eq!(json["softirqs"]["processed"], serde_json::Value::Null);
        assert_eq!(json["counters"]["udp_no_port"], 77);
    }
}
