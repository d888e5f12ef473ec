//! The end of every report: what can be trusted. Samples, losses, names, stacks, and what the profiler itself used.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    model::{Cost, Losses, Meta, StackEnd},
    render::{
        RenderOptions,
        tally::{Tally, process_label},
        units::{bytes, count, percent, prose, seconds},
    },
};

/// Characters per line.
const WIDTH: usize = 100;

/// Processes named for their incomplete stacks.
const MAX_WORST: usize = 3;

/// Processes below this share of the total, in percent, are not named for them.
const WORST_PERCENT: f64 = 1.0;

/// Writes the trailer.
pub fn write(tally: &Tally<'_>, options: &RenderOptions, out: &mut dyn Write) -> io::Result<()> {
    let profile = tally.profile;
    writeln!(out)?;
    let mut line = |key: &str, text: String| wrapped(key, &text, out);
    line("samples", samples(tally))?;
    if profile.meta.is_own() {
        line("lost", lost(&profile.losses))?;
        line("unresolved", unresolved(&profile.losses))?;
    } else {
        line("lost", "not known".to_owned())?;
    }
    line("stacks", stacks(tally, options))?;
    if profile.cost != Cost::default() {
        let cost = &profile.cost;
        line("eBPF", ebpf(cost, &profile.meta))?;
        line("profiler", own_cpu(cost, &profile.meta))?;
        line("memory", memory(cost))?;
        if cost.unwind_bytes != 0 {
            line("unwinding", unwinding(cost))?;
        }
    }
    if options.selection.is_some() {
        line("note", "losses, unresolved frames and costs are those of the whole recording".to_owned())?;
    }
    profile.meta.notes.iter().try_for_each(|note| line("note", note.clone()))
}

/// A key and its text, continued below itself where it is too long for a line.
fn wrapped(key: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut line = format!("{key:<11}");
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(out, "{line}")?;
            line = " ".repeat(11);
        }
        line.push(' ');
        line.push_str(word);
        is_empty = false;
    }
    writeln!(out, "{line}")
}

fn samples(tally: &Tally<'_>) -> String {
    let meta = &tally.profile.meta;
    let mut text = prose(tally.total, tally.sample_type);
    if meta.frequency_hz == 0 && meta.ticks != 0 {
        // No timer: a tracepoint, which other tasks hit too.
        text += &format!("; {} hits of {}", count(meta.ticks), meta.sampler);
    } else if meta.ticks != 0 {
        text += &format!("; {} timer ticks", count(meta.ticks));
        if meta.expected_ticks != 0 {
            text += &format!(" of {} expected", count(meta.expected_ticks));
        }
        text += &format!(", {} on idle CPUs", count(meta.idle_samples));
    }
    text
}

/// Whole samples first; then what shortened samples or targets, by cause.
fn lost(losses: &Losses) -> String {
    let is_sample = |cause: &String| losses.lost_sample_causes.contains(cause);
    let list = |whole: bool| {
        let causes = losses.counters.iter().filter(|(cause, n)| **n != 0 && is_sample(cause) == whole);
        causes.map(|(cause, n)| format!("{cause} {}", count(*n))).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("{} samples", count(losses.lost_samples()));
    for (label, causes) in [(": ", list(true)), ("; incomplete: ", list(false))] {
        if !causes.is_empty() {
            text += label;
            text += &causes;
        }
    }
    text
}

fn unresolved(losses: &Losses) -> String {
    let total = losses.unresolved.values().fold(0u64, |sum, n| sum.saturating_add(*n));
    let reasons = losses.unresolved.iter().filter(|(_, n)| **n != 0);
    let reasons: Vec<_> = reasons.map(|(reason, n)| format!("{} {}", reason.words(), count(*n))).collect();
    let colon = if reasons.is_empty() { "" } else { ": " };
    format!("{} frames{colon}{}", count(total), reasons.join(", "))
}

/// Share of complete stacks, how the others end, and the processes with the lowest share.
fn stacks(tally: &Tally<'_>, options: &RenderOptions) -> String {
    let mut by_end = [0i64; StackEnd::ALL.len()];
    let mut processes: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for cell in &tally.cells {
        let end = tally.profile.stacks[cell.stack.index()].end;
        by_end[end as usize] = by_end[end as usize].saturating_add(cell.value);
        let label = process_label(tally.profile, cell.thread, options.merge_by_name);
        let (complete, all) = processes.entry(label).or_default();
        *all = all.saturating_add(cell.value);
        if end == StackEnd::Complete {
            *complete = complete.saturating_add(cell.value);
        }
    }
    let mut text = format!("{:.1} % complete", percent(by_end[StackEnd::Complete as usize], tally.total));
    for end in
        StackEnd::ALL.into_iter().filter(|end| *end != StackEnd::Complete && by_end[*end as usize] != 0)
    {
        text += &format!(", {:.1} % {}", percent(by_end[end as usize], tally.total), end.words());
    }
    let share = |(complete, all): (i64, i64)| percent(complete, all);
    let is_large = |all| percent(all, tally.total) >= WORST_PERCENT;
    let mut worst: Vec<_> =
        processes.into_iter().filter(|(_, sums)| sums.0 != sums.1 && is_large(sums.1)).collect();
    worst.sort_by(|(_, a), (_, b)| share(*a).total_cmp(&share(*b)));
    if !worst.is_empty() {
        let names = worst.iter().take(MAX_WORST).map(|(name, sums)| format!("{name} {:.1} %", share(*sums)));
        text += &format!("; fewest: {}", names.collect::<Vec<_>>().join(", "));
    }
    text
}

fn ebpf(cost: &Cost, meta: &Meta) -> String {
    let each = cost
        .ebpf_run_ns
        .checked_div(cost.ebpf_runs)
        .map_or(String::new(), |ns| format!(", {} each", seconds(ns)));
    let share = share_of_a_cpu(cost.ebpf_run_ns, meta);
    format!("{} in {} runs{each}{share}", seconds(cost.ebpf_run_ns), count(cost.ebpf_runs))
}

fn own_cpu(cost: &Cost, meta: &Meta) -> String {
    let share = share_of_a_cpu(cost.user_cpu_ns.saturating_add(cost.system_cpu_ns), meta);
    format!(
        "{} user and {} kernel CPU while recording{share}; {} to load and to name; {} to the first sample",
        seconds(cost.user_cpu_ns),
        seconds(cost.system_cpu_ns),
        seconds(cost.setup_and_naming_cpu_ns),
        seconds(cost.start_ns)
    )
}

fn share_of_a_cpu(ns: u64, meta: &Meta) -> String {
    if meta.duration_ns == 0 {
        return String::new();
    }
    format!(" ({:.2} % of one CPU)", ns as f64 * 100.0 / meta.duration_ns as f64)
}

fn unwinding(cost: &Cost) -> String {
    format!(
        "{} unwind tables with {} of kernel memory, made in {}",
        count(cost.unwind_tables),
        bytes(cost.unwind_bytes),
        seconds(cost.unwind_tables_ns)
    )
}

fn memory(cost: &Cost) -> String {
    format!(
        "peak RSS {} while recording, {} over all; {} of kernel maps",
        bytes(cost.recording_peak_rss_bytes),
        bytes(cost.peak_rss_bytes),
        bytes(cost.kernel_map_bytes)
    )
}
