//! Where a file's unwind information is, and its bytes.

use gimli::{BaseAddresses, EhFrameHdr, EndianSlice, LittleEndian, Pointer};
use object::elf;

use crate::elf::{Bytes, Headers};

/// Most bytes of `.eh_frame` or `.debug_frame` read; the largest browsers have about 30 MiB, all else far less.
const MAX_BYTES: u64 = 48 << 20;
/// Most bytes of `.eh_frame_hdr`: 8 for each entry, whose average length is above 24. A larger one is not needed.
const MAX_HEADER: u64 = MAX_BYTES / 3;

/// Which section the entries are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.eh_frame`, which is loaded and mostly kept by `strip`.
    EhFrame,
    /// `.debug_frame`, of programs that were built without `.eh_frame`.
    DebugFrame,
}

/// The bytes of a section. Empty: there is none.
#[derive(Debug, Default)]
pub struct Section {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its ELF virtual address.
    pub address: u64,
}

/// Unwind information.
#[derive(Debug, Default)]
pub struct Sections {
    /// `.eh_frame` or `.debug_frame`.
    pub frames: Section,
    /// `.eh_frame_hdr`, which lists the entries of `.eh_frame` by address.
    pub header: Section,
}

/// Reads the sections; `None` if the file has none of that kind, or they are too large or cut off.
pub fn find(bytes: Bytes<'_>, headers: &Headers, kind: Kind) -> Option<Sections> {
    // A file whose section headers were cut off or damaged may still have the segment.
    let sections = headers.sections(bytes).unwrap_or_default();
    let read = |name: &[u8], max| {
        let section = sections.iter().find(|s| s.name == name && s.kind != elf::SHT_NOBITS)?;
        let compressed = section.flags & u64::from(elf::SHF_COMPRESSED) != 0;
        let content = bytes.read(section.offset, section.size, max).ok()?;
        (!compressed && !content.is_empty()).then_some(Section { bytes: content, address: section.address })
    };
    if kind == Kind::DebugFrame {
        let frames = read(b".debug_frame", MAX_BYTES);
        return frames.map(|frames| Sections { frames, header: Section::default() });
    }
    if let Some(frames) = read(b".eh_frame", MAX_BYTES) {
        let header = read(b".eh_frame_hdr", MAX_HEADER).unwrap_or_default();
        return Some(Sections { frames, header });
    }
    by_segment(bytes, headers)
}

/// By `PT_GNU_EH_FRAME`, which leads to `.eh_frame_hdr`, which leads to `.eh_frame`. Its size is not known: it ends
/// with its terminator, at the latest with its segment.
fn by_segment(bytes: Bytes<'_>, headers: &Headers) -> Option<Sections> {
    let segment = headers.eh_frame_header?;
    let header = bytes.read(segment.offset, segment.file_size, MAX_HEADER).ok()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(segment.address);
    let parsed = EhFrameHdr::from(EndianSlice::new(&header, LittleEndian)).parse(&bases, 8).ok()?;
    let Pointer::Direct(address) = parsed.eh_frame_ptr() else { return None };
    let (loaded, skip) = headers.segments.iter().find_map(|loaded| {
        let skip = address.checked_sub(loaded.address).filter(|skip| *skip < loaded.file_size)?;
        Some((loaded, skip))
    })?;
    let len = (loaded.file_size - skip).min(MAX_BYTES);
    let frames = bytes.read(loaded.offset.checked_add(skip)?, len, MAX_BYTES).ok()?;
    Some(Sections {
        frames: Section { bytes: frames, address },
        header: Section { bytes: header, address: segment.address },
    })
}
