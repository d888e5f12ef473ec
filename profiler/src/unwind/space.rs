//! Which places of an arena are taken: best fit within chunks, neighbours joined when they are given back.

use std::collections::BTreeMap;

use profiler_common::unwind::map::Arena;

/// Places that belong together: index of the first, and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index in the arena.
    pub at: u32,
    /// Number of places.
    pub len: u32,
}

/// The free places of an arena.
#[derive(Debug)]
pub struct Space {
    shape: Arena,
    /// By index of the first: lengths. No span crosses a chunk, no two touch.
    free: BTreeMap<u32, u32>,
    chunks: u32,
}

impl Space {
    /// An arena without chunks.
    pub const fn new(shape: Arena) -> Self {
        Self { shape, free: BTreeMap::new(), chunks: 0 }
    }

    /// Notes that a chunk was added.
    pub fn grow(&mut self) {
        self.free.insert(self.chunks << self.shape.shift, self.shape.chunk_len());
        self.chunks += 1;
    }

    /// Takes places that lie in one chunk, from the smallest span that has enough. `None`: there are none.
    pub fn take(&mut self, len: u32) -> Option<Span> {
        let fits = self.free.iter().filter(|(_, free)| **free >= len);
        let (&at, &free) = fits.min_by_key(|(_, free)| **free)?;
        self.free.remove(&at);
        if free > len {
            self.free.insert(at + len, free - len);
        }
        Some(Span { at, len })
    }

    /// Gives places back.
    pub fn give_back(&mut self, span: Span) {
        let Span { mut at, mut len } = span;
        if len == 0 {
            return;
        }
        let is_one = |left: u32, right: u32| self.shape.chunk(left) == self.shape.chunk(right);
        if let Some((&before, &before_len)) = self.free.range(..at).next_back()
            && before + before_len == at
            && is_one(before, at)
        {
            self.free.remove(&before);
            (at, len) = (before, len + before_len);
        }
        let end = at + len;
        if let Some(&after_len) = self.free.get(&end)
            && is_one(at, end)
        {
            self.free.remove(&end);
            len += after_len;
        }
        self.free.insert(at, len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: Arena = Arena { shift: 6, chunks: 4 };

    #[test]
    fn a_full_arena_says_so_and_nothing_crosses_a_chunk() {
        let mut space = Space::new(SHAPE);
        assert_eq!(space.take(1), None);
        space.grow();
        space.grow();
        assert_eq!(space.take(65), None);
        let first = space.take(40).unwrap();
        let second = space.take(40).unwrap();
        assert_ne!(SHAPE.chunk(first.at), SHAPE.chunk(second.at));
        assert_eq!(space.take(25), None);
        space.give_back(first);
        assert!(space.take(64).is_some(), "what was given back is whole again");
    }

    proptest! {
        /// Against the obvious model: a flag for each place.
        #[test]
        fn like_an_array_of_flags(steps in prop::collection::vec((1u32..40, any::<prop::sample::Index>(), any::<bool>()), 1..100)) {
            let mut space = Space::new(SHAPE);
            (0..SHAPE.chunks).for_each(|_| space.grow());
            let mut taken = [false; 256];
            let mut spans = Vec::new();
            for (len, index, give_back) in steps {
                if give_back && !spans.is_empty() {
                    let span: Span = spans.swap_remove(index.index(spans.len()));
                    taken[span.at as usize..(span.at + span.len) as usize].fill(false);
                    space.give_back(span);
                } else if let Some(span) = space.take(len) {
                    prop_assert_eq!(SHAPE.chunk(span.at), SHAPE.chunk(span.at + span.len - 1));
                    let range = span.at as usize..(span.at + span.len) as usize;
                    prop_assert!(taken[range.clone()].iter().all(|taken| !taken));
                    taken[range].fill(true);
                    spans.push(span);
                } else {
                    let run = |chunk: &[bool]| chunk.split(|taken| *taken).map(<[bool]>::len).max();
                    prop_assert!(taken.chunks(64).all(|chunk| run(chunk) < Some(len as usize)));
                }
            }
            for span in spans {
                space.give_back(span);
            }
            prop_assert_eq!(space.free.len(), SHAPE.chunks as usize);
        }
    }
}
