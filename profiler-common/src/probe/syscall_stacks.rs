//! The `syscalls` and `syscall-time` events: system calls by the stack that made them.

use crate::{Comm, probe::syscalls::COMPAT, sample::Programs, unwind::memo::Memo};

/// Its programs, but for [`EXIT`] and [`END`].
pub const PROGRAMS: Programs = Programs {
    sample: "callstacks_enter",
    calls: "CALLSTACKS_PROGRAMS",
    walk: "callstacks_walk",
    count: "callstacks_keep",
};

/// The program that is told of the ends of calls.
pub const EXIT: &str = "callstacks_exit";

/// The program that is told of the ends of threads.
pub const END: &str = "callstacks_end";

/// Most threads that are followed at the same time. Shrunk to one at load if nobody asks.
pub const MAX_IN_CALLS: usize = 16_384;

/// Numbers of calls that can be asked for one by one. No table of the kernel's has more.
pub const NUMBERS: usize = 512;

/// Calls that are asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// 1: all of them.
    pub all: u32,
    /// 1: some of them.
    pub some: u32,
    /// Which: a bit for each number below [`NUMBERS`].
    pub native: [u64; NUMBERS / 64],
    /// Of those of 32-bit programs.
    pub compat: [u64; NUMBERS / 64],
}

const _: () = assert!(size_of::<Wanted>() == 8 + 2 * NUMBERS / 8);

impl Wanted {
    /// None.
    pub const NONE: Self = Self { all: 0, some: 0, native: [0; NUMBERS / 64], compat: [0; NUMBERS / 64] };

    /// All.
    pub const ALL: Self = Self { all: 1, ..Self::NONE };

    /// Adds a call; `compat`: of 32-bit programs. `false`: it is none that can be asked for.
    pub const fn add(&mut self, number: u32, compat: bool) -> bool {
        if number as usize >= NUMBERS {
            return false;
        }
        let words = if compat { &mut self.compat } else { &mut self.native };
        words[number as usize / 64] |= 1 << (number % 64);
        self.some = 1;
        true
    }

    /// Whether any is.
    pub const fn is_any(&self) -> bool {
        self.all != 0 || self.some != 0
    }
}

/// What is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStackConfig {
    /// Calls that are counted when they are entered.
    pub counted: Wanted,
    /// Calls whose time is counted when they return.
    pub timed: Wanted,
}

/// `CountKey::detail` of a call: its number, whose it is, and bits beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail(pub u32);

impl Detail {
    const NUMBER: u32 = 0xff_ffff;
    const X32: u32 = 1 << 24;
    const COMPAT: u32 = 1 << 25;
    const UNFINISHED: u32 = 1 << 26;
    /// `__X32_SYSCALL_BIT` (arch/x86/include/uapi/asm/unistd.h).
    const X32_BIT: u32 = 0x4000_0000;

    /// Of a call. Numbers that no kernel has are one.
    #[inline(always)]
    pub const fn of(number: u32, compat: bool) -> Self {
        let plain = number & !Self::X32_BIT;
        let plain = if plain > Self::NUMBER { Self::NUMBER } else { plain };
        let x32 = if number & Self::X32_BIT != 0 { Self::X32 } else { 0 };
        let compat = if compat { Self::COMPAT } else { 0 };
        Self(plain | x32 | compat)
    }

    /// The number, with `COMPAT`, as the accounts of calls have it.
    pub const fn number(self) -> u32 {
        let x32 = if self.0 & Self::X32 != 0 { Self::X32_BIT } else { 0 };
        let compat = if self.0 & Self::COMPAT != 0 { COMPAT } else { 0 };
        self.0 & Self::NUMBER | x32 | compat
    }

    /// A call that went on when the recording ended.
    pub const fn unfinished(self) -> Self {
        Self(self.0 | Self::UNFINISHED)
    }

    /// See [`Detail::unfinished`].
    pub const fn is_unfinished(self) -> bool {
        self.0 & Self::UNFINISHED != 0
    }
}

/// A thread that makes calls, from its first one to its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InCall {
    /// `CountKey::incarnation` when it entered its last call.
    pub incarnation: u64,
    /// When it entered it, ns of `CLOCK_MONOTONIC`; 0: it has returned, or its time is not asked for.
    pub since_ns: u64,
    /// When its stack was captured, before anything was looked up, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Name of the user stack that it was made with.
    pub user_stack: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// A [`Detail`] as a number.
    pub detail: u32,
    /// Bits: 1: it is counted, 2: it is timed.
    pub wanted: u32,
    /// Its command name.
    pub comm: Comm,
    /// Its last user stack that was walked to its end.
    pub memo: Memo,
}

const _: () = assert!(size_of::<InCall>() == 64 + size_of::<Memo>());

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for InCall {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for CallStackConfig {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_keep_numbers_and_whose_they_are() {
        for (number, compat) in [(0, false), (0, true), (462, false), (0xf_0005, true), (0x4000_0208, false)]
        {
            let detail = Detail::of(number, compat);
            assert_eq!(detail.number(), number | if compat { COMPAT } else { 0 });
            assert!(!detail.is_unfinished() && detail.unfinished().is_unfinished());
            assert_eq!(detail.unfinished().number(), detail.number());
        }
        assert_eq!(Detail::of(!COMPAT, false).number(), 0x40ff_ffff);
    }

    #[test]
    fn calls_are_asked_for_one_by_one() {
        let mut wanted = Wanted::NONE;
        assert!(!wanted.is_any() && !wanted.add(NUMBERS as u32, false) && !wanted.is_any());
        assert!(wanted.add(257, false) && wanted.add(3, true) && wanted.is_any());
        assert_eq!((wanted.native[4], wanted.compat[0], wanted.all), (2, 8, 0));
    }
}
