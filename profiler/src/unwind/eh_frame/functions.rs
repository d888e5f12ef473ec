//! The entries of a file, in the order of the addresses that they describe.

use gimli::{CieOrFde, EhFrameHdr, EndianSlice, LittleEndian, Pointer, UnwindOffset, UnwindSection};
use profiler_common::unwind::{Arch, row::PAGE_SHIFT};

use super::{Section, Slice, cie::Cies, sections};
use crate::{
    elf::{Bytes, Headers},
    unwind::table::MAX_PAGES,
};

/// An entry, or code that is known without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// Where its code begins, bytes behind [`Span::base`].
    pub start: u32,
    /// Offset of the entry in its section, or one of the numbers below, which no offset reaches.
    pub entry: u32,
}

/// The `entry` of a signal trampoline that was found by its instructions.
pub const TRAMPOLINE: u32 = u32::MAX;
/// Bytes of a trampoline: an instruction that is looked up by the address before the return address, and its two.
pub const TRAMPOLINE_LEN: u32 = 12;

/// The `entry` of the file's entry point.
pub const ENTRY_POINT: u32 = u32::MAX - 1;
/// Most bytes of the code at the entry point. It gets the stack pointer into a register and calls; the dynamic loader's
/// has 43 bytes.
pub const ENTRY_POINT_LEN: u32 = 64;

/// Largest file segment that is searched for a trampoline: only the vDSO has one without an entry.
const MAX_SEARCHED: u64 = 64 << 10;

/// The addresses that can hold code.
#[derive(Clone, Debug)]
pub struct Span {
    /// ELF virtual address that offsets count from, of a whole page.
    pub base: u64,
    /// Start and end of the executable segments, as offsets, sorted.
    segments: Vec<(u32, u32)>,
}

impl Span {
    /// The executable segments; what is too far from the first of them for a table is left out.
    pub fn of(headers: &Headers) -> Self {
        let code = || headers.segments.iter().filter(|segment| segment.executable && segment.file_size > 0);
        let lowest = code().map(|segment| segment.address).min().unwrap_or(0);
        let base = lowest >> PAGE_SHIFT << PAGE_SHIFT;
        let limit = (MAX_PAGES as u64) << PAGE_SHIFT;
        let mut segments: Vec<(u32, u32)> = code()
            // A page's number has 32 bits.
            .filter(|_| base >> PAGE_SHIFT <= u64::from(u32::MAX))
            .map(|segment| {
                let start = segment.address - base;
                (start.min(limit) as u32, start.saturating_add(segment.file_size).min(limit) as u32)
            })
            .filter(|(start, end)| start < end)
            .collect();
        segments.sort_unstable();
        Self { base, segments }
    }

    /// The offset of an address, if it can hold code.
    pub fn offset(&self, address: u64) -> Option<u32> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        (offset < self.end(offset)).then_some(offset)
    }

    /// The end of the segment that an offset lies in, as an offset; 0 if in none.
    pub fn end(&self, offset: u32) -> u32 {
        let next = self.segments.partition_point(|&(start, _)| start <= offset);
        next.checked_sub(1).and_then(|index| self.segments.get(index)).map_or(0, |&(_, end)| end)
    }
}

/// All entries whose code lies in the span, one for each address. `skipped` counts the others.
pub fn list<'a, S: UnwindSection<Slice<'a>>>(
    entries: Section<'a, '_, S>,
    header: &sections::Section,
    span: &Span,
    skipped: &mut u64,
) -> Vec<Function> {
    let (all, mut functions) = by_header(&entries, header, span).unwrap_or_else(|| by_walk(&entries, span));
    functions.sort_unstable();
    functions.dedup_by_key(|function| function.start);
    *skipped += all - functions.len() as u64;
    functions
}

/// By the search table of `.eh_frame_hdr`; `None` if there is none or it is not sane. Also the number of all entries.
fn by_header<S>(
    entries: &Section<'_, '_, S>,
    header: &sections::Section,
    span: &Span,
) -> Option<(u64, Vec<Function>)> {
    let parsed =
        EhFrameHdr::from(EndianSlice::new(&header.bytes, LittleEndian)).parse(entries.bases, 8).ok()?;
    let table = parsed.table()?;
    let (mut all, mut last) = (0, 0);
    let mut functions = Vec::new();
    let mut iter = table.iter(entries.bases);
    while let Some(pointers) = iter.next().ok()? {
        let (Pointer::Direct(address), Pointer::Direct(entry)) = pointers else { return None };
        let offset = entry.checked_sub(entries.address).filter(|o| *o < entries.bytes.len() as u64)?;
        if address < last {
            return None;
        }
        last = address;
        all += 1;
        if let Some(start) = span.offset(address) {
            functions.push(Function { start, entry: offset as u32 });
        }
    }
    Some((all, functions))
}

/// By walking over the section, up to the first entry whose length is damaged. Also the number of all entries.
fn by_walk<'a, S: UnwindSection<Slice<'a>>>(
    entries: &Section<'a, '_, S>,
    span: &Span,
) -> (u64, Vec<Function>) {
    let mut all = 0;
    let mut functions = Vec::new();
    let mut cies = Cies::new(*entries);
    let mut walk = entries.section.entries(entries.bases);
    while let Ok(Some(entry)) = walk.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        all += 1;
        let parsed = partial.parse(|_, _, offset| cies.parsed(UnwindOffset::into(offset)));
        if let Some(start) = parsed.ok().and_then(|entry| span.offset(entry.initial_address())) {
            functions.push(Function { start, entry: partial.offset() as u32 });
        }
    }
    (all, functions)
}

/// Adds the entry point, which the kernel jumps to and which therefore has no caller. C libraries say so in its entry,
/// the dynamic loader's and some others have none. An entry that begins there too wins.
pub fn add_entry_point(headers: &Headers, span: &Span, functions: &mut Vec<Function>) {
    if let Some(start) = span.offset(headers.entry).filter(|_| headers.entry != 0) {
        let at = functions.partition_point(|function| function.start < start);
        if functions.get(at).is_none_or(|function| function.start != start) {
            functions.insert(at, Function { start, entry: ENTRY_POINT });
        }
    }
}

/// Adds arm64's signal trampoline, which has no entry since Linux 5.8 (arch/arm64/kernel/vdso/sigreturn.S): unwinders
/// are meant to know its instructions. The instruction before it is part of it, for a return address is looked up by
/// the address before.
pub fn add_trampolines(
    arch: Arch,
    bytes: Bytes<'_>,
    headers: &Headers,
    span: &Span,
    functions: &mut Vec<Function>,
) {
    /// `mov x8, #__NR_rt_sigreturn; svc #0`.
    const INSTRUCTIONS: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
    if !matches!(arch, Arch::Aarch64) {
        return;
    }
    for segment in headers.segments.iter().filter(|segment| segment.executable) {
        let Ok(code) = bytes.read(segment.offset, segment.file_size, MAX_SEARCHED) else { continue };
        for (at, _) in code.windows(8).enumerate().step_by(4).filter(|(_, window)| *window == INSTRUCTIONS) {
            let before = segment.address.saturating_add(at as u64).saturating_sub(4);
            if let Some(start) = span.offset(before) {
                functions.push(Function { start, entry: TRAMPOLINE });
            }
        }
    }
    functions.sort_unstable();
    functions.dedup_by_key(|function| function.start);
}
