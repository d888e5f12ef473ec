//! The screen.

use std::io::{self, Write};

use crate::{
    model::{
        java::{Counts, Method, Monitor, Span, Thread},
        named::Named,
    },
    render::{
        RenderError,
        sched::trailer,
        text::cut,
        units::{bytes, count, percent, seconds, utc},
    },
};

/// Causes and kinds named on a line.
const NAMED: usize = 3;
/// Characters of a thread's name.
const NAME: usize = 24;
/// Characters of a method, and of a class.
const WIDTH: usize = 80;

/// Writes a span as text, with so many threads, methods and monitors at most.
///
/// # Errors
/// Those of writing.
pub fn write(span: &Span, rows: usize, out: &mut dyn Write) -> Result<(), RenderError> {
    let which = span.number.map_or("whole run".to_owned(), |number| format!("interval {number}"));
    let meta = &span.meta;
    writeln!(out, "{}  {which}, {}: {}", utc(meta.start_unix_ns), seconds(meta.duration_ns), meta.target)?;
    let jvm = &span.jvm;
    if jvm.jdk == 0 {
        writeln!(out, "no JVM (yet)\n")?;
    } else {
        let version = if jvm.version.is_empty() { String::new() } else { format!(" ({})", jvm.version) };
        let collector = if jvm.collector.is_empty() { String::new() } else { format!(", {}", jvm.collector) };
        writeln!(out, "JDK {}{version}{collector}: {}\n", jvm.jdk, cut(&jvm.command, WIDTH))?;
    }
    if let Some(counts) = &span.counts {
        write_counts(counts, out)?;
    }
    let allocated: Vec<u64> = span.threads.iter().filter_map(|thread| thread.allocated_bytes).collect();
    if !allocated.is_empty() {
        writeln!(out, "allocated    {} by threads", bytes(allocated.iter().sum()))?;
    }
    write_threads(&span.threads, rows, out)?;
    write_methods(&span.methods, span.samples, rows, out)?;
    write_monitors(&span.monitors, rows, out)?;
    if span.number.is_none() {
        trailer(&span.meta, &span.losses, &span.cost, out)?;
    }
    Ok(writeln!(out)?)
}

fn write_counts(counts: &Counts, out: &mut dyn Write) -> io::Result<()> {
    let all: u64 = counts.collectors.iter().map(|collector| collector.collections).sum();
    let time: u64 = counts.collectors.iter().map(|collector| collector.ns).sum();
    write!(out, "collections  {}", count(all))?;
    if all != 0 {
        let used = counts.collectors.iter().filter(|collector| collector.collections != 0);
        let each = used.map(|c| format!("{} {} in {}", c.name, count(c.collections), seconds(c.ns)));
        write!(out, " in {}: {}", seconds(time), each.collect::<Vec<_>>().join(", "))?;
        if let Some(cause) = &counts.last_gc_cause {
            write!(out, "; the last by {cause}")?;
        }
    }
    writeln!(out)?;
    if let (Some(safepoints), Some(ns)) = (counts.safepoints, counts.safepoint_ns) {
        write!(out, "safepoints   {} in {}", count(safepoints), seconds(ns))?;
        let sync = counts.safepoint_sync_ns.filter(|_| safepoints != 0);
        writeln!(out, "{}", sync.map_or(String::new(), |ns| format!(", and {} to get there", seconds(ns))))?;
    }
    if let (Some(compilations), Some(ns)) = (counts.compilations, counts.compilation_ns) {
        writeln!(out, "compiled     {} methods in {}", count(compilations), seconds(ns))?;
    }
    if let (Some(loaded), Some(unloaded)) = (counts.classes_loaded, counts.classes_unloaded) {
        writeln!(out, "classes      {} loaded, {} unloaded", count(loaded), count(unloaded))?;
    }
    if let (Some(used), Some(capacity)) = (counts.heap_used_bytes, counts.heap_capacity_bytes) {
        write!(out, "heap         {} in use of {}", bytes(used), bytes(capacity))?;
        let metaspace = counts.metaspace_used_bytes;
        writeln!(out, "{}", metaspace.map_or(String::new(), |used| format!(", metaspace {}", bytes(used))))?;
    }
    Ok(())
}

