//! What renderers count: one sample type, summed over windows, per thread and stack.

use std::collections::HashMap;

use super::{RenderError, RenderOptions};
use crate::model::{Frame, FrameKind, Profile, SampleType, StackEnd, StackId, ThreadId};

/// Samples of one thread with one stack, all windows together.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Who.
    pub thread: ThreadId,
    /// Where.
    pub stack: StackId,
    /// How much.
    pub value: i64,
}

/// A profile's samples of one sample type.
pub struct Tally<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The sample type shown.
    pub sample_type: &'a SampleType,
    /// Sum of all values.
    pub total: i64,
    /// The parts of it, in order of thread and stack.
    pub cells: Vec<Cell>,
}

impl<'a> Tally<'a> {
    /// Sums the sample type that the options ask for.
    ///
    /// # Errors
    /// [`RenderError::NoSampleType`].
    pub fn new(profile: &'a Profile, options: &RenderOptions) -> Result<Self, RenderError> {
        let index = options.value_of(profile).ok_or(RenderError::NoSampleType)?;
        let mut sums: HashMap<_, i64> = HashMap::new();
        for sample in &profile.samples {
            let sum = sums.entry((sample.thread, sample.stack)).or_default();
            *sum = sum.saturating_add(sample.values[index]);
        }
        let cells = sums.into_iter().map(|((thread, stack), value)| Cell { thread, stack, value });
        let mut cells: Vec<_> = cells.filter(|cell| cell.value != 0).collect();
        cells.sort_unstable_by_key(|cell| (cell.thread, cell.stack));
        let total = cells.iter().fold(0i64, |sum, cell| sum.saturating_add(cell.value));
        Ok(Self { profile, sample_type: &profile.sample_types[index], total, cells })
    }
}

/// Process `name (pid)`, or its name alone where processes of one name are one.
pub fn process_label(profile: &Profile, thread: ThreadId, merge_by_name: bool) -> String {
    let thread = &profile.threads[thread.index()];
    let is_merged = merge_by_name || thread.is_of_several();
    if is_merged { thread.process.clone() } else { format!("{} ({})", thread.process, thread.pid) }
}

/// Thread `name (tid)`, or its name alone.
pub fn thread_label(profile: &Profile, thread: ThreadId, merge_by_name: bool) -> String {
    let thread = &profile.threads[thread.index()];
    let is_merged = merge_by_name || thread.is_of_several() || (thread.tid == 0 && thread.pid != 0);
    if is_merged { thread.name.clone() } else { format!("{} ({})", thread.name, thread.tid) }
}

/// What stands for the leaf frame of a sample without a stack.
pub fn no_stack_label(end: StackEnd) -> &'static str {
    match end {
        StackEnd::Complete => "[no stack]",
        StackEnd::Truncated => "[no stack: truncated]",
        StackEnd::Broken => "[no stack: broken]",
        StackEnd::NoMapping => "[no stack: no mapping]",
        StackEnd::NoUnwindInfo => "[no stack: no unwind information]",
        StackEnd::UnsupportedRule => "[no stack: unsupported rule]",
        StackEnd::UnreadableStack => "[no stack: unreadable]",
        StackEnd::NoProgress => "[no stack: no progress]",
        StackEnd::NotLoaded => "[no stack: table not loaded]",
        StackEnd::FirstSample => "[no stack: first sample]",
        StackEnd::Exiting => "[no stack: ending]",
        StackEnd::JavaCode => "[no stack: Java code]",
        StackEnd::Lost => "[no stack: lost]",
    }
}

/// Where a sample's leaf frame runs, as AIX's tprof splits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Kernel code.
    Kernel,
    /// The program's own code.
    User,
    /// Shared libraries and the vDSO.
    Shared,
    /// JIT-compiled, interpreted and unknown code, and samples without a stack.
    Other,
}

impl Domain {
    /// The domain of a leaf frame.
    pub fn of(leaf: Option<&Frame<'_>>) -> Self {
        use crate::model::ModuleKind::{Jit, Kernel, Native, Unknown, Vdso};
        let Some(leaf) = leaf else { return Self::Other };
        match leaf.module.kind {
            _ if matches!(
                leaf.kind,
                FrameKind::Interpreted | FrameKind::Jit | FrameKind::Baseline | FrameKind::Stub
            ) =>
            {
                Self::Other
            }
            Kernel => Self::Kernel,
            Vdso => Self::Shared,
            Native if is_shared_library(leaf.module.name()) => Self::Shared,
            Native => Self::User,
            Jit | Unknown => Self::Other,
        }
    }
}

/// Whether a file name is that of a shared library: `.so` at its end or before a version.
fn is_shared_library(name: &str) -> bool {
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    name.ends_with(".so")
        || name
            .split_once(".so.")
            .is_some_and(|(_, version)| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn nothing_is_counted_twice_or_left_out() {
        let profile = fixture::mixed();
        let tally = Tally::new(&profile, &RenderOptions::default()).unwrap();
        assert_eq!(tally.total, 1000);
        assert_eq!(tally.cells.iter().map(|cell| cell.value).sum::<i64>(), 1000);
        assert!(tally.cells.len() < profile.samples.len(), "windows are summed");
        let options = RenderOptions { value: Some(9), ..RenderOptions::default() };
        assert!(matches!(Tally::new(&profile, &options), Err(RenderError::NoSampleType)));
    }

    #[test]
    fn libraries_are_known_by_name() {
        for name in ["libc.so.6", "libx.so", "libstdc++.so.6.0.30", "libx.so (deleted)"] {
            assert!(is_shared_library(name), "{name}");
        }
        for name in ["crunch", "x.so.txt", "libc.a", "so"] {
            assert!(!is_shared_library(name), "{name}");
        }
    }
}
