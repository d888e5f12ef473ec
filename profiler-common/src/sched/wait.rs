//! Tasks that are off the CPU: what is kept of each, and what their waits are counted as.
//!
//! A task that leaves the CPU is blocked until it is woken, if it left by itself in a state other than running, and else
//! it is queued: it can run and waits for a CPU. What was blocked is queued from its wake-up on.

use super::cause::Cause;
use crate::{
    Comm,
    unwind::{kernel::KernelMemo, memo::Memo},
};

/// Most tasks that are followed at the same time. Shrunk to one at load if nobody asks.
pub const MAX_WAITS: usize = 16_384;

/// What a task is doing.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a CPU, or nothing is known of it.
    Running = 0,
    /// It waits for something.
    Blocked = 1,
    /// It waits for a CPU.
    Queued = 2,
}

/// Why a task waits for a CPU.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Another one was to run in its place, or it gave way (`sched_yield`): what the kernel counts as involuntary.
    Preempted = 0,
    /// It was woken.
    Woken = 1,
    /// It was made, and has not had one yet.
    New = 2,
}

impl Queue {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Preempted, Self::Woken, Self::New];

    /// Its name in reports (stable).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preempted => "preempted",
            Self::Woken => "woken",
            Self::New => "new",
        }
    }
}

/// A task, from its beginning or its first wait to its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Wait {
    /// `CountKey::incarnation` at the last time that it left a CPU.
    pub incarnation: u64,
    /// Since when it does what it is doing, ns of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// When it left the CPU, and its stacks were captured, ns of `CLOCK_MONOTONIC`.
    pub left_ns: u64,
    /// Name of the kernel stack that it left with.
    pub kernel_stack: u64,
    /// Name of the user stack that it left with.
    pub user_stack: u64,
    /// The kernel's own sum of its waits for a CPU when it left the CPU, ns.
    pub run_delay_ns: u64,
    /// The kernel's own count of its switches, that one included.
    pub switches: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// A [`State`] as a number.
    pub state: u32,
    /// A [`Detail`] of that state as a number.
    pub detail: u32,
    /// Not used.
    pub padding: u32,
    /// Its command name when it left the CPU.
    pub comm: Comm,
    /// Its last kernel stack that was walked.
    pub kernel_memo: KernelMemo,
    /// Its last user stack that was walked to its end.
    pub memo: Memo,
}

const _: () = assert!(size_of::<Wait>() == 88 + size_of::<KernelMemo>() + size_of::<Memo>());

/// `CountKey::detail` of a wait: its kind, and bits beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail(pub u32);

impl Detail {
    const KIND: u32 = 0xff;
    const UNINTERRUPTIBLE: u32 = 1 << 8;
    const SHORT: u32 = 1 << 9;
    const UNFINISHED: u32 = 1 << 10;
    const NOT_SAMPLED: u32 = 1 << 11;

    /// Of a task that is blocked; `uninterruptible`: `D` as ps(1) shows it.
    #[inline(always)]
    pub const fn blocked(cause: Cause, uninterruptible: bool) -> Self {
        Self(cause as u32 | if uninterruptible { Self::UNINTERRUPTIBLE } else { 0 })
    }

    /// Of a task that waits for a CPU.
    #[inline(always)]
    pub const fn queued(why: Queue) -> Self {
        Self(why as u32)
    }

    /// Waits that were each shorter than is asked for: they are counted without stacks.
    #[inline(always)]
    pub const fn short(self) -> Self {
        Self(self.0 | Self::SHORT)
    }

    /// Waits whose stacks were not looked at: one in so many has its stack (`Tuning::blocked_every`).
    #[inline(always)]
    pub const fn not_sampled(self) -> Self {
        Self(self.0 | Self::NOT_SAMPLED)
    }

    /// A wait that went on when the recording ended.
    pub const fn unfinished(self) -> Self {
        Self(self.0 | Self::UNFINISHED)
    }

    /// What a blocked task waited for.
    pub const fn cause(self) -> Cause {
        Cause::from_number((self.0 & Self::KIND) as u8)
    }

    /// Why a task waited for a CPU; `None` for a number that is not written.
    pub fn queue(self) -> Option<Queue> {
        Queue::ALL.get((self.0 & Self::KIND) as usize).copied()
    }

    /// Whether a blocked task was so uninterruptibly.
    pub const fn is_uninterruptible(self) -> bool {
        self.0 & Self::UNINTERRUPTIBLE != 0
    }

    /// See [`Detail::short`].
    pub const fn is_short(self) -> bool {
        self.0 & Self::SHORT != 0
    }

    /// See [`Detail::not_sampled`].
    pub const fn is_not_sampled(self) -> bool {
        self.0 & Self::NOT_SAMPLED != 0
    }

    /// See [`Detail::unfinished`].
    pub const fn is_unfinished(self) -> bool {
        self.0 & Self::UNFINISHED != 0
    }
}

/// What is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitConfig {
    /// Blocked times below are counted without stacks, ns.
    pub min_block_ns: u64,
    /// 1: blocked times are counted.
    pub blocked: u32,
    /// 1: waits for a CPU are counted.
    pub queued: u32,
    /// 1: blocked times are counted with who ended them.
    pub wakers: u32,
    /// Not used.
    pub padding: u32,
}

const _: () = assert!(size_of::<WaitConfig>() == 24);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Wait {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for WaitConfig {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_keep_their_parts_apart() {
        for cause in Cause::ALL {
            for uninterruptible in [false, true] {
                let detail = Detail::blocked(cause, uninterruptible);
                assert_eq!((detail.cause(), detail.is_uninterruptible()), (cause, uninterruptible));
                assert!(!detail.is_short() && !detail.is_unfinished());
                let marked = detail.short().unfinished();
                assert_eq!((marked.cause(), marked.is_uninterruptible()), (cause, uninterruptible));
                assert!(marked.is_short() && marked.is_unfinished());
            }
        }
        assert_eq!(Queue::ALL.map(|why| Detail::queued(why).queue()), Queue::ALL.map(Some));
        assert_eq!(Detail(0xff).queue(), None);
    }
}
