//! A table from a file's `.eh_frame`, or from its `.debug_frame` where there is no `.eh_frame`.
//!
//! Sources: DWARF 5, section 6.4 (call frame instructions); Linux Standard Base, `.eh_frame` and `.eh_frame_hdr`;
//! System V ABI for x86-64 and DWARF for the Arm 64-bit architecture (register numbers, `negate_ra_state`).
//!
//! gimli reads entries and instructions; what they add up to is worked out here ([`state`]), for the three registers
//! that are followed, at a cost per instruction that does not depend on what was there before.
//!
//! The file belongs to the program that is looked at, so each cost is bounded: bytes read ([`sections`]), the sum of
//! the lengths of all entries (entries that do not overlap cannot have more than the section), one CIE's bytes, the
//! address range (that of the executable segments), rows and rules. What is beyond a bound is [`Rule::UNSUPPORTED`]
//! and counted.

pub mod cie;
pub mod expression;
pub mod functions;
pub mod part;
pub mod sections;
pub mod state;

use std::{num::NonZero, thread};

use gimli::{BaseAddresses, DebugFrame, EhFrame, EndianSlice, LittleEndian, UnwindSection, Vendor};
use object::elf;
use profiler_common::unwind::{Arch, row::PAGE_SHIFT, rule::Rule};

use self::{
    functions::Span,
    part::{Entries, Part},
    sections::{Kind, Sections},
};
use super::{
    rules::{self, Rules},
    table::{MAX_PAGES, MAX_ROWS, Pages, Table},
};
use crate::elf::{Bytes, ElfError, Headers};

/// How gimli reads sections: both architectures are little-endian.
pub type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Functions that are worth a thread of their own; they take some milliseconds.
const FUNCTIONS_PER_THREAD: usize = 8192;
/// Most threads that make one table.
const MAX_THREADS: usize = 4;

/// Why there is no table of a file.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be read as ELF.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// Neither 64-bit x86-64 nor 64-bit little-endian arm64.
    #[error("no unwinding for this kind of ELF file (machine {machine})")]
    Machine {
        /// `EM_*`.
        machine: u16,
    },
    /// Neither `.eh_frame` nor a readable `.debug_frame` describes any of its code.
    #[error("no unwind information")]
    NoInformation,
}

/// Why the rule of a row could not be expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The CFA is found by another register than the stack or frame pointer.
    CfaRegister,
    /// The CFA's expression is none of those that are known.
    CfaExpression,
    /// The CFA's offset does not fit.
    CfaOffset,
    /// The return address is at none of the places that are known.
    ReturnAddress,
    /// An entry or instruction is malformed, of a kind that is not known, or beyond a bound.
    Damaged,
    /// There are more distinct rules than numbers for them.
    TooManyRules,
    /// There are more rows than a table may have.
    TooManyRows,
}

impl Cause {
    /// All causes, in the order of [`Stats::unsupported`].
    pub const ALL: [Self; 7] = [
        Self::CfaRegister,
        Self::CfaExpression,
        Self::CfaOffset,
        Self::ReturnAddress,
        Self::Damaged,
        Self::TooManyRules,
        Self::TooManyRows,
    ];

    /// A name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CfaRegister => "CFA by another register",
            Self::CfaExpression => "CFA expression",
            Self::CfaOffset => "CFA offset",
            Self::ReturnAddress => "place of the return address",
            Self::Damaged => "damaged entry",
            Self::TooManyRules => "too many rules",
            Self::TooManyRows => "too many rows",
        }
    }
}

/// What a table was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries (FDEs) that the table covers.
    pub functions: u64,
    /// Entries that are not in it: outside of the executable segments, a second one for the same address, or damaged.
    pub skipped: u64,
    /// Rows whose rule cannot be expressed, by [`Cause::ALL`].
    pub unsupported: [u64; Cause::ALL.len()],
    /// Rows of the table.
    pub rows: u64,
    /// Distinct rules.
    pub rules: u64,
}

impl Stats {
    fn count(&mut self, cause: Cause) {
        self.unsupported[cause as usize] += 1;
    }

    fn add(&mut self, other: &Self) {
        self.functions += other.functions;
        self.skipped += other.skipped;
        for (sum, more) in self.unsupported.iter_mut().zip(other.unsupported) {
            *sum += more;
        }
    }
}

/// Makes the table of an ELF file or of an image in memory (the vDSO).
///
/// # Errors
/// [`TableError`]; a file that is only partly damaged has a table of the rest.
pub fn build(bytes: Bytes<'_>) -> Result<(Table, Stats), TableError> {
    let headers = crate::elf::read_headers(bytes)?;
    let arch = arch_of(&headers)?;
    let image = Image { bytes, headers: &headers, arch, span: Span::of(&headers) };
    for kind in [Kind::EhFrame, Kind::DebugFrame] {
        let Some(sections) = sections::find(bytes, &headers, kind) else { continue };
        let (table, stats) = image.table(kind, sections);
        if stats.functions > 0 {
            return Ok((table, stats));
        }
    }
    // arm64's vDSO has none at all, and every handler of a signal returns through it.
    let (table, stats) = image.table(Kind::EhFrame, Sections::default());
    if table.rules.contains(&Rule::SIGNAL.0) { Ok((table, stats)) } else { Err(TableError::NoInformation) }
}

