//! Names from ELF symbol tables, for a sorted set of addresses at once.
//!
//! The table is streamed in pieces and matched against the addresses wanted, so that memory grows with what is asked,
//! not with the file: a browser's half a million symbols pass through one 64 KiB buffer.
//!
//! A name is given only where the table vouches for it. A symbol with a size covers just its size. One without (labels
//! of hand-written assembly) reaches to the next symbol, and only if the unwind table does not say that the address
//! belongs to another function: in a file whose local symbols were stripped, the label would otherwise swallow every
//! nameless function behind it.

use std::cmp::Reverse;

use object::elf;

use super::unwind::UnwindTable;
use crate::elf::{Bytes, ElfError, Headers, Section};

/// Piece of the symbol table held at a time; a multiple of both entry sizes (24 and 16 bytes).
const PIECE: usize = 48 << 10;
/// Longest raw name read. What is longer than `model::name::MAX_NAME_BYTES` after demangling is cut there.
const MAX_NAME: usize = 16 << 10;
/// Most bytes of exported symbols read at once; libc has 70 KiB.
const MAX_EXPORTS: u64 = 4 << 20;
/// Most updates of one match (symbols times addresses they cover). Real tables need about one per address; only a
/// table of symbols that all cover everything passes this.
const MAX_UPDATES: u64 = 20_000_000;

/// A symbol that covers an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Raw name, without the `@VERSION` that linkers append.
    pub name: Vec<u8>,
    /// Start of the symbol, an ELF virtual address.
    pub start: u64,
}

/// The answer for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A symbol covers it.
    Symbol(Found),
    /// The tables have function symbols, but none covers it.
    NotCovered,
}

#[derive(Clone, Copy)]
struct Candidate {
    start: u64,
    /// 0: unknown, a label.
    size: u64,
    name: u64,
    binding: u8,
}

/// Matches for `wanted` (sorted ELF virtual addresses, no duplicates) from `.symtab`, or `.dynsym` where that has
/// nothing. `None`: the file has no function symbol at all.
pub fn find(
    bytes: Bytes<'_>,
    headers: &Headers,
    sections: &[Section],
    unwind: &UnwindTable,
    wanted: &[u64],
) -> Result<Option<Vec<Answer>>, ElfError> {
    debug_assert!(wanted.is_sorted());
    let mut best: Vec<Answer> = vec![Answer::NotCovered; wanted.len()];
    let mut any = false;
    for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
        let Some(table) = sections.iter().find(|s| s.kind == kind) else { continue };
        let mut matcher = Matcher::new(wanted, kind == elf::SHT_SYMTAB);
        matcher.read(bytes, headers, sections, table)?;
        any |= matcher.functions > 0;
        let strings = sections.get(table.link as usize);
        for (index, slot) in best.iter_mut().enumerate() {
            if *slot != Answer::NotCovered {
                continue;
            }
            if let (Some(candidate), Some(strings)) = (matcher.answer(index, sections, unwind), strings)
                && let Some(name) = read_name(bytes, strings, candidate.name)
            {
                *slot = Answer::Symbol(Found { name, start: candidate.start });
            }
        }
    }
    Ok(any.then_some(best))
}

/// Addresses of the named functions that a file exports, in no order; names it does not export are left out.
pub fn exports(bytes: Bytes<'_>, headers: &Headers, sections: &[Section], names: &[&[u8]]) -> Vec<u64> {
    let mut found = Vec::new();
    each_export(bytes, headers, sections, names, |_, address| found.push(address));
    found.sort_unstable();
    found.dedup();
    found
}

/// ELF virtual addresses of the named symbols, where a file exports them, in the order of `names`.
pub fn addresses(
    bytes: Bytes<'_>,
    headers: &Headers,
    sections: &[Section],
    names: &[&[u8]],
) -> Vec<Option<u64>> {
    let mut found = vec![None; names.len()];
    each_export(bytes, headers, sections, names, |which, address| {
        found[which].get_or_insert(address);
    });
    found
}

fn each_export(
    bytes: Bytes<'_>,
    headers: &Headers,
    sections: &[Section],
    names: &[&[u8]],
    mut each: impl FnMut(usize, u64),
) {
    let read = |table: &Section| -> Option<(Vec<u8>, Vec<u8>)> {
        let strings = sections.get(table.link as usize)?;
        let strings = bytes.read(strings.offset, strings.size, MAX_EXPORTS).ok()?;
        Some((strings, bytes.read(table.offset, table.size, MAX_EXPORTS).ok()?))
    };
    let table = sections.iter().find(|s| s.kind == elf::SHT_DYNSYM);
    let Some((strings, symbols)) = table.and_then(read) else { return };
    let layout = headers.layout;
    for entry in symbols.chunks_exact(if layout.is_64 { 24 } else { 16 }) {
        let Some(name) = strings.get(layout.u32(entry, 0) as usize..) else { continue };
        let is_named =
            |wanted: &&[u8]| name.strip_prefix(*wanted).is_some_and(|rest| rest.first() == Some(&0));
        let address = layout.word(entry, 4, 8);
        if address != 0
            && let Some(which) = names.iter().position(is_named)
        {
            each(which, address);
        }
    }
}

