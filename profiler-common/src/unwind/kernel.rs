//! Kernel stacks that need not be walked again (x86-64).
//!
//! The kernel's walk looks every return address up in its unwind tables. What it takes from the stack are return
//! addresses and frame pointers, nothing else. So of a stack that was walked those words are kept, with their distance
//! from the hook, that can be one of both: addresses of kernel text, and addresses in the stack, these as distances. If
//! they are the same at another time then so is the walk, step by step from the inside: the function is the same, so
//! its caller's frame and its return address are at the same distance, or where the same frame pointer tells, and there
//! stands the same word.
//!
//! Which words the walk takes is not known: words left over from earlier calls are among those kept, and change. But
//! when a walk finds the same stack again, all that it takes is the same as before: words that are not are left over, and go
//! ([`KernelMemo::keep`]). What is kept is never less than what the walk takes. (A function that aligns its frame can have
//! its caller's frame at another distance: then return addresses are missing from what is left, and it is not kept.)
//!
//! Behind the outermost function's frame the kernel leaves a gap of random size (`randomize_kstack_offset`). So words are kept up
//! to the last that is that function's return address. What called it is the kernel's entry code, by a direct
//! call: the word below the user registers is that call's return address, and is compared.
//!
//! Not seen is what is not on the stack: where a tracer has put a return address of its own in the place of a
//! function's (kretprobes, the function graph tracer), the kernel's walk finds the right one in the tracer's list.

use core::hint::black_box;

use crate::stack::{EMPTY_STACK, MAX_FRAMES, RawStack, WalkEnd};

/// Words of a stack that are looked at.
pub const MAX_WORDS: usize = 256;

/// Words of a stack that are kept.
pub const MAX_KEPT: usize = 56;

/// A stack is not believed in for longer, ns: kernel text can be replaced (modules).
pub const MAX_AGE_NS: u64 = 1_000_000_000;

/// A stack from the hook outwards.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Words {
    /// Address of the first word.
    pub sp: u64,
    /// Address of the user registers, with which the stack began.
    pub top: u64,
    /// The last word below them.
    pub entry: u64,
    /// See [`Words::anew`].
    number: u64,
    /// The words from the first one on, as many as were read.
    pub words: [u64; MAX_WORDS],
}

impl Words {
    /// Words from the first one up to the last one below the user registers, without that one; `None` if there are none,
    /// or it is not all one stack.
    #[inline(always)]
    pub const fn depth(&self) -> Option<u64> {
        /// More than any stack has.
        const MOST: u64 = 1 << 16;
        let bytes = self.top.wrapping_sub(self.sp);
        if bytes < 16 || bytes > MOST || !bytes.is_multiple_of(8) { None } else { Some(bytes / 8 - 1) }
    }

    /// Words up to the last one of the first `count` that is `address`, and with it; 0 if none is.
    #[inline(always)]
    fn through(&mut self, address: u64, count: u64) -> u64 {
        let end = self.anew(count);
        let mut through = 0u64;
        for i in 0..MAX_WORDS {
            if i as u64 >= end {
                break;
            }
            let same = 1 ^ any(self.words[i] ^ address);
            through = through.wrapping_add((i as u64 + 1).wrapping_sub(through).wrapping_mul(same));
        }
        self.anew(through)
    }

    /// The same number by way of memory: a verifier that knows where it comes from follows each of its values for itself.
    #[inline(always)]
    fn anew(&mut self, number: u64) -> u64 {
        let place = &raw mut self.number;
        // SAFETY: a member behind a reference; volatile, or it would not go by way of memory.
        unsafe {
            place.write_volatile(number);
            place.read_volatile()
        }
    }

