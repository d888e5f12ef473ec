//! Source lines and inlined functions from DWARF, by blazesym.
//!
//! Used only for files that have debug information. The name of the physical function comes from the ELF symbol table
//! where that has one (`elf_symbols`), because it tells clones (`.cold`, `.constprop.0`) apart.

use std::{
    fs::File,
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer, source};
use object::elf;

use super::demangle::demangle;
use crate::{
    elf::{Bytes, Headers, Section},
    model::name,
};

/// Most bytes of debug information decompressed into memory for one file. Keeps naming under its bound of 150 MB; a
/// file beyond it keeps its function names and loses lines and inlined functions.
const MAX_DECOMPRESSED: u64 = 80 << 20;
/// Most bytes of uncompressed `.debug_info`. It is mapped, and every page of it is touched once to find the units:
/// clean pages of the file that the kernel can take back, but they count as resident.
const MAX_MAPPED: u64 = 256 << 20;

/// A function active at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Cleaned, demangled name.
    pub name: String,
    /// Cleaned source path.
    pub file: Option<String>,
    /// Source line, 0 if unknown.
    pub line: u32,
}

/// What debug information says about an address: the innermost inlined function first, the physical one last.
pub type Chain = Vec<Activation>;

/// Whether the sections hold debug information that is worth reading, and can be read within bounds.
pub fn is_usable(bytes: Bytes<'_>, headers: &Headers, sections: &[Section]) -> bool {
    let mut present = false;
    let mut decompressed = 0u64;
    for section in sections.iter().filter(|s| s.name.starts_with(b".debug_") && s.kind != elf::SHT_NOBITS) {
        if section.name == b".debug_info" {
            present = section.size > 0 && section.size <= MAX_MAPPED;
        }
        if section.flags & u64::from(elf::SHF_COMPRESSED) != 0 {
            let mut header = [0; 24];
            if bytes.read_exact(&mut header, section.offset).is_err() {
                return false;
            }
            // Chdr: ch_type, (reserved,) ch_size, ch_addralign.
            decompressed = decompressed.saturating_add(headers.layout.word(&header, 4, 8));
        }
    }
    present && decompressed <= MAX_DECOMPRESSED
}

/// Looks up ELF virtual addresses. `None` where there is no debug information for an address; the error says why the
/// whole file could not be used.
pub fn find(file: &File, debug_dirs: &[PathBuf], addresses: &[u64]) -> Result<Vec<Option<Chain>>, String> {
    let mut elf = source::Elf::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    elf.debug_syms = true;
    // Debug information is hostile input too. blazesym gives errors for what it was tested with; a panic in it must
    // cost one file's lines, not the recording. It works on its own data only, so nothing is left half-changed.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let symbolizer = Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_code_info(true)
            .enable_inlined_fns(true)
            // Done here, with a bound on the result.
            .enable_demangling(false)
            .set_debug_dirs(Some(debug_dirs))
            .build();
        let symbols = symbolizer
            .symbolize(&source::Source::Elf(elf), Input::VirtOffset(addresses))
            .map_err(|error| error.to_string())?;
        Ok(symbols.iter().map(chain).collect())
    }));
    result.unwrap_or_else(|_| Err("the reader of debug information failed".to_owned()))
}

fn chain(symbolized: &Symbolized<'_>) -> Option<Chain> {
    let Symbolized::Sym(symbol) = symbolized else { return None };
    let Sym { name, code_info, inlined, .. } = symbol;
    if code_info.is_none() && inlined.is_empty() {
        // Only an ELF symbol, which `elf_symbols` judges by stricter rules.
        return None;
    }
    let mut chain: Chain = inlined
        .iter()
        .rev()
        .map(|function| activation(&function.name, function.code_info.as_ref()))
        .collect();
    chain.push(activation(name, code_info.as_deref()));
    Some(chain)
}

fn activation(raw_name: &str, place: Option<&CodeInfo<'_>>) -> Activation {
    use std::os::unix::ffi::OsStrExt;
    Activation {
        name: if raw_name.is_empty() { String::new() } else { demangle(raw_name.as_bytes()) },
        file: place.map(|place| name::clean(place.to_path().as_os_str().as_bytes())),
        line: place.and_then(|place| place.line).unwrap_or(0),
    }
}
