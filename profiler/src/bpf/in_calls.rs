//! Threads in system calls (`profiler_common::probe::syscall_stacks`): what the kernel side keeps of each between the entry
//! and the return.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::{HashMap, IterableMap as _, MapData};
use profiler_common::{
    probe::syscall_stacks::{Detail, InCall},
    sample::{CountKey, CountValue, What},
    stack::EMPTY_STACK,
};

use super::{BpfError, batch, delayed::Delayed, load::Kernel, map::take, stats::map_memory};

const NAME: &str = "IN_CALLS";

/// The map of them.
pub struct InCalls {
    map: HashMap<MapData, u64, InCall>,
}

impl InCalls {
    /// Takes the map out of the object.
    pub fn new(kernel: &mut Kernel) -> Result<Self, BpfError> {
        Ok(Self { map: take(&mut kernel.ebpf, NAME)? })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.map().fd().as_fd()
    }
}

impl Delayed for InCalls {
    fn stacks(&self) -> HashSet<u64> {
        let entries = self.map.iter().filter_map(Result::ok);
        entries.flat_map(|(_, entry)| [entry.user_stack, entry.memo.stack]).collect()
    }

    fn unfinished(&mut self, end_ns: u64) -> Result<Vec<(CountKey, CountValue)>, BpfError> {
        let mut counts = Vec::new();
        batch::drain(self.fd(), NAME, |_: &u64, entry: &InCall| counts.extend(unfinished(entry, end_ns)))?;
        Ok(counts)
    }

    fn memory(&self) -> u64 {
        map_memory(self.fd())
    }
}

fn unfinished(entry: &InCall, end_ns: u64) -> Option<(CountKey, CountValue)> {
    if entry.since_ns == 0 {
        return None;
    }
    let key = CountKey {
        pid: entry.pid,
        tid: entry.tid,
        incarnation: entry.incarnation,
        kernel_stack: EMPTY_STACK,
        user_stack: entry.user_stack,
        what: What::CallTime as u32,
        detail: Detail(entry.detail).unfinished().0,
    };
    let ns = end_ns.saturating_sub(entry.since_ns);
    Some((key, CountValue { count: 1, ns, first_ns: entry.at_ns, comm: entry.comm }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_goes_on_is_counted_until_the_end_and_marked() {
        // SAFETY: a Pod: zeros are a value of it.
        let empty: InCall = unsafe { std::mem::zeroed() };
        let entry =
            InCall { since_ns: 100, at_ns: 90, pid: 3, tid: 4, detail: Detail::of(7, false).0, ..empty };
        let (key, value) = unfinished(&entry, 350).unwrap();
        assert_eq!((key.pid, key.tid, key.what), (3, 4, What::CallTime as u32));
        assert_eq!((value.count, value.ns, value.first_ns), (1, 250, 90));
        assert!(Detail(key.detail).is_unfinished());
        assert!(unfinished(&InCall { since_ns: 0, ..entry }, 350).is_none());
    }
}
