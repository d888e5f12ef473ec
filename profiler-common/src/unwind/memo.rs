//! Walks that need not be made again.
//!
//! A walk is a function of the registers that it starts from, of the words that it reads from the stack, and of the
//! tables and mappings that it goes by. A [`Log`] has the places of all words that a walk has read, and a hash of their
//! values; kept as a [`Memo`], it tells at a later time whether the walk would read the same: then its stack is the same.
//! It is sound whatever the words are: the first one's place follows from the registers, and each next place from words
//! that have been found to be unchanged.
//!
//! The frame pointer is what most functions use for their own numbers, such as a loop's counter, and their callees save
//! it. Its value is looked at only if a rule has used it: in the register, or where it was saved.
//!
//! What the kernel side goes by is named by a number that user space changes whenever it tells of a process's mappings
//! (`map::Process::version`). Tables are of files, and the same file's table is always the same; only walks that reached
//! the thread's first function are kept, so that no table was missing.

use super::rule::{FpRule, Kind, Rule};
use crate::{registers::Registers, stack::StackHasher};

/// Most words read by a walk that is kept: some 30 to 60 frames.
pub const MAX_READS: usize = 64;

/// A memo is not believed for longer, ns: tables that are used are known by their use (`map::Module::used`).
pub const MAX_AGE_NS: u64 = 1_000_000_000;

/// Where the frame pointer of a frame comes from.
#[repr(u32)]
enum FramePointer {
    /// The register that the walk started with.
    Register = 0,
    /// The word at `Log::saved`.
    Saved = 1,
    /// Something that has been noted, or nothing.
    Noted = 2,
}

/// What a step does with the frame pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpUse {
    /// It needs the frame's.
    pub is_used: bool,
    /// The caller's follows from words that are noted, or is none.
    pub becomes_known: bool,
    /// Which of the step's reads gives the caller's, from 0; any number beyond: none does.
    pub read: u32,
}

impl FpUse {
    const NO_READ: u32 = u32::MAX;

    /// A step that leaves it alone.
    pub const NONE: Self = Self { is_used: false, becomes_known: false, read: Self::NO_READ };

    /// A step by the frame pointer's record (`step::by_frame_pointer`).
    pub const RECORD: Self = Self { is_used: true, becomes_known: false, read: 0 };

    /// A step by a rule (`step::by_rule`).
    #[inline(always)]
    pub const fn of(rule: Rule) -> Self {
        let (kind, fp) = (rule.kind(), rule.fp());
        if kind == Kind::Signal as u8 {
            return Self { is_used: false, becomes_known: true, read: Self::NO_READ };
        }
        let by_word = kind == Kind::AtFp as u8 || kind == Kind::AtSp as u8 || kind == Kind::SavedSp as u8;
        let by_fp = kind == Kind::Fp as u8 || kind == Kind::AtFp as u8 || fp == FpRule::AtFp as u8;
        let is_read = fp == FpRule::AtCfa as u8 || fp == FpRule::AtFp as u8;
        Self {
            is_used: by_fp,
            becomes_known: fp == FpRule::Undefined as u8,
            // Behind the word that the CFA is in.
            read: if is_read { by_word as u32 } else { Self::NO_READ },
        }
    }
}

/// What a walk has read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Log {
    /// The registers that it started from.
    start: Registers,
    values: StackHasher,
    /// A saved frame pointer that no rule has used yet: its place and its value.
    saved: (u64, u64),
    /// Where the frame pointer comes from, a [`FramePointer`] as a number.
    fp: u32,
    /// 1: a rule has used the frame pointer that the walk started with.
    fp_matters: u32,
    /// Words read.
    count: u32,
    /// 1: it read more, or not from the stack above its start, or could not read.
    spoilt: u32,
    /// Their places, bytes above the stack pointer.
    offsets: [u32; MAX_READS],
}

impl Log {
    /// Starts a log.
    #[inline(always)]
    pub fn begin(&mut self, start: Registers) {
        self.start = start;
        self.values = StackHasher::new(0);
        (self.count, self.spoilt) = (0, 0);
        (self.fp, self.fp_matters) = (FramePointer::Register as u32, 0);
    }

