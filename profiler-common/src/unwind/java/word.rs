//! What a JVM's code is in a stack: words that no address is, which say which code it is. The walk writes them, user space
//! asks the JVM about them.

/// An interpreted frame as a word of a stack: which method, and which bytecode of it. No address has its highest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterpretedFrame {
    /// The `Method*`.
    pub method: u64,
    /// Index of the bytecode; `None`: not known (native methods have none).
    pub bci: Option<u16>,
}

impl InterpretedFrame {
    const MARK: u64 = 0b1000;
    /// One less than the highest, because readers of callers subtract one from what was made larger by one.
    const NO_BCI: u16 = 0xfffe;

    /// The word. `None`: the method has an address that none has.
    #[inline(always)]
    pub const fn word(self) -> Option<u64> {
        if self.method >> 47 != 0 || self.method & 7 != 0 || self.method == 0 {
            return None;
        }
        let bci = match self.bci {
            Some(bci) if bci < Self::NO_BCI => bci,
            _ => Self::NO_BCI,
        };
        Some(Self::MARK << 60 | self.method << 13 | bci as u64)
    }

    /// What the word of a frame says, if it is that of an interpreted one.
    pub const fn of_word(word: u64) -> Option<Self> {
        if word >> 60 != Self::MARK {
            return None;
        }
        let bci = word as u16;
        let method = word >> 16 << 20 >> 17;
        Some(Self { method, bci: if bci < Self::NO_BCI { Some(bci) } else { None } })
    }
}

/// Which code was at an address, as far as 29 bits tell: the number of a compilation, which no other compilation of that
/// JVM has; of what is not compiled (stubs), by the address of its name, which the JVM's library has once.
///
/// Numbers count from 1 on. Two of them look the same if 2^29 compilations are in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeId(u32);

impl CodeId {
    const BITS: u32 = 29;
    const NUMBER: u32 = (1 << Self::BITS) - 1;
    const COMPILATION: u32 = 1 << Self::BITS;
    const OTHER: u32 = 2 << Self::BITS;

    /// There was no code, or it could not be looked at. No code is that.
    pub const UNKNOWN: Self = Self(Self::OTHER);

    /// A compilation.
    #[inline(always)]
    pub const fn compilation(number: u32) -> Self {
        Self(Self::COMPILATION | number & Self::NUMBER)
    }

    /// Other code, by the address of its name.
    #[inline(always)]
    pub const fn other(name: u64) -> Self {
        let folded = (name ^ name >> Self::BITS) as u32 & Self::NUMBER;
        Self(Self::OTHER | if folded == 0 { 1 } else { folded })
    }

    /// Whether it is a compilation.
    #[inline(always)]
    pub const fn is_compilation(self) -> bool {
        self.0 & Self::OTHER == 0
    }

    /// The same as a number.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Code in the heaps of a JVM as a word of a stack: where, and which code it is. No address has its highest bits.
///
/// Code is freed, and other code takes its place, before user space gets to name what was sampled. A frame keeps its code
/// where it is while it is on the stack, so what the header of that code says at the sample is right; user space names a
/// frame by code of this very id, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeFrame {
    /// Which code.
    pub code: CodeId,
    /// Distance from [`Jvm::code_base`]; HotSpot's heaps are one range of 2 GiB at most (`CODE_CACHE_SIZE_LIMIT`).
    pub offset: u32,
}

impl CodeFrame {
    /// Most bytes from the start of the first heap to the end of the last.
    pub const MAX_BYTES: u64 = 1 << Self::OFFSET_BITS;
    const OFFSET_BITS: u32 = 31;
    const MARK: u64 = 1 << 63;

    /// The word. One more is still the same code, as all words of callers are.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        let offset = self.offset as u64 & (Self::MAX_BYTES - 1);
        Self::MARK | (self.code.0 as u64) << Self::OFFSET_BITS | offset
    }

    /// What the word of a frame says, if it is that of code in a heap.
    pub const fn of_word(word: u64) -> Option<Self> {
        let code = CodeId((word >> Self::OFFSET_BITS) as u32);
        match (word >> 63, code.0 >> CodeId::BITS) {
            (1, 1 | 2) => Some(Self { code, offset: word as u32 & (Self::MAX_BYTES - 1) as u32 }),
            _ => None,
        }
    }
}

/// Whether a word of a stack is no address, but one that user space asks the JVM about.
pub const fn is_java_word(word: u64) -> bool {
    InterpretedFrame::of_word(word).is_some() || CodeFrame::of_word(word).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn interpreted_frames_are_words(method in 1u64..1 << 44, bci in 0u16..0xfffe, is_caller: bool) {
            let frame = InterpretedFrame { method: method << 3, bci: Some(bci) };
            let word = frame.word().unwrap();
            // As the kernel side writes callers, and readers read them.
            let read = word.wrapping_add(u64::from(is_caller)).wrapping_sub(u64::from(is_caller));
            prop_assert_eq!(InterpretedFrame::of_word(read), Some(frame));
            let native = InterpretedFrame { bci: None, ..frame };
            let word = native.word().unwrap();
            prop_assert_eq!(InterpretedFrame::of_word(word), Some(native));
            prop_assert_eq!((word + 1) >> 16, word >> 16);
        }

        #[test]
        fn code_frames_are_words(number: u32, name: u64, offset in 0u32..1 << 31, is_caller: bool) {
            for code in [CodeId::compilation(number), CodeId::other(name), CodeId::UNKNOWN] {
                let frame = CodeFrame { code, offset };
                let word = frame.word().wrapping_add(u64::from(is_caller)).wrapping_sub(u64::from(is_caller));
                prop_assert_eq!(CodeFrame::of_word(word), Some(frame));
                prop_assert_eq!(InterpretedFrame::of_word(word), None);
                prop_assert_ne!(CodeId::other(name), CodeId::UNKNOWN);
            }
            prop_assert!(CodeId::compilation(number).is_compilation() && !CodeId::other(name).is_compilation());
            prop_assert_eq!(number << 3 == 0, CodeId::compilation(number) == CodeId::compilation(0));
        }

        #[test]
        fn no_address_is_a_frame_of_java(address in 0u64..1 << 57) {
            prop_assert!(!is_java_word(address) && !is_java_word(!address));
        }
    }
}
