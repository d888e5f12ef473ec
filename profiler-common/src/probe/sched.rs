//! The `sched` probe: exact accounting of where the time of threads and of CPUs goes.

use crate::{Comm, hist::log2, sched::cause::Cause};

/// Number of buckets of a thread's histogram of run-queue waits.
pub const WAIT_BUCKETS: usize = 112;
/// Bits that a wait is shifted by before it is put into a bucket: 64 ns are the resolution.
const WAIT_SHIFT: u32 = 6;
/// Number of buckets of a CPU's histograms, one for each power of two ns.
pub const LOG2_BUCKETS: usize = 40;
/// Performance counters that can be read at each switch.
pub const COUNTERS: usize = 4;
/// [`Cpu::counters_at`]: the counter could not be read.
pub const NOT_READ: u64 = u64::MAX;

/// What a thread is doing.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// On a CPU.
    Running = 0,
    /// It could run, but waits for a CPU.
    Runnable = 1,
    /// It waits for something else, see [`Thread::cause`].
    Blocked = 2,
    /// It left the CPU for good.
    Ended = 3,
}

/// [`Thread::flags`]: the thread is (or was, when it last left a CPU) in the control group that is asked for.
pub const IN_CGROUP: u8 = 1 << 0;
/// [`Thread::flags`]: the state that it is in is an uninterruptible wait (`D`).
pub const UNINTERRUPTIBLE: u8 = 1 << 1;
/// [`Thread::flags`]: the thread has ended, and there was no room in the ring: the account is only here.
pub const KEPT: u8 = 1 << 2;

/// The account of a thread. All times are ns; `born_ns` + all of them is `since_ns` at any time that no program is at
/// work on it ([`Thread::adds_up`]). Keyed by the address of its `task_struct`: unlike the thread id, that stays the
/// same when a thread executes a program in its leader's place.
///
/// Programs write it without atomics: each member has one writer at a time, because the scheduler holds the run queue's
/// lock (switches, wake-ups), or because the thread itself is the writer (`wakeups_given`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// `CLOCK_MONOTONIC` from which on it is accounted.
    pub born_ns: u64,
    /// `CLOCK_MONOTONIC` from which on it is in its state.
    pub since_ns: u64,
    /// Time on a CPU without `irq_ns`.
    pub cpu_ns: u64,
    /// Time on a CPU that interrupts and soft interrupts took.
    pub irq_ns: u64,
    /// Time that it waited for a CPU.
    pub run_queue_ns: u64,
    /// The longest such wait.
    pub run_queue_max_ns: u64,
    /// Such waits.
    pub run_queue_count: u64,
    /// Time blocked, by [`Cause`].
    pub blocked_ns: [u64; Cause::COUNT],
    /// Time in which a switch was not seen ([`crate::loss::Loss::SwitchesMissed`]).
    pub unknown_ns: u64,
    /// The part of `blocked_ns` that was uninterruptible.
    pub uninterruptible_ns: u64,
    /// Switches away from it.
    pub switches: u64,
    /// The kernel's own count of voluntary switches when the accounting began (`task_struct.nvcsw`).
    pub voluntary_before: u64,
    /// The same at the last switch.
    pub voluntary_after: u64,
    /// Changes of its CPU.
    pub migrations: u64,
    /// Times that it was woken.
    pub wakeups_got: u64,
    /// Times that it woke another thread, not counting what interrupts did meanwhile.
    pub wakeups_given: u64,
    /// What the performance counters counted while it was on a CPU, interrupts that hit it included. In their own units.
    pub counters: [u64; COUNTERS],
    /// `task_struct.start_boottime` (ns since boot): tells threads apart that had the same id.
    pub start_ns: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// A [`State`].
    pub state: u8,
    /// A [`Cause`], while blocked.
    pub cause: u8,
    /// [`IN_CGROUP`], [`UNINTERRUPTIBLE`], [`KEPT`].
    pub flags: u8,
    /// 0.
    pub padding: u8,
    /// Where its account of system calls was last found (`CALLERS`), if there are such accounts too.
    pub caller: u32,
    /// Its name.
    pub comm: Comm,
    /// Run-queue waits by [`wait_bucket`]. They stop at `u32::MAX`: their sum is less than `run_queue_count` then.
    pub waits: [u32; WAIT_BUCKETS],
}