    /// A rule is going to use the frame pointer.
    #[inline(always)]
    pub fn use_fp(&mut self) {
        if self.fp == FramePointer::Register as u32 {
            self.fp_matters = 1;
        } else if self.fp == FramePointer::Saved as u32 {
            let (address, value) = self.saved;
            self.note(address, Some(value));
            self.fp = FramePointer::Noted as u32;
        }
    }

    /// The walk is not to be kept.
    #[inline(always)]
    pub fn spoil(&mut self) {
        self.spoilt = 1;
    }

    /// Notes a word that is the caller's frame pointer from now on.
    #[inline(always)]
    pub fn note_fp(&mut self, address: u64, value: Option<u64>) {
        let Some(value) = value else {
            self.spoilt = 1;
            return;
        };
        self.saved = (address, value);
        self.fp = FramePointer::Saved as u32;
    }

    /// The caller's frame pointer is known from what was noted, or is none.
    #[inline(always)]
    pub fn know_fp(&mut self) {
        self.fp = FramePointer::Noted as u32;
    }

    /// Notes a word, `None` if it could not be read.
    #[inline(always)]
    pub fn note(&mut self, address: u64, value: Option<u64>) {
        let offset = address.wrapping_sub(self.start.sp);
        let at = self.count as usize;
        let Some(value) = value else {
            self.spoilt = 1;
            return;
        };
        if at >= MAX_READS || offset > u64::from(u32::MAX) {
            self.spoilt = 1;
            return;
        }
        self.offsets[at] = offset as u32;
        self.count = at as u32 + 1;
        self.values.word(value);
    }
}

/// A walk that may hold again.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memo {
    /// Name of the stack that it found; `EMPTY_STACK`: nothing is kept.
    pub stack: u64,
    /// `CountKey::incarnation` of its process.
    pub incarnation: u64,
    /// `map::Process::version` that it went by.
    pub version: u64,
    /// When it was made, ns of `CLOCK_MONOTONIC`.
    pub made_ns: u64,
    log: Log,
}

const _: () = assert!(size_of::<Memo>() == 32 + 32 + 8 + 16 + 4 * 4 + 4 * MAX_READS);

impl Memo {
    /// Keeps a walk that has reached its end, if its log is whole.
    #[inline(always)]
    pub fn keep(&mut self, log: &Log, stack: u64, incarnation: u64, version: u64, now_ns: u64) {
        if log.spoilt != 0 {
            self.stack = 0;
            return;
        }
        self.log = *log;
        (self.stack, self.incarnation, self.version, self.made_ns) = (stack, incarnation, version, now_ns);
    }