    /// What a walk can take of a word: all of it, of which the lower half tells, if it may be in kernel text; its distance if it
    /// is in the stack; else nothing (0). Without branches: a verifier would follow both outcomes for each word.
    #[inline(always)]
    fn taken(&self, at: usize) -> u32 {
        let word = self.words[at];
        // The upper 2 GiB: the kernel's image, modules, generated code (Documentation/arch/x86/x86_64/mm.rst).
        let text = all_if_zero(!word >> 31);
        let distance = word.wrapping_sub(self.sp);
        let stack = all_if_zero(distance >> STACK_SHIFT);
        (word & text | (distance + 1) & stack) as u32
    }
}

/// log2 of the bytes of the largest stack.
const STACK_SHIFT: u32 = 16;

/// All bits if none is set, else none.
#[inline(always)]
fn all_if_zero(word: u64) -> u64 {
    !(black_box(black_box(word | word.wrapping_neg()) as i64 >> 63) as u64)
}

/// 1 if any bit is set, else 0. Black boxes: the compiler makes branches of comparisons that it sees. And no mask of which
/// one bit is taken: verifiers follow both values of such a one since Linux 6.16.
#[inline(always)]
fn any(word: u64) -> u64 {
    negative(word | word.wrapping_neg())
}

/// 1 if the sign bit is set, else 0.
#[inline(always)]
fn negative(word: u64) -> u64 {
    black_box(black_box(word) >> 63)
}

/// A kernel stack that a thread had.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelMemo {
    /// Its name; `EMPTY_STACK`: nothing is kept.
    pub stack: u64,
    /// The entry code's return address.
    entry: u64,
    /// When it was last walked, ns of `CLOCK_MONOTONIC`.
    made_ns: u64,
    /// Words that are to be read to compare it.
    count: u32,
    /// Words that are kept.
    kept: u32,
    /// Outermost frames whose return addresses are among them, in their order.
    frames: u32,
    /// The same of the last look for them.
    found: u32,
    /// 1: what is kept is all that a walk can take.
    is_whole: u32,
    /// Not used.
    padding: u32,
    /// What a walk can take of them.
    values: [u32; MAX_KEPT],
    /// Their places, in ascending order.
    places: [u8; MAX_KEPT],
}

const _: () = assert!(size_of::<KernelMemo>() == 48 + 5 * MAX_KEPT && MAX_WORDS <= 1 << u8::BITS);

impl KernelMemo {
    /// Nothing.
    pub const EMPTY: Self = Self {
        stack: EMPTY_STACK,
        entry: 0,
        made_ns: 0,
        count: 0,
        kept: 0,
        frames: 0,
        found: 0,
        is_whole: 0,
        padding: 0,
        values: [0; MAX_KEPT],
        places: [0; MAX_KEPT],
    };

    /// Words that are to be read for [`KernelMemo::stack`]; 0 if nothing is kept, or it is too old.
    #[inline(always)]
    pub const fn count(&self, now_ns: u64) -> u64 {
        let is_young = now_ns.wrapping_sub(self.made_ns) <= MAX_AGE_NS;
        if self.stack != EMPTY_STACK && is_young { self.count as u64 } else { 0 }
    }

    /// The stack's name, if what is there now is the same.
    #[inline(always)]
    pub fn stack(&self, now: &Words) -> Option<u64> {
        let mut differs = 0;
        let kept = self.kept;
        for i in 0..MAX_KEPT {
            if i as u32 >= kept {
                break;
            }
            differs |= now.taken(self.places[i] as usize) ^ self.values[i];
        }
        (differs == 0 && now.entry == self.entry).then_some(self.stack)
    }