const _: () = assert!(
    size_of::<Thread>()
        == 8 * (16 + COUNTERS + Cause::COUNT) + 4 + 4 + 4 + 4 + crate::COMM_LEN + 4 * WAIT_BUCKETS
);

impl Thread {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        born_ns: 0,
        since_ns: 0,
        cpu_ns: 0,
        irq_ns: 0,
        run_queue_ns: 0,
        run_queue_max_ns: 0,
        run_queue_count: 0,
        blocked_ns: [0; Cause::COUNT],
        unknown_ns: 0,
        uninterruptible_ns: 0,
        switches: 0,
        voluntary_before: 0,
        voluntary_after: 0,
        migrations: 0,
        wakeups_got: 0,
        wakeups_given: 0,
        counters: [0; COUNTERS],
        start_ns: 0,
        tgid: 0,
        tid: 0,
        state: 0,
        cause: 0,
        flags: 0,
        padding: 0,
        caller: 0,
        comm: [0; crate::COMM_LEN],
        waits: [0; WAIT_BUCKETS],
    };

    /// Whether all time from `born_ns` to `since_ns` is in one of the parts: not while a program changes it.
    pub fn adds_up(&self) -> bool {
        let blocked: u64 = self.blocked_ns.iter().sum();
        let parts = self.cpu_ns + self.irq_ns + self.run_queue_ns + blocked + self.unknown_ns;
        self.born_ns.wrapping_add(parts) == self.since_ns
    }
}

/// The account of a CPU, ns. `idle_ns`, `busy_ns`, `unknown_ns` and the interrupts' time until then (`irq_at_ns`) add up to the time
/// from the accounting's start to `since_ns`, if no program is at work on it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// `CLOCK_MONOTONIC` of the last switch; 0: none yet.
    pub since_ns: u64,
    /// Time in the idle task, without interrupts.
    pub idle_ns: u64,
    /// Time in other tasks, without interrupts.
    pub busy_ns: u64,
    /// Time in which a switch between the idle task and others was not seen.
    pub unknown_ns: u64,
    /// Time in handlers of interrupts.
    pub hardirq_ns: u64,
    /// Time in soft interrupts, without interrupts that hit them.
    pub softirq_ns: u64,
    /// `hardirq_ns` + `softirq_ns` at the last switch.
    pub irq_at_ns: u64,
    /// An interrupt's handler runs since then; 0: none.
    pub hardirq_since_ns: u64,
    /// A soft interrupt runs since then; 0: none.
    pub softirq_since_ns: u64,
    /// `hardirq_ns` then.
    pub softirq_hardirq_ns: u64,
    /// Switches, those to and from the idle task included.
    pub switches: u64,
    /// Handlers of interrupts that ran.
    pub hardirqs: u64,
    /// Soft interrupts that ran.
    pub softirqs: u64,
    /// 1: the idle task runs.
    pub idle: u64,
    /// The address of the `task_struct` that runs.
    pub current: u64,
    /// The performance counters at the last switch; [`NOT_READ`].
    pub counters_at: [u64; COUNTERS],
    /// Times that a task other than the idle one was on the CPU, by [`log2_bucket`] of ns.
    pub slices: [u64; LOG2_BUCKETS],
    /// Run-queue waits that ended on this CPU, by [`log2_bucket`] of ns.
    pub waits: [u64; LOG2_BUCKETS],
}

const _: () = assert!(size_of::<Cpu>() == 8 * (15 + COUNTERS + 2 * LOG2_BUCKETS));

/// No account of a CPU yet.
pub const CPU_EMPTY: Cpu = Cpu {
    since_ns: 0,
    idle_ns: 0,
    busy_ns: 0,
    unknown_ns: 0,
    hardirq_ns: 0,
    softirq_ns: 0,
    irq_at_ns: 0,
    hardirq_since_ns: 0,
    softirq_since_ns: 0,
    softirq_hardirq_ns: 0,
    switches: 0,
    hardirqs: 0,
    softirqs: 0,
    idle: 0,
    current: 0,
    counters_at: [0; COUNTERS],
    slices: [0; LOG2_BUCKETS],
    waits: [0; LOG2_BUCKETS],
};

