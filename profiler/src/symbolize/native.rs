//! Names of one file's code: symbol tables, separate debug file and DWARF put together.

use std::{fs::File, os::fd::OwnedFd, path::Path, path::PathBuf};

use object::elf as constants;

use super::{
    debug_file::{self, DEBUG_DIR},
    demangle::demangle,
    dwarf::{self, Activation, Chain},
    elf_symbols::{self, Answer},
    plt, root,
    unwind::UnwindTable,
};
use crate::{
    elf::{self, Bytes, Headers, Section},
    model::Reason,
};

/// A code address that wants a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Offset in the file (in memory images: ELF virtual address of the image's own code).
    pub offset: u64,
    /// It is the outermost frame of some stack: find out whether it starts threads.
    pub outermost: bool,
}

/// What is known of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The functions active there, innermost inlined one first, or why there is no name.
    pub chain: Result<Chain, Reason>,
    /// It lies in a function that starts threads. Only looked up for outermost frames.
    pub is_root: bool,
}

impl Named {
    /// No name.
    pub const fn unresolved(reason: Reason) -> Self {
        Self { chain: Err(reason), is_root: false }
    }
}

/// A file and what is needed to find its debug file.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The open file.
    pub file: &'a File,
    /// Where the process sees it.
    pub path: &'a Path,
    /// Root of a process that maps it, if it is not ours.
    pub root: Option<&'a OwnedFd>,
    /// Also read source lines and inlined functions, which can take seconds of a large program.
    pub lines: bool,
}

/// Names `wanted` (any order) in a file; one answer each, in the same order.
pub fn name(target: Target<'_>, wanted: &[Wanted]) -> Vec<Named> {
    let bytes = Bytes::File(target.file);
    let headers = match elf::read_headers(bytes) {
        Ok(headers) => headers,
        Err(error) => return vec![Named::unresolved(error.reason()); wanted.len()],
    };
    // A file whose section headers were cut off has no symbols, but is not broken.
    let sections = headers.sections(bytes).unwrap_or_default();
    let addresses: Vec<Option<u64>> = wanted.iter().map(|w| headers.address_of_offset(w.offset)).collect();
    let mut unique: Vec<u64> = addresses.iter().flatten().copied().collect();
    unique.sort_unstable();
    unique.dedup();

    let own = Part { bytes, headers: &headers, sections: &sections };
    let has_lines = dwarf::is_usable(bytes, &headers, &sections);
    let debug = if has_lines {
        None
    } else {
        debug_file::find(target.file, &headers, &sections, target.path, target.root)
    };
    let unwind = UnwindTable::new(bytes, &headers, &sections);
    let mut found = Found::new(unique.len());
    found.symbols(own, &unwind, &unique);
    if has_lines && target.lines {
        found.lines(target.file, &unique);
    }
    if let Some(debug) = &debug {
        found.debug_file(debug, &unwind, &unique, target.lines);
    }
    let file_name = target.path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
    wanted
        .iter()
        .zip(&addresses)
        .map(|(wanted, address)| {
            let Some(address) = *address else { return Named::unresolved(Reason::NoSymbolFound) };
            // Every address is in `unique`, which was made from them.
            let index = unique.binary_search(&address).unwrap_or_default();
            let mut named = found.answer(index);
            if named.chain.is_err()
                && let Some(stub) = plt::name(bytes, &headers, &sections, address)
            {
                named.chain = Ok(vec![Activation { name: demangle_stub(&stub), file: None, line: 0 }]);
            }
            if wanted.outermost && !named.is_root && named.chain.is_err() {
                named.is_root =
                    root::is_nameless_root(bytes, &headers, &sections, &unwind, file_name, address);
            }
            named
        })
        .collect()
}

fn demangle_stub(stub: &[u8]) -> String {
    match stub.strip_suffix(b"@plt") {
        Some(name) => demangle(name) + "@plt",
        None => demangle(stub),
    }
}

