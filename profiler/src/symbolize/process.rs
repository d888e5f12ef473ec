//! What is known of each process while it lives, and for a while after: its program images and their mappings.
//!
//! Sources: the kernel's stream of process events, and /proc for processes that were there before the stream. A
//! process has one image per `execve` (and per fork), each with the time it began; a sample belongs to the image that
//! was alive at its own time. Children share their parent's mappings until one of them changes.

use std::{collections::HashMap, io, sync::Arc};

use profiler_common::Comm;

use super::{
    mappings::{Mapping, Mappings, NewMapping},
    maps,
    module::{ModuleKey, Modules},
    process_file,
};
use crate::perf::{clock::monotonic_ns, record::ProcessEvent};

/// Most images of ended processes kept; the oldest are forgotten first.
const MAX_ENDED: usize = 65_536;
/// A process whose sample hit unknown memory is read again at most this often.
const REREAD_INTERVAL_NS: u64 = 1_000_000_000;
/// /proc shows start times in whole ticks of 10 ms; 1 ms more for a million `execve`s.
const START_SLACK_NS: u64 = 11_000_000;

/// Which processes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// All.
    All,
    /// Those found by `scan_existing`, those samples name, and their children.
    Known,
}

/// One program image of one process.
#[derive(Clone, Debug)]
pub struct Image {
    /// `CLOCK_MONOTONIC` when it began; 0 for what was there before.
    since_ns: u64,
    /// When it ended.
    until_ns: Option<u64>,
    /// Command name of the process.
    pub comm: Comm,
    parent: u32,
    mappings: Arc<Mappings>,
    /// When /proc was last read for it; 0: never.
    read_ns: u64,
    /// Number of losses of events that it has been read after.
    generation: u32,
    /// Where all its addresses are, because its mappings could not be read.
    pub unread: Option<ModuleKey>,
    /// The module of its JIT code, once there is some.
    pub jit: Option<ModuleKey>,
}

/// All processes known.
#[derive(Debug)]
pub struct Processes {
    watch: Watch,
    table: HashMap<u32, Vec<Image>>,
    /// Mappings that took the place of others.
    replacements: u64,
    ended: usize,
    generation: u32,
    pruned_generation: u32,
    buffer: Vec<u8>,
}

/// Where an address of a process lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a mapping: its module and the address in it.
    Mapped(ModuleKey, u64),
    /// In no mapping.
    Nowhere,
}

impl Processes {
    /// Knows no process.
    pub fn new(watch: Watch) -> Self {
        Self {
            watch,
            table: HashMap::new(),
            replacements: 0,
            ended: 0,
            generation: 0,
            pruned_generation: 0,
            buffer: Vec::new(),
        }
    }

    /// How many mappings have taken the place of others until now.
    pub const fn replacements(&self) -> u64 {
        self.replacements
    }

    /// Number of processes known, ended ones included.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// Reads a process from /proc, if it is not known yet.
    pub fn ensure(&mut self, pid: u32, modules: &mut Modules) {
        self.ensure_incarnation(pid, 0, modules);
    }

    /// The same for a sample's process: what /proc shows must be the process that was sampled, not a later one of the
    /// same id. `incarnation` is its start time, ns since boot, plus its number of `execve`s; 0: unknown.
    fn ensure_incarnation(&mut self, pid: u32, incarnation: u64, modules: &mut Modules) {
        if self.table.contains_key(&pid) {
            return;
        }
        let mut image = Image::new(0, self.generation);
        let is_same = incarnation == 0
            || process_file::start_ns(pid)
                .is_ok_and(|start| (start..start + START_SLACK_NS).contains(&incarnation));
        if is_same {
            image.read(pid, &mut self.buffer, modules, self.generation);
        } else {
            image.unread = Some(ModuleKey::PROCESS_GONE);
        }
        self.table.insert(pid, vec![image]);
    }

