//! Names that were found before, for recordings that are named interval by interval: most code of an interval is that of the
//! one before, and reading the symbols of a large program again costs more than all the rest.

use std::collections::HashMap;

use super::{
    kallsyms::{KernelName, KernelNames},
    module::Content,
    native::{Named, Wanted},
};

/// Most names that are kept, some 150 bytes each; beyond it those go that the last two intervals did not ask for.
const MAX_NAMES: usize = 65_536;

/// A name, and the number of the interval that last asked for it.
#[derive(Debug)]
struct Kept<T> {
    value: T,
    used: u64,
}

/// The names.
#[derive(Debug, Default)]
pub struct NameCache {
    files: HashMap<Content, HashMap<(u64, bool), Kept<Named>>>,
    /// Of the kernel's own text, which stays where it is until the next boot; that of its modules can change.
    kernel: HashMap<u64, Kept<KernelName>>,
    interval: u64,
}

impl NameCache {
    /// Begins an interval: makes room if there is none.
    pub fn begin_interval(&mut self) {
        self.interval += 1;
        if self.len() <= MAX_NAMES {
            return;
        }
        let since = self.interval.saturating_sub(2);
        for names in self.files.values_mut() {
            names.retain(|_, kept| kept.used >= since);
        }
        self.files.retain(|_, names| !names.is_empty());
        self.kernel.retain(|_, kept| kept.used >= since);
    }

    /// Names that are kept.
    pub fn len(&self) -> usize {
        self.kernel.len() + self.files.values().map(HashMap::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names in a file of that content, one for each that is wanted. `find` is asked for those that are not known.
    pub fn file(
        &mut self,
        content: Content,
        wanted: &[Wanted],
        find: impl FnOnce(&[Wanted]) -> Vec<Named>,
    ) -> Vec<Named> {
        let used = self.interval;
        let names = self.files.entry(content).or_default();
        let key = |wanted: &Wanted| (wanted.offset, wanted.outermost);
        let missing: Vec<Wanted> =
            wanted.iter().filter(|wanted| !names.contains_key(&key(wanted))).copied().collect();
        if !missing.is_empty() {
            let found = find(&missing);
            names.extend(
                missing.iter().zip(found).map(|(wanted, value)| (key(wanted), Kept { value, used })),
            );
        }
        let name = |wanted| {
            let kept = names.get_mut(&key(wanted))?;
            kept.used = used;
            Some(kept.value.clone())
        };
        wanted.iter().filter_map(name).collect()
    }

    /// Names of the kernel, one for each (sorted) address. `find` is asked for those that are not known.
    pub fn kernel(
        &mut self,
        addresses: &[u64],
        find: impl FnOnce(&[u64]) -> KernelNames,
    ) -> KernelNames {
        let used = self.interval;
        let missing: Vec<u64> =
            addresses.iter().filter(|address| !self.kernel.contains_key(address)).copied().collect();
        let mut found = HashMap::new();
        if !missing.is_empty() {
            match find(&missing) {
                KernelNames::Hidden => return KernelNames::Hidden,
                KernelNames::Found(names) => found.extend(missing.into_iter().zip(names)),
            }
        }
        let name = |address: &u64| {
            if let Some(kept) = self.kernel.get_mut(address) {
                kept.used = used;
                return Some(kept.value.clone());
            }
            let name = found.remove(address).flatten()?;
            if name.module.is_none() {
                self.kernel.insert(*address, Kept { value: name.clone(), used });
            }
            Some(name)
        };
        KernelNames::Found(addresses.iter().map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Reason, symbolize::dwarf::Activation};

    fn named(name: &str) -> Named {
        let activation = Activation { name: name.to_owned(), file: None, line: 0 };
        Named { chain: Ok(vec![activation]), is_root: false }
    }

    fn wanted(offset: u64) -> Wanted {
        Wanted { offset, outermost: false }
    }

    #[test]
    fn a_file_is_asked_only_for_what_is_new() {
        let mut cache = NameCache::default();
        let content = || Content::BuildId(vec![1]);
        let asked = std::cell::RefCell::new(Vec::new());
        let mut names = |offsets: &[u64]| {
            cache.begin_interval();
            let all: Vec<_> = offsets.iter().map(|&offset| wanted(offset)).collect();
            cache.file(content(), &all, |missing| {
                asked.borrow_mut().extend(missing.iter().map(|wanted| wanted.offset));
                missing.iter().map(|wanted| named(&format!("f{}", wanted.offset))).collect()
            })
        };
        assert_eq!(names(&[1, 2]), [named("f1"), named("f2")]);
        assert_eq!(names(&[2, 3, 1]), [named("f2"), named("f3"), named("f1")]);
        assert_eq!(*asked.borrow(), [1, 2, 3]);
    }

    #[test]
    fn what_has_no_name_keeps_its_reason() {
        let mut cache = NameCache::default();
        let none = Named { chain: Err(Reason::NoSymbols), is_root: false };
        for _ in 0..2 {
            let found = cache.file(Content::BuildId(vec![1]), &[wanted(7)], |_| vec![none.clone()]);
            assert_eq!(found, [none.clone()]);
        }
    }

    #[test]
    fn names_of_kernel_modules_are_not_kept() {
        let mut cache = NameCache::default();
        let find = |addresses: &[u64]| {
            let module = |address: u64| (address > 10).then(|| b"ext4".to_vec());
            let name = |&address: &u64| {
                Some(KernelName { name: b"f".to_vec(), start: address, module: module(address) })
            };
            KernelNames::Found(addresses.iter().map(name).collect())
        };
        let first = cache.kernel(&[1, 20], find);
        assert_eq!((first, cache.len()), (find(&[1, 20]), 1));
        let second = cache.kernel(&[1, 20], |missing| {
            assert_eq!(missing, [20]);
            find(missing)
        });
        assert_eq!(second, find(&[1, 20]));
        assert_eq!(cache.kernel(&[2], |_| KernelNames::Hidden), KernelNames::Hidden);
    }

    #[test]
    fn room_is_bounded() {
        let mut cache = NameCache::default();
        for interval in 0..5u64 {
            cache.begin_interval();
            let all: Vec<_> = (0..40_000).map(|n| wanted(interval * 40_000 + n)).collect();
            cache.file(Content::BuildId(vec![1]), &all, |missing| vec![named("f"); missing.len()]);
        }
        cache.begin_interval();
        assert!(cache.len() <= 2 * 40_000, "{}", cache.len());
    }
}
