//! Accounts and samples of the same time told as one: circumstances, losses, cost.

use super::cost::peak_rss_bytes;
use crate::model::{Cost, Losses, Meta, Profile};

/// What accounts say, beside what they are.
#[derive(Debug, Default)]
pub struct OfAccounts {
    /// What is shown, as reports name it.
    pub events: Vec<String>,
    /// Time accounted.
    pub duration_ns: u64,
    /// Limitations.
    pub notes: Vec<String>,
    /// What was lost.
    pub losses: Losses,
    /// Run time of their eBPF programs, ns, and their runs.
    pub ebpf: (u64, u64),
    /// Kernel memory of their maps, bytes.
    pub kernel_map_bytes: u64,
}

impl OfAccounts {
    /// The same with what samples say: a note once; of what both count, the sum; of what one process used, all.
    pub fn and_of_samples(self, profile: &Profile) -> (Meta, Losses, Cost) {
        let Self { events, duration_ns, notes, mut losses, ebpf, kernel_map_bytes } = self;
        let mut meta = Meta { events, duration_ns, ..profile.meta.clone() };
        meta.notes.extend(notes.into_iter().filter(|note| !profile.meta.notes.contains(note)));
        losses.count_all(&profile.losses.counters);
        losses.lost_sample_causes.clone_from(&profile.losses.lost_sample_causes);
        losses.unresolved.clone_from(&profile.losses.unresolved);
        let cost = Cost {
            ebpf_run_ns: profile.cost.ebpf_run_ns + ebpf.0,
            ebpf_runs: profile.cost.ebpf_runs + ebpf.1,
            kernel_map_bytes: profile.cost.kernel_map_bytes + kernel_map_bytes,
            peak_rss_bytes: peak_rss_bytes(),
            ..profile.cost.clone()
        };
        (meta, losses, cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_say_is_said_once_and_what_both_count_is_added() {
        let mut profile = Profile::default();
        profile.meta.notes = vec!["both".to_owned(), "samples".to_owned()];
        profile.meta.events = vec!["cpu".to_owned()];
        profile.losses.counters.insert("missed".to_owned(), 2);
        profile.cost = Cost { ebpf_run_ns: 10, kernel_map_bytes: 100, naming_ns: 7, ..Cost::default() };
        let mut accounts = OfAccounts {
            events: vec!["java".to_owned()],
            duration_ns: 5,
            notes: vec!["accounts".to_owned(), "both".to_owned()],
            ebpf: (1, 3),
            kernel_map_bytes: 11,
            ..OfAccounts::default()
        };
        accounts.losses.counters.insert("missed".to_owned(), 3);
        let (meta, losses, cost) = accounts.and_of_samples(&profile);
        assert_eq!((meta.events, meta.duration_ns), (vec!["java".to_owned()], 5));
        assert_eq!(meta.notes, ["both", "samples", "accounts"]);
        assert_eq!(losses.counters["missed"], 5);
        assert_eq!(
            (cost.ebpf_run_ns, cost.ebpf_runs, cost.kernel_map_bytes, cost.naming_ns),
            (11, 3, 111, 7)
        );
    }
}
