//! CIEs, which many entries share: each is parsed and executed once.

use std::collections::HashMap;

use gimli::{CommonInformationEntry, Error, UnwindSection};
use profiler_common::unwind::Arch;

use super::{
    Section, Slice,
    state::{Damaged, Effect, Machine, State},
};

/// Longest CIE that is read, without its length field; real ones have some 20 to 50 bytes. Longer ones could be made to
/// be read again and again, by overlapping each other.
const MAX_LEN: u32 = 1024;
/// Most CIEs that are kept; linkers merge equal ones, a handful remains.
const MAX_KEPT: usize = 1024;

/// The CIEs of a section.
#[derive(Debug)]
pub struct Cies<'a, 'e, S: UnwindSection<Slice<'a>>> {
    section: Section<'a, 'e, S>,
    parsed: HashMap<usize, Result<CommonInformationEntry<Slice<'a>>, Error>>,
    outcomes: HashMap<usize, Result<State, Damaged>>,
}

impl<'a, 'e, S: UnwindSection<Slice<'a>>> Cies<'a, 'e, S> {
    /// None read yet.
    pub fn new(section: Section<'a, 'e, S>) -> Self {
        Self { section, parsed: HashMap::new(), outcomes: HashMap::new() }
    }

    /// The CIE at an offset.
    pub fn parsed(&mut self, offset: usize) -> Result<CommonInformationEntry<Slice<'a>>, Error> {
        if let Some(known) = self.parsed.get(&offset) {
            return known.clone();
        }
        let Section { section, bytes, bases, .. } = self.section;
        let len = bytes.get(offset..).and_then(|rest| rest.first_chunk()).map(|len| u32::from_le_bytes(*len));
        let cie = match len {
            Some(0..=MAX_LEN) => section.cie_from_offset(bases, S::Offset::from(offset)),
            _ => Err(Error::OffsetOutOfBounds(offset as u64)),
        };
        if self.parsed.len() >= MAX_KEPT {
            self.parsed.clear();
        }
        self.parsed.insert(offset, cie.clone());
        cie
    }

    /// What a CIE's instructions add up to.
    pub fn outcome(&mut self, arch: Arch, cie: &CommonInformationEntry<Slice<'a>>) -> Result<State, Damaged> {
        if let Some(&known) = self.outcomes.get(&cie.offset()) {
            return known;
        }
        let outcome = self.execute(arch, cie);
        if self.outcomes.len() >= MAX_KEPT {
            self.outcomes.clear();
        }
        self.outcomes.insert(cie.offset(), outcome);
        outcome
    }

    fn execute(&self, arch: Arch, cie: &CommonInformationEntry<Slice<'a>>) -> Result<State, Damaged> {
        let Section { section, bases, .. } = self.section;
        let mut machine = Machine::new(section, arch, cie, None);
        let mut instructions = cie.instructions(section, bases);
        while let Some(instruction) = instructions.next().map_err(|_| Damaged)? {
            if machine.execute(&instruction)? != Effect::None {
                return Err(Damaged);
            }
        }
        Ok(machine.state)
    }
}
