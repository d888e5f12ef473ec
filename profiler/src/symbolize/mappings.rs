//! The executable mappings of one program image, as they were over time.
//!
//! The kernel reports mappings that appear, never ones that go: what a new mapping covers is gone. What it replaced is
//! kept for a while, because samples are looked up up to a drain interval after they were taken, and because a walk by
//! unwind tables goes by it until it is told.

use super::{
    module::{ModuleKey, Modules},
    open::Mapped,
};
use crate::perf::record::FileIdentity;

/// Most mappings of one image; `vm.max_map_count` allows 65,530 of all kinds. Further ones are not recorded.
const MAX_CURRENT: usize = 16_384;
/// Most replaced mappings kept of one image.
const MAX_REPLACED: usize = 256;

/// A range of executable memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Offset of the first byte in the file.
    pub file_offset: u64,
    /// What is mapped.
    pub module: ModuleKey,
    /// `CLOCK_MONOTONIC` from when it is known to exist, ns.
    pub since_ns: u64,
}

impl Mapping {
    fn covers(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    fn is_same_place(&self, other: &Self) -> bool {
        (self.start, self.end, self.file_offset, self.module)
            == (other.start, other.end, other.file_offset, other.module)
    }

    /// Whether an address in both is the same place of the same module.
    fn is_same_code(&self, other: &Self) -> bool {
        let offset = |mapping: &Self| mapping.file_offset.wrapping_sub(mapping.start);
        self.module == other.module && (self.module == ModuleKey::ANONYMOUS || offset(self) == offset(other))
    }

    /// The part from `start` to `end`.
    fn part(&self, start: u64, end: u64) -> Self {
        Self {
            start,
            end,
            file_offset: self.file_offset.wrapping_add(start.wrapping_sub(self.start)),
            ..*self
        }
    }
}

/// A mapping that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replaced {
    mapping: Mapping,
    /// When something else took its place.
    until_ns: u64,
    /// When whoever walks by unwind tables was told.
    told_ns: Option<u64>,
}

/// All executable mappings of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Sorted, disjoint.
    current: Vec<Mapping>,
    /// Oldest first.
    replaced: Vec<Replaced>,
}

impl Mappings {
    /// Whether exactly this is already recorded, so that `insert` would change nothing.
    pub fn contains(&self, new: &Mapping) -> bool {
        let at = self.current.partition_point(|old| old.start < new.start);
        self.current.get(at).is_some_and(|old| old.is_same_place(new))
    }

    /// Adds a mapping; what it overlaps is cut. Whether something else was there.
    pub fn insert(&mut self, new: Mapping) -> bool {
        if new.start >= new.end || self.contains(&new) {
            return false;
        }
        let first = self.current.partition_point(|old| old.end <= new.start);
        let last = self.current.partition_point(|old| old.start < new.end);
        let mut pieces = Vec::with_capacity(3);
        for old in &self.current[first..last] {
            if old.start < new.start {
                pieces.push(old.part(old.start, new.start));
            }
        }
        pieces.push(new);
        for old in &self.current[first..last] {
            if old.end > new.end {
                pieces.push(old.part(new.end, old.end));
            }
        }
        let mut replaced = false;
        for old in self.current[first..last].iter().filter(|old| !old.is_same_code(&new)) {
            let mapping = old.part(old.start.max(new.start), old.end.min(new.end));
            if self.replaced.len() == MAX_REPLACED {
                self.replaced.remove(0);
            }
            self.replaced.push(Replaced { mapping, until_ns: new.since_ns, told_ns: None });
            replaced = true;
        }
        if self.current.len() - (last - first) + pieces.len() <= MAX_CURRENT {
            self.current.splice(first..last, pieces);
            self.join_anonymous(first);
        }
        replaced
    }

