//! The `kprobe` probe: who comes to a place in the kernel's code, and from where.

use crate::sample::{MAX_HOOKS, Programs};

/// Its programs, by the place of the event among those that the user named by their hooks.
pub const PROGRAMS: [Programs; MAX_HOOKS] =
    [programs("kprobe_0"), programs("kprobe_1"), programs("kprobe_2"), programs("kprobe_3")];

const fn programs(sample: &'static str) -> Programs {
    Programs { sample, calls: "KPROBE_PROGRAMS", walk: "kprobe_walk", count: "kprobe_count" }
}
