//! Taking debug information out of an eBPF object: the linker needs it to make `.BTF`, and nobody after that. `.BTF.ext` goes
//! with it: for each instruction of the programs the source line, for the verifier's log, and half of the object.
//!
//! Sections keep their numbers, which symbols and relocations name: what goes is left as an empty entry without name or type
//! (ELF64, little-endian; System V ABI, chapter 4).

/// Places in the ELF header and in a section's.
const SHOFF: usize = 0x28;
const SHNUM: usize = 0x3c;
const SHSTRNDX: usize = 0x3e;
const SECTION: usize = 64;
const TYPE: usize = 4;
const OFFSET: usize = 24;
const SIZE: usize = 32;

/// `SHT_NULL`, `SHT_NOBITS`.
const NULL: u32 = 0;
const NOBITS: u32 = 8;

/// What the names of sections begin with that go.
const GOING: [&[u8]; 4] = [b".debug_", b".rel.debug_", b".BTF.ext\0", b".rel.BTF.ext\0"];

/// The object without sections of debug information, and without their relocations. `None` if it is none that can be read.
pub fn strip(object: &[u8]) -> Option<Vec<u8>> {
    if !object.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = number(object, SHOFF, 8)?;
    let count = number(object, SHNUM, 2)?;
    let header = |index: usize| object.get(table + index * SECTION..table + (index + 1) * SECTION);
    let names = header(number(object, SHSTRNDX, 2)?)?;
    let names = object.get(number(names, OFFSET, 8)?..)?;
    let mut kept = object.get(..SECTION)?.to_vec();
    let mut headers = Vec::new();
    for index in 0..count {
        let mut section = header(index)?.to_vec();
        let name = names.get(number(&section, 0, 4)?..)?;
        let kind = number(&section, TYPE, 4)? as u32;
        if GOING.iter().any(|going| name.starts_with(going)) {
            section.fill(0);
        } else if kind != NULL && kind != NOBITS {
            let (offset, size) = (number(&section, OFFSET, 8)?, number(&section, SIZE, 8)?);
            kept.resize(kept.len().next_multiple_of(16), 0);
            section[OFFSET..OFFSET + 8].copy_from_slice(&(kept.len() as u64).to_le_bytes());
            kept.extend_from_slice(object.get(offset..offset.checked_add(size)?)?);
        }
        headers.extend_from_slice(&section);
    }
    kept.resize(kept.len().next_multiple_of(16), 0);
    let table = (kept.len() as u64).to_le_bytes();
    kept[SHOFF..SHOFF + 8].copy_from_slice(&table);
    kept.extend_from_slice(&headers);
    Some(kept)
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let mut word = [0; 8];
    word[..len].copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    usize::try_from(u64::from_le_bytes(word)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sections by name and content; the first is the table of names.
    fn object(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(SECTION, 0);
        let mut headers = Vec::new();
        let all: String = sections.iter().map(|(name, _)| format!("{name}\0")).collect();
        for (name, content) in sections {
            let content =
                if *name == ".shstrtab" { [b"\0", all.as_bytes()].concat() } else { content.to_vec() };
            let mut header = vec![0; SECTION];
            header[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
            header[TYPE] = 1;
            header[OFFSET..OFFSET + 8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            header[SIZE..SIZE + 8].copy_from_slice(&(content.len() as u64).to_le_bytes());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            bytes.extend_from_slice(&content);
            headers.extend_from_slice(&header);
        }
        let table = bytes.len() as u64;
        bytes[SHOFF..SHOFF + 8].copy_from_slice(&table.to_le_bytes());
        bytes[SHNUM] = sections.len() as u8;
        bytes.extend_from_slice(&headers);
        bytes
    }

    fn content(object: &[u8], index: usize) -> (u32, Vec<u8>) {
        let table = number(object, SHOFF, 8).unwrap();
        let header = &object[table + index * SECTION..][..SECTION];
        let (offset, size) = (number(header, OFFSET, 8).unwrap(), number(header, SIZE, 8).unwrap());
        (number(header, TYPE, 4).unwrap() as u32, object[offset..offset + size].to_vec())
    }

    #[test]
    fn debug_information_goes_and_all_else_keeps_number_and_content() {
        let before = object(&[
            (".shstrtab", b""),
            (".debug_info", &[1; 5000]),
            ("tp_btf/x", b"code"),
            (".rel.debug_info", &[2; 3000]),
            (".BTF", b"types"),
            (".BTF.ext", &[3; 300]),
        ]);
        let after = strip(&before).unwrap();
        assert!(after.len() < before.len() - 7500, "{}", after.len());
        assert_eq!([1, 3, 5].map(|index| content(&after, index)), [(); 3].map(|()| (NULL, vec![])));
        assert_eq!(content(&after, 2), (1, b"code".to_vec()));
        assert_eq!(content(&after, 4), (1, b"types".to_vec()));
        assert_eq!(strip(&after).unwrap(), after);
    }

    #[test]
    fn what_is_no_object_is_none() {
        let whole = object(&[(".shstrtab", b""), (".BTF", b"types")]);
        assert!(
            [&b""[..], b"\x7fELF\x02\x01", &whole[..whole.len() - 1]]
                .iter()
                .all(|bytes| strip(bytes).is_none())
        );
    }
}