/// Name of the symbol at an index of a symbol table.
pub fn name_of(
    bytes: Bytes<'_>,
    headers: &Headers,
    sections: &[Section],
    table: &Section,
    index: u64,
) -> Option<Vec<u8>> {
    let entry_size = if headers.layout.is_64 { 24 } else { 16 };
    let offset = index.checked_mul(entry_size).filter(|&offset| offset < table.size)?;
    let mut name = [0; 4];
    bytes.read_exact(&mut name, table.offset.checked_add(offset)?).ok()?;
    read_name(bytes, sections.get(table.link as usize)?, u64::from(headers.layout.u32(&name, 0)))
}

struct Matcher<'a> {
    wanted: &'a [u64],
    /// Innermost symbol with a size, by address.
    sized: Vec<Option<Candidate>>,
    /// Last symbol of any size that starts at or before the address but after the address before it.
    last: Vec<Option<Candidate>>,
    /// The table lists local functions too.
    complete: bool,
    functions: u64,
    updates: u64,
}

impl<'a> Matcher<'a> {
    fn new(wanted: &'a [u64], complete: bool) -> Self {
        Self {
            wanted,
            complete,
            sized: vec![None; wanted.len()],
            last: vec![None; wanted.len()],
            functions: 0,
            updates: 0,
        }
    }

    fn read(
        &mut self,
        bytes: Bytes<'_>,
        headers: &Headers,
        sections: &[Section],
        table: &Section,
    ) -> Result<(), ElfError> {
        let layout = headers.layout;
        let entry_size = if layout.is_64 { 24 } else { 16 };
        let mut buffer = vec![0; PIECE.min(table.size as usize / entry_size * entry_size)];
        let (mut offset, mut left) = (table.offset, table.size / entry_size as u64 * entry_size as u64);
        while left > 0 {
            let part = buffer.len().min(left as usize);
            bytes.read_exact(&mut buffer[..part], offset)?;
            for entry in buffer[..part].chunks_exact(entry_size) {
                let (info, section) = if layout.is_64 {
                    (entry[4], layout.u16(entry, 6))
                } else {
                    (entry[12], layout.u16(entry, 14))
                };
                let kind = info & 0xf;
                let typed = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC;
                // Untyped symbols are labels on x86; on ARM and RISC-V they mark data and code inside functions.
                let label =
                    kind == elf::STT_NOTYPE && matches!(headers.machine, elf::EM_X86_64 | elf::EM_386);
                if !(typed || label) || !is_code_section(sections, section) {
                    continue;
                }
                let candidate = Candidate {
                    start: layout.word(entry, 4, 8),
                    size: layout.word(entry, 8, 16),
                    name: u64::from(layout.u32(entry, 0)),
                    binding: info >> 4,
                };
                self.functions += u64::from(typed);
                self.add(candidate)?;
            }
            offset = offset.saturating_add(part as u64);
            left -= part as u64;
        }
        self.carry_last_forward();
        Ok(())
    }

    fn add(&mut self, new: Candidate) -> Result<(), ElfError> {
        let first = self.wanted.partition_point(|&address| address < new.start);
        if let Some(slot) = self.last.get_mut(first)
            && slot.is_none_or(|old| new.start > old.start || (new.start == old.start && is_better(new, old)))
        {
            *slot = Some(new);
        }
        let end = new.start.saturating_add(new.size);
        for index in first..self.wanted.len() {
            if self.wanted[index] >= end {
                break;
            }
            self.updates += 1;
            if self.updates > MAX_UPDATES {
                return Err(ElfError::Malformed("symbols that all cover everything"));
            }
            let slot = &mut self.sized[index];
            if slot.is_none_or(|old| is_inner(new, old)) {
                *slot = Some(new);
            }
        }
        Ok(())
    }

    fn carry_last_forward(&mut self) {
        let mut carried: Option<Candidate> = None;
        for slot in &mut self.last {
            if slot.is_none() {
                *slot = carried;
            }
            carried = *slot;
        }
    }

    fn answer(&self, index: usize, sections: &[Section], unwind: &UnwindTable) -> Option<Candidate> {
        if let Some(sized) = self.sized[index] {
            return Some(sized);
        }
        let address = self.wanted[index];
        let label = self.last[index].filter(|label| label.size == 0)?;
        let same_section = sections.iter().any(|s| s.is_code() && s.covers(label.start) && s.covers(address));
        let same_function = match (unwind.function_start(label.start), unwind.function_start(address)) {
            (None, None) => self.complete && !unwind.is_unreadable(),
            (of_label, of_address) => of_label == of_address,
        };
        (same_section && same_function).then_some(label)
    }
}

/// Whether symbols of that section index can name code. Index 0 is "undefined", the reserved ones from 0xff00 are not
/// code (absolute values, common data) or an index too large for its field, which functions-in-sections objects have.
fn is_code_section(sections: &[Section], index: u16) -> bool {
    index != elf::SHN_UNDEF
        && (index == elf::SHN_XINDEX || sections.get(usize::from(index)).is_some_and(Section::is_code))
}

