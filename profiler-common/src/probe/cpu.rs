//! The `cpu` probe: who is on the CPU, and where.

use crate::sample::Programs;

/// Its programs.
pub const PROGRAMS: Programs =
    Programs { sample: "cpu_sample", calls: "CPU_PROGRAMS", walk: "cpu_walk", count: "cpu_count" };
