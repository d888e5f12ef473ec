//! The `syscalls` probe: accounts of system calls, by thread and number.
//!
//! Accounts are in slabs, arrays whose places are handed out: a thread has one [`Caller`], each number that it calls a
//! [`Call`], each power of two of a call's latencies a [`Block`]. Place 0 of each slab is nobody's. Only the thread
//! itself (the CPU that it is on) writes to its accounts, so that they need no atomics and no copies for each CPU.

use crate::{
    Comm,
    hist::{BLOCKS, BUCKETS},
};

/// Places for accounts of calls in a [`Caller`]: a power of two.
pub const CALLS: usize = 128;

/// Places that are looked at for one number, from [`first_place`] on.
pub const PROBES: usize = 8;

/// Bit of a call's number: it is one of a 32-bit program (i386, arm), whose numbers mean something else.
pub const COMPAT: u32 = 1 << 31;

/// Accounts of calls that have none of their own, by [`other_place`].
pub const OTHERS: usize = 1024;

/// Bit of [`ErrorKey::call`]: the rest is a CPU and a place among the accounts of calls that have none of their own.
const OTHER: u32 = 1 << 31;

/// A thread that makes system calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Address of its `task_struct`; 0: it has ended.
    pub task: u64,
    /// Address of its user registers, on its kernel stack; 0: it has ended, or is not known to have made a call yet.
    pub registers: u64,
    /// When the call in progress began (`CLOCK_MONOTONIC`, ns); 0: none whose end is of interest.
    pub since_ns: u64,
    /// Time off the CPU since then, ns.
    pub off_ns: u64,
    /// When it left the CPU inside of that call, or ended inside of it; 0: it is on one.
    pub left_ns: u64,
    /// Time of that call on a CPU that interrupts took, up to when the thread last left a CPU, ns. This and the next are
    /// known only if threads are accounted too.
    pub irq_ns: u64,
    /// What interrupts had taken from the CPU when the thread came to it, or entered the call, ns.
    pub irq_at_ns: u64,
    /// When the thread was made, ns since boot.
    pub start_ns: u64,
    /// When its process was made: tells processes apart that had the same id.
    pub process_start_ns: u64,
    /// Process id.
    pub tgid: u32,
    /// Thread id; 0: the place is free.
    pub tid: u32,
    /// The place of the account of the call in progress; 0: it has none of its own.
    pub call: u32,
    /// The number of the call in progress.
    pub number: u32,
    /// Name.
    pub comm: Comm,
    /// Places of the accounts of its calls; 0: free.
    pub calls: [u32; CALLS],
}

const _: () = assert!(size_of::<Caller>() == 9 * 8 + 4 * 4 + crate::COMM_LEN + 4 * CALLS);

impl Caller {
    /// A free place.
    pub const EMPTY: Self = Self {
        task: 0,
        registers: 0,
        since_ns: 0,
        off_ns: 0,
        left_ns: 0,
        irq_ns: 0,
        irq_at_ns: 0,
        start_ns: 0,
        process_start_ns: 0,
        tgid: 0,
        tid: 0,
        call: 0,
        number: 0,
        comm: [0; crate::COMM_LEN],
        calls: [0; CALLS],
    };
}

/// The account of one system call of one thread. Times are ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Times that it was entered.
    pub count: u64,
    /// Times that it returned to where it was called from. This and what follows is 0 if calls are only counted.
    pub returned: u64,
    /// Of these: with an error.
    pub errors: u64,
    /// Time in calls that returned.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// The part of `total_ns` off the CPU.
    pub off_ns: u64,
    /// The part of `total_ns` that interrupts took, if threads are accounted too.
    pub irq_ns: u64,
    /// Sum of what calls returned, without errors: bytes, of calls that return those.
    pub bytes: u64,
    /// The place of the thread.
    pub caller: u32,
    /// The number, with [`COMPAT`].
    pub number: u32,
    /// Places of the histogram's blocks; 0: nothing in it.
    pub blocks: [u32; BLOCKS],
}

const _: () = assert!(size_of::<Call>() == 8 * 8 + 2 * 4 + 4 * BLOCKS);

impl Call {
    /// A free place.
    pub const EMPTY: Self = Self {
        count: 0,
        returned: 0,
        errors: 0,
        total_ns: 0,
        max_ns: 0,
        off_ns: 0,
        irq_ns: 0,
        bytes: 0,
        caller: 0,
        number: 0,
        blocks: [0; BLOCKS],
    };
}

/// A block of a histogram of latencies, ns ([`crate::hist`]). Numbers stop at `u32::MAX`.
pub type Block = [u32; BUCKETS];

/// Sums of calls that have no account of their own. Times are ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Other {
    /// As in [`Call`].
    pub count: u64,
    /// As in [`Call`]. Calls of threads that have no account either return unseen.
    pub returned: u64,
    /// As in [`Call`].
    pub errors: u64,
    /// As in [`Call`].
    pub total_ns: u64,
    /// As in [`Call`].
    pub max_ns: u64,
    /// As in [`Call`].
    pub off_ns: u64,
    /// As in [`Call`].
    pub irq_ns: u64,
    /// As in [`Call`].
    pub bytes: u64,
}

const _: () = assert!(size_of::<Other>() == 8 * 8);

/// Key of the number of errors.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorKey {
    /// The place of the call's account, or [`other_key`].
    pub call: u32,
    /// The error number, positive.
    pub errno: u32,
}

const _: () = assert!(size_of::<ErrorKey>() == 8);

/// Places of a slab, one behind the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub len: u32,
}

