//! Spans between two places in user code that have begun (`profiler_common::probe::between`), and the switch that lets them
//! begin and end.

use std::{
    cell::Cell,
    collections::HashSet,
    os::fd::{AsFd as _, BorrowedFd},
    rc::Rc,
};

use aya::maps::{Array, HashMap, IterableMap as _, MapData};
use profiler_common::{
    probe::between::{OPEN, Open, SWITCH, UNFINISHED},
    sample::{CountKey, CountValue},
};

use super::{
    BpfError, batch,
    delayed::Delayed,
    load::Kernel,
    map::{failed, take},
    stats::map_memory,
};

/// Whether spans are counted. While some of their hooks are there and others are not, they would be told wrongly.
pub struct Switch {
    map: Array<MapData, u32>,
    off_ns: Rc<Cell<u64>>,
}

impl Switch {
    /// Takes the switch, which is off, out of the object.
    pub fn new(kernel: &mut Kernel) -> Result<Self, BpfError> {
        Ok(Self { map: take(&mut kernel.ebpf, SWITCH)?, off_ns: Rc::new(Cell::new(u64::MAX)) })
    }

    /// When it was turned off, ns of `CLOCK_MONOTONIC`; the end of time if it was not.
    pub fn off_ns(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.off_ns)
    }

    /// From now on, places are beginnings and ends.
    pub fn turn_on(&mut self) -> Result<(), BpfError> {
        self.map.set(0, 1, 0).map_err(failed("write", SWITCH))
    }

    /// From now on, `now_ns`, they are not.
    pub fn turn_off(&mut self, now_ns: u64) -> Result<(), BpfError> {
        self.map.set(0, 0, 0).map_err(failed("write", SWITCH))?;
        self.off_ns.set(now_ns);
        Ok(())
    }
}

/// The map of spans that have begun.
pub struct OpenSpans {
    map: HashMap<MapData, u64, Open>,
    off_ns: Rc<Cell<u64>>,
}

impl OpenSpans {
    /// Takes the map out of the object. `off_ns`: when their ends are not looked for any more.
    pub fn new(kernel: &mut Kernel, off_ns: Rc<Cell<u64>>) -> Result<Self, BpfError> {
        Ok(Self { map: take(&mut kernel.ebpf, OPEN)?, off_ns })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.map().fd().as_fd()
    }
}

impl Delayed for OpenSpans {
    fn stacks(&self) -> HashSet<u64> {
        self.map.iter().filter_map(Result::ok).map(|(_, open)| open.key.user_stack).collect()
    }

    fn unfinished(&mut self, end_ns: u64) -> Result<Vec<(CountKey, CountValue)>, BpfError> {
        let end_ns = end_ns.min(self.off_ns.get());
        let mut counts = Vec::new();
        batch::drain(self.fd(), OPEN, |_: &u64, open: &Open| counts.push(unfinished(open, end_ns)))?;
        Ok(counts)
    }

    fn memory(&self) -> u64 {
        map_memory(self.fd())
    }
}

fn unfinished(open: &Open, end_ns: u64) -> (CountKey, CountValue) {
    let ns = end_ns.saturating_sub(open.since_ns);
    let value = CountValue { count: 1, ns, first_ns: open.at_ns, comm: open.comm };
    (CountKey { detail: UNFINISHED, ..open.key }, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_goes_on_is_counted_until_the_end_and_marked() {
        // SAFETY: a Pod: zeros are a value of it.
        let empty: Open = unsafe { std::mem::zeroed() };
        let (key, value) = unfinished(&Open { since_ns: 100, at_ns: 90, depth: 2, ..empty }, 350);
        assert_eq!((value.count, value.ns, value.first_ns, key.detail), (1, 250, 90, UNFINISHED));
        // It began when the recording had ended.
        assert_eq!(unfinished(&Open { since_ns: 400, ..empty }, 350).1.ns, 0);
    }
}