/// Index of the switches that user space sets: a one-member array for each.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `CLOCK_MONOTONIC` of the start of the accounting; 0: nothing is accounted.
    Start = 0,
    /// From when on a thread that is met for the first time, and was not made since, is accounted: the start, as long as
    /// the threads that existed then are being put in. 0: from when it is met.
    Unseen = 1,
}

impl Gate {
    /// Number of switches.
    pub const COUNT: usize = 2;
}

/// The bucket of a run-queue wait: four for each power of two, so that a bucket's middle is within 12.5 % of what is in
/// it. Waits of less than 64 ns are in the first one, of more than 34 s in the last one.
#[inline(always)]
pub const fn wait_bucket(wait_ns: u64) -> usize {
    let units = wait_ns >> WAIT_SHIFT;
    if units < 4 {
        return units as usize;
    }
    let log = log2(units);
    let index = ((log - 1) * 4) as usize + (units >> (log - 2) & 3) as usize;
    if index < WAIT_BUCKETS { index } else { WAIT_BUCKETS - 1 }
}

/// What a bucket holds: waits of at least the first and less than the second number of ns.
pub const fn wait_bucket_bounds(bucket: usize) -> (u64, u64) {
    const fn lower(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        let units = if bucket < 4 { bucket } else { (4 + bucket % 4) << (bucket / 4 - 1) };
        units << WAIT_SHIFT
    }
    (lower(bucket), lower(bucket + 1))
}

/// The bucket of a time: `2^bucket` ns and more, less than twice as much; the last one has all that is longer.
#[inline(always)]
pub const fn log2_bucket(ns: u64) -> usize {
    let log = log2(ns) as usize;
    if log < LOG2_BUCKETS { log } else { LOG2_BUCKETS - 1 }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Thread {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Cpu {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_their_bounds_say() {
        for shift in 0..64 {
            for offset in [0, 1, 3, (1u64 << shift) / 3] {
                let wait = (1u64 << shift).saturating_add(offset);
                let bucket = wait_bucket(wait);
                let (lower, upper) = wait_bucket_bounds(bucket);
                assert!(lower <= wait, "{wait} {bucket}");
                assert!(wait < upper || bucket == WAIT_BUCKETS - 1, "{wait} {bucket}");
            }
        }
        assert_eq!(wait_bucket(0), 0);
        assert_eq!(wait_bucket(u64::MAX), WAIT_BUCKETS - 1);
        assert_eq!(wait_bucket_bounds(WAIT_BUCKETS - 1).1, 1 << 35);
    }

    #[test]
    fn a_bucket_is_at_most_a_quarter_wide() {
        for bucket in 4..WAIT_BUCKETS {
            let (lower, upper) = wait_bucket_bounds(bucket);
            assert!((upper - lower) * 4 <= lower, "{bucket}");
            assert_eq!(wait_bucket_bounds(bucket - 1).1, lower);
        }
    }

    #[test]
    fn logarithms_are_the_highest_bit() {
        for value in [1u64, 2, 3, 4, 255, 256, 1 << 31, 1 << 39, u64::MAX >> 30] {
            assert_eq!(log2_bucket(value), (value.ilog2() as usize).min(LOG2_BUCKETS - 1));
        }
        assert_eq!(log2_bucket(0), 0);
        assert_eq!(log2_bucket(u64::MAX), LOG2_BUCKETS - 1);
    }

    #[test]
    fn an_account_adds_up_or_is_being_changed() {
        let mut thread = Thread { born_ns: 100, since_ns: 160, cpu_ns: 20, irq_ns: 10, ..Thread::EMPTY };
        thread.blocked_ns[3] = 30;
        assert!(thread.adds_up());
        thread.run_queue_ns = 1;
        assert!(!thread.adds_up());
    }
}
