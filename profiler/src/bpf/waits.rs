//! Tasks off the CPU (`profiler_common::sched::wait`): what the kernel side keeps of each between leaving a CPU and
//! getting one.

use std::{
    collections::HashSet,
    fs,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::{HashMap, IterableMap as _, MapData};
use profiler_common::{
    sample::{CountKey, CountValue, What},
    sched::{
        wait::{Detail, State, Wait},
        waker::Waker,
    },
};

use super::{BpfError, batch, delayed::Delayed, load::Kernel, map::take, stats::map_memory};

const NAME: &str = "WAITS";

/// The map of them.
pub struct Waits {
    map: HashMap<MapData, u32, Wait>,
    wakers: HashMap<MapData, u32, Waker>,
}

impl Waits {
    /// Takes the map out of the object.
    pub fn new(kernel: &mut Kernel) -> Result<Self, BpfError> {
        Ok(Self { map: take(&mut kernel.ebpf, NAME)?, wakers: take(&mut kernel.ebpf, "WAKERS")? })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.map().fd().as_fd()
    }
}

impl Delayed for Waits {
    fn stacks(&self) -> HashSet<u64> {
        let waits = self.map.iter().filter_map(Result::ok);
        let names =
            |wait: Wait| [wait.kernel_stack, wait.user_stack, wait.kernel_memo.stack, wait.memo.stack];
        let of_wakers =
            |waker: Waker| [waker.kernel_stack, waker.user_stack, waker.kernel_memo.stack, waker.memo.stack];
        let wakers = self.wakers.iter().filter_map(Result::ok);
        waits
            .flat_map(|(_, wait)| names(wait))
            .chain(wakers.flat_map(|(_, waker)| of_wakers(waker)))
            .collect()
    }

    fn unfinished(&mut self, end_ns: u64) -> Result<Vec<(CountKey, CountValue)>, BpfError> {
        let mut counts = Vec::new();
        batch::drain(self.fd(), NAME, |tid, wait: &Wait| {
            counts.extend(unfinished(*tid, wait, end_ns, run_delay_ns))
        })?;
        Ok(counts)
    }

    fn memory(&self) -> u64 {
        map_memory(self.fd()) + map_memory(self.wakers.map().fd().as_fd())
    }
}

/// What the kernel has added up of a thread's waits for a CPU until now, ns (Documentation/scheduler/sched-stats.rst).
fn run_delay_ns(pid: u32, tid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The wait of an entry. One for a CPU may be over without the kernel side's having seen it (`Loss::SwitchNotTraced`):
/// `run_delay_ns` has grown then.
fn unfinished(
    tid: u32,
    wait: &Wait,
    end_ns: u64,
    run_delay_ns: impl Fn(u32, u32) -> Option<u64>,
) -> Option<(CountKey, CountValue)> {
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
    if what == What::Queued
        && let Some(waited) = run_delay_ns(wait.pid, tid).and_then(|now| now.checked_sub(wait.run_delay_ns))
        && waited > 0
    {
        let value = CountValue { count: 1, ns: waited.min(ns), first_ns: wait.left_ns, comm: wait.comm };
        return Some((CountKey { detail: wait.detail, ..key }, value));
    }
    Some((key, CountValue { count: 1, ns, first_ns: wait.left_ns, comm: wait.comm }))
}

#[cfg(test)]
mod tests {
    use profiler_common::sched::cause::Cause;

    use super::*;

    #[test]
    fn what_waits_is_counted_until_the_end_and_marked() {
        let detail = Detail::blocked(Cause::Sleep, false);
        // SAFETY: a Pod: zeros are a value of it.
        let empty: Wait = unsafe { std::mem::zeroed() };
        let (state, comm) = (State::Blocked as u32, [b'x'; 16]);
        let (since_ns, left_ns, detail_number) = (100, 90, detail.0);
        let wait =
            Wait { incarnation: 7, since_ns, left_ns, pid: 3, state, detail: detail_number, comm, ..empty };
        let (key, value) = unfinished(4, &wait, 350, |_, _| None).unwrap();
        assert_eq!((key.pid, key.tid, key.incarnation), (3, 4, 7));
        assert_eq!((key.what, key.detail), (What::Blocked as u32, detail.unfinished().0));
        assert_eq!((value.count, value.ns, value.first_ns), (1, 250, 90));
        assert!(unfinished(4, &Wait { state: State::Running as u32, ..wait }, 350, |_, _| None).is_none());
        // The clock is read before the last programs have ended.
        assert_eq!(unfinished(4, &wait, 50, |_, _| None).unwrap().1.ns, 0);
        // It got a CPU, and nobody saw it.
        let queued = Wait { state: State::Queued as u32, run_delay_ns: 1000, ..wait };
        let (key, value) = unfinished(4, &queued, 350, |_, _| Some(1020)).unwrap();
        assert_eq!((key.what, key.detail, value.ns), (What::Queued as u32, detail.0, 20));
        let (key, value) = unfinished(4, &queued, 350, |_, _| Some(1000)).unwrap();
        assert_eq!((key.detail, value.ns), (detail.unfinished().0, 250));
    }
}
