//! Function bounds and thread roots from `.eh_frame`, the table that stripped files keep too.
//!
//! Read only when asked for (labels without a size, outermost frames without a name), whole and bounded.

use std::cell::OnceCell;

use gimli::{
    BaseAddresses, CallFrameInstruction, EhFrame, EhFrameHdr, EndianSlice, RunTimeEndian, UnwindSection,
};
use object::elf;

use crate::elf::{Bytes, Headers, Section};

/// Most bytes of `.eh_frame` read; the largest browsers have about 30 MiB, everything else far less.
const MAX_BYTES: u64 = 48 << 20;
/// Functions are aligned to at most this in practice; the gap between neighbours is padding, not another function.
const MAX_PADDING: u64 = 64;

type Reader<'a> = EndianSlice<'a, RunTimeEndian>;

/// The bounds of one entry of the table, ELF virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// The entry says that there is no caller: the function is the first of its thread (`_start`, `clone`).
    pub outermost: bool,
}

/// The unwind table of one file, read at the first question.
#[derive(Debug)]
pub struct UnwindTable<'a> {
    source: Option<(Bytes<'a>, &'a Headers, &'a [Section])>,
    data: OnceCell<Option<Data>>,
}

#[derive(Debug)]
struct Data {
    header: Vec<u8>,
    header_address: u64,
    frames: Vec<u8>,
    frames_address: u64,
    endian: RunTimeEndian,
    address_size: u8,
    return_register: gimli::Register,
}

impl<'a> UnwindTable<'a> {
    /// The table of a file. Reads nothing yet.
    pub fn new(bytes: Bytes<'a>, headers: &'a Headers, sections: &'a [Section]) -> Self {
        Self { source: Some((bytes, headers, sections)), data: OnceCell::new() }
    }

    /// The table of a file that has none.
    pub fn none() -> Self {
        Self { source: None, data: OnceCell::new() }
    }

    /// There is a table, but it cannot be read: nothing can be concluded from a missing entry.
    pub fn is_unreadable(&self) -> bool {
        let exists = self.source.is_some_and(|(_, _, s)| s.iter().any(|s| s.name == b".eh_frame"));
        exists && self.data().is_none()
    }

    /// Start of the function that an ELF virtual address lies in.
    pub fn function_start(&self, address: u64) -> Option<u64> {
        self.bounds(address).map(|bounds| bounds.start)
    }

    /// The entry that covers an ELF virtual address.
    pub fn bounds(&self, address: u64) -> Option<Bounds> {
        self.at_or_before(address).filter(|bounds| address < bounds.end)
    }

    /// The entry that ends where `address` begins, but for padding.
    pub fn neighbour_before(&self, address: u64) -> Option<Bounds> {
        let before = self.at_or_before(address.checked_sub(1)?)?;
        address.checked_sub(before.end).is_some_and(|gap| gap < MAX_PADDING).then_some(before)
    }

    /// The last entry that starts at or before an address.
    fn at_or_before(&self, address: u64) -> Option<Bounds> {
        let data = self.data()?;
        let bases =
            BaseAddresses::default().set_eh_frame_hdr(data.header_address).set_eh_frame(data.frames_address);
        let header: Reader<'_> = EndianSlice::new(&data.header, data.endian);
        let header = EhFrameHdr::from(header).parse(&bases, data.address_size).ok()?;
        let table = header.table()?;
        let mut frames = EhFrame::from(EndianSlice::new(&data.frames, data.endian));
        frames.set_address_size(data.address_size);
        let entry = table.lookup(address, &bases).ok()?;
        // gimli subtracts one from the other, which a damaged file may have the wrong way round.
        if entry.direct().ok()? < header.eh_frame_ptr().direct().ok()? {
            return None;
        }
        let offset = table.pointer_to_offset(entry).ok()?;
        let entry = frames.fde_from_offset(&bases, offset, EhFrame::cie_from_offset).ok()?;
        // Where every entry starts behind the address, the look-up still gives the first.
        if entry.initial_address() > address {
            return None;
        }
        let mut outermost = false;
        let mut instructions = entry.instructions(&frames, &bases);
        while let Ok(Some(instruction)) = instructions.next() {
            outermost |= matches!(instruction, CallFrameInstruction::Undefined { register } if register == data.return_register);
        }
        Some(Bounds { start: entry.initial_address(), end: entry.end_address(), outermost })
    }

    fn data(&self) -> Option<&Data> {
        self.data.get_or_init(|| self.source.and_then(|(b, h, s)| load(b, h, s))).as_ref()
    }
}

fn load(bytes: Bytes<'_>, headers: &Headers, sections: &[Section]) -> Option<Data> {
    let section = |name: &[u8]| sections.iter().find(|s| s.name == name && s.kind != elf::SHT_NOBITS);
    let (header, frames) = (section(b".eh_frame_hdr")?, section(b".eh_frame")?);
    Some(Data {
        header: bytes.read(header.offset, header.size, MAX_BYTES).ok()?,
        header_address: header.address,
        frames: bytes.read(frames.offset, frames.size, MAX_BYTES).ok()?,
        frames_address: frames.address,
        endian: if headers.layout.big_endian { RunTimeEndian::Big } else { RunTimeEndian::Little },
        address_size: if headers.layout.is_64 { 8 } else { 4 },
        return_register: match headers.machine {
            elf::EM_X86_64 => gimli::X86_64::RA,
            elf::EM_386 => gimli::X86::RA,
            elf::EM_AARCH64 => gimli::AArch64::X30,
            _ => return None,
        },
    })
}
