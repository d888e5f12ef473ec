//! Everything that was lost, shortened or left without a name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Reason;

/// Loss counters of a recording. "lost: 0" is a promise: each way to lose something has its key in `counters`, and a
/// key with value 0 was watched and did not happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Count by cause (`profiler_common::loss::Loss::name` for the kernel side, and the user side's own).
    pub counters: BTreeMap<String, u64>,
    /// Causes (keys of `counters`) whose count is whole samples lost, not samples shortened.
    pub lost_sample_causes: Vec<String>,
    /// Unresolved frames by reason, weighted by samples.
    pub unresolved: BTreeMap<Reason, u64>,
}

impl Losses {
    /// Whole samples lost, of all causes.
    pub fn lost_samples(&self) -> u64 {
        let counts = self.lost_sample_causes.iter().filter_map(|cause| self.counters.get(cause));
        // A recording file may hold any numbers.
        counts.fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Adds what others counted, to the same causes.
    pub fn count_all(&mut self, others: &BTreeMap<String, u64>) {
        for (cause, &count) in others {
            let sum = self.counters.entry(cause.clone()).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}
