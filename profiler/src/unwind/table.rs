//! The unwind table of one file: position independent, in the layout that the kernel side searches.

use profiler_common::unwind::{
    Arch,
    row::{self, PAGE_SHIFT, Row, SEARCH_STEPS},
    rule::Rule,
};

use super::rules;

/// Most pages of a table: 2 GiB of code, what an x86-64 executable of the small and medium code models can have.
pub const MAX_PAGES: usize = 1 << 15;
/// Most rows of a table: 32 MiB of them. Firefox, the largest seen, has 2.4 million.
pub const MAX_ROWS: usize = 1 << 23;

/// The unwind table of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Whose registers the rules speak of.
    pub arch: Arch,
    /// ELF virtual address of the first page, in pages.
    pub first_page: u32,
    /// Where the rows of each page start in `rows`, and behind the last page their number.
    pub pages: Vec<u32>,
    /// All rows ([`Row`]), by page and by address. The first row of a page that has any is at offset 0.
    pub rows: Vec<u32>,
    /// The rules ([`Rule`]) that the rows speak of.
    pub rules: Vec<u64>,
}

impl Table {
    /// The rule at an ELF virtual address, found as the kernel side finds it.
    pub fn lookup(&self, address: u64) -> Rule {
        let rows = self.page_rows(address >> PAGE_SHIFT).unwrap_or_default();
        let offset = address & ((1 << PAGE_SHIFT) - 1);
        let key = |index: u32| Some(rows.get(index as usize).map_or(0, |&row| u64::from(Row(row).offset())));
        row::search(rows.len() as u32, offset, SEARCH_STEPS, key)
            .and_then(|index| rows.get(index as usize))
            .and_then(|&row| self.rules.get(Row(row).rule() as usize))
            .map_or(Rule::NONE, |&rule| Rule(rule))
    }

    /// The rows of a page, which is numbered by its ELF virtual address.
    fn page_rows(&self, page: u64) -> Option<&[u32]> {
        let index = usize::try_from(page.checked_sub(u64::from(self.first_page))?).ok()?;
        let (start, end) = (*self.pages.get(index)?, *self.pages.get(index.checked_add(1)?)?);
        self.rows.get(start as usize..end as usize)
    }

    /// Number of pages.
    pub fn page_count(&self) -> usize {
        self.pages.len().saturating_sub(1)
    }

    /// The rows as (ELF virtual address, rule), those that carry a rule over a page's border included.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Rule)> + '_ {
        self.pages.windows(2).enumerate().flat_map(move |(page, range)| {
            let base = (u64::from(self.first_page) + page as u64) << PAGE_SHIFT;
            let rows = self.rows.get(range[0] as usize..range[1] as usize).unwrap_or_default();
            rows.iter().map(move |&row| {
                let rule = self.rules.get(Row(row).rule() as usize).map_or(Rule::NONE, |&rule| Rule(rule));
                (base + u64::from(Row(row).offset()), rule)
            })
        })
    }

    /// Whether everything that the kernel side and [`Table::lookup`] rely on holds: for tables from outside.
    pub fn is_sound(&self) -> bool {
        let (Some(&0), Some(&end)) = (self.pages.first(), self.pages.last()) else { return false };
        end as usize == self.rows.len()
            && self.rows.len() <= MAX_ROWS
            && self.page_count() <= MAX_PAGES
            && self.rules.len() <= rules::MAX_RULES
            && self
                .pages
                .windows(2)
                .all(|range| range[0] <= range[1] && self.is_sound_page(range[0], range[1]))
            && self.rows.iter().all(|&row| (Row(row).rule() as usize) < self.rules.len())
    }

    fn is_sound_page(&self, start: u32, end: u32) -> bool {
        let Some(rows) = self.rows.get(start as usize..end as usize) else { return false };
        rows.first().is_none_or(|&first| Row(first).offset() == 0)
            && rows.windows(2).all(|pair| Row(pair[0]).offset() < Row(pair[1]).offset())
    }
}

/// Makes the pages and rows of a table out of (address, rule) in the order of addresses.
#[derive(Debug, Default)]
pub struct Pages {
    starts: Vec<u32>,
    rows: Vec<u32>,
    /// The rule that holds behind the last row.
    rule: u16,
}

impl Pages {
    /// From `offset` (bytes behind the first page's start) on, a rule holds. One that repeats the rule before is
    /// dropped, and so is one at a lower offset than the last.
    pub fn push(&mut self, offset: u32, rule: u16) {
        let page = (offset >> PAGE_SHIFT) as usize;
        if rule == self.rule || page + 1 < self.starts.len() {
            return;
        }
        self.open(page);
        let row = Row::new(offset as u16, rule);
        match self.last_in_page() {
            Some(last) if Row(*last).offset() == row.offset() => *last = row.0,
            Some(last) if Row(*last).offset() > row.offset() => return,
            Some(_) => self.rows.push(row.0),
            None => {
                if row.offset() != 0 {
                    self.rows.push(Row::new(0, self.rule).0);
                }
                self.rows.push(row.0);
            }
        }
        self.rule = rule;
    }

