//! Rows: which rule holds from which address on, found by a binary search that the verifier of any kernel accepts.
//!
//! A module's address range is cut into pages of 64 KiB; a page's rows are sorted by address, and the first of them is
//! at offset 0 (it carries on the rule of the page before), so that every address of a page that has rows has a row.

use core::hint::black_box;

/// log2 of the bytes of a page.
pub const PAGE_SHIFT: u32 = 16;

/// Most rows of a page: one for each byte.
pub const MAX_ROWS: u32 = 1 << PAGE_SHIFT;

/// Steps of a search among [`MAX_ROWS`]: 2^16, 2^15 .. 1.
pub const SEARCH_STEPS: u32 = PAGE_SHIFT + 1;

/// A row: the low half is the offset in the page from which on the rule holds, the high half the rule's number within
/// its module.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row(pub u32);

impl Row {
    /// Puts the parts together.
    pub const fn new(offset: u16, rule: u16) -> Self {
        Self(offset as u32 | (rule as u32) << 16)
    }

    /// Offset in the page.
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 & 0xffff
    }

    /// Number of the rule.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 >> 16
    }
}

/// A page: where its rows are. Bits 0-31 index of the first row, 32-63 their number.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Page(pub u64);

impl Page {
    /// A page without rows.
    pub const EMPTY: Self = Self(0);

    /// Puts the parts together.
    pub const fn new(first: u32, count: u32) -> Self {
        Self(first as u64 | (count as u64) << 32)
    }

    /// Index of the first row.
    #[inline(always)]
    pub const fn first(self) -> u32 {
        self.0 as u32
    }

    /// Number of rows.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The index of the last of `count` sorted keys that is at most `target`, 0 if none is. `key(i)` gives the key of an
/// `i` below `count`, and anything for others; `None` ends the search without result. At most 2^`steps` - 1 keys are
/// searched.
///
/// A step has no branch but that on the key's availability: a verifier that follows both outcomes of every branch sees
/// `steps` steps. The compiler makes branches of comparisons whose outcome it can see in what they are used for, hence
/// the black boxes.
#[inline(always)]
pub fn search(count: u32, target: u64, steps: u32, mut key: impl FnMut(u32) -> Option<u64>) -> Option<u32> {
    let mut at = 0u64;
    let mut step = 1u64 << (steps_for(count, steps) - 1);
    while step != 0 {
        let probe = at + step;
        // Keys, targets and counts are below 2^63 (offsets, user addresses): the signs of the differences are the
        // comparisons. Negative if the probe is below the count, and its key not above the target.
        let below = probe.wrapping_sub(u64::from(count)) & !target.wrapping_sub(key(probe as u32)?);
        at += step & black_box(black_box(below) as i64 >> 63) as u64;
        step >>= 1;
    }
    Some(at as u32)
}

/// Steps of a search among `count` keys, of at most `most`: in few sizes, for the verifier follows each.
#[inline(always)]
const fn steps_for(count: u32, most: u32) -> u32 {
    if count < 1 << 6 {
        6
    } else if count < 1 << 10 {
        10
    } else {
        most
    }
}

const _: () = assert!(SEARCH_STEPS >= 10);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_search_is_the_naive_one(mut keys in prop::collection::vec(0u64..70_000, 1..300), target in 0u64..70_000) {
            keys.sort_unstable();
            keys[0] = 0;
            let found = search(keys.len() as u32, target, SEARCH_STEPS, |i| Some(keys.get(i as usize).copied().unwrap_or(0)));
            let naive = keys.partition_point(|&key| key <= target) as u32 - 1;
            prop_assert_eq!(found, Some(naive));
        }

        #[test]
        fn what_lies_outside_does_not_matter(count in 1u32..=MAX_ROWS, target: u16, outside: u16) {
            let found = search(count, u64::from(target), SEARCH_STEPS, |i| {
                Some(u64::from(if i < count { i } else { outside.into() }))
            });
            prop_assert_eq!(found, Some(u32::from(target).min(count - 1)));
        }
    }

    #[test]
    fn a_full_page_is_searched_to_its_end() {
        let keys: Vec<u64> = (0..u64::from(MAX_ROWS)).collect();
        for target in [0, 1, 4095, 65_534, 65_535] {
            let found =
                search(MAX_ROWS, target, SEARCH_STEPS, |i| Some(keys.get(i as usize).copied().unwrap_or(0)));
            assert_eq!(found, Some(target as u32));
        }
    }

    #[test]
    fn a_key_that_is_not_to_be_had_ends_it() {
        assert_eq!(search(10, 5, SEARCH_STEPS, |_| None), None);
    }
}