/// The architecture of a file.
///
/// # Errors
/// [`TableError::Machine`].
pub fn arch_of(headers: &Headers) -> Result<Arch, TableError> {
    let machine = headers.machine;
    let arch = match machine {
        elf::EM_X86_64 => Arch::X86_64,
        elf::EM_AARCH64 => Arch::Aarch64,
        _ => return Err(TableError::Machine { machine }),
    };
    if !headers.layout.is_64 || headers.layout.big_endian {
        return Err(TableError::Machine { machine });
    }
    Ok(arch)
}

/// A section that entries are in, and how gimli reads it.
#[derive(Debug)]
pub struct Section<'a, 'e, S> {
    /// gimli's reader.
    pub section: &'e S,
    /// The section's bytes.
    pub bytes: &'a [u8],
    /// Its ELF virtual address.
    pub address: u64,
    /// Addresses that pointers are relative to.
    pub bases: &'e BaseAddresses,
}

impl<S> Clone for Section<'_, '_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Section<'_, '_, S> {}

/// What a table is made for.
struct Image<'i> {
    bytes: Bytes<'i>,
    headers: &'i Headers,
    arch: Arch,
    span: Span,
}

impl Image<'_> {
    fn table(&self, kind: Kind, sections: Sections) -> (Table, Stats) {
        let Sections { frames, header } = sections;
        let (bytes, address) = (frames.bytes.as_slice(), frames.address);
        let bases = &BaseAddresses::default()
            .set_eh_frame(address)
            .set_eh_frame_hdr(header.address)
            .set_text(self.headers.segments.iter().find(|s| s.executable).map_or(0, |s| s.address));
        let vendor = match self.arch {
            Arch::X86_64 => Vendor::Default,
            Arch::Aarch64 => Vendor::AArch64,
        };
        match kind {
            Kind::EhFrame => {
                let mut section = EhFrame::new(bytes, LittleEndian);
                section.set_address_size(8);
                section.set_vendor(vendor);
                self.table_of(Section { section: &section, bytes, address, bases }, header)
            }
            Kind::DebugFrame => {
                let mut section = DebugFrame::new(bytes, LittleEndian);
                section.set_address_size(8);
                section.set_vendor(vendor);
                self.table_of(Section { section: &section, bytes, address, bases }, header)
            }
        }
    }

    fn table_of<'a, S>(&self, section: Section<'a, '_, S>, header: sections::Section) -> (Table, Stats)
    where
        S: UnwindSection<Slice<'a>> + Sync,
        S::Offset: Send,
    {
        let mut stats = Stats::default();
        let mut functions = functions::list(section, &header, &self.span, &mut stats.skipped);
        drop(header);
        functions::add_entry_point(self.headers, &self.span, &mut functions);
        functions::add_trampolines(self.arch, self.bytes, self.headers, &self.span, &mut functions);
        let threads = threads(functions.len());
        // Besides its own rows a part may end with one more, and a page may begin with one.
        let max_rows = (MAX_ROWS - MAX_PAGES) / threads - 1;
        let entries = Entries { arch: self.arch, section, functions: &functions, span: &self.span, max_rows };
        let (mut pages, mut rules) = (Pages::default(), Rules::default());
        for part in parts(&entries, threads) {
            stats.add(&part.stats);
            append(part, &mut pages, &mut rules, &mut stats);
        }
        let (pages, rows) = pages.finish();
        let rules = rules.into_list();
        (stats.rows, stats.rules) = (rows.len() as u64, rules.len() as u64);
        let first_page = (self.span.base >> PAGE_SHIFT) as u32;
        (Table { arch: self.arch, first_page, pages, rows, rules }, stats)
    }
}

/// Threads that are worth it.
fn threads(functions: usize) -> usize {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    cpus.min(MAX_THREADS).min(functions / FUNCTIONS_PER_THREAD + 1)
}

/// Works the functions off; the parts are in the order of addresses.
fn parts<'a, S>(entries: &Entries<'a, '_, S>, threads: usize) -> Vec<Part>
where
    S: UnwindSection<Slice<'a>> + Sync,
    S::Offset: Send,
{
    let count = entries.functions.len();
    let len = count.div_ceil(threads).max(1);
    let ranges: Vec<_> = (0..count).step_by(len).map(|start| start..count.min(start + len)).collect();
    if ranges.len() < 2 {
        return ranges.into_iter().map(|range| part::make(entries, range)).collect();
    }
    thread::scope(|scope| {
        let workers: Vec<_> = ranges
            .into_iter()
            .map(|range| {
                let worker = scope.spawn({
                    let range = range.clone();
                    move || part::make(entries, range)
                });
                (worker, range)
            })
            .collect();
        // A thread that could not do its part leaves it without rules.
        workers
            .into_iter()
            .map(|(worker, range)| worker.join().unwrap_or_else(|_| Part::failed(entries.functions, range)))
            .collect()
    })
}

fn append(part: Part, pages: &mut Pages, rules: &mut Rules, stats: &mut Stats) {
    let numbers: Vec<Option<u16>> = part.rules.iter().map(|&rule| rules.number(Rule(rule))).collect();
    for (offset, number) in part.rows {
        let number = numbers.get(usize::from(number)).copied().flatten().unwrap_or_else(|| {
            stats.count(Cause::TooManyRules);
            rules::UNSUPPORTED
        });
        pages.push(offset, number);
    }
}

#[cfg(test)]
mod image;
#[cfg(test)]
mod tests;
