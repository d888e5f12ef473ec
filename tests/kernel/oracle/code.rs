//! The mappings of recorded processes, and the unwind information of the files in them.

use std::{collections::HashMap, fs, path::PathBuf, rc::Rc, sync::Arc};

use profiler::{
    elf::{self, Bytes, Headers},
    perf::record::ProcessEvent,
    unwind::{eh_frame, table::Table},
};

/// A file that code was mapped from.
pub struct Code {
    pub name: String,
    pub headers: Headers,
    /// The file.
    image: Vec<u8>,
    /// Ours; `None`: it has no unwind information.
    pub table: Option<Table>,
    /// For the other unwinder.
    pub eh_frame: Option<Part>,
    pub eh_frame_hdr: Option<Part>,
}

/// A section.
#[derive(Clone)]
pub struct Part {
    pub address: u64,
    pub bytes: Arc<[u8]>,
}

impl Code {
    fn read(name: &str, image: Vec<u8>) -> Option<Self> {
        let bytes = Bytes::Memory(&image);
        let headers = elf::read_headers(bytes).ok()?;
        let sections = headers.sections(bytes).ok()?;
        let part = |name: &[u8]| {
            let section = sections.iter().find(|section| section.name == name)?;
            let range = section.offset as usize..(section.offset + section.size) as usize;
            Some(Part { address: section.address, bytes: image.get(range)?.into() })
        };
        Some(Self {
            name: name.to_owned(),
            table: eh_frame::build(bytes).ok().map(|(table, _)| table),
            eh_frame: part(b".eh_frame"),
            eh_frame_hdr: part(b".eh_frame_hdr"),
            headers,
            image,
        })
    }

    /// 8 bytes of code at an ELF virtual address.
    fn word(&self, address: u64) -> Option<u64> {
        let code = self.headers.segments.iter().filter(|segment| segment.executable);
        code.filter_map(|segment| {
            let at = address.checked_sub(segment.address).filter(|at| at + 8 <= segment.file_size)?;
            self.image
                .get((segment.offset + at) as usize..)?
                .first_chunk()
                .map(|raw| u64::from_le_bytes(*raw))
        })
        .next()
    }
}

/// An executable mapping.
#[derive(Clone)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// Address minus ELF virtual address.
    pub bias: u64,
    /// `None`: code that the program made itself.
    pub code: Option<Rc<Code>>,
}

/// The mappings of a process, sorted.
#[derive(Clone, Default)]
pub struct Process {
    pub mappings: Vec<Mapping>,
    /// Counts their changes.
    pub version: u64,
}

impl Process {
    /// The mapping that an address lies in.
    pub fn mapping(&self, address: u64) -> Option<&Mapping> {
        let next = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings[..next].last().filter(|mapping| address < mapping.end)
    }

    /// 8 bytes of code.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mapping = self.mapping(address)?;
        mapping.code.as_ref()?.word(address.wrapping_sub(mapping.bias))
    }

    fn add(&mut self, new: Mapping) {
        self.version += 1;
        // What is mapped over is gone; nothing here maps over a part.
        self.mappings.retain(|old| old.end <= new.start || new.end <= old.start);
        let at = self.mappings.partition_point(|mapping| mapping.start < new.start);
        self.mappings.insert(at, new);
    }
}

/// All processes, and the files that they map.
pub struct Processes {
    /// What is done to each table when it was made.
    damage: fn(&mut Table),
    processes: HashMap<u32, Process>,
    files: HashMap<Vec<u8>, Option<Rc<Code>>>,
}

impl Processes {
    pub fn new(damage: fn(&mut Table)) -> Self {
        Self { damage, processes: HashMap::new(), files: HashMap::new() }
    }

    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    pub fn observe(&mut self, event: &ProcessEvent) {
        match event {
            ProcessEvent::Fork { pid, parent_pid, .. } if pid != parent_pid => {
                let parent = self.processes.get(parent_pid).cloned().unwrap_or_default();
                self.processes.insert(*pid, parent);
            }
            ProcessEvent::Comm { pid, exec: true, .. } => {
                self.processes.insert(*pid, Process::default());
            }
            ProcessEvent::Mmap { pid, start, len, file_offset, path, .. } => {
                let code = self.code(path);
                let address = match &code {
                    // The vDSO's offset is none in a file.
                    Some(_) if path == b"[vdso]" => Some(0),
                    Some(code) => code.headers.address_of_offset(*file_offset),
                    None => Some(0),
                };
                let Some(address) = address else { return };
                let bias = start.wrapping_sub(address);
                let mapping = Mapping { start: *start, end: start + len, bias, code };
                self.processes.entry(*pid).or_default().add(mapping);
            }
            _ => {}
        }
    }

    fn code(&mut self, path: &[u8]) -> Option<Rc<Code>> {
        let name = String::from_utf8_lossy(path).into_owned();
        let damage = self.damage;
        let read = || {
            let image = if name == "[vdso]" {
                profiler::symbolize::vdso::read_own()?
            } else {
                fs::read(PathBuf::from(&name)).ok()?
            };
            let mut code = Code::read(&name, image)?;
            code.table.iter_mut().for_each(damage);
            Some(Rc::new(code))
        };
        self.files.entry(path.to_vec()).or_insert_with(read).clone()
    }
}
