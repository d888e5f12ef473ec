//! ELF images with unwind information, for tests.

use gimli::{
    Encoding, Format, LittleEndian, Register,
    write::{Address, CallFrameInstruction, CommonInformationEntry, EhFrame, EndianVec, FrameTable},
};
use object::elf;
use profiler_common::unwind::Arch;

use super::state::Registers;

/// ELF virtual address and file offset of the code.
pub const TEXT: u64 = 0x1000;
/// Bytes of code.
pub const TEXT_LEN: u64 = 0x4_0000;
/// ELF virtual address and file offset of the unwind information.
const FRAMES: u64 = TEXT + TEXT_LEN;

/// What is between an image's code and its section headers.
pub struct Image {
    /// `.eh_frame` or `.debug_frame`.
    pub frames: Vec<u8>,
    /// Name of the section that `frames` is in.
    pub section: &'static str,
    /// `.eh_frame_hdr`.
    pub header: Vec<u8>,
    /// Whether there are section headers.
    pub has_sections: bool,
    /// Entry point: an offset in the code.
    pub entry: Option<u64>,
    /// Bytes to put at offsets in the code.
    pub code: Vec<(usize, Vec<u8>)>,
}

impl Image {
    /// One with `.eh_frame` and section headers.
    pub fn new(frames: Vec<u8>) -> Self {
        Self {
            frames,
            section: ".eh_frame",
            header: Vec::new(),
            has_sections: true,
            entry: None,
            code: Vec::new(),
        }
    }

    /// The file: headers, code, unwind information, section headers.
    pub fn bytes(&self, arch: Arch) -> Vec<u8> {
        let mut out = vec![0; FRAMES as usize];
        for (at, code) in &self.code {
            out[TEXT as usize + at..][..code.len()].copy_from_slice(code);
        }
        out.extend(&self.frames);
        out.resize(out.len().next_multiple_of(8), 0);
        let header_at = out.len() as u64;
        out.extend(&self.header);
        let names = format!("\0{}\0.eh_frame_hdr\0.shstrtab\0", self.section);
        let names_at = out.len() as u64;
        out.extend(names.as_bytes());
        let at = out.len() as u64;
        let name = |name: &str| names.find(name).map_or(0, |at| at as u32);
        let sections = [
            (0, elf::SHT_NULL, 0, 0),
            (name(self.section), elf::SHT_PROGBITS, FRAMES, self.frames.len() as u64),
            (name(".eh_frame_hdr"), elf::SHT_PROGBITS, header_at, self.header.len() as u64),
            (name(".shstrtab"), elf::SHT_STRTAB, names_at, names.len() as u64),
        ];
        if self.has_sections {
            for (name, kind, offset, size) in sections {
                out.extend([name, kind].map(u32::to_le_bytes).concat());
                out.extend([0, offset, offset, size, 0, 1, 0].map(u64::to_le_bytes).concat());
            }
        }
        let machine = match arch {
            Arch::X86_64 => elf::EM_X86_64,
            Arch::Aarch64 => elf::EM_AARCH64,
        };
        let sections_at = if self.has_sections { at } else { 0 };
        let segments = [
            (elf::PT_LOAD, elf::PF_R, 0, TEXT),
            (elf::PT_LOAD, elf::PF_R | elf::PF_X, TEXT, TEXT_LEN),
            (elf::PT_LOAD, elf::PF_R, FRAMES, out.len() as u64 - FRAMES),
            (elf::PT_GNU_EH_FRAME, elf::PF_R, header_at, self.header.len() as u64),
        ];
        let mut start =
            elf_header(machine, self.entry.map_or(0, |at| TEXT + at), sections_at, segments.len() as u16);
        for (kind, flags, offset, size) in segments {
            start.extend([kind, flags].map(u32::to_le_bytes).concat());
            start.extend([offset, offset, offset, size, size, 1].map(u64::to_le_bytes).concat());
        }
        out[..start.len()].copy_from_slice(&start);
        out
    }
}

fn elf_header(machine: u16, entry: u64, sections_at: u64, segments: u16) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([elf::ET_DYN, machine].map(u16::to_le_bytes).concat());
    out.extend(1u32.to_le_bytes());
    out.extend([entry, 64, sections_at].map(u64::to_le_bytes).concat());
    out.extend(0u32.to_le_bytes());
    let section_count = if sections_at == 0 { 0 } else { 4 };
    out.extend([64, 56, segments, 64, section_count, 3].map(u16::to_le_bytes).concat());
    out
}

/// A CIE as compilers begin functions with.
pub fn cie(arch: Arch) -> CommonInformationEntry {
    let registers = Registers::of(arch);
    let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: 8 };
    let (code_factor, offset) = match arch {
        Arch::X86_64 => (1, 8),
        Arch::Aarch64 => (4, 0),
    };
    let mut cie = CommonInformationEntry::new(encoding, code_factor, -8, registers.ra);
    cie.add_instruction(CallFrameInstruction::Cfa(registers.sp, offset));
    if matches!(arch, Arch::X86_64) {
        cie.add_instruction(CallFrameInstruction::Offset(registers.ra, -8));
    }
    cie
}

/// A function: offset of its code, its length, and instructions by the offset that they hold from.
pub type Function<'a> = (u64, u32, &'a [(u32, CallFrameInstruction)]);

/// `.eh_frame` of functions that share a CIE.
pub fn eh_frame(cie: CommonInformationEntry, functions: &[Function<'_>]) -> Vec<u8> {
    let mut section = EhFrame::from(EndianVec::new(LittleEndian));
    frames(cie, functions).write_eh_frame(&mut section).expect("every value can be written");
    section.slice().to_vec()
}

/// The entries of functions that share a CIE.
pub fn frames(cie: CommonInformationEntry, functions: &[Function<'_>]) -> FrameTable {
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    for &(start, len, instructions) in functions {
        let mut entry = gimli::write::FrameDescriptionEntry::new(Address::Constant(TEXT + start), len);
        for (offset, instruction) in instructions {
            entry.add_instruction(*offset, instruction.clone());
        }
        table.add_fde(cie, entry);
    }
    table
}

/// `.eh_frame_hdr` for entries at offsets of `.eh_frame`, by the offset of their code.
pub fn header(header_at: u64, entries: &[(u64, u64)]) -> Vec<u8> {
    // Version 1; pointer pc-relative, count absolute, table relative to the header: 4 bytes each.
    let mut out = vec![1, 0x1b, 0x03, 0x3b];
    out.extend(((FRAMES as i64 - header_at as i64 - 4) as i32).to_le_bytes());
    out.extend((entries.len() as u32).to_le_bytes());
    for &(start, entry) in entries {
        out.extend(((TEXT + start) as i64 - header_at as i64).to_le_bytes()[..4].to_vec());
        out.extend(((FRAMES + entry) as i64 - header_at as i64).to_le_bytes()[..4].to_vec());
    }
    out
}

/// Where [`Image::bytes`] puts `.eh_frame_hdr` behind that many bytes of `.eh_frame`.
pub fn header_address(frames_len: usize) -> u64 {
    FRAMES + frames_len.next_multiple_of(8) as u64
}

/// DWARF's number of x86-64's rbx, which is not followed.
pub const RBX: Register = gimli::X86_64::RBX;
