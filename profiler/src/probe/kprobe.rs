//! Probe `kprobe`, user side: a place in the kernel's code, for each that the user names.

use profiler_common::{probe::kprobe::PROGRAMS, sample::MAX_HOOKS};

use super::{Event, ProbeError, ProbeSpec, SampleTypeSpec, tracepoint::HookProbe};
use crate::{
    bpf::load::Kernel,
    perf::hook::{Hook, KernelCode},
};

/// What event names begin with, and whether they are of the return from a function.
pub const PREFIXES: [(&str, bool); 2] = [("kprobe:", false), ("kretprobe:", true)];

/// What the kernel functions begin with that a function returns to whose return is hooked (before Linux 5.15, and after).
pub const INSIDE: &[&str] = &["kretprobe_trampoline", "__kretprobe_trampoline", "arch_rethook_trampoline"];

/// The registry entries, by the place of the event among those that the user names by their hooks.
pub const SPECS: [ProbeSpec; MAX_HOOKS] = [spec(0), spec(1), spec(2), spec(3)];

const TYPES: [[SampleTypeSpec; 1]; MAX_HOOKS] = [[hits(0)], [hits(1)], [hits(2)], [hits(3)]];

const NAME: &str = "kprobe:SYMBOL[+OFFSET]";

const fn hits(place: usize) -> SampleTypeSpec {
    SampleTypeSpec::hits(place, NAME, "times that the place in the kernel was come to")
}

const fn spec(place: usize) -> ProbeSpec {
    ProbeSpec {
        event: Event::Kprobe(place as u8),
        name: NAME,
        summary: "calls of a function of the kernel, by stack; kretprobe: returns from it",
        hooks: &["a breakpoint or a call in the kernel's code (kprobe), by way of perf"],
        hooked: None,
        sample_types: &TYPES[place],
        programs: PROGRAMS[place],
        minimum_kernel: (5, 8),
        requires: &["perf-events", "bpf", "kprobes"],
    }
}

/// The registry entry of a place.
pub const fn spec_at(place: u8) -> &'static ProbeSpec {
    const ALL: &[ProbeSpec; MAX_HOOKS] = &SPECS;
    &ALL[place as usize % MAX_HOOKS]
}

/// A place in the kernel's code to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As recordings name it.
    pub name: String,
    /// Where it is.
    pub code: KernelCode,
}

/// Loads the program of that event; it does not run yet.
///
/// # Errors
/// Those of the program, and of perf_event_open(2).
pub fn open(kernel: &mut Kernel, cpu: u32, place: u8, asked: &Asked) -> Result<HookProbe, ProbeError> {
    let program = kernel.load_and_share(PROGRAMS[usize::from(place) % MAX_HOOKS].sample)?;
    let hook = Hook::kernel_code(&asked.code, cpu)
        .map_err(|source| ProbeError::Hook { name: asked.name.clone(), source })?;
    Ok(HookProbe::new(&asked.name, program, vec![hook]))
}