    /// Starts the pages up to one; those that are passed over get the rule that holds across them.
    fn open(&mut self, page: usize) {
        while self.starts.len() <= page {
            self.carry();
            self.starts.push(self.rows.len() as u32);
        }
    }

    /// Gives the last page a row if it has none and a rule holds in it.
    fn carry(&mut self) {
        if !self.starts.is_empty() && self.rule != rules::NONE && self.last_in_page().is_none() {
            self.rows.push(Row::new(0, self.rule).0);
        }
    }

    fn last_in_page(&mut self) -> Option<&mut u32> {
        let start = *self.starts.last()? as usize;
        self.rows.get_mut(start..)?.last_mut()
    }

    /// Starts of the pages' rows (one more than pages), and the rows.
    pub fn finish(mut self) -> (Vec<u32>, Vec<u32>) {
        self.carry();
        self.starts.push(self.rows.len() as u32);
        self.starts.shrink_to_fit();
        self.rows.shrink_to_fit();
        (self.starts, self.rows)
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(rows: &[(u32, u16)]) -> Table {
        let mut pages = Pages::default();
        for &(offset, rule) in rows {
            pages.push(offset, rule);
        }
        let (pages, rows) = pages.finish();
        Table { arch: Arch::X86_64, first_page: 4, pages, rows, rules: (0..300).map(|n| n << 8).collect() }
    }

    const BASE: u64 = 4 << PAGE_SHIFT;

    #[test]
    fn a_rule_is_carried_over_pages() {
        let table = table(&[(0x10, 2), (0x3_0020, 0), (0x5_0000, 3)]);
        assert_eq!(table.pages, [0, 2, 3, 4, 6, 6, 7]);
        for (offset, rule) in [
            (0, 0),
            (0xf, 0),
            (0x10, 2),
            (0x1_0000, 2),
            (0x3_001f, 2),
            (0x3_0020, 0),
            (0x4_8000, 0),
            (0x5_0000, 3),
            (0x5_ffff, 3),
        ] {
            assert_eq!(table.lookup(BASE + offset), Rule(rule << 8), "{offset:#x}");
        }
        assert_eq!(table.lookup(BASE - 1), Rule::NONE);
        assert_eq!(table.lookup(BASE + 0x6_0000), Rule::NONE);
        assert_eq!(table.lookup(u64::MAX), Rule::NONE);
        assert!(table.is_sound());
    }

    #[test]
    fn a_second_rule_at_an_address_replaces_the_first() {
        let table = table(&[(8, 2), (8, 3), (16, 2), (16, 3)]);
        assert_eq!(table.rows.len(), 3);
        assert_eq!(table.lookup(BASE + 8), Rule(3 << 8));
        assert_eq!(table.lookup(BASE + 16), Rule(3 << 8));
        assert!(table.is_sound());
    }

    #[test]
    fn an_unsound_table_is_told() {
        let sound = table(&[(8, 2), (0x2_0000, 3)]);
        let damages: [fn(&mut Table); 8] = [
            |t| t.pages.clear(),
            |t| t.pages[0] = 1,
            |t| t.pages[1] = 9,
            |t| *t.pages.last_mut().unwrap() += 1,
            |t| t.rows[0] = Row::new(1, 0).0,
            |t| t.rows.swap(0, 1),
            |t| t.rows[1] = Row::new(8, 300).0,
            |t| t.pages = vec![0; MAX_PAGES + 2],
        ];
        for (index, damage) in damages.iter().enumerate() {
            let mut table = sound.clone();
            damage(&mut table);
            assert!(!table.is_sound(), "{index}");
            table.lookup(BASE + 8);
        }
    }

    proptest! {
        #[test]
        fn it_answers_as_the_list_of_rows(
            mut rows in prop::collection::vec((0u32..0x5_0000, 0u16..4), 1..200),
            probes in prop::collection::vec(0u32..0x6_0000, 100),
        ) {
            rows.sort_by_key(|&(offset, _)| offset);
            let table = table(&rows);
            prop_assert!(table.is_sound());
            for probe in probes.into_iter().chain(rows.iter().map(|&(offset, _)| offset)) {
                let last = rows.iter().rev().find(|&&(offset, _)| offset <= probe);
                let rule = last.map_or(0, |&(_, rule)| u64::from(rule));
                // Behind the last page nothing is known.
                let known = (probe >> PAGE_SHIFT) as usize + 1 < table.pages.len();
                prop_assert_eq!(table.lookup(BASE + u64::from(probe)).0, if known { rule << 8 } else { 0 });
            }
        }
    }
}
