//! Finding the JVM of a process: its libjvm among the mappings, and where that exports its tables.
//!
//! The library is opened as all modules are (`symbolize::open`): through the mapping itself, so that containers,
//! chroots and deleted files do not matter.

use std::{collections::HashMap, fs::File, io};

use super::{
    Fault, Jvm, objects,
    vmstructs::{SYMBOLS, Tables},
};
use crate::{
    elf::{self, Bytes, ElfError},
    model::Reason,
    perf::record::FileIdentity,
    symbolize::{
        elf_symbols, maps,
        open::{self, Mapped},
        runtime::memory::ProcessMemory,
    },
};

/// The file name that the library has in every JDK.
pub const LIBRARY: &[u8] = b"libjvm.so";

/// Why a process's JVM cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It maps no libjvm.
    #[error("no libjvm.so is mapped: not a JVM, or not HotSpot")]
    NoJvm,
    /// Its mappings cannot be read.
    #[error("mappings: {0}")]
    Process(#[source] io::Error),
    /// Its memory may not be read.
    #[error("memory: {0}")]
    Memory(#[source] io::Error),
    /// The library cannot be opened.
    #[error("libjvm.so: {}", .0.words())]
    Library(Reason),
    /// It is no ELF file that can be read.
    #[error("libjvm.so: {0}")]
    Elf(#[from] ElfError),
    /// A 32-bit JVM, or one of another byte order.
    #[error("libjvm.so: not of this machine's word size and byte order")]
    Foreign,
    /// It is not HotSpot's.
    #[error("libjvm.so exports no {0}: not HotSpot")]
    NotHotSpot(&'static str),
    /// Its tables are of no known version; or it is starting, and they are not there yet: while the dynamic linker is at
    /// work, they can be anything.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A mapping of libjvm's code.
struct Mapping {
    start: u64,
    end: u64,
    file_offset: u64,
    path: Vec<u8>,
    identity: FileIdentity,
}

/// The library of a JVM, opened.
pub struct Library {
    /// The file.
    pub file: File,
    /// Where its code is mapped.
    start: u64,
    /// Which part of the file that is.
    file_offset: u64,
}

/// Opens the library of a process's JVM.
///
/// # Errors
/// It has none, or it cannot be opened.
pub fn library(pid: u32) -> Result<Library, OpenError> {
    let mapping = find(pid).map_err(OpenError::Process)?.ok_or(OpenError::NoJvm)?;
    let Mapping { start, end, file_offset, .. } = mapping;
    let (path, identity) = (&mapping.path, &mapping.identity);
    let file =
        open::mapped(Mapped { pid, parent: 0, start, end, path, identity }).map_err(OpenError::Library)?;
    Ok(Library { file, start, file_offset })
}

/// Opens the JVM of a process.
///
/// # Errors
/// It has none, or it cannot be read.
pub fn open(pid: u32) -> Result<Jvm<ProcessMemory>, OpenError> {
    let (memory, symbols) = exports(pid)?;
    Ok(Jvm::new(memory, |name| symbols.get(name).copied())?)
}

/// Whether a process's JVM has a flag set, by the JVM's own table of flags.
///
/// # Errors
/// As [`open`], or that there is no such flag.
pub fn flag(pid: u32, name: &'static str) -> Result<bool, OpenError> {
    let (memory, symbols) = exports(pid)?;
    let tables = Tables::read(&memory, |name| symbols.get(name).copied())?;
    let [flag] = objects::flags(&memory, &tables, [name])?;
    flag.ok_or(OpenError::Fault(Fault::Missing(name)))
}

/// The memory of a process, and the absolute addresses in it of the variables ([`SYMBOLS`]) that its libjvm exports.
///
/// # Errors
/// As [`open`].
pub fn exports(pid: u32) -> Result<(ProcessMemory, HashMap<&'static str, u64>), OpenError> {
    let library = library(pid)?;
    let memory = ProcessMemory::open(pid).map_err(OpenError::Memory)?;
    let bytes = Bytes::File(&library.file);
    let headers = elf::read_headers(bytes)?;
    if !headers.layout.is_64 || headers.layout.big_endian != cfg!(target_endian = "big") {
        return Err(OpenError::Foreign);
    }
    let sections = headers.sections(bytes)?;
    let address = headers.address_of_offset(library.file_offset).ok_or(ElfError::Malformed("segments"))?;
    let bias = library.start.wrapping_sub(address);
    let names = SYMBOLS.map(str::as_bytes);
    let found = elf_symbols::addresses(bytes, &headers, &sections, &names);
    let absolute = |(name, address): (&'static str, Option<u64>)| {
        Ok((name, address.ok_or(OpenError::NotHotSpot(name))?.wrapping_add(bias)))
    };
    let symbols = SYMBOLS.into_iter().zip(found).map(absolute).collect::<Result<_, OpenError>>()?;
    Ok((memory, symbols))
}

fn find(pid: u32) -> io::Result<Option<Mapping>> {
    let mut found = None;
    maps::read_executable(pid, &mut Vec::new(), |line| {
        let path = open::without_deleted(line.path);
        let is_library = path.rsplit(|&byte| byte == b'/').next() == Some(LIBRARY);
        if let Some(identity) = line.identity().filter(|_| is_library && found.is_none()) {
            found = Some(Mapping {
                start: line.start,
                end: line.end,
                file_offset: line.file_offset,
                path: line.path.to_vec(),
                identity,
            });
        }
    })?;
    Ok(found)
}
