//! What a reader of a range has to know: where windows are missing, where rates or circumstances changed.

use super::{Range, WindowInfo, read::Head, record::Circumstances};
use crate::{model::window::Rates, render::units};

/// Starts and ends are read from a clock and a timer apart; what is shorter is no gap.
const GAP_NS: u64 = 1_000_000_000;

/// Most gaps, changes and the like that are told one by one.
const MAX_TOLD: usize = 5;

/// Gaps, changes of rates, jumps of the clock, and how far the windows reach beyond the range.
pub fn windows(heads: &[Head], range: Range) -> Vec<String> {
    let windows: Vec<_> = heads.iter().map(|head| &head.info).collect();
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
        return vec!["there are no windows in this range".to_owned()];
    };
    let mut notes = Vec::from_iter(told("no windows: ", gaps(&windows, range)));
    notes.extend(told("rates changed: ", changes(&windows)));
    let set_back = |pair: &&[&WindowInfo]| pair[1].start_unix_ns + GAP_NS < pair[0].end_unix_ns;
    let jumps = windows.windows(2).filter(set_back).map(|pair| {
        let (before, after) = (units::utc(pair[0].end_unix_ns), units::utc(pair[1].start_unix_ns));
        format!("{before} was followed by {after}")
    });
    notes.extend(told("the clock was set back: ", jumps.collect()));
    // Of windows of minutes a reader sees more than was asked for.
    let beyond = |more: u64, window: &WindowInfo| window.merged > 1 && more > GAP_NS;
    let (before, after) = (
        range.from_unix_ns.saturating_sub(first.start_unix_ns),
        last.end_unix_ns.saturating_sub(range.to_unix_ns),
    );
    if beyond(before, first) || beyond(after, last) {
        let (from, to) = (units::utc(first.start_unix_ns), units::utc(last.end_unix_ns));
        notes.push(format!("windows of this age are merged and shown as a whole: from {from} to {to}"));
    }
    notes
}

/// Times without windows, in words, and how many windows are missing in each as far as numbers tell.
pub fn gaps(windows: &[&WindowInfo], range: Range) -> Vec<String> {
    let mut gaps = Vec::new();
    let between = |from: u64, to: u64| format!("from {} to {}", units::utc(from), units::utc(to));
    if let (Some(first), true) = (windows.first(), range.from_unix_ns != 0)
        && first.start_unix_ns > range.from_unix_ns.saturating_add(GAP_NS)
    {
        gaps.push(between(range.from_unix_ns, first.start_unix_ns));
    }
    for (at, window) in windows.iter().enumerate() {
        let span = window.end_unix_ns.saturating_sub(window.start_unix_ns);
        if span > window.duration_ns.saturating_add(GAP_NS) {
            let missing = units::seconds(span - window.duration_ns);
            gaps.push(format!("{missing} {}", between(window.start_unix_ns, window.end_unix_ns)));
        }
        let Some(next) = windows.get(at + 1) else { continue };
        if next.start_unix_ns > window.end_unix_ns.saturating_add(GAP_NS) {
            let mut gap = between(window.end_unix_ns, next.start_unix_ns);
            let missing = next.number.saturating_sub(window.last_number.saturating_add(1));
            if next.run == window.run && missing != 0 {
                gap += &format!(" ({} windows)", units::count(missing));
            }
            gaps.push(gap);
        }
    }
    // The window that goes on now is no gap.
    if let Some(last) = windows.last().filter(|_| range.to_unix_ns < u64::MAX / 2) {
        let usual = last.duration_ns / last.merged.max(1);
        if range.to_unix_ns > last.end_unix_ns.saturating_add(usual).saturating_add(GAP_NS) {
            gaps.push(between(last.end_unix_ns, range.to_unix_ns));
        }
    }
    gaps
}

fn changes(windows: &[&WindowInfo]) -> Vec<String> {
    let changed = windows.windows(2).filter(|pair| pair[0].rates != pair[1].rates);
    let mut changes: Vec<_> = changed
        .map(|pair| format!("from {} on {}", units::utc(pair[1].start_unix_ns), rates(&pair[1].rates)))
        .collect();
    if let (false, Some(first)) = (changes.is_empty(), windows.first()) {
        changes.insert(0, format!("first {}", rates(&first.rates)));
    }
    changes
}

/// Rates in words.
pub fn rates(rates: &Rates) -> String {
    let blocked = match rates.min_block_ns {
        None => "no blocked times".to_owned(),
        Some(0) => "all blocked times".to_owned(),
        Some(ns) => format!("blocked times from {}", units::seconds(ns)),
    };
    let blocked = match rates.blocked_every {
        _ if rates.min_block_ns.is_none() => blocked,
        0 => "blocked times without stacks".to_owned(),
        1 => blocked,
        every => format!("one in {every} {blocked}"),
    };
    format!("{} Hz, {blocked}, {} frames", rates.frequency_hz, rates.stack_depth)
}

/// What changed of host, kernel and profiler; `of`: the circumstances of each window.
pub fn circumstances(heads: &[Head], of: &[&Circumstances]) -> Option<String> {
    let mut changes = Vec::new();
    for (pair, head) in of.windows(2).zip(heads.iter().skip(1)) {
        let (old, new) = (&pair[0].meta, &pair[1].meta);
        let at = units::utc(head.info.start_unix_ns);
        for (what, before, after) in [
            ("host", old.host.clone(), new.host.clone()),
            ("kernel", old.kernel.clone(), new.kernel.clone()),
            ("profiler", old.profiler_version.clone(), new.profiler_version.clone()),
            ("CPUs", old.cpus.to_string(), new.cpus.to_string()),
            ("events", old.events.join(", "), new.events.join(", ")),
        ] {
            if before != after {
                changes.push(format!("{what} {before} until {at}, then {after}"));
            }
        }
    }
    told("changed: ", changes)
}

/// One note of what there is, the first few in words.
fn told(what: &str, mut all: Vec<String>) -> Option<String> {
    let more = all.len().saturating_sub(MAX_TOLD);
    all.truncate(MAX_TOLD);
    if more != 0 {
        all.push(format!("and {more} more"));
    }
    (!all.is_empty()).then(|| format!("{what}{}", all.join("; ")))
}