/// Names addresses of an ELF image in memory (the vDSO) by its symbols.
pub fn name_in_memory(image: &[u8], wanted: &[Wanted]) -> Vec<Named> {
    let bytes = Bytes::Memory(image);
    let Ok(headers) = elf::read_headers(bytes) else {
        return vec![Named::unresolved(Reason::BadElf); wanted.len()];
    };
    let sections = headers.sections(bytes).unwrap_or_default();
    let mut unique: Vec<u64> = wanted.iter().map(|wanted| wanted.offset).collect();
    unique.sort_unstable();
    unique.dedup();
    let unwind = UnwindTable::new(bytes, &headers, &sections);
    let mut found = Found::new(unique.len());
    found.symbols(Part { bytes, headers: &headers, sections: &sections }, &unwind, &unique);
    wanted
        .iter()
        .map(|wanted| found.answer(unique.binary_search(&wanted.offset).unwrap_or_default()))
        .collect()
}

#[derive(Clone, Copy)]
struct Part<'a> {
    bytes: Bytes<'a>,
    headers: &'a Headers,
    sections: &'a [Section],
}

/// Answers collected from the file and its debug file, by index into the sorted addresses.
struct Found {
    symbols: Vec<Answer>,
    chains: Vec<Option<Chain>>,
    /// A full symbol table (not only exported functions) was read.
    complete: bool,
    failed: bool,
}

impl Found {
    fn new(len: usize) -> Self {
        Self {
            symbols: vec![Answer::NotCovered; len],
            chains: vec![None; len],
            complete: false,
            failed: false,
        }
    }

    fn symbols(&mut self, part: Part<'_>, unwind: &UnwindTable<'_>, addresses: &[u64]) {
        self.complete |= part.sections.iter().any(|s| s.kind == constants::SHT_SYMTAB && s.size > 0);
        match elf_symbols::find(part.bytes, part.headers, part.sections, unwind, addresses) {
            Ok(Some(answers)) => {
                for (slot, answer) in self.symbols.iter_mut().zip(answers) {
                    // The full table comes last and knows better than the exported names.
                    if answer != Answer::NotCovered {
                        *slot = answer;
                    }
                }
            }
            Ok(None) => {}
            Err(_) => self.failed = true,
        }
    }

    fn lines(&mut self, file: &File, addresses: &[u64]) {
        // A file whose debug information cannot be read keeps its symbols.
        if let Ok(chains) = dwarf::find(file, &[PathBuf::from(DEBUG_DIR)], addresses) {
            self.chains = chains;
        }
    }

    fn debug_file(&mut self, file: &File, unwind: &UnwindTable<'_>, addresses: &[u64], lines: bool) {
        let bytes = Bytes::File(file);
        let Ok(headers) = elf::read_headers(bytes) else { return };
        let sections = headers.sections(bytes).unwrap_or_default();
        self.symbols(Part { bytes, headers: &headers, sections: &sections }, unwind, addresses);
        if lines && dwarf::is_usable(bytes, &headers, &sections) {
            self.lines(file, addresses);
        }
    }

    fn answer(&mut self, index: usize) -> Named {
        let symbol = match &self.symbols[index] {
            Answer::Symbol(found) => Some(&found.name),
            Answer::NotCovered => None,
        };
        let chain = self.chains[index].clone();
        let is_root = match (symbol, &chain) {
            (Some(name), _) => root::is_root_name(name),
            (None, Some(chain)) => chain.last().is_some_and(|last| root::is_root_name(last.name.as_bytes())),
            (None, None) => false,
        };
        let chain = match (symbol, chain) {
            (Some(name), Some(mut chain)) => {
                if let Some(last) = chain.last_mut() {
                    last.name = demangle(name);
                }
                Ok(chain)
            }
            (Some(name), None) => Ok(vec![Activation { name: demangle(name), file: None, line: 0 }]),
            (None, Some(chain)) if chain.iter().all(|activation| !activation.name.is_empty()) => Ok(chain),
            _ => Err(match self {
                Self { failed: true, .. } => Reason::SymbolizerFailed,
                Self { complete: true, .. } => Reason::NoSymbolFound,
                _ => Reason::NoSymbols,
            }),
        };
        // An inlined function can lack its name; it still is a frame.
        let chain = chain.map(|mut chain| {
            for activation in chain.iter_mut().filter(|activation| activation.name.is_empty()) {
                activation.name = "[inlined]".to_owned();
            }
            chain
        });
        Named { chain, is_root }
    }
}