    /// JIT compilers make memory executable page by page; neighbouring pieces are one.
    fn join_anonymous(&mut self, near: usize) {
        let from = near.saturating_sub(1);
        let mut at = from;
        while at + 1 < self.current.len() && at <= from + 3 {
            let (left, right) = (self.current[at], self.current[at + 1]);
            let is_one = left.module == ModuleKey::ANONYMOUS && right.module == left.module;
            if is_one && left.end == right.start {
                self.current[at].end = right.end;
                self.current[at].since_ns = left.since_ns.min(right.since_ns);
                self.current.remove(at + 1);
            } else {
                at += 1;
            }
        }
    }

    /// The mapping of an address at a time.
    pub fn find(&self, address: u64, at_ns: u64) -> Option<Mapping> {
        let at = self.current.partition_point(|mapping| mapping.end <= address);
        let current = self.current.get(at).filter(|mapping| mapping.covers(address)).copied();
        if current.is_some_and(|mapping| mapping.since_ns <= at_ns) {
            return current;
        }
        // Before its time: something else was there. If that is not known any more, the event came a moment after
        // the mapping was usable.
        let was = |old: &&Replaced| {
            old.mapping.covers(address) && old.mapping.since_ns <= at_ns && at_ns < old.until_ns
        };
        self.replaced.iter().rev().find(was).map(|old| old.mapping).or(current)
    }

    /// Whether a walk that began at a time went by a mapping of the address that was gone: what it found behind the
    /// address is no caller.
    pub fn is_outdated(&self, address: u64, at_ns: u64) -> bool {
        self.replaced.iter().any(|old| {
            let was_told = old.told_ns.is_some_and(|told_ns| told_ns <= at_ns);
            old.mapping.covers(address) && old.until_ns <= at_ns && !was_told
        })
    }

    /// Whether something was replaced that nobody was told of.
    pub fn has_untold(&self) -> bool {
        self.replaced.iter().any(|old| old.told_ns.is_none())
    }

    /// Notes that whoever walks has been told of everything.
    pub fn told(&mut self, now_ns: u64) {
        self.replaced.iter_mut().for_each(|old| _ = old.told_ns.get_or_insert(now_ns));
    }

    /// Forgets what was replaced, and told, before a time.
    pub fn forget_before(&mut self, time_ns: u64) {
        self.replaced.retain(|old| old.until_ns.max(old.told_ns.unwrap_or(0)) >= time_ns);
    }

    /// Whether there is anything to forget.
    pub fn has_replaced(&self) -> bool {
        !self.replaced.is_empty()
    }

    /// The current mappings, lowest address first.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.current.iter()
    }
}

/// A mapping as told by an event or by /proc.
pub struct NewMapping<'a> {
    /// Process.
    pub pid: u32,
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Offset of the first byte in the file.
    pub file_offset: u64,
    /// As the kernel tells it.
    pub path: &'a [u8],
    /// Of the file; `None`: there is none.
    pub identity: Option<&'a FileIdentity>,
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
}

