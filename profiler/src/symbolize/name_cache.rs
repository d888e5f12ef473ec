//! Names that were found before, for recordings that are named interval by interval: most code of an interval is that of the
//! one before, and reading the symbols of a large program again costs more than all the rest.

use std::collections::HashMap;

use super::{
    kallsyms::{KernelNames, Table},
    module::interval::Content,
    native::{Named, Wanted},
};
use crate::model::Reason;

/// Most names that are kept, some 150 bytes each; beyond it those go that the last two intervals did not ask for.
const MAX_NAMES: usize = 65_536;

/// A name, and the number of the interval that last asked for it.
#[derive(Debug)]
struct Kept<T> {
    value: T,
    used: u64,
}

/// Intervals behind which the kernel's names are read again if one is missing: each time twice as many as before, until
/// [`MAX_RETRY`], for it takes a tenth of a second.
const RETRY: u64 = 6;
/// See [`RETRY`]: with windows of ten seconds, two hours.
const MAX_RETRY: u64 = 768;

/// The kernel's names as they were read.
#[derive(Debug)]
struct KernelTable {
    /// `None`: they are hidden.
    table: Option<Table>,
    /// What tells which modules there were, and which recording it is of. A recording is told of all code that the kernel makes
    /// or frees meanwhile (`PERF_RECORD_KSYMBOL`), which is named by that.
    of: (u64, u64),
    /// The interval in which they were read.
    read: u64,
    /// So many intervals later they may be read again.
    retry: u64,
}

/// The names.
#[derive(Debug, Default)]
pub struct NameCache {
    files: HashMap<Content, HashMap<(u64, bool), Kept<Named>>>,
    kernel: Option<KernelTable>,
    recording: u64,
    interval: u64,
}

impl NameCache {
    /// Begins an interval of a recording: makes room if there is none.
    pub fn begin_interval(&mut self, recording: u64) {
        self.interval += 1;
        self.recording = recording;
        if self.len() <= MAX_NAMES {
            return;
        }
        let since = self.interval.saturating_sub(2);
        for names in self.files.values_mut() {
            names.retain(|_, kept| kept.used >= since);
        }
        self.files.retain(|_, names| !names.is_empty());
    }

    /// Gives memory back: names of files go. Those of the kernel would be read again at once.
    pub fn trim(&mut self) {
        self.files = HashMap::new();
    }

    /// Names of files that are kept.
    fn len(&self) -> usize {
        self.files.values().map(HashMap::len).sum::<usize>()
    }

    /// Names in a file of that content, one for each that is wanted. `find` is asked for those that are not known; that it cannot
    /// open the file says nothing of another process's, later.
    pub fn file(
        &mut self,
        content: Content,
        wanted: &[Wanted],
        find: impl FnOnce(&[Wanted]) -> Result<Vec<Named>, Reason>,
    ) -> Vec<Named> {
        let used = self.interval;
        let names = self.files.entry(content).or_default();
        let key = |wanted: &Wanted| (wanted.offset, wanted.outermost);
        let missing: Vec<Wanted> =
            wanted.iter().filter(|wanted| !names.contains_key(&key(wanted))).copied().collect();
        let mut reason = Reason::NoSymbols;
        if !missing.is_empty() {
            match find(&missing) {
                Ok(found) => {
                    let kept = |(wanted, value)| (key(wanted), Kept { value, used });
                    names.extend(missing.iter().zip(found).map(kept));
                }
                Err(why) => reason = why,
            }
        }
        let name = |wanted| match names.get_mut(&key(wanted)) {
            Some(kept) => {
                kept.used = used;
                kept.value.clone()
            }
            None => Named::unresolved(reason),
        };
        wanted.iter().map(name).collect()
    }

    /// Names of the kernel, one for each address. `modules`: a number that is another one when the kernel has other modules;
    /// `read`: reads its names.
    pub fn kernel(
        &mut self,
        addresses: &[u64],
        modules: u64,
        read: impl FnOnce() -> Option<Table>,
    ) -> KernelNames {
        let of = (modules, self.recording);
        let names = |table: &Table| addresses.iter().map(|&address| table.find(address)).collect::<Vec<_>>();
        if self.kernel.as_ref().is_some_and(|known| known.of != of) {
            self.kernel = None;
        }
        let found = self.kernel.as_ref().and_then(|known| known.table.as_ref()).map(names);
        let is_whole = found.as_ref().is_some_and(|names| names.iter().all(Option::is_some));
        let (due, retry) = self
            .kernel
            .as_ref()
            .map_or((0, RETRY), |known| (known.read + known.retry, MAX_RETRY.min(known.retry * 2)));
        if !is_whole && due <= self.interval {
            let table = read();
            let found = table.as_ref().map(names);
            self.kernel = Some(KernelTable { table, of, read: self.interval, retry });
            return KernelNames::of(found);
        }
        KernelNames::of(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::dwarf::Activation;

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
            cache.begin_interval(1);
            let all: Vec<_> = offsets.iter().map(|&offset| wanted(offset)).collect();
            cache.file(content(), &all, |missing| {
                asked.borrow_mut().extend(missing.iter().map(|wanted| wanted.offset));
                Ok(missing.iter().map(|wanted| named(&format!("f{}", wanted.offset))).collect())
            })
        };
        assert_eq!(names(&[1, 2]), [named("f1"), named("f2")]);
        assert_eq!(names(&[2, 3, 1]), [named("f2"), named("f3"), named("f1")]);
        assert_eq!(*asked.borrow(), [1, 2, 3]);
    }

