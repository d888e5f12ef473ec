//! What a JVM did, as text and as JSON (docs/json.md).

mod text;

use std::io::Write;

use serde::Serialize;

use super::{RenderError, json::Document};
use crate::model::java::{Counts, Jvm, Method, Monitor, Span, Thread};

pub use text::write as write_text;

/// The common shape, with what there is beside threads.
#[derive(Serialize)]
struct JavaDocument<'a> {
    #[serde(flatten)]
    document: Document<'a, &'a [Thread]>,
    jvm: &'a Jvm,
    counts: Option<&'a Counts>,
    samples: u64,
    methods: &'a [Method],
    monitors: &'a [Monitor],
}

/// Writes a span as one line of JSON: `profiler.java/1`.
///
/// # Errors
/// Those of writing.
pub fn write_json(span: &Span, out: &mut dyn Write) -> Result<(), RenderError> {
    let selection = span.number.map(|number| format!("interval {number}"));
    let mut document =
        Document::of_parts("profiler.java/1", &span.meta, &span.losses, &span.cost, &span.threads[..]);
    document.meta.selection = selection.as_deref();
    let whole = JavaDocument {
        document,
        jvm: &span.jvm,
        counts: span.counts.as_ref(),
        samples: span.samples,
        methods: &span.methods,
        monitors: &span.monitors,
    };
    serde_json::to_writer(&mut *out, &whole).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::java::Collector;

    fn span() -> Span {
        let mut span = Span {
            number: None,
            jvm: Jvm {
                pid: 7,
                jdk: 17,
                version: "17.0.15+6".to_owned(),
                command: "App -x".to_owned(),
                collector: "GarbageFirst".to_owned(),
            },
            counts: Some(Counts {
                collectors: vec![
                    Collector { name: "G1 young".to_owned(), collections: 8, ns: 12_000_000 },
                    Collector { name: "G1 full".to_owned(), collections: 0, ns: 0 },
                ],
                last_gc_cause: Some("G1 Evacuation Pause".to_owned()),
                safepoints: Some(9),
                safepoint_ns: Some(13_000_000),
                safepoint_sync_ns: Some(1_000_000),
                compilations: Some(56),
                compilation_ns: Some(28_000_000),
                classes_loaded: Some(510),
                classes_unloaded: Some(0),
                heap_used_bytes: Some(200 << 20),
                heap_capacity_bytes: Some(400 << 20),
                metaspace_used_bytes: Some(1 << 20),
            }),
            threads: vec![Thread {
                tid: 9,
                name: "worker".to_owned(),
                java: true,
                state: Some("blocked"),
                innermost: Some("a.B.get".to_owned()),
                wall_ns: 1_000_000_000,
                cpu_ns: 600_000_000,
                run_queue_ns: 100_000_000,
                blocked_ns: 300_000_000,
                blocked: [("monitor", 250_000_000), ("socket", 50_000_000)].into_iter().collect(),
                allocated_bytes: Some(3 << 20),
                ..Thread::default()
            }],
            samples: 200,
            methods: vec![Method {
                method: "a.B.get".to_owned(),
                own: 50,
                native: 10,
                total: 100,
                kinds: [("jit", 60)].into_iter().collect(),
            }],
            monitors: vec![Monitor {
                classes: vec!["a.Cache".to_owned()],
                method: "a.B.get".to_owned(),
                line: 12,
                waits: 5,
                wait_ns: 250_000_000,
                avg_ns: 50_000_000,
                threads: 1,
            }],
            ..Span::default()
        };
        span.meta.duration_ns = 1_000_000_000;
        span
    }

    fn text(rows: usize) -> String {
        let mut out = Vec::new();
        write_text(&span(), rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_has_all_parts() {
        let text = text(10);
        for line in [
            "JDK 17 (17.0.15+6), GarbageFirst: App -x\n",
            "collections  8 in 12.0 ms: G1 young 8 in 12.0 ms; the last by G1 Evacuation Pause\n",
            "safepoints   9 in 13.0 ms, and 1.00 ms to get there\n",
            "compiled     56 methods in 28.0 ms\n",
            "classes      510 loaded, 0 unloaded\n",
            "heap         200.0 MiB in use of 400.0 MiB, metaspace 1.0 MiB\n",
            "allocated    3.0 MiB by threads\n",
            "worker                   blocked       60.0   10.0   30.0    3.0 MiB  monitor 25.0 %, socket 5.0 %; in a.B.get\n",
            "  25.0     5.0   50.0  a.B.get (jit)\n",
            "     5    250 ms   50.0 ms       1  a.B.get:12, a.Cache\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("G1 full"), "{text}");
    }

    #[test]
    fn as_few_rows_as_asked_for() {
        let text = text(0);
        assert!(!text.contains("worker") && !text.contains("a.B.get"), "{text}");
        assert!(text.contains("1 more"), "{text}");
    }

    #[test]
    fn a_jvm_without_counters_has_threads() {
        let mut out = Vec::new();
        write_text(&Span { counts: None, ..span() }, 10, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("safepoints") && text.contains("worker"), "{text}");
    }

    #[test]
    fn json_has_the_documented_keys() {
        let mut out = Vec::new();
        write_json(&span(), &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&json["schema"], &json["jvm"]["jdk"]), (&"profiler.java/1".into(), &17.into()));
        assert_eq!(json["rows"][0]["blocked"]["monitor"], 250_000_000);
        assert_eq!(json["counts"]["collectors"][0]["collections"], 8);
        assert_eq!((&json["samples"], &json["methods"][0]["own"]), (&200.into(), &50.into()));
        assert_eq!(json["monitors"][0]["classes"][0], "a.Cache");
    }
}
