//! ELF headers, segments, sections, notes and the build id of a file.
//!
//! Everything is read with `pread` into bounded buffers, never through `mmap`: the files belong to the programs that
//! are looked at, and one that truncates its own file while it is read must give an error, not a SIGBUS. Both classes
//! and both byte orders are read; every offset and count is checked against the bounds below.

use std::{fs::File, io, os::unix::fs::FileExt};

use object::elf;

use crate::model::Reason;

/// Most program headers read; the largest real programs have fewer than 20.
const MAX_SEGMENTS: u64 = 1024;
/// Most section headers read (a 16-bit count in ordinary files).
const MAX_SECTIONS: u64 = 65_535;
/// Most bytes of section names read.
const MAX_SECTION_NAMES: u64 = 4 << 20;
/// Most bytes of one note segment read; build-id notes are 36 bytes, core properties some hundred.
const MAX_NOTES: u64 = 64 << 10;
/// Longest build id kept: the kernel's `BUILD_ID_SIZE_MAX` is 20, linkers can be told to write up to 64.
const MAX_BUILD_ID: usize = 64;
/// Pages are at least this large on every Linux; segments are mapped in whole pages.
const PAGE: u64 = 4096;

/// Why a file is not usable as an ELF file.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// A read failed, or went past the end of the file.
    #[error("read: {0}")]
    Io(#[from] io::Error),
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// A field contradicts another or a bound.
    #[error("malformed ELF file: {0}")]
    Malformed(&'static str),
}

impl ElfError {
    /// The reason shown at frames of such a file.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
            _ => Reason::BadElf,
        }
    }
}

/// Where the bytes of an ELF image are.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// In a file.
    File(&'a File),
    /// In memory (the vDSO, tests).
    Memory(&'a [u8]),
}

impl Bytes<'_> {
    /// Fills `buffer` from `offset`.
    pub fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<(), ElfError> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset)?,
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| ElfError::Malformed("offset"))?;
                let part = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                buffer.copy_from_slice(part.ok_or(ElfError::Malformed("offset past the end"))?);
            }
        }
        Ok(())
    }

    /// `len` bytes from `offset`, at most `max`. The length is checked against the file's before memory is taken.
    pub fn read(&self, offset: u64, len: u64, max: u64) -> Result<Vec<u8>, ElfError> {
        let size = match self {
            Self::File(file) => file.metadata()?.len(),
            Self::Memory(bytes) => bytes.len() as u64,
        };
        if len > max || offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(ElfError::Malformed("part past the end or too large"));
        }
        let mut buffer = vec![0; len as usize];
        self.read_exact(&mut buffer, offset)?;
        Ok(buffer)
    }
}

/// Word size and byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// 64-bit class.
    pub is_64: bool,
    /// Most significant byte first.
    pub big_endian: bool,
}

impl Layout {
    /// The 16-bit field at `at`; 0 past the end.
    pub fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let raw = field(bytes, at);
        if self.big_endian { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) }
    }

    /// The 32-bit field at `at`; 0 past the end.
    pub fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let raw = field(bytes, at);
        if self.big_endian { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) }
    }

    /// The 64-bit field at `at`; 0 past the end.
    pub fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let raw = field(bytes, at);
        if self.big_endian { u64::from_be_bytes(raw) } else { u64::from_le_bytes(raw) }
    }

    /// A class-sized field: at `at_32` in 32-bit files, at `at_64` in 64-bit ones.
    pub fn word(self, bytes: &[u8], at_32: usize, at_64: usize) -> u64 {
        if self.is_64 { self.u64(bytes, at_64) } else { u64::from(self.u32(bytes, at_32)) }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// ELF virtual address.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Executable.
    pub executable: bool,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name (raw bytes).
    pub name: Vec<u8>,
    /// `SHT_*`.
    pub kind: u32,
    /// `SHF_*`.
    pub flags: u64,
    /// ELF virtual address.
    pub address: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// `sh_link`: of a symbol table, its string table.
    pub link: u32,
}