    /// Keeps a stack that was walked: its name, its frames, and its words, of which there are `depth`, and as many as there
    /// is room for were read.
    #[inline(always)]
    pub fn keep(&mut self, name: u64, stack: &RawStack, words: &mut Words, depth: u64, now_ns: u64) {
        let is_known = self.stack == name && self.entry == words.entry;
        self.stack = EMPTY_STACK;
        let outermost = black_box((stack.len as usize).wrapping_sub(2));
        if stack.end != WalkEnd::Ended as u32 || outermost >= MAX_FRAMES - 1 {
            return;
        }
        if stack.frames[outermost + 1] != words.entry {
            return;
        }
        // Of a deeper stack, the return address to end with may be one that was not read, unless it is known not to be.
        let unread = black_box(depth).saturating_sub(MAX_WORDS as u64);
        if unread != 0 && !is_known {
            return;
        }
        let through = words.through(stack.frames[outermost], depth);
        if through == 0 {
            return;
        }
        self.is_whole = 0;
        if is_known {
            self.narrow(words, through);
            self.look_for(stack);
        }
        // By way of memory as everything that comes out of these loops: see `Words::anew`.
        if !is_known || words.anew(u64::from(self.found)) != words.anew(u64::from(self.frames)) {
            if unread != 0 {
                return;
            }
            self.take(words, through);
            self.look_for(stack);
            self.frames = self.found;
        }
        if words.anew(u64::from(self.is_whole)) != 0 {
            (self.stack, self.entry, self.made_ns) = (name, words.entry, now_ns);
        }
    }

    /// Keeps what a walk can take of the first `count` words. It is whole unless it is too much.
    #[inline(always)]
    fn take(&mut self, words: &Words, count: u64) {
        (self.count, self.is_whole) = (count as u32, 0);
        let mut kept = 0;
        for i in 0..MAX_WORDS {
            if i as u64 >= count {
                self.is_whole = 1;
                break;
            }
            // Hidden from the compiler here and below, which else keeps addresses instead of indices: verifiers cannot
            // tell then that they are within bounds.
            let at = black_box(kept);
            if at >= MAX_KEPT {
                break;
            }
            let value = words.taken(i);
            (self.values[at], self.places[at]) = (value, i as u8);
            kept = at + any(u64::from(value)) as usize;
        }
        self.kept = kept as u32;
    }

    /// Keeps of what is kept what is the same in the first `count` words.
    #[inline(always)]
    fn narrow(&mut self, words: &Words, count: u64) {
        (self.count, self.is_whole) = (self.count.min(count as u32), 1);
        let mut left = 0;
        let kept = self.kept;
        for i in 0..MAX_KEPT {
            let at = black_box(left);
            if i as u32 >= kept || at >= MAX_KEPT {
                break;
            }
            let (value, place) = (self.values[i], self.places[i]);
            (self.values[at], self.places[at]) = (value, place);
            let same = 1 ^ any(u64::from(words.taken(place as usize) ^ value));
            // The sign of the difference is the comparison.
            let is_there = negative(u64::from(place).wrapping_sub(count));
            left = at + (same & is_there) as usize;
        }
        self.kept = left as u32;
    }

