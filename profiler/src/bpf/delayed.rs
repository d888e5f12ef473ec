//! What the kernel side counts only when it ends: waits, system calls. Until then it is in a map of its own, with the names of
//! stacks that may have been drained any number of windows ago.

use std::collections::HashSet;

use profiler_common::sample::{CountKey, CountValue};

use super::BpfError;

/// Such a map.
pub trait Delayed {
    /// The names of all stacks that something can still be counted with. Entries come and go meanwhile: one that is there all
    /// the time is seen.
    fn stacks(&self) -> HashSet<u64>;

    /// What goes on, as counts until `end_ns`. Only when no program writes any more.
    fn unfinished(&mut self, end_ns: u64) -> Result<Vec<(CountKey, CountValue)>, BpfError>;

    /// Kernel memory, bytes.
    fn memory(&self) -> u64;
}
