//! What rows hold as JSON: what windows have in common, losses, cost. `docs/store.md` has the shapes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::damage;
use crate::model::{Cost, Losses, Meta, Profile, Reason, SampleType};

/// What windows of one run have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Circumstances {
    /// Without what each window has of its own.
    pub meta: Meta,
    /// Sample types that were recorded.
    pub sample_types: Vec<SampleType>,
    /// Causes of losses that were watched.
    pub watched: Vec<String>,
    /// Those of them whose count is whole samples.
    pub lost_sample_causes: Vec<String>,
}

impl Circumstances {
    pub fn of(profile: &Profile) -> Self {
        let meta = Meta {
            start_unix_ns: 0,
            duration_ns: 0,
            window_ns: 0,
            idle_samples: 0,
            ticks: 0,
            expected_ticks: 0,
            stolen_ns: 0,
            notes: Vec::new(),
            ..profile.meta.clone()
        };
        Self {
            meta,
            sample_types: profile.sample_types.clone(),
            watched: profile.losses.counters.keys().cloned().collect(),
            lost_sample_causes: profile.losses.lost_sample_causes.clone(),
        }
    }
}

/// Losses that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lost {
    /// Count by cause.
    pub counters: BTreeMap<String, u64>,
    /// Unresolved frames by reason.
    pub unresolved: BTreeMap<Reason, u64>,
}

impl Lost {
    pub fn of(losses: &Losses) -> Self {
        let counters = losses.counters.iter().filter(|(_, count)| **count != 0);
        Self {
            counters: counters.map(|(cause, count)| (cause.clone(), *count)).collect(),
            unresolved: losses.unresolved.clone(),
        }
    }

    pub fn add(&mut self, other: &Self) {
        add_counts(&mut self.counters, &other.counters);
        add_counts(&mut self.unresolved, &other.unresolved);
    }
}

/// Adds counts by key.
pub fn add_counts<K: Ord + Clone>(sums: &mut BTreeMap<K, u64>, counts: &BTreeMap<K, u64>) {
    for (key, count) in counts {
        let sum = sums.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

/// The cost of two windows together: work adds up, of sizes the larger one is told.
pub fn add_cost(a: &Cost, b: &Cost) -> Cost {
    Cost {
        ebpf_run_ns: a.ebpf_run_ns.saturating_add(b.ebpf_run_ns),
        ebpf_runs: a.ebpf_runs.saturating_add(b.ebpf_runs),
        user_cpu_ns: a.user_cpu_ns.saturating_add(b.user_cpu_ns),
        system_cpu_ns: a.system_cpu_ns.saturating_add(b.system_cpu_ns),
        setup_and_naming_cpu_ns: a.setup_and_naming_cpu_ns.saturating_add(b.setup_and_naming_cpu_ns),
        recording_peak_rss_bytes: a.recording_peak_rss_bytes.max(b.recording_peak_rss_bytes),
        peak_rss_bytes: a.peak_rss_bytes.max(b.peak_rss_bytes),
        kernel_map_bytes: a.kernel_map_bytes.max(b.kernel_map_bytes),
        unwind_tables: a.unwind_tables.max(b.unwind_tables),
        unwind_bytes: a.unwind_bytes.max(b.unwind_bytes),
        unwind_tables_ns: a.unwind_tables_ns.saturating_add(b.unwind_tables_ns),
        start_ns: a.start_ns.max(b.start_ns),
        naming_ns: a.naming_ns.saturating_add(b.naming_ns),
    }
}

/// Most notes of a merged window.
const MAX_NOTES: usize = 100;

/// Adds notes that are not there yet; where there are too many, the last one says so.
pub fn add_notes(notes: &mut Vec<String>, more: &[String]) {
    for note in more {
        if notes.contains(note) {
            continue;
        }
        if notes.len() + 1 >= MAX_NOTES {
            let rest = "there are more notes than are kept".to_owned();
            if notes.last() != Some(&rest) {
                notes.push(rest);
            }
            return;
        }
        notes.push(note.clone());
    }
}

/// As JSON.
pub fn to_json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))
}

/// The cost as JSON, without what is 0.
pub fn cost_to_json(cost: &Cost) -> rusqlite::Result<String> {
    let fail = |cause: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(cause.into());
    let mut value = serde_json::to_value(cost).map_err(fail)?;
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, number| number.as_u64() != Some(0));
    }
    Ok(value.to_string())
}

/// From JSON.
pub fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|_| damage("text that is not the JSON it was"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_kept_once_and_are_bounded() {
        let mut notes = vec!["a".to_owned()];
        add_notes(&mut notes, &["a".to_owned(), "b".to_owned()]);
        assert_eq!(notes, ["a", "b"]);
        let many: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        add_notes(&mut notes, &many);
        add_notes(&mut notes, &many);
        assert_eq!(notes.len(), MAX_NOTES);
        assert_eq!(notes.last().unwrap(), "there are more notes than are kept");
    }

    #[test]
    fn costs_are_written_without_zeros_and_read_back() {
        let cost = Cost { ebpf_runs: 3, ..Cost::default() };
        let text = cost_to_json(&cost).unwrap();
        assert_eq!(text, r#"{"ebpf_runs":3}"#);
        assert_eq!(from_json::<Cost>(&text).unwrap(), cost);
        from_json::<Cost>("{").unwrap_err();
    }
}