    /// Looks for the return addresses of the stack among what is kept, from the last one but the outermost inwards, in their
    /// order and without a gap.
    #[inline(always)]
    fn look_for(&mut self, stack: &RawStack) {
        let kept = self.kept as usize;
        let mut next = (stack.len as usize).wrapping_sub(2);
        let mut found = 0;
        for i in 0..MAX_KEPT {
            let at = black_box(kept.wrapping_sub(i + 1));
            let frame = black_box(next);
            if at >= MAX_KEPT || frame >= MAX_FRAMES {
                break;
            }
            let same = 1 ^ any(u64::from(self.values[at] ^ stack.frames[frame] as u32));
            next = frame.wrapping_sub(same as usize);
            found += same as u32;
        }
        self.found = found;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const ENTRY: u64 = 0xffff_ffff_8200_0077;
    const OUTERMOST: u64 = 0xffff_ffff_8100_005f;
    const NAME: u64 = 77;

    /// Return addresses, from the one that the hook has outwards: text, and a module.
    const FRAMES: [u64; 5] = [
        0xffff_ffff_8110_1000,
        0xffff_ffff_8120_2000,
        0xffff_ffff_c010_3000,
        0xffff_ffff_8130_4000,
        OUTERMOST,
    ];

    /// Where they stand, and where frame pointers do.
    const PLACES: [usize; 5] = [2, 9, 17, 18, 30];
    const FRAME_POINTER: usize = 8;

    /// A stack whose hook is at `sp`: its frames, a gap of so many words, and what was there before.
    fn words(sp: u64, gap: usize, left_over: impl Fn(usize) -> u64) -> (Words, u64) {
        let mut all = Words { sp, top: 0, entry: ENTRY, number: 0, words: [0; MAX_WORDS] };
        let end = PLACES[4] + 1 + gap;
        (0..MAX_WORDS).for_each(|place| all.words[place] = left_over(place));
        PLACES.iter().zip(FRAMES).for_each(|(&place, address)| all.words[place] = address);
        all.words[FRAME_POINTER] = sp + 8 * 16;
        all.words[end] = ENTRY;
        all.top = sp + 8 * (end as u64 + 1);
        let depth = all.depth().unwrap();
        assert_eq!(depth, end as u64);
        (all, depth)
    }

    fn walked(frames: &[u64]) -> RawStack {
        let mut stack = RawStack { len: 0, end: WalkEnd::Ended as u32, frames: [0; MAX_FRAMES] };
        // The program's own, on no stack that is looked at.
        let all: Vec<u64> = [0xffff_ffff_c000_0001].iter().chain(frames).chain(&[ENTRY]).copied().collect();
        stack.frames[..all.len()].copy_from_slice(&all);
        stack.len = all.len() as u32;
        stack
    }

    fn kept(memo: &mut KernelMemo, (mut words, depth): (Words, u64)) {
        memo.keep(NAME, &walked(&FRAMES), &mut words, depth, 1000);
    }

    /// Numbers, and addresses of user space and of the kernel's heap.
    fn of_no_matter() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..0x7fff_ffff_ffff, 0xffff_8880_0000_0000u64..0xffff_8881_0000_0000, Just(0)]
    }

    /// Text, return addresses of the stack among them.
    fn text() -> impl Strategy<Value = u64> {
        prop_oneof![0xffff_ffff_8100_0000u64..0xffff_ffff_8200_0000, prop::sample::select(&FRAMES[..])]
    }

    const SP: u64 = 0xffff_c900_0123_4008;

    proptest! {
        #[test]
        fn it_holds_wherever_the_stack_is_and_whatever_else_there_is(
            numbers in prop::collection::vec(of_no_matter(), MAX_WORDS),
            gap in 2usize..120,
            moved in 0u64..64,
        ) {
            let mut memo = KernelMemo::EMPTY;
            kept(&mut memo, words(SP, 2, |_| 0));
            let (now, depth) = words(SP - 16 * moved, gap, |place| numbers[place]);
            prop_assert!(memo.count(1000) > 0 && memo.count(1000) <= depth);
            prop_assert_eq!(memo.stack(&now), Some(NAME));
        }

        /// The same, after walks between which the words that are left over have changed.
        #[test]
        fn no_word_that_a_walk_takes_can_change(
            old in prop::collection::vec(text(), MAX_WORDS),
            new in prop::collection::vec(text(), MAX_WORDS),
            other in text(),
            gaps in [2usize..20, 2usize..20],
        ) {
            let mut memo = KernelMemo::EMPTY;
            // Text in few places, so that it is not too much.
            let some = |words: &[u64], place: usize| if place.is_multiple_of(3) { words[place] } else { 0 };
            kept(&mut memo, words(SP, gaps[0], |place| some(&old, place)));
            prop_assert_eq!(memo.stack, NAME);
            kept(&mut memo, words(SP - 64, gaps[1], |place| some(&new, place)));
            prop_assert_eq!(memo.stack, NAME);
            let (now, _) = words(SP - 160, gaps[1], |place| some(&new, place));
            prop_assert_eq!(memo.stack(&now), Some(NAME));
            for (place, address) in PLACES.iter().zip(FRAMES) {
                let mut changed = now;
                changed.words[*place] = if other == address { 0 } else { other };
                prop_assert_eq!(memo.stack(&changed), None, "{}", place);
            }
            let mut changed = now;
            changed.words[FRAME_POINTER] += 16;
            prop_assert_eq!(memo.stack(&changed), None);
            let entered = Words { entry: ENTRY + 9, ..now };
            prop_assert_eq!(memo.stack(&entered), None);
        }
    }

    #[test]
    fn what_is_left_over_goes_with_the_next_walk_of_the_same_stack() {
        let mut memo = KernelMemo::EMPTY;
        let stack =
            |text: u64| words(SP, 2, move |place| if place == 5 { 0xffff_ffff_8155_0000 + text } else { 0 });
        kept(&mut memo, stack(0));
        assert_eq!((memo.stack(&stack(0).0), memo.stack(&stack(1).0)), (Some(NAME), None));
        kept(&mut memo, stack(1));
        assert_eq!(memo.stack(&stack(2).0), Some(NAME));
    }

    /// Outwards of it all return addresses are elsewhere: they are not to be forgotten.
    #[test]
    fn a_frame_that_is_aligned_anew_begins_anew() {
        let mut memo = KernelMemo::EMPTY;
        kept(&mut memo, words(SP, 2, |_| 0));
        let (mut shifted, _) = words(SP, 2, |_| 0);
        shifted.words.copy_within(10..40, 12);
        shifted.top += 16;
        let depth = shifted.depth().unwrap();
        kept(&mut memo, (shifted, depth));
        assert_eq!(memo.stack(&shifted), Some(NAME));
        for place in PLACES[2..].iter().map(|place| place + 2) {
            let mut changed = shifted;
            changed.words[place] += 8;
            assert_eq!(memo.stack(&changed), None, "{place}");
        }
    }

    #[test]
    fn what_is_not_wholly_known_is_not_kept() {
        let not_kept = |stack: &RawStack, (mut words, depth): (Words, u64)| {
            let mut memo = KernelMemo::EMPTY;
            memo.keep(NAME, stack, &mut words, depth, 1000);
            assert_eq!(memo.count(1000), 0);
        };
        let none = |_| 0;
        let cut = RawStack { end: WalkEnd::Truncated as u32, ..walked(&FRAMES) };
        not_kept(&cut, words(SP, 2, none));
        not_kept(&RawStack { len: 1, ..walked(&FRAMES) }, words(SP, 2, none));
        // Another way into the kernel than by the entry that is looked at, too much text, another outermost function.
        let (other, depth) = words(SP, 2, none);
        not_kept(&walked(&FRAMES), (Words { entry: 5, ..other }, depth));
        not_kept(&walked(&FRAMES), words(SP, 90, |place| if place < 110 { FRAMES[4] } else { 0 }));
        not_kept(&walked(&[FRAMES[0], 0xffff_ffff_8100_0060]), words(SP, 2, none));
        // Deeper than what is read.
        not_kept(&walked(&FRAMES), (words(SP, 2, none).0, MAX_WORDS as u64 + 1));
    }

    #[test]
    fn it_is_believed_for_a_second() {
        let mut memo = KernelMemo::EMPTY;
        assert_eq!(memo.count(0), 0);
        kept(&mut memo, words(SP, 2, |_| 0));
        assert_eq!(memo.count(1000 + MAX_AGE_NS), PLACES[4] as u64 + 1);
        assert_eq!(memo.count(1001 + MAX_AGE_NS), 0);
    }

    #[test]
    fn a_stack_is_between_the_hook_and_the_user_registers() {
        fn depth(sp: u64, top: u64) -> Option<u64> {
            let (mut stack, _) = words(SP, 2, |_| 0);
            (stack.sp, stack.top) = (sp, top);
            stack.depth()
        }
        assert_eq!((depth(SP, SP + 16), depth(SP, SP + 800)), (Some(1), Some(99)));
        // Empty; beyond the top, as on another stack; at an odd place.
        for (sp, top) in [(SP, SP + 8), (SP + 8, SP), (SP, SP + (1 << 17)), (SP + 4, SP + 64)] {
            assert_eq!(depth(sp, top), None, "{sp:x} {top:x}");
        }
    }
}