/// Between two symbols that cover an address: the one that starts later, then the better alias.
fn is_inner(new: Candidate, old: Candidate) -> bool {
    let key = |c: Candidate| (c.start, Reverse(c.size), alias_rank(c));
    key(new) > key(old)
}

/// Between two symbols that start together and may both be labels.
fn is_better(new: Candidate, old: Candidate) -> bool {
    (new.size, alias_rank(new)) > (old.size, alias_rank(old))
}

/// Exported names are the documented ones: global before weak before local.
fn alias_rank(candidate: Candidate) -> u8 {
    match candidate.binding {
        elf::STB_GLOBAL => 2,
        elf::STB_WEAK => 1,
        _ => 0,
    }
}

fn read_name(bytes: Bytes<'_>, strings: &Section, offset: u64) -> Option<Vec<u8>> {
    let left = strings.size.checked_sub(offset).filter(|&left| left > 0)?;
    let mut name = Vec::new();
    let mut size = 128;
    // Most names are short: read little, and more only while no end is in sight.
    while name.len() < MAX_NAME.min(left as usize) {
        size = size.min(left as usize);
        name.resize(size, 0);
        bytes.read_exact(&mut name, strings.offset.checked_add(offset)?).ok()?;
        if let Some(end) = name.iter().position(|&b| b == 0) {
            name.truncate(end);
            break;
        }
        size *= 8;
    }
    name.truncate(MAX_NAME);
    let name = without_version(&name);
    (!name.is_empty()).then(|| name.to_vec())
}

/// `memcpy@@GLIBC_2.14` is `memcpy`.
fn without_version(name: &[u8]) -> &[u8] {
    match name.iter().position(|&b| b == b'@') {
        Some(at) if at > 0 => {
            let version = name[at..].trim_ascii_start();
            let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'@' | b'_' | b'.' | b'-' | b'+');
            if version.iter().all(plain) { &name[..at] } else { name }
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(start: u64, size: u64, binding: u8) -> Candidate {
        Candidate { start, size, name: start, binding }
    }

    fn code_section() -> Section {
        Section {
            name: b".text".to_vec(),
            kind: elf::SHT_PROGBITS,
            flags: u64::from(elf::SHF_EXECINSTR | elf::SHF_ALLOC),
            address: 0x1000,
            offset: 0x1000,
            size: 0x1000,
            link: 0,
        }
    }

    fn starts(wanted: &[u64], symbols: &[Candidate]) -> Vec<Option<u64>> {
        let mut matcher = Matcher::new(wanted, true);
        for &symbol in symbols {
            matcher.add(symbol).unwrap();
        }
        matcher.carry_last_forward();
        let table = UnwindTable::none();
        (0..wanted.len()).map(|i| matcher.answer(i, &[code_section()], &table).map(|c| c.start)).collect()
    }

    #[test]
    fn a_sized_symbol_covers_its_size_only() {
        let symbols = [candidate(0x1000, 0x10, elf::STB_GLOBAL), candidate(0x1100, 0x10, elf::STB_LOCAL)];
        assert_eq!(
            starts(&[0xfff, 0x1000, 0x100f, 0x1010, 0x10ff, 0x1100, 0x1110], &symbols),
            [None, Some(0x1000), Some(0x1000), None, None, Some(0x1100), None]
        );
    }

    #[test]
    fn the_inner_of_nested_symbols_wins_and_the_outer_goes_on_behind_it() {
        let symbols = [candidate(0x1000, 0x100, 1), candidate(0x1040, 0x10, 0), candidate(0x1080, 0, 0)];
        assert_eq!(
            starts(&[0x1010, 0x1040, 0x1050, 0x1090], &symbols),
            [Some(0x1000), Some(0x1040), Some(0x1000), Some(0x1000)]
        );
    }

    #[test]
    fn a_label_reaches_to_the_next_symbol_and_not_out_of_its_section() {
        let symbols = [candidate(0x1000, 0, 1), candidate(0x1100, 0x10, 1)];
        assert_eq!(
            starts(&[0x1000, 0x10ff, 0x1100, 0x1110, 0x2000], &symbols),
            [Some(0x1000), Some(0x1000), Some(0x1100), None, None]
        );
    }

    #[test]
    fn of_aliases_the_global_one_is_taken() {
        let mut local = candidate(0x1000, 0x10, elf::STB_LOCAL);
        local.name = 7;
        for order in [[local, candidate(0x1000, 0x10, 1)], [candidate(0x1000, 0x10, 1), local]] {
            let mut matcher = Matcher::new(&[0x1008], true);
            order.into_iter().for_each(|symbol| matcher.add(symbol).unwrap());
            assert_eq!(matcher.sized[0].unwrap().name, 0x1000);
        }
    }

    #[test]
    fn versions_are_cut_off() {
        for (name, bare) in [
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("a@V1", "a"),
            ("plain", "plain"),
            ("@odd", "@odd"),
            ("x@ (y)", "x@ (y)"),
        ] {
            assert_eq!(without_version(name.as_bytes()), bare.as_bytes());
        }
    }
}