impl Section {
    /// Whether it holds code.
    pub fn is_code(&self) -> bool {
        self.flags & u64::from(elf::SHF_EXECINSTR) != 0
    }

    /// Whether an ELF virtual address lies in it.
    pub fn covers(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|offset| offset < self.size)
    }
}

/// What the beginning of an ELF file says.
#[derive(Clone, Debug)]
pub struct Headers {
    /// Word size and byte order.
    pub layout: Layout,
    /// `EM_*`.
    pub machine: u16,
    /// Entry point, an ELF virtual address; 0 if there is none.
    pub entry: u64,
    /// The loadable segments.
    pub segments: Vec<Segment>,
    /// The segment of `.eh_frame_hdr` (`PT_GNU_EH_FRAME`).
    pub eh_frame_header: Option<Segment>,
    /// GNU build id.
    pub build_id: Option<Vec<u8>>,
    section_headers: u64,
    section_count: u64,
    section_names: u32,
}

/// Reads the ELF header, the program headers and the build id. `build_id` is `None` also when the notes are damaged.
pub fn read_headers(bytes: Bytes<'_>) -> Result<Headers, ElfError> {
    let mut start = [0; 64];
    // A 32-bit header has 52 bytes; no real file is shorter than 64.
    bytes.read_exact(&mut start, 0).map_err(|_| ElfError::NotElf)?;
    if start[..4] != elf::ELFMAG {
        return Err(ElfError::NotElf);
    }
    let layout = Layout {
        is_64: match start[4] {
            elf::ELFCLASS32 => false,
            elf::ELFCLASS64 => true,
            _ => return Err(ElfError::Malformed("class")),
        },
        big_endian: match start[5] {
            elf::ELFDATA2LSB => false,
            elf::ELFDATA2MSB => true,
            _ => return Err(ElfError::Malformed("byte order")),
        },
    };
    let tail = if layout.is_64 { 52 } else { 40 };
    let entry_size = if layout.is_64 { 56 } else { 32 };
    if layout.u16(&start, tail + 2) != entry_size {
        return Err(ElfError::Malformed("program header size"));
    }
    let count = u64::from(layout.u16(&start, tail + 4));
    let program_headers =
        bytes.read(layout.word(&start, 28, 32), count * u64::from(entry_size), MAX_SEGMENTS * 56)?;
    let mut headers = Headers {
        layout,
        machine: layout.u16(&start, 18),
        entry: layout.word(&start, 24, 24),
        segments: Vec::new(),
        eh_frame_header: None,
        build_id: None,
        section_headers: layout.word(&start, 32, 40),
        section_count: u64::from(layout.u16(&start, tail + 8)),
        section_names: u32::from(layout.u16(&start, tail + 10)),
    };
    for header in program_headers.chunks_exact(usize::from(entry_size)) {
        let offset = layout.word(header, 4, 8);
        let file_size = layout.word(header, 16, 32);
        let flags = layout.u32(header, if layout.is_64 { 4 } else { 24 });
        let segment = Segment {
            offset,
            address: layout.word(header, 8, 16),
            file_size,
            executable: flags & elf::PF_X != 0,
        };
        match layout.u32(header, 0) {
            elf::PT_LOAD => headers.segments.push(segment),
            elf::PT_GNU_EH_FRAME => headers.eh_frame_header = Some(segment),
            elf::PT_NOTE if headers.build_id.is_none() => {
                let align = layout.word(header, 28, 48);
                headers.build_id = bytes
                    .read(offset, file_size, MAX_NOTES)
                    .ok()
                    .and_then(|notes| build_id_in_notes(layout, &notes, align));
            }
            _ => {}
        }
    }
    Ok(headers)
}

/// A note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Whose it is, with the zero behind it.
    pub name: &'a [u8],
    /// Which of the owner's.
    pub kind: u32,
    /// What it says.
    pub data: &'a [u8],
}

/// The notes of one segment or section, until one that does not fit into it.
#[derive(Clone, Debug)]
pub struct Notes<'a> {
    layout: Layout,
    rest: &'a [u8],
    align: usize,
}

