//! Captured stacks: the map value that holds one, and the 64-bit hash that names it.
//!
//! A stack is captured into per-CPU scratch, hashed, and written once per generation to a map {hash -> stack}; counts
//! are keyed by the hash. Unlike `BPF_MAP_TYPE_STACK_TRACE` (27-bit ids, a collision drops or replaces a stack), a
//! 64-bit hash collides with probability n^2/2^65: below one in 10^9 for 10^5 distinct stacks.

/// Most frames kept of one stack. `bpf_get_stack` is bounded by `kernel.perf_event_max_stack`, 127 by default.
pub const MAX_FRAMES: usize = 127;

/// Bytes of a full frame array, the size handed to `bpf_get_stack`.
pub const MAX_STACK_BYTES: u32 = (MAX_FRAMES * size_of::<u64>()) as u32;

/// The name of an empty stack (a sample that hit user mode has no kernel stack; a kernel thread has no user stack).
pub const EMPTY_STACK: u64 = 0;

/// One stack as the kernel side writes it. Addresses are absolute, leaf first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RawStack {
    /// Frames used in `frames`.
    pub len: u32,
    /// How the walk ended, a [`WalkEnd`] as a number.
    pub end: u32,
    /// Absolute addresses: the sampled instruction first, then return addresses. Java frames are words of their own
    /// (`unwind::java::{CodeFrame, InterpretedFrame}`), larger by one but for the first, as all addresses of callers are.
    pub frames: [u64; MAX_FRAMES],
}

const _: () = assert!(size_of::<RawStack>() == 8 + 8 * MAX_FRAMES);

/// Why a stack walk stopped.
///
/// The kernel's own frame-pointer walk (`bpf_get_stack`) does not say why it stopped, only how far it came: `Ended`
/// means "no further frame", which user space tells apart into complete and broken by the outermost frame's name. The
/// walk by tables (`unwind`) knows.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalkEnd {
    /// The kernel's walk found no further frame.
    Ended = 0,
    /// The frame array was full.
    Truncated = 1,
    /// The outermost function of the thread was reached.
    Complete = 2,
    /// A return address lies in no executable mapping.
    NoMapping = 3,
    /// No entry of the file's table covers the address.
    NoRow = 4,
    /// The table's rule there needs what is not followed (another register, a DWARF expression).
    UnsupportedRule = 5,
    /// The stack could not be read: not present in memory.
    BadRead = 6,
    /// A frame would not be further out than its callee.
    NoProgress = 7,
    /// The file's table is not in memory (yet).
    NotLoaded = 8,
    /// Nothing was known yet of the process: its first sample, walked by the kernel by frame pointers.
    UnknownProcess = 9,
    /// No user registers: a 32-bit process, or an event without any. Walked by the kernel by frame pointers.
    NoRegisters = 10,
    /// The kernel refused to go on (its limit of tail calls).
    TailCallFailed = 11,
    /// The task was ending, and its stack gone.
    Exiting = 12,
    /// Code that a JVM made, at a place where its frame is not known.
    JavaCode = 13,
}

impl WalkEnd {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Ended,
        Self::Truncated,
        Self::Complete,
        Self::NoMapping,
        Self::NoRow,
        Self::UnsupportedRule,
        Self::BadRead,
        Self::NoProgress,
        Self::NotLoaded,
        Self::UnknownProcess,
        Self::NoRegisters,
        Self::TailCallFailed,
        Self::Exiting,
        Self::JavaCode,
    ];

    /// Reads a number written by the kernel side; unknown numbers are `None`.
    pub fn from_u32(value: u32) -> Option<Self> {
        Self::ALL.get(value as usize).copied()
    }
}

const _: () = {
    let mut i = 0;
    while i < WalkEnd::ALL.len() {
        assert!(WalkEnd::ALL[i] as usize == i);
        i += 1;
    }
};

/// Multiplier of [`StackHasher`]: the 64-bit golden ratio, 2^64 / phi, made odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A word-at-a-time hash that an eBPF program can compute: multiply and xor-shift per word (the mixing step of
/// splitmix64), so that each input bit reaches all output bits within two words.
#[derive(Clone, Copy)]
pub struct StackHasher(u64);

impl StackHasher {
    /// Starts a hash. `seed` tells equal address lists of different kinds apart (kernel and user stacks).
    #[inline(always)]
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ MULTIPLIER)
    }

    /// Mixes in one word.
    #[inline(always)]
    pub const fn word(&mut self, word: u64) {
        let mut x = (self.0 ^ word).wrapping_mul(MULTIPLIER);
        x ^= x >> 32;
        self.0 = x.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(27);
    }

    /// The hash; never [`EMPTY_STACK`], which names the empty stack.
    #[inline(always)]
    pub const fn finish(self) -> u64 {
        let mut x = self.0;
        x ^= x >> 30;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^= x >> 27;
        if x == EMPTY_STACK { 1 } else { x }
    }
}

/// The hash of a stack, as the eBPF side computes it word by word: equal addresses whose walks ended differently are
/// different stacks.
pub fn hash_stack(seed: u64, frames: &[u64], end: WalkEnd) -> u64 {
    let mut hasher = StackHasher::new(seed);
    for &frame in frames {
        hasher.word(frame);
    }
    hasher.word(frames.len() as u64 | (end as u64) << 32);
    hasher.finish()
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for RawStack {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::HashSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn similar_stacks_have_different_hashes() {
        // Neighbouring return addresses, the hardest realistic case: 40,000 stacks that differ in few low bits.
        let mut seen = HashSet::new();
        for a in 0..200u64 {
            for b in 0..200u64 {
                assert!(seen.insert(hash_stack(
                    0,
                    &[0x55d0_0000_1000 + a, 0x55d0_0000_2000 + b],
                    WalkEnd::Ended
                )));
            }
        }
    }

    proptest! {
        #[test]
        fn never_the_empty_name(seed: u64, frames: Vec<u64>) {
            prop_assert_ne!(hash_stack(seed, &frames, WalkEnd::Ended), EMPTY_STACK);
        }

        #[test]
        fn one_changed_bit_changes_the_hash(mut frames in prop::collection::vec(any::<u64>(), 1..127), index: prop::sample::Index, bit in 0u32..64) {
            let before = hash_stack(0, &frames, WalkEnd::Ended);
            let at = index.index(frames.len());
            frames[at] ^= 1 << bit;
            prop_assert_ne!(before, hash_stack(0, &frames, WalkEnd::Ended));
        }

        #[test]
        fn the_end_matters(frames: Vec<u64>) {
            prop_assert_ne!(hash_stack(0, &frames, WalkEnd::Complete), hash_stack(0, &frames, WalkEnd::NoRow));
        }

        #[test]
        fn order_matters(a: u64, b: u64) {
            prop_assume!(a != b);
            prop_assert_ne!(hash_stack(0, &[a, b], WalkEnd::Ended), hash_stack(0, &[b, a], WalkEnd::Ended));
        }
    }
}
