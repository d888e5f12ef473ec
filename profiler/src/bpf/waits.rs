//! Tasks off the CPU (`profiler_common::sched::wait`): what the kernel side keeps of each between leaving a CPU and
//! getting one.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::{HashMap, IterableMap as _, MapData};
use profiler_common::{
    sample::{CountKey, CountValue, What},
    sched::wait::{Detail, State, Wait},
};

use super::{BpfError, batch, load::Kernel, stats::map_memory};

const NAME: &str = "WAITS";

/// The map of them.
pub struct Waits {
    map: HashMap<MapData, u32, Wait>,
}

impl Waits {
    /// Takes the map out of the object.
    pub fn new(kernel: &mut Kernel) -> Result<Self, BpfError> {
        let map = kernel.ebpf.take_map(NAME).ok_or(BpfError::Missing(NAME))?;
        let map = map.try_into().map_err(|source| BpfError::Map {
            operation: "open",
            map: NAME,
            source: Box::new(source),
        })?;
        Ok(Self { map })
    }

    /// The names of all stacks that a wait can still be counted with. Entries come and go meanwhile: one that is there
    /// all the time is seen.
    pub fn stacks(&self) -> HashSet<u64> {
        let waits = self.map.iter().filter_map(Result::ok);
        waits.flat_map(|(_, wait)| [wait.kernel_stack, wait.user_stack]).collect()
    }

    /// The waits that go on, as counts until `end_ns`. Only when no program writes any more.
    pub fn unfinished(&mut self, end_ns: u64) -> Result<Vec<(CountKey, CountValue)>, BpfError> {
        let mut counts = Vec::new();
        batch::drain(self.fd(), NAME, |tid, wait: &Wait| counts.extend(unfinished(*tid, wait, end_ns)))?;
        Ok(counts)
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        map_memory(self.fd())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.map().fd().as_fd()
    }
}

fn unfinished(tid: u32, wait: &Wait, end_ns: u64) -> Option<(CountKey, CountValue)> {
    let what = match wait.state {
        state if state == State::Blocked as u32 => What::Blocked,
        state if state == State::Queued as u32 => What::Queued,
        _ => return None,
    };
    let key = CountKey {
        pid: wait.pid,
        tid,
        incarnation: wait.incarnation,
        kernel_stack: wait.kernel_stack,
        user_stack: wait.user_stack,
        what: what as u32,
        detail: Detail(wait.detail).unfinished().0,
    };
    let ns = end_ns.saturating_sub(wait.since_ns);
    Some((key, CountValue { count: 1, ns, first_ns: wait.left_ns, comm: wait.comm }))
}

#[cfg(test)]
mod tests {
    use profiler_common::sched::cause::Cause;

    use super::*;

    #[test]
    fn what_waits_is_counted_until_the_end_and_marked() {
        let detail = Detail::blocked(Cause::Sleep, false);
        let wait = Wait {
            incarnation: 7,
            since_ns: 100,
            left_ns: 90,
            kernel_stack: 1,
            user_stack: 2,
            pid: 3,
            state: State::Blocked as u32,
            detail: detail.0,
            padding: 0,
            comm: [b'x'; 16],
        };
        let (key, value) = unfinished(4, &wait, 350).unwrap();
        assert_eq!((key.pid, key.tid, key.incarnation), (3, 4, 7));
        assert_eq!((key.what, key.detail), (What::Blocked as u32, detail.unfinished().0));
        assert_eq!((value.count, value.ns, value.first_ns), (1, 250, 90));
        assert!(unfinished(4, &Wait { state: State::Running as u32, ..wait }, 350).is_none());
        // The clock is read before the last programs have ended.
        assert_eq!(unfinished(4, &wait, 50).unwrap().1.ns, 0);
    }
}