    /// The stack that a walk would find, if it is known that it would be the same.
    #[inline(always)]
    pub fn stack(
        &self,
        start: &Registers,
        incarnation: u64,
        version: u64,
        now_ns: u64,
        mut read: impl FnMut(u64) -> Option<u64>,
    ) -> Option<u64> {
        let log = &self.log;
        let is_same = start.pc == log.start.pc
            && start.sp == log.start.sp
            && (start.fp == log.start.fp || log.fp_matters == 0)
            && start.lr == log.start.lr
            && incarnation == self.incarnation
            && version == self.version;
        if self.stack == 0 || !is_same || now_ns.wrapping_sub(self.made_ns) > MAX_AGE_NS {
            return None;
        }
        let mut values = StackHasher::new(0);
        let count = log.count;
        for i in 0..MAX_READS {
            if i as u32 >= count {
                break;
            }
            values.word(read(start.sp.wrapping_add(u64::from(log.offsets[i])))?);
        }
        (values.finish() == log.values.finish()).then_some(self.stack)
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only (StackHasher is one), no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Memo {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const START: Registers = Registers { pc: 0x1000, sp: 0x7000, fp: 0x7100, lr: 0 };

    fn memo(words: &[(u64, u64)]) -> Memo {
        let mut log = begun();
        log.use_fp();
        words.iter().for_each(|&(address, value)| log.note(address, Some(value)));
        kept(&log)
    }

    fn begun() -> Log {
        let mut log = Log {
            start: START,
            values: StackHasher::new(0),
            saved: (0, 0),
            fp: 9,
            fp_matters: 9,
            count: 9,
            spoilt: 1,
            offsets: [0; MAX_READS],
        };
        log.begin(START);
        log
    }

    fn kept(log: &Log) -> Memo {
        let mut memo = Memo { stack: 0, incarnation: 0, version: 0, made_ns: 0, log: *log };
        memo.keep(log, 77, 5, 6, 1000);
        memo
    }

    fn found(memo: &Memo, start: &Registers, memory: &HashMap<u64, u64>) -> Option<u64> {
        memo.stack(start, 5, 6, 2000, |address| memory.get(&address).copied())
    }

    proptest! {
        #[test]
        fn it_holds_only_while_all_is_unchanged(
            places in prop::collection::btree_map(0u64..0x1000, any::<u64>(), 1..=MAX_READS),
            changed: prop::sample::Index,
            bit in 0u32..64,
        ) {
            let words: std::vec::Vec<_> = places.iter().map(|(at, value)| (START.sp + at, *value)).collect();
            let memo = memo(&words);
            let mut memory: HashMap<u64, u64> = words.iter().copied().collect();
            prop_assert_eq!(found(&memo, &START, &memory), Some(77));
            for register in 0..4 {
                let mut other = START;
                *[&mut other.pc, &mut other.sp, &mut other.fp, &mut other.lr][register] ^= 1 << bit;
                prop_assert_eq!(found(&memo, &other, &memory), None);
            }
            prop_assert_eq!(memo.stack(&START, 4, 6, 2000, |a| memory.get(&a).copied()), None);
            prop_assert_eq!(memo.stack(&START, 5, 7, 2000, |a| memory.get(&a).copied()), None);
            prop_assert_eq!(memo.stack(&START, 5, 6, 1001 + MAX_AGE_NS, |a| memory.get(&a).copied()), None);
            let (address, value) = words[changed.index(words.len())];
            memory.insert(address, value ^ 1 << bit);
            prop_assert_eq!(found(&memo, &START, &memory), None);
            memory.remove(&address);
            prop_assert_eq!(found(&memo, &START, &memory), None);
        }
    }

    #[test]
    fn frame_pointers_count_only_if_they_are_used() {
        let other = Registers { fp: 1, ..START };
        let memory = HashMap::from([(START.sp, 1), (START.sp + 8, 2), (START.sp + 16, 3)]);
        let changed = HashMap::from([(START.sp, 1), (START.sp + 8, 2), (START.sp + 16, 9)]);
        let mut log = begun();
        log.note(START.sp, Some(1));
        assert_eq!(found(&kept(&log), &other, &memory), Some(77), "not used");
        log.note_fp(START.sp + 16, Some(3));
        log.note(START.sp + 8, Some(2));
        assert_eq!(found(&kept(&log), &other, &changed), Some(77), "saved, and not used");
        log.use_fp();
        assert_eq!(found(&kept(&log), &other, &changed), None, "saved and used");
        assert_eq!(found(&kept(&log), &other, &memory), Some(77));
        let mut log = begun();
        log.use_fp();
        assert_eq!(found(&kept(&log), &other, &memory), None, "used in the register");
        let mut log = begun();
        log.know_fp();
        log.use_fp();
        assert_eq!(found(&kept(&log), &other, &memory), Some(77), "there is none");
    }

    #[test]
    fn what_is_not_wholly_known_is_not_kept() {
        let many: std::vec::Vec<_> = (0..=MAX_READS as u64).map(|i| (START.sp + 8 * i, i)).collect();
        assert_eq!(memo(&many[..MAX_READS]).stack, 77);
        assert_eq!(memo(&many).stack, 0);
        // Below the stack pointer, and on another stack.
        assert_eq!(memo(&[(START.sp - 8, 1)]).stack, 0);
        assert_eq!(memo(&[(START.sp + (1 << 33), 1)]).stack, 0);
    }
}
