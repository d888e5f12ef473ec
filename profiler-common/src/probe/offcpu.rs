//! The `offcpu` and `runq` probe: who is off the CPU, for how long, where and why.

use crate::sample::Programs;

/// Its programs, but for [`WOKEN`], [`MADE`] and [`WAKERS`].
pub const PROGRAMS: Programs =
    Programs { sample: "offcpu_switch", calls: "OFFCPU_PROGRAMS", walk: "offcpu_walk", count: "offcpu_keep" };

/// The program that is told of wake-ups.
pub const WOKEN: &str = "offcpu_woken";

/// The programs that are told who wakes a task. The kernel calls the first one before [`WOKEN`].
pub const WAKERS: Programs = Programs {
    sample: "offcpu_waking",
    calls: "OFFCPU_WAKER_PROGRAMS",
    walk: "offcpu_waker_walk",
    count: "offcpu_waker_keep",
};

/// The program that is told of new tasks.
pub const MADE: &str = "offcpu_made";