/// A slab: the index of what a CPU took of it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slab {
    /// Of [`Caller`].
    Callers = 0,
    /// Of [`Call`].
    Calls = 1,
    /// Of [`Block`].
    Blocks = 2,
}

impl Slab {
    /// All of them, in index order.
    pub const ALL: [Self; 3] = [Self::Callers, Self::Calls, Self::Blocks];
}

/// What a CPU keeps between calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerCpu {
    /// The place of the thread that was last seen here: mostly the one that comes next.
    pub caller: u32,
    /// Explicit padding.
    pub padding: u32,
    /// Places that were taken of each slab and are not used yet.
    pub ranges: [Range; Slab::ALL.len()],
    /// One more than the highest place ever taken of each slab.
    pub ends: [u32; Slab::ALL.len()],
    /// Explicit padding.
    pub padding2: u32,
}

const _: () = assert!(size_of::<PerCpu>() == 8 + 3 * 8 + 4 * 4);

/// Bytes of a ring with room for the places of so many threads that ended, if that is a page or more: a record has a head
/// of 8 bytes (`BPF_RINGBUF_HDR_SZ`), and is of a multiple of 8. One byte stays free; place 0 is nobody's. At most 2^27.
pub const fn ended_bytes(callers: u32) -> u32 {
    const RECORD: u32 = 8 + 8;
    callers.saturating_mul(RECORD).next_power_of_two()
}

/// Where the account of a number is looked for first in [`Caller::calls`]. Multiplied, because the numbers that are used
/// together are not spread evenly.
#[inline(always)]
pub const fn first_place(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) >> (32 - CALLS.ilog2())
}

/// The place of a number among the accounts of calls that have none of their own. Numbers that no kernel has share one.
#[inline(always)]
pub const fn other_place(number: u32) -> u32 {
    const HALF: u32 = OTHERS as u32 / 2;
    let compat = if number & COMPAT != 0 { HALF } else { 0 };
    let number = number & !COMPAT;
    compat + if number < HALF - 1 { number } else { HALF - 1 }
}

/// [`ErrorKey::call`] of a call that has no account of its own, on that CPU: one writer for each.
#[inline(always)]
pub const fn other_key(number: u32, cpu: u32) -> u32 {
    OTHER | (cpu & 0x1f_ffff) << OTHERS.ilog2() | other_place(number)
}

/// The [`other_place`] in such a key; `None` if it is the place of a call's account.
pub const fn other_of_key(call: u32) -> Option<u32> {
    if call & OTHER != 0 { Some(call & (OTHERS as u32 - 1)) } else { None }
}

/// What [`other_place`] stands for: the number, `None` for those that share a place; and whether it is one of 32-bit
/// programs.
pub const fn other_number(place: u32) -> (Option<u32>, bool) {
    const HALF: u32 = OTHERS as u32 / 2;
    let number = place % HALF;
    (if number == HALF - 1 { None } else { Some(number) }, place >= HALF)
}

/// The error number that a call returned: -4095 .. -1, as all architectures have it.
#[inline(always)]
pub const fn errno(returned: i64) -> Option<u32> {
    if returned < 0 && returned >= -4095 { Some(-returned as u32) } else { None }
}

/// Whether a call returns what another one would have, so that it is neither a success nor an error: sigreturn and
/// rt_sigreturn, by their numbers (arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h, arch/arm/tools/syscall.tbl).
#[inline(always)]
pub const fn is_sigreturn(number: u32, native: u32) -> bool {
    number == native || number == COMPAT | 119 || number == COMPAT | 173
}

/// `rt_sigreturn` of x86-64.
pub const SIGRETURN_X86_64: u32 = 15;
/// `rt_sigreturn` of arm64.
pub const SIGRETURN_AARCH64: u32 = 139;

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (sizes asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Caller {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Call {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Other {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for ErrorKey {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Range {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for PerCpu {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_over_all_places() {
        let mut seen = [0u32; CALLS];
        for number in 0..CALLS as u32 {
            seen[first_place(number) as usize] += 1;
            seen[first_place(number | COMPAT) as usize] += 1;
        }
        // Two for each place on average: no run of places is so full that the probes do not reach behind it.
        assert!(seen.iter().all(|&n| n <= 4), "{seen:?}");
    }

    #[test]
    fn places_of_others_are_theirs_alone() {
        for number in [0, 15, 469, 510] {
            assert_eq!(other_number(other_place(number)), (Some(number), false));
            assert_eq!(other_number(other_place(number | COMPAT)), (Some(number), true));
        }
        assert_eq!(other_of_key(other_key(COMPAT | 3, 127)), Some(other_place(COMPAT | 3)));
        assert_eq!(other_of_key(65_535), None);
        for number in [511, 100_000, !COMPAT] {
            assert_eq!(other_number(other_place(number)), (None, false));
            assert_eq!(other_number(other_place(number | COMPAT)), (None, true));
        }
    }

    #[test]
    fn there_is_room_for_every_thread_that_ends() {
        for callers in [1, 64, 4_096, 5_000, 1 << 20] {
            let bytes = ended_bytes(callers);
            assert!(bytes.is_power_of_two() && (callers - 1) * 16 < bytes, "{callers}: {bytes}");
        }
    }

    #[test]
    fn errors_are_small_negative_numbers() {
        assert_eq!(
            (errno(-9), errno(-4095), errno(-4096), errno(0), errno(7)),
            (Some(9), Some(4095), None, None, None)
        );
        assert_eq!(errno(i64::MIN), None);
    }
}