/// The largest numbers by name, each as `text` has it.
fn largest(named: &Named, text: impl Fn(&str, u64) -> Option<String>) -> String {
    let mut all: Vec<_> = named.iter().collect();
    all.sort_by_key(|&(name, number)| (std::cmp::Reverse(number), name));
    all.into_iter().take(NAMED).filter_map(|(name, number)| text(name, number)).collect::<Vec<_>>().join(", ")
}

/// What is left out.
fn more(all: usize, shown: usize, what: &str, out: &mut dyn Write) -> io::Result<()> {
    match all - shown.min(all) {
        0 => Ok(()),
        left => writeln!(out, "... and {} more {what} (--rows, --json)", count(left as u64)),
    }
}

fn write_threads(threads: &[Thread], rows: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{:>7} {:<24} {:<11} {:>6} {:>6} {:>6} {:>10}  blocked by",
        "TID", "THREAD", "STATE", "CPU%", "RUNQ%", "BLKD%", "ALLOCATED"
    )?;
    threads.iter().take(rows).try_for_each(|thread| write_thread(thread, out))?;
    more(threads.len(), rows, "threads", out)
}

fn write_thread(thread: &Thread, out: &mut dyn Write) -> io::Result<()> {
    let share = |ns: u64| if thread.wall_ns == 0 { 0.0 } else { ns as f64 * 100.0 / thread.wall_ns as f64 };
    let cause = |name: &str, ns: u64| (share(ns) >= 0.05).then(|| format!("{name} {:.1} %", share(ns)));
    let mut notes = vec![largest(&thread.blocked, cause)];
    if let Some(method) = &thread.innermost {
        notes.push(format!("in {}", cut(method, WIDTH)));
    }
    if thread.ended {
        notes.push("ended".to_owned());
    }
    notes.retain(|note| !note.is_empty());
    let name = cut(&thread.name, NAME);
    writeln!(
        out,
        "{:>7} {name:<NAME$} {:<11} {:>6.1} {:>6.1} {:>6.1} {:>10}  {}",
        thread.tid,
        thread.state.unwrap_or("-"),
        share(thread.cpu_ns + thread.irq_ns),
        share(thread.run_queue_ns),
        share(thread.blocked_ns),
        thread.allocated_bytes.map_or("-".to_owned(), bytes),
        notes.join("; ")
    )
}

fn write_methods(methods: &[Method], samples: u64, rows: usize, out: &mut dyn Write) -> io::Result<()> {
    if methods.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nOf {} samples of a CPU, those in the method itself, in native code that it called, and in all that it called:\n",
        count(samples)
    )?;
    writeln!(out, "{:>6} {:>7} {:>6}  METHOD", "SELF%", "NATIVE%", "TOTAL%")?;
    let share = |of: u64| percent(of.try_into().unwrap_or(i64::MAX), samples.try_into().unwrap_or(i64::MAX));
    for method in methods.iter().take(rows) {
        let kinds = largest(&method.kinds, |kind, _| Some(kind.to_owned()));
        let kinds = if kinds.is_empty() { kinds } else { format!(" ({kinds})") };
        let [own, native, total] = [method.own, method.native, method.total].map(share);
        writeln!(out, "{own:>6.1} {native:>7.1} {total:>6.1}  {}{kinds}", cut(&method.method, WIDTH))?;
    }
    more(methods.len(), rows, "methods", out)
}

fn write_monitors(monitors: &[Monitor], rows: usize, out: &mut dyn Write) -> io::Result<()> {
    if monitors.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:>6} {:>9} {:>9} {:>7}  MONITOR", "WAITS", "TIME", "MEAN", "THREADS")?;
    for monitor in monitors.iter().take(rows) {
        let line = if monitor.line == 0 { String::new() } else { format!(":{}", monitor.line) };
        let classes: Vec<_> = monitor.classes.iter().take(NAMED).map(|class| cut(class, WIDTH)).collect();
        let classes = if classes.is_empty() { String::new() } else { format!(", {}", classes.join(", ")) };
        writeln!(
            out,
            "{:>6} {:>9} {:>9} {:>7}  {}{line}{classes}",
            count(monitor.waits),
            seconds(monitor.wait_ns),
            seconds(monitor.avg_ns),
            count(monitor.threads),
            cut(&monitor.method, WIDTH)
        )?;
    }
    more(monitors.len(), rows, "places", out)
}