impl<'a> Notes<'a> {
    /// The notes in these bytes, padded to 4 bytes, or to 8 in segments that say so (.note.gnu.property).
    pub fn new(layout: Layout, bytes: &'a [u8], align: u64) -> Self {
        Self { layout, rest: bytes, align: if align == 8 { 8 } else { 4 } }
    }

    /// Whether all bytes were notes, once there is no next one.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }

    fn split(&self) -> Option<(Note<'a>, &'a [u8])> {
        let (layout, notes) = (self.layout, self.rest);
        let (name_len, data_len) = (layout.u32(notes, 0) as usize, layout.u32(notes, 4) as usize);
        let name = notes.get(12..)?.get(..name_len)?;
        let data_at = 12usize.checked_add(name_len)?.checked_next_multiple_of(self.align)?;
        let data = notes.get(data_at..)?.get(..data_len)?;
        let end = data_at.checked_add(data_len.checked_next_multiple_of(self.align)?)?;
        Some((Note { name, kind: layout.u32(notes, 8), data }, notes.get(end..).unwrap_or_default()))
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let (note, rest) = self.split()?;
        self.rest = rest;
        Some(note)
    }
}

/// The GNU build id among the notes of one segment or section.
fn build_id_in_notes(layout: Layout, notes: &[u8], align: u64) -> Option<Vec<u8>> {
    let id = Notes::new(layout, notes, align)
        .find(|note| note.kind == elf::NT_GNU_BUILD_ID && note.name == b"GNU\0")?
        .data;
    (!id.is_empty() && id.len() <= MAX_BUILD_ID).then(|| id.to_vec())
}

impl Headers {
    /// The ELF virtual address of a file offset that is mapped as code.
    ///
    /// Segments are mapped in whole pages, so a mapping can show some bytes beside its segment; a segment that really
    /// holds the offset wins over one that only shares the page.
    pub fn address_of_offset(&self, offset: u64) -> Option<u64> {
        let code = || self.segments.iter().filter(|segment| segment.executable);
        let exact = code().find(|s| offset.checked_sub(s.offset).is_some_and(|d| d < s.file_size));
        let segment = exact.or_else(|| {
            code().find(|s| {
                let end = s.offset.saturating_add(s.file_size).checked_next_multiple_of(PAGE);
                offset >= s.offset & !(PAGE - 1) && end.is_some_and(|end| offset < end)
            })
        })?;
        Some(offset.wrapping_sub(segment.offset).wrapping_add(segment.address))
    }

    /// The file offset of an ELF virtual address of code; `None` if no segment of the file is mapped there as code.
    pub fn offset_of_address(&self, address: u64) -> Option<u64> {
        self.offset_in(address, |segment| segment.executable)
    }

    /// The file offset of an ELF virtual address of data; `None` if nothing of the file is mapped there as such.
    pub fn offset_of_data(&self, address: u64) -> Option<u64> {
        self.offset_in(address, |segment| !segment.executable)
    }

    fn offset_in(&self, address: u64, wanted: impl Fn(&Segment) -> bool) -> Option<u64> {
        let segments = self.segments.iter().filter(|segment| wanted(segment));
        segments
            .filter_map(|segment| Some((segment, address.checked_sub(segment.address)?)))
            .find(|(segment, distance)| *distance < segment.file_size)
            .and_then(|(segment, distance)| segment.offset.checked_add(distance))
    }

    /// Reads the section headers. Empty for a file without any.
    pub fn sections(&self, bytes: Bytes<'_>) -> Result<Vec<Section>, ElfError> {
        let entry_size = if self.layout.is_64 { 64u64 } else { 40 };
        if self.section_headers == 0 || self.section_count == 0 {
            return Ok(Vec::new());
        }
        let raw = bytes.read(self.section_headers, self.section_count * entry_size, MAX_SECTIONS * 64)?;
        let header = |index: usize| raw.chunks_exact(entry_size as usize).nth(index);
        let names = match header(self.section_names as usize) {
            Some(header) => {
                let (offset, size) = (self.layout.word(header, 16, 24), self.layout.word(header, 20, 32));
                bytes.read(offset, size, MAX_SECTION_NAMES)?
            }
            None => Vec::new(),
        };
        Ok(raw.chunks_exact(entry_size as usize).map(|header| self.section(header, &names)).collect())
    }

