//! The screen.

use std::io::{self, Write};

use super::share;
use crate::{
    model::stat::{Counts, Function, Kind, Number, Part, Stat, Syscall},
    render::{
        RenderError,
        sched::trailer,
        text::cut,
        units::{bytes, count, seconds, utc},
    },
};

/// Characters of the columns of functions and of modules.
const WIDTHS: (usize, usize) = (40, 24);

/// Parts with less than this share, in percent, are shown without functions and system calls.
const MIN_PART: f64 = 0.05;

/// Functions and system calls with less than this share of their part, in percent, are not shown.
const MIN_SHARE: f64 = 1.0;

/// Writes the whole run as text. `top`: functions and system calls of each part, at most.
///
/// # Errors
/// Those of writing.
pub fn write(stat: &Stat, top: usize, out: &mut dyn Write) -> Result<(), RenderError> {
    let meta = &stat.meta;
    writeln!(out, "{}  {}: {}", utc(meta.start_unix_ns), seconds(meta.duration_ns), meta.target)?;
    let at_a_time = stat.thread_ns as f64 / meta.duration_ns.max(1) as f64;
    writeln!(
        out,
        "time of {} {}: {}, {at_a_time:.2} threads at a time\n",
        count(stat.counts.threads.seen),
        if stat.counts.threads.seen == 1 { "thread" } else { "threads" },
        seconds(stat.thread_ns)
    )?;
    for part in &stat.parts {
        write_part(stat, part, top, out)?;
    }
    writeln!(out, "{:>6.1} % {:>9}  all", share(stat.thread_ns, stat.thread_ns), seconds(stat.thread_ns))?;
    write_counts(&stat.counts, out)?;
    let mut losses = stat.losses.clone();
    // Of CPUs that nobody looks at; the note that there is tells more.
    losses.counters.remove("ticks_not_delivered");
    trailer(meta, &losses, &stat.cost, out)?;
    Ok(writeln!(out)?)
}

fn words(kind: Kind) -> String {
    match kind {
        Kind::User => "user mode".to_owned(),
        Kind::Syscalls => "kernel, in system calls".to_owned(),
        Kind::Kernel => "kernel, otherwise".to_owned(),
        Kind::OutsideSyscalls => "user mode, and kernel outside of system calls".to_owned(),
        Kind::Interrupts => "taken by interrupts".to_owned(),
        Kind::RunQueue => "waiting for a CPU".to_owned(),
        Kind::Blocked(cause) => format!("blocked: {cause}"),
        Kind::Unknown => "unknown: a switch was not seen".to_owned(),
    }
}

fn write_part(stat: &Stat, part: &Part, top: usize, out: &mut dyn Write) -> io::Result<()> {
    let percent = share(part.ns, stat.thread_ns);
    write!(out, "{percent:>6.1} % {:>9}  {}", seconds(part.ns), words(part.kind))?;
    match part.estimated_by {
        Some(0) => write!(out, " (there is no sample to tell them apart)")?,
        Some(samples) => {
            let unit = if samples == 1 { "sample" } else { "samples" };
            write!(out, " (estimated from {} {unit})", count(samples))?;
        }
        None => {}
    }
    writeln!(out)?;
    if percent < MIN_PART {
        return Ok(());
    }
    let is_shown = |ns: u64| share(ns, part.ns) >= MIN_SHARE;
    for function in part.functions.iter().take(top).filter(|function| is_shown(function.ns)) {
        write_function(stat, function, out)?;
    }
    let mut syscalls = part.syscalls.iter().take(top).filter(|syscall| is_shown(syscall.ns));
    syscalls.try_for_each(|syscall| write_syscall(stat, syscall, out))
}

fn write_function(stat: &Stat, function: &Function, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>14.1} % {:>9}  {:width$} {}",
        share(function.ns, stat.thread_ns),
        seconds(function.ns),
        cut(&function.function, WIDTHS.0),
        cut(&function.module, WIDTHS.1),
        width = WIDTHS.0
    )
}

fn write_syscall(stat: &Stat, syscall: &Syscall, out: &mut dyn Write) -> io::Result<()> {
    let percent = share(syscall.ns, stat.thread_ns);
    let name = format!("call {}", syscall.syscall);
    write!(
        out,
        "{percent:>14.1} % {:>9}  {:width$}",
        seconds(syscall.ns),
        cut(&name, WIDTHS.0),
        width = WIDTHS.0
    )?;
    if let Some(calls) = syscall.count {
        write!(out, " {} {}", count(calls), if calls == 1 { "call" } else { "calls" })?;
    }
    match syscall.errors {
        None | Some(0) => writeln!(out),
        Some(errors) => writeln!(out, ", {} with errors", count(errors)),
    }
}

fn write_counts(counts: &Counts, out: &mut dyn Write) -> io::Result<()> {
    let number =
        |of: Number| format!("{} ({} started, {} ended)", count(of.seen), count(of.started), count(of.ended));
    writeln!(out, "\nprocesses   {}; threads {}", number(counts.processes), number(counts.threads))?;
    writeln!(
        out,
        "switches    {} voluntary, {} involuntary; {} changes of the CPU",
        count(counts.voluntary),
        count(counts.involuntary),
        count(counts.migrations)
    )?;
    if let (Some(minor), Some(major)) = (counts.minor_faults, counts.major_faults) {
        writeln!(out, "faults      {} without disk, {} with disk", count(minor), count(major))?;
    }
    writeln!(out, "calls       {}, {} with errors", count(counts.syscalls), count(counts.syscall_errors))?;
    let [read, written, received, sent, copied] = [
        counts.read_bytes,
        counts.written_bytes,
        counts.received_bytes,
        counts.sent_bytes,
        counts.copied_bytes,
    ]
    .map(bytes);
    writeln!(
        out,
        "bytes       read {read}, written {written}, received {received}, sent {sent}, copied in the kernel {copied}"
    )?;
    let counters: Vec<_> = counts.counters.iter().map(|(name, n)| format!("{} {name}", count(n))).collect();
    if !counters.is_empty() {
        let cpi =
            counts.cpi.map_or_else(String::new, |cpi| format!(", {cpi:.2} cycles for each instruction"));
        writeln!(out, "counters    {}{cpi}", counters.join(", "))?;
    }
    Ok(())
}
