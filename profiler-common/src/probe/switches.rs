//! The `context-switches` probe: who leaves the CPU, and where.

use crate::sample::Programs;

/// Its programs.
pub const PROGRAMS: Programs = Programs {
    sample: "switches_sample",
    calls: "SWITCHES_PROGRAMS",
    walk: "switches_walk",
    count: "switches_count",
};
