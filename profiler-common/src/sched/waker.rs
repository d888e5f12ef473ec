//! Who woke a blocked task: what is kept from the wake-up to the count, and how a count names it.
//!
//! A count's key has room for two stacks (`CountKey`). The wait of a task whose waker is known is counted with an entry
//! of the stacks map in the place of its user stack: [`Woken`], written as a `RawStack` that ends with [`WOKEN`].

use crate::{
    Comm,
    stack::{MAX_FRAMES, RawStack},
    unwind::{kernel::KernelMemo, memo::Memo},
};

/// `RawStack::end` of an entry that is no stack, but a [`Woken`].
pub const WOKEN: u32 = 0x100;

/// Words that it has.
pub const WORDS: usize = 7;

const _: () = assert!(WORDS <= MAX_FRAMES);

/// What is kept of a task's last wake-up, until the wait that it ends is counted; the memos from one to the next.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Waker {
    /// 1: there is one that is not counted yet.
    pub is_new: u32,
    /// Process id of the waker.
    pub pid: u32,
    /// `CountKey::incarnation` of the waker.
    pub incarnation: u64,
    /// Name of its kernel stack.
    pub kernel_stack: u64,
    /// Name of its user stack.
    pub user_stack: u64,
    /// When it was woken, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Its command name.
    pub comm: Comm,
    /// The last kernel stack that was walked of a waker of this task.
    pub kernel_memo: KernelMemo,
    /// The last user stack that was walked of one to its end.
    pub memo: Memo,
}

const _: () = assert!(size_of::<Waker>() == 56 + size_of::<KernelMemo>() + size_of::<Memo>());

/// A wait's user stack, and who ended the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Woken {
    /// Name of the user stack of the task that waited.
    pub waited: u64,
    /// Process id of the waker; 0: an idle CPU, that is an interrupt.
    pub pid: u32,
    /// `CountKey::incarnation` of the waker.
    pub incarnation: u64,
    /// Name of its kernel stack.
    pub kernel_stack: u64,
    /// Name of its user stack.
    pub user_stack: u64,
    /// Its command name.
    pub comm: Comm,
}

impl Woken {
    /// Writes it as an entry of the stacks map.
    #[inline(always)]
    pub fn write(waited: u64, waker: &Waker, entry: &mut RawStack) {
        let words = &mut entry.frames;
        words[0] = waited;
        words[1] = waker.pid as u64;
        words[2] = waker.incarnation;
        words[3] = waker.kernel_stack;
        words[4] = waker.user_stack;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = waker.comm;
        words[5] = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        words[6] = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        (entry.len, entry.end) = (WORDS as u32, WOKEN);
    }

    /// Reads it; `None` for what is a stack.
    pub fn read(entry: &RawStack) -> Option<Self> {
        if entry.end != WOKEN || entry.len as usize != WORDS {
            return None;
        }
        let [waited, pid, incarnation, kernel_stack, user_stack, first, second, ..] = entry.frames;
        let mut comm = [0; 16];
        comm[..8].copy_from_slice(&first.to_le_bytes());
        comm[8..].copy_from_slice(&second.to_le_bytes());
        Some(Self { waited, pid: pid as u32, incarnation, kernel_stack, user_stack, comm })
    }

    /// The stacks that it names.
    pub const fn stacks(&self) -> [u64; 3] {
        [self.waited, self.kernel_stack, self.user_stack]
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Waker {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::WalkEnd;

    #[test]
    fn it_is_read_as_it_was_written() {
        let comm = *b"0123456789abcde\0";
        let (pid, incarnation, kernel_stack, user_stack) = (3, 5, 7, 11);
        // SAFETY: integers only: zeros are a value of it.
        let empty: Waker = unsafe { core::mem::zeroed() };
        let waker = Waker { pid, incarnation, kernel_stack, user_stack, comm, ..empty };
        let mut entry = RawStack { len: 0, end: 0, frames: [0; MAX_FRAMES] };
        Woken::write(2, &waker, &mut entry);
        let woken = Woken { waited: 2, pid, incarnation, kernel_stack, user_stack, comm };
        assert_eq!(Woken::read(&entry), Some(woken));
        assert_eq!(woken.stacks(), [2, 7, 11]);
        assert!(WalkEnd::from_u32(WOKEN).is_none(), "no stack ends so");
        assert_eq!(Woken::read(&RawStack { end: WalkEnd::Complete as u32, ..entry }), None);
    }
}
