//! Probes, user side: what each one is (its [`ProbeSpec`]), how it is attached, and its maps read into typed records.
//!
//! One module per probe under the name it has in `profiler-ebpf/src/probe` and `profiler-common/src/probe`. [`PROBES`]
//! drives the command line's help, `doctor`, `list` and the README's table. A probe never formats and names no symbols.

pub mod cpu;

use crate::model::Unit;

/// A sample type that a probe yields.
#[derive(Clone, Copy, Debug)]
pub struct SampleTypeSpec {
    /// Name in recordings.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// One line: what is counted.
    pub summary: &'static str,
}

/// What a probe is.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSpec {
    /// The event's name for `-e`.
    pub name: &'static str,
    /// One line: what question it answers.
    pub summary: &'static str,
    /// Kernel hooks it attaches to.
    pub hooks: &'static [&'static str],
    /// What it yields.
    pub sample_types: &'static [SampleTypeSpec],
    /// Oldest kernel it works on, (major, minor).
    pub minimum_kernel: (u32, u32),
    /// `doctor` checks that must pass.
    pub requires: &'static [&'static str],
}

/// All probes.
pub const PROBES: &[ProbeSpec] = &[cpu::SPEC];

/// The probe of that name.
pub fn find(name: &str) -> Option<&'static ProbeSpec> {
    PROBES.iter().find(|probe| probe.name == name)
}
