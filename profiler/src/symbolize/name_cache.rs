//! Names that were found before, for recordings that are named interval by interval: most code of an interval is that of the
//! one before, and reading the symbols of a large program again costs more than all the rest.

use std::collections::HashMap;

use super::{
    kallsyms::{KernelName, KernelNames},
    module::interval::Content,
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
    /// Of the kernel's own text, which stays where it is until the next boot, and of its modules, as long as they are the
    /// same. Not those of BPF programs, which come and go.
    kernel: HashMap<u64, Kept<Option<KernelName>>>,
    /// What tells which modules they are.
    modules: u64,
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
            names
                .extend(missing.iter().zip(found).map(|(wanted, value)| (key(wanted), Kept { value, used })));
        }
        let name = |wanted| {
            let kept = names.get_mut(&key(wanted))?;
            kept.used = used;
            Some(kept.value.clone())
        };
        wanted.iter().filter_map(name).collect()
    }

    /// Names of the kernel, one for each (sorted) address. `find` is asked for those that are not known. `modules`: a number that
    /// is another one when the kernel has other modules.
    pub fn kernel(
        &mut self,
        addresses: &[u64],
        modules: u64,
        find: impl FnOnce(&[u64]) -> KernelNames,
    ) -> KernelNames {
        let used = self.interval;
        if std::mem::replace(&mut self.modules, modules) != modules {
            let is_own = |name: &KernelName| name.module.is_none();
            self.kernel.retain(|_, kept| kept.value.as_ref().is_some_and(is_own));
        }
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
                return kept.value.clone();
            }
            let name = found.remove(address).flatten();
            if name.as_ref().and_then(|name| name.module.as_deref()) != Some(b"bpf") {
                self.kernel.insert(*address, Kept { value: name.clone(), used });
            }
            name
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
            assert_eq!(found, std::slice::from_ref(&none));
        }
    }

    #[test]
    fn names_of_kernel_modules_are_kept_while_they_are_the_same() {
        let mut cache = NameCache::default();
        let asked = std::cell::RefCell::new(Vec::<u64>::new());
        let find = |addresses: &[u64]| {
            asked.borrow_mut().extend(addresses);
            let name = |&address: &u64| {
                let module = match address {
                    1 => None,
                    20 => Some(b"ext4".to_vec()),
                    30 => Some(b"bpf".to_vec()),
                    _ => return None,
                };
                Some(KernelName { name: b"f".to_vec(), start: address, module })
            };
            KernelNames::Found(addresses.iter().map(name).collect())
        };
        let first = cache.kernel(&[1, 20, 30, 40], 7, find);
        assert_eq!(cache.kernel(&[1, 20, 30, 40], 7, find), first);
        assert_eq!(*asked.borrow(), [1, 20, 30, 40, 30], "programs come and go");
        asked.borrow_mut().clear();
        assert_eq!(
            cache.kernel(&[1, 20, 40], 8, find),
            KernelNames::Found(match first {
                KernelNames::Found(names) =>
                    names.into_iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, n)| n).collect(),
                KernelNames::Hidden => Vec::new(),
            })
        );
        assert_eq!(*asked.borrow(), [20, 40], "another module can be there now");
        assert_eq!(cache.kernel(&[2], 8, |_| KernelNames::Hidden), KernelNames::Hidden);
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