    #[test]
    fn a_file_that_could_not_be_opened_is_asked_again() {
        let mut cache = NameCache::default();
        let content = || Content::BuildId(vec![1]);
        cache.file(content(), &[wanted(1)], |_| Ok(vec![named("f1")]));
        let names = cache.file(content(), &[wanted(1), wanted(2)], |_| Err(Reason::FileGone));
        assert_eq!(names, [named("f1"), Named::unresolved(Reason::FileGone)]);
        let names = cache.file(content(), &[wanted(1), wanted(2)], |_| Ok(vec![named("f2")]));
        assert_eq!(names, [named("f1"), named("f2")]);
    }

    #[test]
    fn what_has_no_name_keeps_its_reason() {
        let mut cache = NameCache::default();
        let none = Named { chain: Err(Reason::NoSymbols), is_root: false };
        for _ in 0..2 {
            let found = cache.file(Content::BuildId(vec![1]), &[wanted(7)], |_| Ok(vec![none.clone()]));
            assert_eq!(found, std::slice::from_ref(&none));
        }
    }

    #[test]
    fn the_kernels_names_are_read_once_and_again_if_they_can_be_others() {
        let mut cache = NameCache::default();
        let reads = std::cell::Cell::new(0);
        let names = |cache: &mut NameCache, recording, modules, text: Option<&str>| {
            cache.begin_interval(recording);
            let found = cache.kernel(&[0x1001, 0x2001], modules, || {
                reads.set(reads.get() + 1);
                Table::parse(text?.as_bytes(), Vec::new())
            });
            match found {
                KernelNames::Found(names) => names.into_iter().map(|name| name.map(|n| n.name)).collect(),
                KernelNames::Hidden => Vec::new(),
            }
        };
        let one = "1000 T a\n2000 d x\n";
        let both = "1000 T a\n2000 T b\n";
        let of = |names: [Option<&str>; 2]| names.map(|name| name.map(|n| n.as_bytes().to_vec())).to_vec();
        for interval in 0..RETRY {
            assert_eq!(names(&mut cache, 1, 7, Some(one)), of([Some("a"), None]), "{interval}");
        }
        assert_eq!(reads.get(), 1, "what has no name is not asked about each time");
        assert_eq!(names(&mut cache, 1, 7, Some(both)), of([Some("a"), Some("b")]));
        for _ in 0..3 * RETRY {
            names(&mut cache, 1, 7, Some(one));
        }
        assert_eq!(reads.get(), 2);
        assert_eq!(names(&mut cache, 1, 8, Some(one)), of([Some("a"), None]), "other modules");
        assert_eq!(names(&mut cache, 2, 8, Some(both)), of([Some("a"), Some("b")]), "another recording");
        assert_eq!(names(&mut cache, 3, 8, None), of([None, None])[..0], "hidden");
        assert_eq!(reads.get(), 5);
    }

    #[test]
    fn kernel_names_that_are_not_there_are_looked_for_less_and_less_often() {
        let mut cache = NameCache::default();
        let mut reads = Vec::new();
        for interval in 0..3 * MAX_RETRY + RETRY {
            cache.begin_interval(1);
            cache.kernel(&[0x2001], 7, || {
                reads.push(interval);
                Table::parse(&b"1000 T a\n2000 d x\n"[..], Vec::new())
            });
        }
        let pauses: Vec<_> = reads.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses, [6, 12, 24, 48, 96, 192, 384, 768, 768]);
    }

    #[test]
    fn room_is_bounded() {
        let mut cache = NameCache::default();
        for interval in 0..5u64 {
            cache.begin_interval(1);
            let all: Vec<_> = (0..40_000).map(|n| wanted(interval * 40_000 + n)).collect();
            cache.file(Content::BuildId(vec![1]), &all, |missing| Ok(vec![named("f"); missing.len()]));
        }
        cache.begin_interval(1);
        assert!(cache.len() <= 2 * 40_000, "{}", cache.len());
    }
}