impl NewMapping<'_> {
    /// What is mapped; opens a file that is new. `parent`: a process that may have had the file before.
    pub fn module(&self, parent: u32, modules: &mut Modules) -> ModuleKey {
        match (self.identity, self.path) {
            (_, b"[vdso]") if self.start >= 1 << 32 => ModuleKey::VDSO,
            (_, b"[vdso]" | b"[vsyscall]" | b"[uprobes]" | b"[sigpage]" | b"[vectors]") => {
                ModuleKey::KERNEL_MADE
            }
            (Some(identity), path) => modules.file(Mapped {
                pid: self.pid,
                parent,
                start: self.start,
                end: self.end,
                path,
                identity,
            }),
            (None, _) => ModuleKey::ANONYMOUS,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapping(start: u64, end: u64, module: u32, since_ns: u64) -> Mapping {
        Mapping { start, end, file_offset: start, module: ModuleKey::test(module), since_ns }
    }

    fn module_at(mappings: &Mappings, address: u64, at_ns: u64) -> Option<u32> {
        mappings.find(address, at_ns).map(|mapping| mapping.module.0 - ModuleKey::test(0).0)
    }

    #[test]
    fn a_new_mapping_cuts_a_hole() {
        let mut mappings = Mappings::default();
        mappings.insert(mapping(0x1000, 0x5000, 1, 10));
        mappings.insert(mapping(0x2000, 0x3000, 2, 20));
        for (address, module) in [
            (0xfff, None),
            (0x1000, Some(1)),
            (0x2000, Some(2)),
            (0x2fff, Some(2)),
            (0x3000, Some(1)),
            (0x5000, None),
        ] {
            assert_eq!(module_at(&mappings, address, 30), module, "{address:#x}");
        }
        assert_eq!(mappings.find(0x3000, 30).unwrap().file_offset, 0x3000, "offsets follow the cut");
    }

    #[test]
    fn the_past_is_remembered() {
        let mut mappings = Mappings::default();
        mappings.insert(mapping(0x1000, 0x2000, 1, 10));
        mappings.insert(mapping(0x1000, 0x2000, 2, 20));
        assert_eq!(module_at(&mappings, 0x1000, 19), Some(1));
        assert_eq!(module_at(&mappings, 0x1000, 20), Some(2));
        assert_eq!(module_at(&mappings, 0x1000, 5), Some(2), "before everything known");
        mappings.forget_before(21);
        assert_eq!(module_at(&mappings, 0x1000, 19), Some(2));
    }

    #[test]
    fn walks_by_what_was_replaced_are_outdated_until_it_is_told() {
        const TOLD_NS: u64 = 1_000;
        let mut mappings = Mappings::default();
        assert!(!mappings.insert(mapping(0x1000, 0x3000, 1, 10)));
        assert!(mappings.insert(mapping(0x2000, 0x4000, 2, 20)), "it covers a part");
        let outdated = |mappings: &Mappings, address, at_ns| mappings.is_outdated(address, at_ns);
        assert!(!outdated(&mappings, 0x2000, 19), "before");
        assert!(outdated(&mappings, 0x2000, 20) && outdated(&mappings, 0x2fff, u64::MAX));
        assert!(!outdated(&mappings, 0x1fff, 20) && !outdated(&mappings, 0x3000, 20), "elsewhere");
        assert!(mappings.has_untold());
        mappings.told(TOLD_NS);
        assert!(!mappings.has_untold());
        mappings.forget_before(TOLD_NS);
        assert!(outdated(&mappings, 0x2000, TOLD_NS - 1) && !outdated(&mappings, 0x2000, TOLD_NS));
        mappings.forget_before(TOLD_NS + 1);
        assert!(!mappings.has_replaced());
    }

    #[test]
    fn anonymous_neighbours_are_joined() {
        let mut mappings = Mappings::default();
        for page in [0u64, 2, 1, 3] {
            let start = 0x1000 + page * 0x1000;
            let module = ModuleKey::ANONYMOUS;
            mappings.insert(Mapping { start, end: start + 0x1000, file_offset: 0, module, since_ns: page });
        }
        assert_eq!(mappings.iter().count(), 1);
        assert_eq!(mappings.find(0x4fff, 9).unwrap().start, 0x1000);
    }

    proptest! {
        /// Against the obvious model: an array of pages.
        #[test]
        fn like_an_array_of_pages(inserts in prop::collection::vec((0u64..64, 1u64..32, 0u32..4), 0..40)) {
            let mut model = [None; 128];
            let mut mappings = Mappings::default();
            for (time, &(start, len, module)) in inserts.iter().enumerate() {
                let end = start + len;
                mappings.insert(mapping(start, end, module, time as u64));
                model[start as usize..end as usize].fill(Some(module));
                prop_assert!(mappings.current.windows(2).all(|pair| pair[0].end <= pair[1].start));
            }
            for (page, &module) in model.iter().enumerate() {
                prop_assert_eq!(module_at(&mappings, page as u64, u64::MAX), module);
                if let Some(found) = mappings.find(page as u64, u64::MAX) {
                    prop_assert_eq!(found.file_offset + (page as u64 - found.start), page as u64);
                }
            }
        }
    }
}
