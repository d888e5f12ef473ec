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
    /// [`place`] that it was last blocked at.
    pub place: u32,
    /// Its command name when it left the CPU.
    pub comm: Comm,
    /// Its last kernel stack that was walked.
    pub kernel_memo: KernelMemo,
    /// Its last user stack that was walked to its end.
    pub memo: Memo,
    /// Places that it was blocked at, each where its [`slot`](Place::slot) is.
    pub places: [Place; PLACES],
}

const _: () = assert!(
    size_of::<Wait>() == 88 + size_of::<KernelMemo>() + size_of::<Memo>() + PLACES * size_of::<Place>()
);

/// Places that are known of a task.
pub const PLACES: usize = 4;

/// A place in a program that a task is blocked at, and how long it took there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// [`place`].
    pub name: u32,
    /// Blocked times there that were each too short for a stack, since the last that was not; [`Place::MANY`] at most.
    pub short: u32,
}

impl Place {
    /// So many in a row, and the next one is expected to be too short too.
    pub const MANY: u32 = 32;

    /// Where a place is among those of its task.
    #[inline(always)]
    pub const fn slot(name: u32) -> usize {
        name as usize % PLACES
    }

    /// Whether a blocked time at that place is expected to be too short for a stack.
    #[inline(always)]
    pub const fn is_short(&self, name: u32) -> bool {
        self.name == name && self.short >= Self::MANY
    }

    /// Takes in a blocked time at that place.
    #[inline(always)]
    pub const fn learn(&mut self, name: u32, is_short: bool) {
        if self.name != name {
            *self = Self { name, short: 0 };
        }
        self.short = match is_short {
            true if self.short < Self::MANY => self.short + 1,
            true => Self::MANY,
            false => 0,
        };
    }
}

/// The name of a place: where user mode was left, and with which stack pointer. 0, as good as any other, for threads of the kernel.
#[inline(always)]
pub const fn place(ip: u64, sp: u64) -> u32 {
    (ip.wrapping_add(sp.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

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

    /// Waits that were each shorter than is asked for: they are counted without stacks, whether these were looked at or not.
    #[inline(always)]
    pub const fn short(self) -> Self {
        Self((self.0 | Self::SHORT) & !Self::NOT_SAMPLED)
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
    /// 1: of blocked times that are expected to be too short for a stack, one in 16 is looked at; those of the others that take
    /// longer all the same are counted without a stack ([`Detail::not_sampled`]). Too short is then what
    /// `Tuning::min_block_ns` says, not `min_block_ns`. Not together with `queued`: when a task gets a CPU is not looked at then.
    pub guess_short: u32,
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
    fn many_short_times_at_a_place_make_the_next_expected_short() {
        let (here, there) = (place(0x40_1000, 0x7ffd_0000), place(0x40_1000, 0x7ffd_0010));
        assert!(here != there);
        let mut known = Place::default();
        for number in 0..3 * Place::MANY {
            assert_eq!(known.is_short(here), number >= Place::MANY, "{number}");
            known.learn(here, true);
        }
        assert!(!known.is_short(there));
        known.learn(here, false);
        assert_eq!(known, Place { name: here, short: 0 });
        known.learn(here, true);
        known.learn(there, true);
        assert_eq!(known, Place { name: there, short: 1 }, "another place in the same slot");
        assert!((0..100).all(|name| Place::slot(name) < PLACES));
    }

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
                assert!(
                    detail.not_sampled().is_not_sampled() && detail.not_sampled().short() == detail.short()
                );
            }
        }
        assert_eq!(Queue::ALL.map(|why| Detail::queued(why).queue()), Queue::ALL.map(Some));
        assert_eq!(Detail(0xff).queue(), None);
    }
}
