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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stat::{Kind, Number};

    fn stat() -> Stat {
        let function = Function {
            function: "compress".to_owned(),
            module: "libz.so.1".to_owned(),
            ns: 300_000_000,
            samples: Some(30),
        };
        let small = Function { function: "small".to_owned(), ns: 1_000, ..function.clone() };
        let syscall =
            Syscall { syscall: "read".to_owned(), ns: 500_000_000, count: Some(1_200), errors: Some(3) };
        let part = |kind, ns, estimated_by, functions, syscalls| Part {
            kind,
            ns,
            estimated_by,
            functions,
            syscalls,
        };
        let mut stat = Stat {
            thread_ns: 1_000_000_000,
            samples: 40,
            parts: vec![
                part(Kind::User, 400_000_000, Some(40), vec![function, small], vec![]),
                part(Kind::RunQueue, 100_000_000, None, vec![], vec![]),
                part(Kind::Blocked("pipe"), 500_000_000, None, vec![], vec![syscall]),
            ],
            counts: Counts {
                threads: Number { seen: 2, started: 2, ended: 1 },
                minor_faults: Some(1_000),
                major_faults: Some(0),
                read_bytes: 4_096,
                ..Counts::default()
            },
            ..Stat::default()
        };
        stat.meta.duration_ns = 500_000_000;
        stat.losses.counters.insert("ticks_not_delivered".to_owned(), 7);
        stat
    }

    fn text(top: usize) -> String {
        let mut out = Vec::new();
        write_text(&stat(), top, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_has_parts_with_what_stands_out() {
        let text = text(3);
        for line in [
            "time of 2 threads: 1.00 s, 2.00 threads at a time\n",
            "\n  40.0 %    400 ms  user mode (estimated from 40 samples)\n",
            "\n          30.0 %    300 ms  compress                                 libz.so.1\n",
            "\n  10.0 %    100 ms  waiting for a CPU\n  50.0 %    500 ms  blocked: pipe\n",
            "call read                                1,200 calls, 3 with errors\n",
            "\n 100.0 %    1.00 s  all\n",
            "threads 2 (2 started, 1 ended)\n",
            "faults      1,000 without disk, 0 with disk\n",
            "bytes       read 4.0 KiB, written 0 B",
            "lost        nothing\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("small"), "{text}");
    }

    #[test]
    fn as_few_lines_as_asked_for() {
        assert!(!text(0).contains("compress"));
    }

    #[test]
    fn json_has_the_documented_keys() {
        let mut out = Vec::new();
        write_json(&stat(), &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&json["schema"], &json["thread_ns"]),
            (&"profiler.stat/1".into(), &1_000_000_000u64.into())
        );
        let rows = &json["rows"];
        assert_eq!(
            (&rows[0]["part"], &rows[0]["exact"], &rows[0]["cause"]),
            (&"user".into(), &false.into(), &().into())
        );
        assert_eq!((&rows[2]["cause"], &rows[2]["percent"]), (&"pipe".into(), &50.0.into()));
        assert_eq!(rows[0]["functions"][0]["samples"], 30);
        assert_eq!(rows[2]["syscalls"][0]["errors"], 3);
        assert_eq!(
            (&json["counts"]["threads"]["ended"], &json["counts"]["read_bytes"]),
            (&1.into(), &4_096.into())
        );
        assert_eq!(json["losses"]["counters"]["ticks_not_delivered"], 7);
    }
}
