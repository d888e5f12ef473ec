//! The `between` probe: how long it takes from one place in user code to another one, in the same thread.

use crate::{
    Comm,
    sample::{CountKey, MAX_HOOKS, Programs},
};

/// Its programs at beginnings, by the place of the event among those that the user named by their hooks.
pub const PROGRAMS: [Programs; MAX_HOOKS] =
    [programs("between_0"), programs("between_1"), programs("between_2"), programs("between_3")];

const fn programs(sample: &'static str) -> Programs {
    Programs { sample, calls: "BETWEEN_PROGRAMS", walk: "between_walk", count: "between_begun" }
}

/// Those at ends, likewise.
pub const ENDS: [&str; MAX_HOOKS] = ["between_end_0", "between_end_1", "between_end_2", "between_end_3"];

/// The program that is told of threads that end or execute another program.
pub const LEFT: &str = "between_left";

/// The map of [`Open`] spans.
pub const OPEN: &str = "OPEN_SPANS";

/// Most spans that are open at the same time. Shrunk to one at load if there is no such event.
pub const MAX_OPEN: usize = 16_384;

/// The map whose one entry says whether spans are counted: 1, from when all hooks are there until the first is taken away.
pub const SWITCH: &str = "BETWEEN_SWITCH";

/// `CountKey::detail` of a span whose end was come to.
pub const ENDED: u32 = 0;
/// Of one that was open when the recording ended.
pub const UNFINISHED: u32 = 1;
/// Of one that was open when its thread ended, or executed another program.
pub const LEFT_OPEN: u32 = 2;

/// How much of a thread's stack a return gives back, bytes: on x86-64 the return address is there.
pub const fn given_back(x86_64: bool) -> u64 {
    if x86_64 { 8 } else { 0 }
}

/// A span that has begun, of a thread and an event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Open {
    /// What it will be counted by.
    pub key: CountKey,
    /// The thread's name when it began.
    pub comm: Comm,
    /// When its stack was captured, before anything was looked up, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// When it began, ns of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// The stack pointer then.
    pub sp: u64,
    /// Beginnings since then without their ends, itself included.
    pub depth: u64,
}

const _: () = assert!(size_of::<Open>() == 88);

/// What a function's return is to an open call of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// That of a call inside of it.
    Inside,
    /// Its own.
    Own,
    /// That of a call around it: the open one was left without a return.
    Outside,
}

impl Open {
    /// Whether a call that begins with this stack pointer is made inside of the open one: stacks grow downwards.
    pub const fn is_around(&self, sp: u64) -> bool {
        sp < self.sp
    }

    /// What a return is that has this stack pointer behind it. `given_back`: see there.
    pub const fn returned(&self, sp: u64, given_back: u64) -> Return {
        let own = self.sp.wrapping_add(given_back);
        if sp == own {
            Return::Own
        } else if sp < own {
            Return::Inside
        } else {
            Return::Outside
        }
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Open {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_their_stack() {
        for x86_64 in [true, false] {
            // SAFETY: integers only: zeros are a value of it.
            let open = Open { sp: 0x1000, ..unsafe { core::mem::zeroed() } };
            let back = given_back(x86_64);
            let returned = |called_with: u64| open.returned(called_with + back, back);
            // A recursive call has pushed at least its return address, or saved the one in the register.
            assert!(open.is_around(0xff8) && !open.is_around(0x1000) && !open.is_around(0x1010));
            assert_eq!(
                [returned(0x800), returned(0xff8), returned(0x1000), returned(0x1008)],
                [Return::Inside, Return::Inside, Return::Own, Return::Outside]
            );
        }
    }
}
