//! The `uprobe` probe: who comes to a place in a program's code, and from where.

use crate::sample::{MAX_HOOKS, Programs};

/// Its programs, by the place of the event among those that the user named by their hooks.
pub const PROGRAMS: [Programs; MAX_HOOKS] =
    [programs("uprobe_0"), programs("uprobe_1"), programs("uprobe_2"), programs("uprobe_3")];

const fn programs(sample: &'static str) -> Programs {
    Programs { sample, calls: "UPROBE_PROGRAMS", walk: "uprobe_walk", count: "uprobe_count" }
}

/// The map of the CPUs whose memory is in use, with room for each; one entry if there is no such event.
pub const BUSY: &str = "UPROBE_BUSY";
