//! The memory of a real JVM, damaged: what was read of it is copied, changed here and there, and read again. Whatever is
//! found then, it is an answer or a reason, after bounded reading. With each JDK of this machine.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use profiler::symbolize::runtime::{
    jvm::{Jvm, MAX_READ, open},
    memory::{Memory, ProcessMemory, Unmapped},
};
use profiler_tests::jdk::each_jdk;

const PAGE: u64 = 4096;
/// Damaged copies of each JVM.
const COPIES: u64 = 400;

type Pages = BTreeMap<u64, Vec<u8>>;

/// A process's memory; keeps what is read of it.
struct Copying {
    memory: ProcessMemory,
    pages: RefCell<Pages>,
}

impl Memory for &Copying {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        self.memory.read(address, buffer)?;
        let last = address.saturating_add(buffer.len().saturating_sub(1) as u64);
        for page in address / PAGE..=last / PAGE {
            if let Ok(bytes) = self.memory.bytes(page * PAGE, PAGE as usize) {
                self.pages.borrow_mut().entry(page).or_insert(bytes);
            }
        }
        Ok(())
    }
}

/// Pages, some of them damaged, and the cost of what is read, as the reader's own limit counts it.
struct Damaged<'a> {
    pages: &'a Pages,
    damaged: Pages,
    cost: Cell<u64>,
}

impl Memory for &Damaged<'_> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        self.cost.set(self.cost.get() + 64 + buffer.len() as u64);
        let mut done = 0;
        while done < buffer.len() {
            let at = address.checked_add(done as u64).ok_or(Unmapped { address })?;
            let (page, offset) = (at / PAGE, (at % PAGE) as usize);
            let bytes = self.damaged.get(&page).or_else(|| self.pages.get(&page));
            let bytes = bytes.ok_or(Unmapped { address })?;
            let len = (buffer.len() - done).min(bytes.len() - offset);
            buffer[done..done + len].copy_from_slice(&bytes[offset..offset + len]);
            done += len;
        }
        Ok(())
    }
}

/// Marsaglia's xorshift64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Some of the pages with other bytes, words, pointers to other pages or strings without an end in them.
fn damage(pages: &Pages, random: &mut Random) -> Pages {
    let mut damaged = Pages::new();
    let nth = |at: usize| *pages.keys().nth(at).unwrap();
    for _ in 0..=random.below(40) {
        let page = nth(random.below(pages.len()));
        let bytes = damaged.entry(page).or_insert_with(|| pages[&page].clone());
        let at = random.below(PAGE as usize);
        let word = at / 8 * 8..at / 8 * 8 + 8;
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes[word].fill(0xff),
            3 => bytes[word].fill(0),
            4 => {
                let other = nth(random.below(pages.len())) * PAGE + random.below(PAGE as usize) as u64;
                bytes[word].copy_from_slice(&other.to_ne_bytes());
            }
            _ => bytes[at..].fill(0x41),
        }
    }
    damaged
}

/// Asks everything that can be asked, of some of the addresses and methods.
fn ask<M: Memory>(jvm: &mut Jvm<M>, addresses: &[u64], methods: &[u64]) -> usize {
    let mut named = 0;
    _ = jvm.refresh();
    for address in addresses {
        named += usize::from(jvm.name(*address).is_ok());
        _ = jvm.remembered(*address, None);
    }
    for method in methods {
        _ = (jvm.interpreted(*method, Some(3)), jvm.interpreted(*method, None));
    }
    _ = jvm.layout();
    named
}

#[test]
fn damaged_memory_of_a_jvm_is_read_to_an_end() {
    each_jdk("damaged_memory_of_a_jvm_is_read_to_an_end", |jdk| {
        let target = jdk.program("known.Split", &[], &["many"]);
        let (memory, symbols) = open::exports(target.pid()).unwrap();
        let symbol = |name: &str| symbols.get(name).copied();
        let copying = Copying { memory, pages: RefCell::default() };
        let mut jvm = Jvm::new(&copying, symbol).unwrap();
        let code: Vec<_> = jvm.all_code().unwrap().into_iter().flatten().collect();
        let addresses: Vec<u64> =
            code.iter().step_by(5).flat_map(|l| [l.blob.code_begin, l.blob.code_end - 1]).collect();
        let methods: Vec<u64> =
            code.iter().step_by(5).filter_map(|l| Some(l.blob.compilation()?.method)).collect();
        let whole = ask(&mut jvm, &addresses, &methods);
        assert!(whole * 10 > addresses.len() * 9 && methods.len() > 50, "{whole} of {}", addresses.len());
        drop((jvm, target));
        let pages = copying.pages.into_inner();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut opened, mut named, mut asked, mut most) = (0, 0, 0, 0);
        for copy in 0..COPIES {
            let damaged = Damaged { pages: &pages, damaged: damage(&pages, &mut random), cost: Cell::new(0) };
            let jvm = Jvm::new(&damaged, symbol);
            most = most.max(damaged.cost.take());
            let Ok(mut jvm) = jvm else { continue };
            opened += 1;
            named += ask(&mut jvm, &addresses, &methods);
            asked += addresses.len();
            most = most.max(damaged.cost.take());
            if copy % 8 == 0 {
                _ = jvm.all_code();
                most = most.max(damaged.cost.take());
            }
        }
        println!(
            "{} pages; {opened} of {COPIES} opened, {named} of {asked} named, {most} at most",
            pages.len()
        );
        assert!(most <= MAX_READ, "{most} bytes read");
        // It is not that nothing can be read any more, nor that nothing was damaged.
        assert!(opened > COPIES / 4 && named * 4 > asked && named < whole * opened as usize);
        jdk.note("damaged copies", COPIES, COPIES);
    });
}
