//! The maps of the walk by tables: arenas, modules, processes, and the ring of requests.

use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};

use aya::{
    Ebpf,
    maps::{HashMap, IterableMap as _, Map, MapData, RingBuf},
};
use profiler_common::unwind::{
    java::Jvm,
    map::{MAPPINGS, MAX_MODULES, Mapping, Module, PAGES, Process, ROWS, RULES, Request},
};

use super::{
    BpfError,
    arena::{Chunks, Shared},
    stats::map_memory,
};

/// All maps but the ring of requests.
pub struct UnwindMaps {
    /// Rows.
    pub rows: Chunks<u64, u32>,
    /// Rules.
    pub rules: Chunks<u64, u64>,
    /// Pages.
    pub pages: Chunks<u64, u64>,
    /// Mappings.
    pub mappings: Chunks<Mapping, Mapping>,
    /// Modules, by number.
    pub modules: Shared<Module>,
    modules_map: Map,
    processes: HashMap<MapData, u32, Process>,
    jvms: HashMap<MapData, u32, Jvm>,
    /// The last [`Process::version`].
    version: u64,
}

impl UnwindMaps {
    /// Takes the maps out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let modules_map = ebpf.take_map("MODULES").ok_or(BpfError::Missing("MODULES"))?;
        let Map::Array(data) = &modules_map else { return Err(BpfError::Missing("MODULES")) };
        let modules = Shared::map(data.fd().as_fd(), "MODULES", MAX_MODULES)?;
        Ok(Self {
            rows: Chunks::new(ebpf, "ROWS", ROWS)?,
            rules: Chunks::new(ebpf, "RULES", RULES)?,
            pages: Chunks::new(ebpf, "PAGES", PAGES)?,
            mappings: Chunks::new(ebpf, "MAPPINGS", MAPPINGS)?,
            modules,
            modules_map,
            processes: by_process(ebpf, "PROCESSES")?,
            jvms: by_process(ebpf, "JVMS")?,
            version: 0,
        })
    }

    /// Tells the kernel side which mappings a process has, under a new version. `false`: there is no room for another
    /// process.
    pub fn set_process(&mut self, pid: u32, process: Process) -> bool {
        self.version += 1;
        let process = Process { version: self.version, ..process };
        self.processes.insert(pid, process, 0).is_ok()
    }

    /// Makes the kernel side forget a process. It may have done so itself.
    pub fn remove_process(&mut self, pid: u32) {
        _ = self.processes.remove(&pid);
    }

    /// Tells the kernel side how a process's Java code is walked. `false`: there is no room for another JVM.
    pub fn set_jvm(&mut self, pid: u32, jvm: Jvm) -> bool {
        self.jvms.insert(pid, jvm, 0).is_ok()
    }

    /// Makes the kernel side forget that a process is a JVM.
    pub fn remove_jvm(&mut self, pid: u32) {
        // It need not be one.
        _ = self.jvms.remove(&pid);
    }

    /// Kernel memory of the arenas' chunks, bytes: what the budget is for.
    pub fn chunk_memory(&self) -> u64 {
        let chunks =
            self.rows.fds().chain(self.rules.fds()).chain(self.pages.fds()).chain(self.mappings.fds());
        chunks.map(map_memory).sum()
    }

    /// Kernel memory of all, bytes.
    pub fn memory(&self) -> u64 {
        let modules = match &self.modules_map {
            Map::Array(data) => map_memory(data.fd().as_fd()),
            _ => 0,
        };
        let by_process = [self.processes.map(), self.jvms.map()].map(|map| map_memory(map.fd().as_fd()));
        self.chunk_memory() + modules + by_process.iter().sum::<u64>()
    }
}

/// Takes a map by process id out of the object.
fn by_process<V: aya::Pod>(ebpf: &mut Ebpf, map: &'static str) -> Result<HashMap<MapData, u32, V>, BpfError> {
    let taken = ebpf.take_map(map).ok_or(BpfError::Missing(map))?;
    taken.try_into().map_err(|source| BpfError::Map { operation: "open", map, source: Box::new(source) })
}

/// The ring of requests.
pub struct Requests(RingBuf<MapData>);

impl Requests {
    /// Takes the ring out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let ring = ebpf.take_map("REQUESTS").ok_or(BpfError::Missing("REQUESTS"))?;
        let ring = ring.try_into().map_err(|source| BpfError::Map {
            operation: "open",
            map: "REQUESTS",
            source: Box::new(source),
        })?;
        Ok(Self(ring))
    }

    /// Takes the next request out, if there is one.
    pub fn take(&mut self) -> Option<Request> {
        let item = self.0.next()?;
        let bytes: &[u8; size_of::<Request>()] = item.first_chunk()?;
        // SAFETY: a Pod of this size; the copy need not be aligned.
        Some(unsafe { bytes.as_ptr().cast::<Request>().read_unaligned() })
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        map_memory(self.fd())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Requests {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