    fn section(&self, header: &[u8], names: &[u8]) -> Section {
        let layout = self.layout;
        let name = names.get(layout.u32(header, 0) as usize..).unwrap_or_default();
        Section {
            // 64 bytes tell all names apart that are looked for.
            name: name.iter().copied().take(64).take_while(|&b| b != 0).collect(),
            kind: layout.u32(header, 4),
            flags: layout.word(header, 8, 8),
            address: layout.word(header, 12, 16),
            offset: layout.word(header, 16, 24),
            size: layout.word(header, 20, 32),
            link: layout.u32(header, if layout.is_64 { 40 } else { 24 }),
        }
    }
}

/// Lower-case hexadecimal, as build ids are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(name: &[u8], kind: u32, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((name.len() as u32).to_le_bytes());
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(name);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    const LITTLE_64: Layout = Layout { is_64: true, big_endian: false };

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut notes = note(b"GNU\0", 1, &[0; 16]);
        notes.extend(note(b"stapsdt\0", 3, b"odd"));
        notes.extend(note(b"GNU\0", elf::NT_GNU_BUILD_ID, &[0xab, 0xcd, 0xef]));
        assert_eq!(build_id_in_notes(LITTLE_64, &notes, 4), Some(vec![0xab, 0xcd, 0xef]));
        assert_eq!(build_id_in_notes(LITTLE_64, &note(b"XYZ\0", 3, &[1; 20]), 4), None);
    }

    #[test]
    fn a_file_offset_belongs_to_the_segment_that_holds_it() {
        let mut headers = read_headers(Bytes::Memory(&std::fs::read("/proc/self/exe").unwrap())).unwrap();
        let segment =
            |offset, address, file_size, executable| Segment { offset, address, file_size, executable };
        headers.segments = vec![
            segment(0, 0, 0x1000, false),
            segment(0x1010, 0x402_010, 0x0ff0, true),
            segment(0x2000, 0x404_000, 0x100, true),
        ];
        assert_eq!(headers.address_of_offset(0x1010), Some(0x402_010));
        assert_eq!(headers.address_of_offset(0x1000), Some(0x402_000), "shares the first page");
        assert_eq!(headers.address_of_offset(0x2000), Some(0x404_000), "the next segment, not the padding");
        assert_eq!(headers.address_of_offset(0x2fff), Some(0x404_fff));
        assert_eq!(headers.address_of_offset(0x10), None, "not code");
        assert_eq!(headers.address_of_offset(0x3000), None);
        assert_eq!(headers.offset_of_address(0x402_010), Some(0x1010));
        assert_eq!(headers.offset_of_address(0x402_fff), Some(0x1fff));
        assert_eq!(headers.offset_of_address(0x403_000), None, "behind the segment");
        assert_eq!(headers.offset_of_address(0x10), None, "not code");
        assert_eq!(headers.offset_of_data(0x10), Some(0x10));
        assert_eq!((headers.offset_of_data(0x1000), headers.offset_of_data(0x402_010)), (None, None));
    }

    proptest! {
        #[test]
        fn any_notes_are_read_without_panic(raw: Vec<u8>, align: u64, big_endian: bool) {
            build_id_in_notes(Layout { is_64: true, big_endian }, &raw, align);
        }

        #[test]
        fn any_header_is_read_without_panic(mut raw in prop::collection::vec(any::<u8>(), 64..512), is_64: bool) {
            raw[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(is_64), 1]);
            if let Ok(headers) = read_headers(Bytes::Memory(&raw)) {
                headers.address_of_offset(0x1000);
                let _ = headers.sections(Bytes::Memory(&raw));
            }
        }
    }
}