    /// Takes in an event.
    pub fn observe(&mut self, event: &ProcessEvent, modules: &mut Modules) {
        match event {
            ProcessEvent::Mmap { pid, time_ns, start, len, file_offset, path, identity } => {
                if !self.is_wanted(*pid, modules) {
                    return;
                }
                let new = NewMapping {
                    pid: *pid,
                    start: *start,
                    end: start.saturating_add(*len),
                    file_offset: *file_offset,
                    path,
                    identity: identity.as_ref(),
                    time_ns: *time_ns,
                };
                if let Some(image) = self.latest(*pid)
                    && image.add(&new, modules)
                {
                    self.replacements += 1;
                }
            }
            ProcessEvent::Comm { pid, tid, time_ns, comm, exec } => {
                self.comm(*pid, *tid, *time_ns, comm, *exec)
            }
            ProcessEvent::Fork { pid, parent_pid, time_ns, .. } if pid != parent_pid => {
                self.fork(*pid, *parent_pid, *time_ns, modules);
            }
            ProcessEvent::Exit { pid, tid, time_ns } if pid == tid => self.end(*pid, *time_ns),
            ProcessEvent::Lost { .. } => self.generation += 1,
            ProcessEvent::Fork { .. } | ProcessEvent::Exit { .. } | ProcessEvent::KernelSymbol { .. } => {}
        }
    }

    fn is_wanted(&mut self, pid: u32, modules: &mut Modules) -> bool {
        if self.watch == Watch::All {
            self.ensure(pid, modules);
        }
        self.table.contains_key(&pid)
    }

    /// The present image of a process that is known.
    pub fn latest(&mut self, pid: u32) -> Option<&mut Image> {
        self.table.get_mut(&pid)?.last_mut()
    }

    fn comm(&mut self, pid: u32, tid: u32, time_ns: u64, comm: &[u8], exec: bool) {
        let comm = process_file::comm(comm);
        if !exec {
            if tid == pid
                && let Some(image) = self.latest(pid)
            {
                image.comm = comm;
            }
            return;
        }
        if self.watch == Watch::Known && !self.table.contains_key(&pid) {
            return;
        }
        let generation = self.generation;
        let images = self.table.entry(pid).or_default();
        let mut image = Image::new(time_ns, generation);
        image.comm = comm;
        if let Some(old) = images.last_mut() {
            image.parent = old.parent;
            old.end(time_ns);
            if old.read_ns >= time_ns {
                // /proc was read after this execve: what it showed is the new image's, not the old one's.
                old.mappings = Arc::default();
                old.unread = Some(ModuleKey::PROCESS_GONE);
            }
            self.ended += 1;
        }
        images.push(image);
        self.forget_excess();
    }

    fn fork(&mut self, pid: u32, parent_pid: u32, time_ns: u64, modules: &mut Modules) {
        if !self.is_wanted(parent_pid, modules) {
            return;
        }
        let Some(parent) = self.latest(parent_pid) else { return };
        let child = Image {
            since_ns: time_ns,
            until_ns: None,
            parent: parent_pid,
            jit: None,
            mappings: Arc::clone(&parent.mappings),
            ..*parent
        };
        self.end(pid, time_ns);
        self.table.entry(pid).or_default().push(child);
    }

    fn end(&mut self, pid: u32, time_ns: u64) {
        if let Some(image) = self.latest(pid)
            && image.until_ns.is_none()
        {
            image.end(time_ns);
            self.ended += 1;
            self.forget_excess();
        }
    }

    /// The image of a process that was alive at a time.
    pub fn image(
        &mut self,
        pid: u32,
        incarnation: u64,
        at_ns: u64,
        modules: &mut Modules,
    ) -> Option<&mut Image> {
        self.ensure_incarnation(pid, incarnation, modules);
        let generation = self.generation;
        let images = self.table.get_mut(&pid)?;
        let index = images.partition_point(|image| image.since_ns <= at_ns).saturating_sub(1);
        let is_last = index + 1 == images.len();
        let image = images.get_mut(index)?;
        if is_last && image.until_ns.is_some_and(|until| until < at_ns) {
            // Its first thread has ended, and others go on.
            image.until_ns = None;
            self.ended = self.ended.saturating_sub(1);
        }
        if is_last && image.until_ns.is_none() && image.generation != generation {
            // Events were lost since: what was recorded may be out of date.
            image.read(pid, &mut self.buffer, modules, generation);
        }
        Some(image)
    }

    /// Reads the mappings of a process again because a sample hit memory that is not known.
    pub fn reread(&mut self, pid: u32, modules: &mut Modules) -> bool {
        let generation = self.generation;
        let Some(image) = self.table.get_mut(&pid).and_then(|images| images.last_mut()) else { return false };
        if image.until_ns.is_some() || monotonic_ns() < image.read_ns + REREAD_INTERVAL_NS {
            return false;
        }
        image.read(pid, &mut self.buffer, modules, generation);
        true
    }

