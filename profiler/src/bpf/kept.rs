//! Drained stacks by name, as long as a count can name them.
//!
//! Counts are rotated before stacks, so the stack of a drained count is in the stacks drained with it or in those drained
//! one window earlier. A task that waits is counted only at the end of its wait, any number of windows after its stacks
//! were drained: where waits are recorded, stacks are held beyond. As long as there are few, all of them are; else those
//! go that no wait and no count has named for [`UNUSED_WINDOWS`].

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use profiler_common::{
    sched::waker::Woken,
    stack::{MAX_FRAMES, RawStack, WalkEnd},
};

/// Stacks that are all held, if any are: some 10 MB.
const HELD: usize = 32 * 1024;

/// Windows that a held stack outlives its last use. A wait can be counted, and its task have another stack, while the
/// waits are being looked through: such a count is drained with the next window.
const UNUSED_WINDOWS: u32 = 2;

/// A captured stack: absolute addresses, leaf first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedStack {
    /// Addresses.
    pub frames: Box<[u64]>,
    /// Why the walk ended.
    pub end: WalkEnd,
}

impl CapturedStack {
    /// A stack as the kernel side writes it.
    pub fn of(stack: &RawStack) -> Self {
        let len = (stack.len as usize).min(MAX_FRAMES);
        Self {
            frames: stack.frames[..len].into(),
            end: WalkEnd::from_u32(stack.end).unwrap_or(WalkEnd::Ended),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A stack.
    Stack(CapturedStack),
    /// The user stack of a task that waited, and who woke it.
    Woken(Woken),
}

impl Named {
    /// What the kernel side has written.
    pub fn of(entry: &RawStack) -> Self {
        Woken::read(entry).map_or_else(|| Self::Stack(CapturedStack::of(entry)), Self::Woken)
    }
}

#[derive(Clone, Debug)]
struct Kept {
    named: Rc<Named>,
    /// Windows since it was drained, or used.
    unused: u32,
}

/// Stacks by name.
#[derive(Clone, Debug, Default)]
pub struct KeptStacks {
    stacks: HashMap<u64, Kept>,
}

impl KeptStacks {
    /// The stack of that name.
    pub fn get(&self, name: u64) -> Option<&CapturedStack> {
        match &*self.stacks.get(&name)?.named {
            Named::Stack(stack) => Some(stack),
            Named::Woken(_) => None,
        }
    }

    /// The user stack and the waker of that name.
    pub fn woken(&self, name: u64) -> Option<&Woken> {
        match &*self.stacks.get(&name)?.named {
            Named::Woken(woken) => Some(woken),
            Named::Stack(_) => None,
        }
    }

    /// Goes on to the next window: takes in those `drained` with it, and lets go of what its counts cannot name. `named`: gives
    /// the stacks that it counted with; `waiting`: if waits are recorded, gives those that they may still be counted with.
    pub fn advance(
        &mut self,
        drained: HashMap<u64, Named>,
        named: impl FnOnce() -> HashSet<u64>,
        waiting: Option<impl FnOnce() -> HashSet<u64>>,
    ) {
        let (held, used) = match waiting {
            None => (1, HashSet::new()),
            Some(_) if self.stacks.len() <= HELD => (u32::MAX, HashSet::new()),
            Some(waiting) => (UNUSED_WINDOWS, self.used(&drained, named(), waiting())),
        };
        if held != u32::MAX {
            self.stacks.retain(|name, kept| {
                kept.unused = if used.contains(name) { 0 } else { kept.unused + 1 };
                kept.unused <= held
            });
        }
        let new = |(name, named)| (name, Kept { named: Rc::new(named), unused: 0 });
        self.stacks.extend(drained.into_iter().map(new));
    }

    /// The names that are in use, with the parts of what they stand for, which are other names.
    fn used(
        &self,
        drained: &HashMap<u64, Named>,
        named: HashSet<u64>,
        waiting: HashSet<u64>,
    ) -> HashSet<u64> {
        let parts = |named: &Named| match named {
            Named::Woken(woken) => woken.stacks().to_vec(),
            Named::Stack(_) => Vec::new(),
        };
        let kept = named.iter().filter_map(|name| Some(&*self.stacks.get(name)?.named));
        let parts: Vec<u64> = drained.values().chain(kept).flat_map(parts).collect();
        named.into_iter().chain(waiting).chain(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Option<fn() -> HashSet<u64>> = None;

    impl KeptStacks {
        fn next(
            &self,
            drained: HashMap<u64, Named>,
            named: &HashSet<u64>,
            waiting: Option<impl FnOnce() -> HashSet<u64>>,
        ) -> Self {
            let mut next = self.clone();
            next.advance(drained, || named.clone(), waiting);
            next
        }
    }

    fn stacks(names: impl IntoIterator<Item = u64>) -> HashMap<u64, Named> {
        let stack = |name| (name, Named::Stack(CapturedStack { frames: [name].into(), end: WalkEnd::Ended }));
        names.into_iter().map(stack).collect()
    }

    fn named(names: impl IntoIterator<Item = u64>) -> HashSet<u64> {
        names.into_iter().collect()
    }

    #[test]
    fn without_waits_a_stack_outlives_one_window() {
        let first = KeptStacks::default().next(stacks([1]), &named([]), NOBODY);
        let second = first.next(stacks([2]), &named([1]), NOBODY);
        assert!(second.get(1).is_some() && second.get(2).is_some());
        let third = second.next(stacks([]), &named([]), NOBODY);
        assert!(third.get(1).is_none() && third.get(2).is_some());
    }

    #[test]
    fn few_stacks_are_all_held_for_waits() {
        let mut kept = KeptStacks::default().next(stacks([1]), &named([]), Some(|| named([])));
        for _ in 0..10 {
            kept = kept.next(stacks([2]), &named([]), Some(|| named([])));
        }
        assert_eq!(kept.get(1).map(|stack| stack.frames[0]), Some(1));
    }

    #[test]
    fn of_many_stacks_those_are_held_that_are_used() {
        let many = HELD as u64 + 10;
        let mut kept = KeptStacks::default().next(stacks(0..many), &named([]), Some(|| named([])));
        for window in 0..5 {
            // 1 is waited with all the time, 2 is counted once.
            let counted = if window == 2 { named([2]) } else { named([]) };
            kept = kept.next(stacks([]), &counted, Some(|| named([1])));
            assert_eq!(kept.get(3).is_some(), window < 2, "{window}");
            assert!(kept.get(1).is_some());
        }
        // Few are left, and nothing of them is lost any more.
        assert!(kept.get(1).is_some());
    }

    #[test]
    fn what_a_used_name_stands_for_is_used() {
        let many = HELD as u64 + 10;
        let mut kept = KeptStacks::default().next(stacks(0..many), &named([]), Some(|| named([])));
        let woken =
            Woken { waited: 5, pid: 1, incarnation: 0, kernel_stack: 6, user_stack: 7, comm: [0; 16] };
        let drained = HashMap::from([(many, Named::Woken(woken))]);
        kept = kept.next(drained, &named([many]), Some(|| named([])));
        assert_eq!((kept.woken(many), kept.get(many)), (Some(&woken), None));
        for _ in 0..2 {
            kept = kept.next(stacks([]), &named([many]), Some(|| named([])));
        }
        assert!([5, 6, 7].iter().all(|name| kept.get(*name).is_some()) && kept.get(8).is_none());
    }
}
