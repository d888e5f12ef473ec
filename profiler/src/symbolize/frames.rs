//! The distinct code addresses of a recording, each with a small id.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
};

use profiler_common::stack::StackHasher;

use super::module::ModuleKey;

/// Index of a distinct code address of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u32);

/// Most distinct addresses in unknown memory. Broken chains of frame pointers give random ones without end; beyond
/// this they all count as address 0.
const MAX_UNKNOWN: usize = 16_384;

/// A distinct code address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// Where it lies.
    pub module: ModuleKey,
    /// Offset in the file, or absolute address. For a caller, the return address less one: an address inside the call
    /// instruction, as pprof wants it, so that name, line and disassembly are the call's and not the next statement's.
    pub address: u64,
    /// It is the outermost frame of some user stack.
    pub outermost: bool,
}

/// The hash of stacks, a word at a time, for the one table that is asked for every frame of every stack: a third of
/// the cost of the standard one. Seeded, because targets choose their addresses and must not be able to make them
/// collide.
#[derive(Debug)]
struct WordHash(u64);

impl Default for WordHash {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for WordHash {
    type Hasher = WordHasher;

    fn build_hasher(&self) -> WordHasher {
        WordHasher(StackHasher::new(self.0))
    }
}

struct WordHasher(StackHasher);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0.word(u64::from(byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.0.word(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0.word(word);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// All distinct addresses.
#[derive(Debug, Default)]
pub struct Frames {
    list: Vec<RawFrame>,
    ids: HashMap<(ModuleKey, u64), FrameId, WordHash>,
    unknown: usize,
}

impl Frames {
    /// The id of an address.
    pub fn intern(&mut self, module: ModuleKey, address: u64) -> FrameId {
        let is_unknown =
            matches!(module, ModuleKey::NO_MAPPING | ModuleKey::PROCESS_GONE | ModuleKey::NOT_PERMITTED);
        let address = if is_unknown && self.unknown >= MAX_UNKNOWN { 0 } else { address };
        *self.ids.entry((module, address)).or_insert_with(|| {
            self.unknown += usize::from(is_unknown);
            // 2^32 frames would be 100 GiB; the vector ends long before the number does.
            let id = FrameId(self.list.len() as u32);
            self.list.push(RawFrame { module, address, outermost: false });
            id
        })
    }

    /// Notes that a stack ends with this frame.
    pub fn mark_outermost(&mut self, id: FrameId) {
        if let Some(frame) = self.list.get_mut(id.0 as usize) {
            frame.outermost = true;
        }
    }

    /// Number of distinct addresses.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The addresses, by id.
    pub fn list(&self) -> &[RawFrame] {
        &self.list
    }

    /// The addresses, by id. The look-up table is freed.
    pub fn into_list(self) -> Vec<RawFrame> {
        self.list
    }
}