    /// Forgets images that ended before a time. Call it when all samples older than that have been looked up.
    pub fn forget_ended_before(&mut self, time_ns: u64) {
        if self.pruned_generation != self.generation {
            // Events were lost, ends of processes perhaps among them.
            self.pruned_generation = self.generation;
            for (pid, images) in &mut self.table {
                if let Some(image) = images.last_mut()
                    && !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true)
                {
                    image.end(time_ns);
                }
            }
        }
        self.table.retain(|_, images| {
            images.retain(|image| image.until_ns.is_none_or(|until| until >= time_ns));
            for image in images.iter_mut().filter(|image| image.mappings.has_replaced()) {
                Arc::make_mut(&mut image.mappings).forget_before(time_ns);
            }
            !images.is_empty()
        });
        self.ended = self.table.values().flatten().filter(|image| image.until_ns.is_some()).count();
    }

    /// Ended images are forgotten by time; this bounds them when processes end faster than samples are drained.
    fn forget_excess(&mut self) {
        if self.ended <= MAX_ENDED {
            return;
        }
        let mut ends: Vec<u64> = self.table.values().flatten().filter_map(|image| image.until_ns).collect();
        let middle = ends.len() / 2;
        let (_, median, _) = ends.select_nth_unstable(middle);
        let median = *median;
        self.forget_ended_before(median + 1);
    }
}

impl Image {
    fn new(since_ns: u64, generation: u32) -> Self {
        Self {
            since_ns,
            until_ns: None,
            comm: Comm::default(),
            parent: 0,
            mappings: Arc::default(),
            read_ns: 0,
            generation,
            unread: None,
            jit: None,
        }
    }

    fn end(&mut self, time_ns: u64) {
        self.until_ns.get_or_insert(time_ns);
    }

    /// Takes in what /proc shows now.
    fn read(&mut self, pid: u32, buffer: &mut Vec<u8>, modules: &mut Modules, generation: u32) {
        self.generation = generation;
        self.read_ns = monotonic_ns();
        let time_ns = if self.mappings.iter().next().is_none() { self.since_ns } else { self.read_ns };
        let read = maps::read_executable(pid, buffer, |line| {
            let identity = line.identity();
            let new = NewMapping {
                pid,
                start: line.start,
                end: line.end,
                file_offset: line.file_offset,
                path: line.path,
                identity: identity.as_ref(),
                time_ns,
            };
            self.add(&new, modules);
        });
        // If nothing can be read now, what was known before still is.
        self.unread = match read {
            Err(error) if self.mappings.iter().next().is_none() => Some(match error.kind() {
                io::ErrorKind::PermissionDenied => ModuleKey::NOT_PERMITTED,
                _ => ModuleKey::PROCESS_GONE,
            }),
            _ => None,
        };
        if let Ok(comm) = process_file::read_comm(pid) {
            self.comm = comm;
        }
    }

    /// Whether it takes the place of something.
    fn add(&mut self, new: &NewMapping<'_>, modules: &mut Modules) -> bool {
        let module = new.module(self.parent, modules);
        if module == ModuleKey::ANONYMOUS && self.jit.is_none() {
            // Not at its first sample: a short-lived process is gone by then, and with it the way to its perf map.
            self.jit = Some(modules.jit(new.pid));
        }
        let mapping = Mapping {
            start: new.start,
            end: new.end,
            file_offset: new.file_offset,
            module,
            since_ns: new.time_ns,
        };
        !self.mappings.contains(&mapping) && Arc::make_mut(&mut self.mappings).insert(mapping)
    }

    /// Notes that whoever walks by unwind tables has been told of its mappings.
    pub fn told(&mut self, now_ns: u64) {
        if self.mappings.has_untold() {
            Arc::make_mut(&mut self.mappings).told(now_ns);
        }
    }

    /// Whether a walk that began at a time went by a mapping that was gone ([`Mappings::is_outdated`]).
    pub fn is_outdated(&self, address: u64, at_ns: u64) -> bool {
        self.mappings.is_outdated(address, at_ns)
    }

    /// Its executable mappings, lowest address first.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter()
    }

    /// Where an address lies: an offset in a file or in the vDSO, else the absolute address.
    pub fn place(&self, address: u64, at_ns: u64) -> Place {
        match self.mappings.find(address, at_ns) {
            Some(Mapping { module: module @ (ModuleKey::ANONYMOUS | ModuleKey::KERNEL_MADE), .. }) => {
                Place::Mapped(module, address)
            }
            Some(mapping) => {
                let offset = (address - mapping.start).wrapping_add(mapping.file_offset);
                Place::Mapped(mapping.module, offset)
            }
            None => Place::Nowhere,
        }
    }
}
