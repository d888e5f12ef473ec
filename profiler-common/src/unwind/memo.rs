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
//! Code of a JVM says itself how its frames are left, and is freed and replaced, also by code that has calls at the same
//! addresses: of each such frame a log has where the code's header is, and which code it was (`java::CodeId`), and a memo
//! holds only if that header is of the same code. Numbers of compilations are given once, and what is freed is marked so
//! before its memory is used again. Without it the stack's frames would say the old code, and be named by it.
//!
//! What the kernel side goes by is named by a number that user space changes whenever it tells of a process's mappings
//! (`map::Process::version`). Tables are of files, and the same file's table is always the same; only walks that reached
//! the thread's first function are kept, so that no table was missing.

use super::{
    java::CodeId,
    rule::{FpRule, Kind, Rule},
};
use crate::{registers::Registers, stack::StackHasher};

/// Most words read by a walk that is kept: some 30 to 60 frames.
pub const MAX_READS: usize = 64;

/// In a place: it is that of a piece of code.
const CODE: u32 = 1 << 31;

/// A memo is not believed for longer, ns: tables that are used are known by their use (`map::Module::used`).
pub const MAX_AGE_NS: u64 = 1_000_000_000;

/// What a walk has read, as it is now.
pub trait Memory {
    /// The word at an address.
    fn word(&mut self, address: u64) -> Option<u64>;
    /// Which code of a JVM has its header at that distance from the first code heap.
    fn code(&mut self, offset: u64) -> Option<CodeId>;
}

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
    /// 1: some of what it read is code.
    has_code: u32,
    padding: u32,
    /// Their places, bytes above the stack pointer; those of code, marked with [`CODE`], bytes above the first code heap.
    offsets: [u32; MAX_READS],
}

impl Log {
    /// Starts a log.
    #[inline(always)]
    pub fn begin(&mut self, start: Registers) {
        self.start = start;
        self.values = StackHasher::new(0);
        (self.count, self.spoilt, self.has_code) = (0, 0, 0);
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
        match value {
            Some(value) if offset < u64::from(CODE) => self.add(offset as u32, value),
            _ => self.spoilt = 1,
        }
    }

    /// Notes that the frame is in a piece of code, whose header is at that distance from the first code heap.
    #[inline(always)]
    pub fn note_code(&mut self, offset: u64, code: CodeId) {
        self.has_code = 1;
        self.add(CODE | offset as u32 & (CODE - 1), u64::from(code.number()));
    }

    #[inline(always)]
    fn add(&mut self, place: u32, value: u64) {
        let at = self.count as usize;
        if at >= MAX_READS {
            self.spoilt = 1;
            return;
        }
        self.offsets[at] = place;
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

const _: () = assert!(size_of::<Memo>() == 32 + 32 + 8 + 16 + 6 * 4 + 4 * MAX_READS);

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

    /// Whether code has to be looked at to know whether it holds.
    #[inline(always)]
    pub const fn has_code(&self) -> bool {
        self.log.has_code != 0
    }

    /// The stack that a walk would find, if it is known that it would be the same.
    #[inline(always)]
    pub fn stack(
        &self,
        start: &Registers,
        incarnation: u64,
        version: u64,
        now_ns: u64,
        memory: &mut impl Memory,
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
            let place = log.offsets[i];
            let offset = u64::from(place & (CODE - 1));
            values.word(match place & CODE {
                0 => memory.word(start.sp.wrapping_add(offset))?,
                _ => u64::from(memory.code(offset)?.number()),
            });
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

    /// Words by address, and the code at 0x500.
    struct Words<'a>(&'a HashMap<u64, u64>, Option<CodeId>);

    impl Memory for Words<'_> {
        fn word(&mut self, address: u64) -> Option<u64> {
            self.0.get(&address).copied()
        }

        fn code(&mut self, offset: u64) -> Option<CodeId> {
            self.1.filter(|_| offset == 0x500)
        }
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
            has_code: 9,
            padding: 0,
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
        memo.stack(start, 5, 6, 2000, &mut Words(memory, None))
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
            prop_assert_eq!(memo.stack(&START, 4, 6, 2000, &mut Words(&memory, None)), None);
            prop_assert_eq!(memo.stack(&START, 5, 7, 2000, &mut Words(&memory, None)), None);
            prop_assert_eq!(memo.stack(&START, 5, 6, 1001 + MAX_AGE_NS, &mut Words(&memory, None)), None);
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
    fn it_does_not_hold_when_other_code_is_there() {
        let mut log = begun();
        log.note(START.sp, Some(1));
        assert!(!kept(&log).has_code());
        log.note_code(0x500, CodeId::compilation(7));
        let memo = kept(&log);
        assert!(memo.has_code());
        let memory = HashMap::from([(START.sp, 1)]);
        let found = |code: Option<CodeId>| memo.stack(&START, 5, 6, 2000, &mut Words(&memory, code));
        assert_eq!(found(Some(CodeId::compilation(7))), Some(77));
        assert_eq!([Some(CodeId::compilation(8)), Some(CodeId::other(7)), None].map(found), [None; 3]);
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
