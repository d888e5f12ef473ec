//! The tables that are in the kernel: placed in its arenas, within a budget of memory, the least recently used first to
//! make room.
//!
//! The kernel side reads without locks, so what is replaced is not used again before a grace period: it waits in
//! quarantine until the caller says that one has passed, or, when room is wanted at once, until the kernel was made to
//! wait for its programs.

use std::{panic::resume_unwind, thread};

use profiler_common::unwind::{
    java::Jvm,
    map::{self, Arena, MAX_MODULES, Mapping, Module, Process, State},
    row::Page,
};

use super::{
    space::{Space, Span},
    table::Table,
};
use crate::bpf::{BpfError, unwind::UnwindMaps};

/// A table that was used within this time makes no room for another one, in units of [`Module::used`] (2^30 ns): both
/// are needed, and would push each other out again and again.
const IN_USE: u32 = 5;

/// The arenas, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Rows,
    Rules,
    Pages,
    Mappings,
}

const SHAPES: [Arena; 4] = [map::ROWS, map::RULES, map::PAGES, map::MAPPINGS];

/// Where a table's parts are.
#[derive(Debug, Default)]
struct Placed {
    spans: Vec<(Part, Span)>,
}

/// What became of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// It is in the kernel.
    Done,
    /// There is no room for it now.
    NoRoom,
}

/// All that the kernel side reads.
pub struct Tables {
    maps: UnwindMaps,
    spaces: [Space; 4],
    modules: Vec<Option<Placed>>,
    quarantine: Vec<(Part, Span)>,
    budget: u64,
    /// Bytes of chunks.
    chunk_bytes: u64,
    /// Tables that had to make room.
    evicted: u64,
}

impl Tables {
    /// Empty, with a first chunk in each arena. `budget` is for the arenas, bytes.
    pub fn new(maps: UnwindMaps, budget: u64) -> Result<Self, BpfError> {
        let mut tables = Self {
            maps,
            spaces: SHAPES.map(Space::new),
            modules: Vec::new(),
            quarantine: Vec::new(),
            budget,
            chunk_bytes: 0,
            evicted: 0,
        };
        tables.first_chunks()?;
        Ok(tables)
    }

