//! Functions of an ELF file by their names: where an event at a function of that name is.

use object::elf;

use crate::elf::{Bytes, ElfError, Headers, Section};

/// Most bytes read of a symbol table and of its names; a browser's have 100 MB.
const MAX_TABLE: u64 = 256 << 20;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// ELF virtual address.
    pub address: u64,
    /// Bytes; 0: not known.
    pub size: u64,
    /// A function that tells, when a program is loaded, which other one is called by that name.
    pub is_resolver: bool,
    /// Whether other files see it.
    pub is_exported: bool,
}

/// What a file says of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The functions of that name, each address once, in the order of their addresses.
    pub functions: Vec<Function>,
    /// If there is none: all names of functions, sorted.
    pub others: Vec<String>,
}

/// Looks for functions of exactly that name, in `.symtab` and in `.dynsym`.
///
/// # Errors
/// If a table cannot be read.
pub fn named(
    bytes: Bytes<'_>,
    headers: &Headers,
    sections: &[Section],
    name: &str,
) -> Result<Named, ElfError> {
    let layout = headers.layout;
    let mut named = Named::default();
    for table in sections.iter().filter(|s| matches!(s.kind, elf::SHT_SYMTAB | elf::SHT_DYNSYM)) {
        let Some(strings) = sections.get(table.link as usize) else { continue };
        let strings = bytes.read(strings.offset, strings.size, MAX_TABLE)?;
        let symbols = bytes.read(table.offset, table.size, MAX_TABLE)?;
        for entry in symbols.chunks_exact(if layout.is_64 { 24 } else { 16 }) {
            let (info, section) = if layout.is_64 {
                (entry[4], layout.u16(entry, 6))
            } else {
                (entry[12], layout.u16(entry, 14))
            };
            let kind = info & 0xf;
            if section == elf::SHN_UNDEF || !matches!(kind, elf::STT_FUNC | elf::STT_GNU_IFUNC) {
                continue;
            }
            let Some(found) = text_at(&strings, layout.u32(entry, 0)) else { continue };
            // The linker appends the version to what it puts into `.symtab`.
            let plain = found.split('@').next().filter(|plain| !plain.is_empty()).unwrap_or(found);
            if found == name || plain == name {
                named.functions.push(Function {
                    address: layout.word(entry, 4, 8),
                    size: layout.word(entry, 8, 16),
                    is_resolver: kind == elf::STT_GNU_IFUNC,
                    is_exported: info >> 4 != elf::STB_LOCAL,
                });
            } else if named.functions.is_empty() {
                named.others.push(plain.to_owned());
            }
        }
    }
    named.functions.sort_by_key(|function| (function.address, !function.is_exported));
    named.functions.dedup_by_key(|function| function.address);
    if !named.functions.is_empty() {
        named.others = Vec::new();
    }
    named.others.sort_unstable();
    named.others.dedup();
    Ok(named)
}

fn text_at(strings: &[u8], at: u32) -> Option<&str> {
    let rest = strings.get(at as usize..)?;
    let end = rest.iter().take(4096).position(|&byte| byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::read_headers;

    fn in_this_program(name: &str) -> Named {
        let data = std::fs::read("/proc/self/exe").unwrap();
        let bytes = Bytes::Memory(&data);
        let headers = read_headers(bytes).unwrap();
        let sections = headers.sections(bytes).unwrap();
        named(bytes, &headers, &sections, name).unwrap()
    }

    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn profiler_functions_test_landmark() -> usize {
        profiler_functions_test_landmark as *const () as usize
    }

    #[test]
    fn a_function_of_this_program_is_found() {
        let found = in_this_program("profiler_functions_test_landmark");
        assert_eq!(found.functions.len(), 1, "{found:?}");
        assert!(found.others.is_empty() && !found.functions[0].is_resolver);
        // Loaded somewhere, but at the same place of its page.
        assert_eq!(found.functions[0].address & 0xfff, profiler_functions_test_landmark() as u64 & 0xfff);
    }

    #[test]
    fn without_one_the_others_are_told() {
        let found = in_this_program("profiler_functions_test_landmar");
        assert!(found.functions.is_empty());
        assert!(found.others.iter().any(|name| name == "profiler_functions_test_landmark"));
        assert!(found.others.is_sorted());
    }

    #[test]
    fn names_end_inside_of_their_table() {
        assert_eq!(text_at(b"\0abc\0", 1), Some("abc"));
        assert_eq!((text_at(b"\0abc", 1), text_at(b"\0", 0), text_at(b"", 5)), (None, None, None));
    }
}
