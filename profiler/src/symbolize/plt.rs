//! Names of PLT stubs (`memcpy@plt`), which no symbol table lists.
//!
//! A stub jumps through a slot of the global offset table, and a relocation says which function the dynamic loader
//! puts into that slot. Both are read from the file, so the name does not depend on the order of stubs. x86-64 only.

use object::elf;

use super::elf_symbols;
use crate::elf::{Bytes, Headers, Section};

/// Most bytes of relocations read; Chromium has 10 MiB in `.rela.dyn`.
const MAX_RELOCATIONS: u64 = 32 << 20;
/// Stubs are this long and aligned so in `.plt` and `.plt.sec`, half as long in `.plt.got`.
const STUB_LEN: u64 = 16;
const RELA_LEN: usize = 24;

/// The name of the stub that an address (ELF virtual) lies in.
pub fn name(bytes: Bytes<'_>, headers: &Headers, sections: &[Section], address: u64) -> Option<Vec<u8>> {
    if headers.machine != elf::EM_X86_64 || !headers.layout.is_64 {
        return None;
    }
    let section =
        sections.iter().find(|s| s.is_code() && s.name.starts_with(b".plt") && s.covers(address))?;
    let len = if section.name == b".plt.got" { STUB_LEN / 2 } else { STUB_LEN };
    let offset = (address - section.address) / len * len;
    let mut stub = [0; STUB_LEN as usize];
    let stub = &mut stub[..len as usize];
    bytes.read_exact(stub, section.offset.checked_add(offset)?).ok()?;
    let slot = slot_of(stub, section.address.wrapping_add(offset))?;
    let mut name = sections
        .iter()
        .filter(|s| s.kind == elf::SHT_RELA)
        .find_map(|relocations| symbol_of(bytes, headers, sections, relocations, slot))?;
    name.extend_from_slice(b"@plt");
    Some(name)
}

/// The address that `jmp *DISPLACEMENT(%rip)` (`ff 25`) reads, somewhere in a stub. The stub that calls the dynamic
/// loader begins with a push through the table (`ff 35`) and is not one function's.
fn slot_of(stub: &[u8], address: u64) -> Option<u64> {
    if stub.starts_with(&[0xff, 0x35]) {
        return None;
    }
    let at = stub.windows(2).position(|pair| pair == [0xff, 0x25])?;
    let displacement = i32::from_le_bytes(*stub.get(at + 2..)?.first_chunk()?);
    Some(address.wrapping_add(at as u64 + 6).wrapping_add_signed(i64::from(displacement)))
}

fn symbol_of(
    bytes: Bytes<'_>,
    headers: &Headers,
    sections: &[Section],
    relocations: &Section,
    slot: u64,
) -> Option<Vec<u8>> {
    let layout = headers.layout;
    let table = bytes.read(relocations.offset, relocations.size, MAX_RELOCATIONS).ok()?;
    let entry = table.chunks_exact(RELA_LEN).find(|entry| layout.u64(entry, 0) == slot)?;
    let info = layout.u64(entry, 8);
    if !matches!(info as u32, elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_GLOB_DAT) {
        return None;
    }
    let symbols = sections.get(relocations.link as usize).filter(|s| s.kind == elf::SHT_DYNSYM)?;
    elf_symbols::name_of(bytes, headers, sections, symbols, info >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_each_kind_of_stub() {
        let lazy = [0xff, 0x25, 0x10, 0, 0, 0, 0x68, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
        assert_eq!(slot_of(&lazy, 0x1000), Some(0x1016));
        let with_endbr = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0];
        assert_eq!(slot_of(&with_endbr, 0x1000), Some(0xffb));
        let loader = [0xff, 0x35, 2, 0, 0, 0, 0xff, 0x25, 4, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(slot_of(&loader, 0x1000), None);
        assert_eq!(slot_of(&[0x90; 8], 0x1000), None);
        assert_eq!(slot_of(&[0, 0, 0, 0, 0, 0xff, 0x25, 0], 0x1000), None, "cut off");
    }
}