    /// Each chunk that is added waits for a grace period, some 10 ms: these wait together.
    fn first_chunks(&mut self) -> Result<(), BpfError> {
        let UnwindMaps { rows, rules, pages, mappings, .. } = &mut self.maps;
        self.chunk_bytes +=
            [rows.chunk_bytes(), rules.chunk_bytes(), pages.chunk_bytes(), mappings.chunk_bytes()]
                .into_iter()
                .sum::<usize>() as u64;
        thread::scope(|scope| {
            let others =
                [scope.spawn(|| rows.grow()), scope.spawn(|| rules.grow()), scope.spawn(|| pages.grow())];
            mappings.grow()?;
            others.into_iter().try_for_each(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        self.spaces.iter_mut().for_each(Space::grow);
        Ok(())
    }

    /// A number for a new module, whose table is being made. `None`: there are too many.
    pub fn add_module(&mut self) -> Option<u32> {
        let number = self.modules.len();
        if number >= MAX_MODULES {
            return None;
        }
        self.modules.push(None);
        self.maps.modules.set(number, Module::default());
        Some(number as u32)
    }

    /// Says how a module without a table in memory is unwound.
    pub fn set_state(&mut self, number: u32, state: State) {
        self.maps.modules.set(number as usize, Module { state: state as u32, ..Module::default() });
    }

    /// Whether a table is in memory.
    pub fn is_placed(&self, number: u32) -> bool {
        self.modules.get(number as usize).is_some_and(Option::is_some)
    }

    /// Puts a module's table into the kernel, to be used as `state` says.
    pub fn place(&mut self, number: u32, table: &Table, state: State, now: u32) -> Result<Placing, BpfError> {
        let mut placed = Placed::default();
        match self.place_parts(table, now, &mut placed) {
            Ok(Some(module)) => {
                self.maps.modules.set(number as usize, Module { state: state as u32, ..module });
                if let Some(slot) = self.modules.get_mut(number as usize) {
                    *slot = Some(placed);
                }
                Ok(Placing::Done)
            }
            failed => {
                // Nothing refers to them: no program can be reading them.
                placed.spans.into_iter().for_each(|(part, span)| self.spaces[part as usize].give_back(span));
                failed.map(|_| Placing::NoRoom)
            }
        }
    }

    fn place_parts(
        &mut self,
        table: &Table,
        now: u32,
        placed: &mut Placed,
    ) -> Result<Option<Module>, BpfError> {
        let mut take = |this: &mut Self, part, len| -> Result<Option<Span>, BpfError> {
            let span = this.take(part, len, now)?;
            placed.spans.extend(span.map(|span| (part, span)));
            Ok(span)
        };
        let page_count = table.page_count();
        let Some(rules) = take(self, Part::Rules, table.rules.len() as u32)? else { return Ok(None) };
        let Some(pages) = take(self, Part::Pages, page_count as u32)? else { return Ok(None) };
        let mut words = Vec::with_capacity(page_count);
        for piece in pieces(&table.pages, map::ROWS.chunk_len()) {
            let rows = &table.rows[table.pages[piece.start] as usize..table.pages[piece.end] as usize];
            let Some(span) = take(self, Part::Rows, rows.len() as u32)? else { return Ok(None) };
            self.maps.rows.write(span.at, rows);
            let first = table.pages[piece.start];
            words.extend(
                table.pages[piece.start..=piece.end]
                    .windows(2)
                    .map(|bounds| Page::new(span.at + (bounds[0] - first), bounds[1] - bounds[0]).0),
            );
        }
        self.maps.rules.write(rules.at, &table.rules);
        self.maps.pages.write(pages.at, &words);
        Ok(Some(Module {
            pages: pages.at,
            page_count: page_count as u32,
            first_page: table.first_page,
            rules: rules.at,
            used: now,
            state: State::Loading as u32,
        }))
    }

    /// Takes places, if need be from a new chunk, or from tables that have not been used for long.
    fn take(&mut self, part: Part, len: u32, now: u32) -> Result<Option<Span>, BpfError> {
        if len > SHAPES[part as usize].chunk_len() {
            return Ok(None);
        }
        loop {
            if let Some(span) = self.spaces[part as usize].take(len) {
                return Ok(Some(span));
            }
            if self.grow(part)? {
                continue;
            }
            if self.quarantine.is_empty() && !self.evict(now) {
                return Ok(None);
            }
            self.maps.mappings.wait_for_programs()?;
            self.release();
        }
    }

    fn grow(&mut self, part: Part) -> Result<bool, BpfError> {
        let maps = &mut self.maps;
        let (has_room, bytes) = match part {
            Part::Rows => (maps.rows.has_room(), maps.rows.chunk_bytes()),
            Part::Rules => (maps.rules.has_room(), maps.rules.chunk_bytes()),
            Part::Pages => (maps.pages.has_room(), maps.pages.chunk_bytes()),
            Part::Mappings => (maps.mappings.has_room(), maps.mappings.chunk_bytes()),
        };
        if !has_room || self.chunk_bytes + bytes as u64 > self.budget {
            return Ok(false);
        }
        match part {
            Part::Rows => maps.rows.grow()?,
            Part::Rules => maps.rules.grow()?,
            Part::Pages => maps.pages.grow()?,
            Part::Mappings => maps.mappings.grow()?,
        }
        self.spaces[part as usize].grow();
        self.chunk_bytes += bytes as u64;
        Ok(true)
    }

    /// Takes the least recently used table out, unless it is in use. `false`: all are.
    fn evict(&mut self, now: u32) -> bool {
        let placed = self.modules.iter().enumerate().filter(|(_, placed)| placed.is_some());
        let by_use = placed.map(|(number, _)| (self.maps.modules.get(number).used, number));
        let Some((_, number)) = by_use.filter(|(used, _)| now.wrapping_sub(*used) >= IN_USE).min() else {
            return false;
        };
        self.set_state(number as u32, State::Evicted);
        if let Some(placed) = self.modules[number].take() {
            self.quarantine.extend(placed.spans);
        }
        self.evicted += 1;
        true
    }

    /// Whether some table could make room.
    pub fn can_evict(&self, now: u32) -> bool {
        let mut placed = self.modules.iter().enumerate().filter(|(_, placed)| placed.is_some());
        placed.any(|(number, _)| now.wrapping_sub(self.maps.modules.get(number).used) >= IN_USE)
    }

    /// Tells the kernel side the mappings of a process, sorted by address. Gives their place, `None` if there is no room.
    pub fn set_process(
        &mut self,
        pid: u32,
        incarnation: u64,
        mappings: &[Mapping],
        now: u32,
    ) -> Result<Option<Span>, BpfError> {
        let Some(span) = self.take(Part::Mappings, mappings.len() as u32, now)? else { return Ok(None) };
        self.maps.mappings.write(span.at, mappings);
        let process = Process { incarnation, ask_after_ns: 0, first: span.at, count: span.len, version: 0 };
        if self.maps.set_process(pid, process) {
            return Ok(Some(span));
        }
        self.spaces[Part::Mappings as usize].give_back(span);
        Ok(None)
    }

    /// Tells the kernel side that nothing can be known of a process, not to be asked before a time.
    pub fn set_unknown(&mut self, pid: u32, incarnation: u64, ask_after_ns: u64) {
        self.maps.set_process(pid, Process { incarnation, ask_after_ns, ..Process::default() });
    }

    /// Tells the kernel side once more where the mappings of a process are, not to be asked before a time.
    pub fn tell_again(&mut self, pid: u32, incarnation: u64, mappings: Span, ask_after_ns: u64) {
        let Span { at: first, len: count } = mappings;
        self.maps.set_process(pid, Process { incarnation, ask_after_ns, first, count, version: 0 });
    }

    /// Makes the kernel side forget a process.
    pub fn remove_process(&mut self, pid: u32) {
        self.maps.remove_process(pid);
    }

    /// Tells the kernel side how a process's Java code is walked. `false`: there is no room.
    pub fn set_jvm(&mut self, pid: u32, jvm: Jvm) -> bool {
        self.maps.set_jvm(pid, jvm)
    }

    /// Makes the kernel side forget that a process is a JVM.
    pub fn remove_jvm(&mut self, pid: u32) {
        self.maps.remove_jvm(pid);
    }

    /// The mappings there are not used any more, but for programs that are reading them at the moment.
    pub fn give_back_mappings(&mut self, span: Span) {
        self.quarantine.push((Part::Mappings, span));
    }

    /// What was given back can be used again: every program that could have read it has ended.
    pub fn release(&mut self) {
        for (part, span) in std::mem::take(&mut self.quarantine) {
            self.spaces[part as usize].give_back(span);
        }
    }

    /// Kernel memory of all, bytes.
    pub fn memory(&self) -> u64 {
        self.maps.memory()
    }

    /// Kernel memory of the arenas, bytes.
    pub const fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Tables in the kernel.
    pub fn placed(&self) -> usize {
        self.modules.iter().flatten().count()
    }

    /// Tables that had to make room.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// Runs of whole pages with at most `most` rows each. A page has at most 2^16 rows.
fn pieces(pages: &[u32], most: u32) -> Vec<std::ops::Range<usize>> {
    let count = pages.len().saturating_sub(1);
    let mut pieces = Vec::new();
    let mut start = 0;
    for page in 0..count {
        if pages[page + 1] - pages[start] > most {
            pieces.push(start..page);
            start = page;
        }
    }
    if start < count {
        pieces.push(start..count);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_large_table_is_cut_between_pages() {
        assert_eq!(pieces(&[0, 3, 6, 9, 10], 6), [0..2, 2..4]);
        assert_eq!(pieces(&[0, 3], 6), vec![0..1; 1]);
        assert!(pieces(&[0], 6).is_empty());
        assert!(pieces(&[], 6).is_empty());
    }

    proptest! {
        #[test]
        fn pieces_are_all_pages_in_order(counts in prop::collection::vec(0u32..6, 0..40)) {
            let mut pages = vec![0];
            pages.extend(counts.iter().scan(0, |sum, n| { *sum += n; Some(*sum) }));
            let pieces = pieces(&pages, 6);
            let all: Vec<usize> = pieces.iter().cloned().flatten().collect();
            prop_assert_eq!(all, (0..counts.len()).collect::<Vec<_>>());
            for piece in pieces {
                prop_assert!(pages[piece.end] - pages[piece.start] <= 6);
            }
        }
    }
}
