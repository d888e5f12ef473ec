//! The rows of a run of functions.

use std::ops::Range;

use gimli::{FrameDescriptionEntry, UnwindOffset, UnwindSection};
use profiler_common::unwind::{Arch, rule::Rule};

use super::{
    Cause, Section, Slice, Stats,
    cie::Cies,
    functions::{ENTRY_POINT, ENTRY_POINT_LEN, Function, Span, TRAMPOLINE, TRAMPOLINE_LEN},
    state::{Damaged, Effect, Machine, Registers},
};
use crate::unwind::rules::{self, Rules};

/// A gap between functions that is shorter is padding: the rule before it runs on.
const MAX_PADDING: u32 = 16;
/// Everything that a part is made from.
#[derive(Debug)]
pub struct Entries<'a, 'e, S> {
    /// Whose registers.
    pub arch: Arch,
    /// Where they are.
    pub section: Section<'a, 'e, S>,
    /// All functions, sorted.
    pub functions: &'e [Function],
    /// Where code can be.
    pub span: &'e Span,
    /// Most rows of a part, and one more.
    pub max_rows: usize,
}

/// The rows of a run of functions.
#[derive(Debug)]
pub struct Part {
    /// (offset in the span, number in `rules`), in the order of offsets.
    pub rows: Vec<(u32, u16)>,
    /// Distinct rules.
    pub rules: Vec<u64>,
    /// What was met.
    pub stats: Stats,
}

impl Part {
    /// A part of which nothing could be read.
    pub fn failed(functions: &[Function], range: Range<usize>) -> Self {
        let start = functions.get(range.start).map_or(0, |function| function.start);
        let mut stats = Stats { skipped: range.len() as u64, ..Stats::default() };
        stats.count(Cause::Damaged);
        let rules = Rules::default().into_list();
        Self { rows: vec![(start, rules::UNSUPPORTED)], rules, stats }
    }
}

/// Makes the rows of the functions of a range.
pub fn make<'a, S: UnwindSection<Slice<'a>>>(entries: &Entries<'a, '_, S>, range: Range<usize>) -> Part {
    let mut maker = Maker {
        entries,
        cies: Cies::new(entries.section),
        budget: entries.section.bytes.len(),
        rows: Vec::new(),
        rules: Rules::default(),
        stats: Stats::default(),
    };
    for index in range {
        maker.function(index);
    }
    Part { rows: maker.rows, rules: maker.rules.into_list(), stats: maker.stats }
}

struct Maker<'m, 'e, 'a, S: UnwindSection<Slice<'a>>> {
    entries: &'m Entries<'a, 'e, S>,
    cies: Cies<'a, 'e, S>,
    /// Bytes of entries that may still be read. Entries that do not overlap have no more than the section.
    budget: usize,
    rows: Vec<(u32, u16)>,
    rules: Rules,
    stats: Stats,
}

impl<'a, S: UnwindSection<Slice<'a>>> Maker<'_, '_, 'a, S> {
    /// Adds the rows of one function, up to the next one.
    fn function(&mut self, index: usize) {
        let functions = self.entries.functions;
        let Some(function) = functions.get(index) else { return };
        let next = functions.get(index + 1).map(|next| next.start);
        let limit = next.unwrap_or(u32::MAX).min(self.entries.span.end(function.start));
        let end = match function.entry {
            TRAMPOLINE => self.known(function.start, TRAMPOLINE_LEN, limit, Rule::SIGNAL),
            ENTRY_POINT => self.known(function.start, ENTRY_POINT_LEN, limit, Rule::END),
            _ => self.entry(function, limit).unwrap_or_else(|_| {
                // What the entry covers is not known: everything up to the next one.
                self.stats.skipped += 1;
                self.push(function.start, Err(Cause::Damaged));
                limit
            }),
        };
        if next.is_none_or(|next| next - end >= MAX_PADDING) {
            self.push(end, Ok(Rule::NONE));
        }
    }

    /// Adds the row of code that is known without an entry, and gives its end.
    fn known(&mut self, start: u32, len: u32, limit: u32, rule: Rule) -> u32 {
        self.push(start, Ok(rule));
        start.saturating_add(len).min(limit)
    }

    /// Adds the rows of an entry, and gives the end of its code.
    fn entry(&mut self, function: &Function, limit: u32) -> Result<u32, Damaged> {
        let Entries { section: Section { section, bases, .. }, arch, span, .. } = *self.entries;
        let offset = function.entry as usize;
        let partial = section.partial_fde_from_offset(bases, S::Offset::from(offset)).map_err(|_| Damaged)?;
        self.budget = self.budget.checked_sub(partial.entry_len()).ok_or(Damaged)?;
        let fde = partial
            .parse(|_, _, offset| self.cies.parsed(UnwindOffset::into(offset)))
            .map_err(|_| Damaged)?;
        if fde.initial_address() != span.base + u64::from(function.start) {
            return Err(Damaged);
        }
        let len = u32::try_from(fde.len()).unwrap_or(u32::MAX);
        let end = function.start.saturating_add(len).min(limit);
        if end == function.start {
            self.stats.skipped += 1;
            return Ok(end);
        }
        self.stats.functions += 1;
        if fde.is_signal_trampoline() {
            self.push(function.start, Ok(Rule::SIGNAL));
        } else if fde.cie().return_address_register() != Registers::of(arch).ra {
            self.push(function.start, Err(Cause::ReturnAddress));
        } else {
            self.instructions(&fde, function.start, end);
        }
        Ok(end)
    }

    /// Executes an entry's instructions. What comes behind a damaged one is without rule.
    fn instructions(&mut self, fde: &FrameDescriptionEntry<Slice<'a>>, start: u32, end: u32) {
        let Entries { section: Section { section, bases, .. }, arch, span, .. } = *self.entries;
        let Ok(initial) = self.cies.outcome(arch, fde.cie()) else {
            self.push(start, Err(Cause::Damaged));
            return;
        };
        let mut machine = Machine::new(section, arch, fde.cie(), Some(initial));
        let mut at = u64::from(start);
        let mut instructions = fde.instructions(section, bases);
        loop {
            let effect = match instructions.next() {
                Ok(None) => break,
                Ok(Some(instruction)) => machine.execute(&instruction),
                Err(_) => Err(Damaged),
            };
            let next = match effect {
                Ok(Effect::None) => continue,
                Ok(Effect::Advance(delta)) => at.checked_add(delta),
                Ok(Effect::Goto(address)) => address.checked_sub(span.base),
                Err(Damaged) => None,
            };
            let Some(next) = next.filter(|next| *next >= at) else {
                self.push(at as u32, Err(Cause::Damaged));
                return;
            };
            if next > at {
                self.push(at as u32, machine.state.rule(arch));
            }
            at = next;
            if at >= u64::from(end) {
                return;
            }
        }
        self.push(at as u32, machine.state.rule(arch));
    }

    fn push(&mut self, offset: u32, rule: Result<Rule, Cause>) {
        let rule = rule.unwrap_or_else(|cause| {
            self.stats.count(cause);
            Rule::UNSUPPORTED
        });
        let mut number = self.rules.number(rule).unwrap_or_else(|| {
            self.stats.count(Cause::TooManyRules);
            rules::UNSUPPORTED
        });
        if self.rows.len() >= self.entries.max_rows {
            self.stats.count(Cause::TooManyRows);
            number = rules::UNSUPPORTED;
        }
        if self.rows.last().is_none_or(|&(_, last)| last != number) {
            self.rows.push((offset, number));
        }
    }
}
