//! Accounts of threads and CPUs, as text and as JSON (docs/json.md). What a view shows is what it is asked for: threads
//! (`profiler sched`) or CPUs (`profiler cpu`).

mod cpus;
mod threads;

use std::io::{self, Write};

use serde::Serialize;

use super::{
    RenderError,
    json::Document,
    units::{bytes, count, seconds, utc},
};
use crate::model::{Cost, Losses, Meta, sched::Span};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Processes and threads; as text at most so many of them.
    Threads {
        /// Rows of threads, as text.
        rows: usize,
    },
    /// CPUs and their histograms.
    Cpus,
}

/// Writes a span as one line of JSON: `profiler.sched/1` or `profiler.cpu/1`.
///
/// # Errors
/// Those of writing.
pub fn write_json(span: &Span, view: View, out: &mut dyn Write) -> Result<(), RenderError> {
    match view {
        View::Threads { .. } => write_rows("profiler.sched/1", span, &span.accounts.rows, out),
        View::Cpus => write_rows("profiler.cpu/1", span, &span.accounts.cpus, out),
    }
}

fn write_rows<R: Serialize>(
    schema: &str,
    span: &Span,
    rows: &[R],
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    let selection = span.number.map(|number| format!("interval {number}"));
    let mut document = Document::of_parts(schema, &span.meta, &span.losses, &span.cost, rows);
    document.meta.selection = selection.as_deref();
    document.write(out)
}

/// Writes a span as text.
///
/// # Errors
/// Those of writing.
pub fn write_text(span: &Span, view: View, out: &mut dyn Write) -> Result<(), RenderError> {
    let which = span.number.map_or("whole run".to_owned(), |number| format!("interval {number}"));
    let meta = &span.meta;
    writeln!(out, "{}  {which}, {}: {}", utc(meta.start_unix_ns), seconds(meta.duration_ns), meta.target)?;
    match view {
        View::Threads { rows } => threads::write(span, rows, out)?,
        View::Cpus => cpus::write(span, out)?,
    }
    if span.number.is_none() {
        trailer(&span.meta, &span.losses, &span.cost, out)?;
    }
    Ok(writeln!(out)?)
}

/// What can be trusted, and what it took.
pub fn trailer(meta: &Meta, losses: &Losses, cost: &Cost, out: &mut dyn Write) -> io::Result<()> {
    let lost = losses.counters.iter().filter(|(_, n)| **n != 0);
    let lost: Vec<_> = lost.map(|(cause, n)| format!("{cause} {}", count(*n))).collect();
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") };
    writeln!(out, "\nlost        {lost}")?;
    if let Some(each) = cost.ebpf_run_ns.checked_div(cost.ebpf_runs).map(seconds) {
        writeln!(
            out,
            "eBPF        {} in {} runs, {each} each",
            seconds(cost.ebpf_run_ns),
            count(cost.ebpf_runs)
        )?;
    }
    writeln!(
        out,
        "profiler    {} user and {} kernel CPU, {} to start; peak RSS {}; {} of kernel maps",
        seconds(cost.user_cpu_ns),
        seconds(cost.system_cpu_ns),
        seconds(cost.setup_and_naming_cpu_ns),
        bytes(cost.peak_rss_bytes),
        bytes(cost.kernel_map_bytes)
    )?;
    meta.notes.iter().try_for_each(|note| writeln!(out, "note        {note}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sched::{Accounts, CpuRow, Row};

    pub fn span() -> Span {
        let thread = Row {
            pid: Some(7),
            tid: Some(8),
            comm: "worker\\n".to_owned(),
            threads: 1,
            wall_ns: 1_000_000_000,
            voluntary: 12,
            involuntary: 3,
            cpu_ns: 400_000_000,
            irq_ns: 1_000_000,
            run_queue_ns: 99_000_000,
            run_queue_p99_ns: 3_000_000,
            run_queue_max_ns: 4_000_000,
            blocked_ns: 500_000_000,
            blocked: [("futex", 480_000_000), ("pipe", 20_000_000)].into_iter().collect(),
            counters: [("cycles", 3_000_000), ("instructions", 2_000_000)].into_iter().collect(),
            cpi: Some(1.5),
            ..Row::default()
        };
        let process = Row { tid: None, threads: 2, ..thread.clone() };
        let cpu = CpuRow {
            cpu: Some(0),
            wall_ns: 1_000,
            user_ns: Some(250),
            system_ns: Some(250),
            busy_ns: 500,
            idle_ns: 500,
            slices: vec![(1024, 2048, 4), (4096, 8192, 1)],
            ..CpuRow::default()
        };
        let cpus =
            vec![CpuRow { cpu: None, ..cpu.clone() }, CpuRow { user_ns: None, system_ns: None, ..cpu }];
        let mut span = Span { accounts: Accounts { rows: vec![process, thread], cpus }, ..Span::default() };
        span.losses.counters.insert("threads_map_full".to_owned(), 0);
        span
    }

    fn text(view: View) -> String {
        let mut out = Vec::new();
        write_text(&span(), view, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_has_processes_with_their_threads() {
        let text = text(View::Threads { rows: 10 });
        assert!(text.contains("      7       - "), "{text}");
        assert!(text.contains("      7       8 "), "{text}");
        assert!(text.contains("3,000,000        2,000,000  1.50  futex 48.0 %, pipe 2.0 %"), "{text}");
        assert!(text.contains("lost        nothing"), "{text}");
    }

    #[test]
    fn rows_that_are_not_shown_are_counted() {
        let text = text(View::Threads { rows: 0 });
        assert!(text.contains("and 1 more threads"), "{text}");
    }

    #[test]
    fn text_has_cpus_and_pictures() {
        let text = text(View::Cpus);
        assert!(text.contains("all     25.0    25.0"), "{text}");
        assert!(text.contains("0          -       -"), "{text}");
        assert!(text.contains("1.02 us"), "{text}");
        // An empty bucket between two others is a line too.
        assert!(text.contains("2.05 us"), "{text}");
    }

    #[test]
    fn json_has_the_documented_keys() {
        let mut out = Vec::new();
        write_json(&Span { number: Some(3), ..span() }, View::Threads { rows: 0 }, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["schema"], "profiler.sched/1");
        assert_eq!(json["meta"]["selection"], "interval 3");
        assert_eq!(json["rows"][0]["tid"], serde_json::Value::Null);
        assert_eq!(json["rows"][1]["blocked"]["futex"], 480_000_000);
        assert_eq!(json["rows"][1]["counters"]["cycles"], 3_000_000);
    }
}
