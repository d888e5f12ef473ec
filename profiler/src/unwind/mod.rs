//! Tables and mappings for the walk of user stacks in the kernel (`profiler-ebpf/src/unwind`): made, placed, kept
//! current.
//!
//! - [`eh_frame`]: from `.eh_frame` to a [`table::Table`] of rows and rules; [`builder`]: the threads that do it;
//!   [`cache`]: tables that took long to make, on disk.
//! - [`tables`]: what is in the kernel, in a budget of memory; [`space`]: its places.
//! - [`Unwinder`]: which process has which mappings, which file which table.
//!
//! Nothing is loaded ahead of need. The kernel side asks ([`Request`]) when a process that passes the filter executes a
//! program, is sampled and not known, or is hit where it has no known mapping. The answer names the process's incarnation,
//! and the kernel side uses it for no other one: an answer that comes too late is of no use and does no harm. Mappings that
//! appear later are told as they come. A table is made once for each file, and is used by all processes that map it.

pub mod builder;
pub mod cache;
pub mod eh_frame;
pub mod rules;
pub mod space;
pub mod table;
pub mod tables;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
};

use profiler_common::unwind::{
    java::Jvm,
    map::{Ask, JAVA, MAPPINGS, MAX_MODULES, Mapping, NO_MODULE, Request, State},
};

use self::{
    builder::{Builder, Built, Job, Source},
    eh_frame::TableError,
    space::Span,
    tables::{Placing, Tables},
};
use crate::{
    bpf::{BpfError, unwind::UnwindMaps},
    elf::Headers,
    perf::clock::monotonic_ns,
};

/// A process that cannot be looked at is asked for again after this time, ns.
const RETRY_NS: u64 = 1_000_000_000;

/// A file, by a number that the caller gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// What is in a range of executable memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A file, or the vDSO, from an offset in it on.
    File {
        /// Which.
        file: FileId,
        /// Offset of the range's first byte.
        offset: u64,
    },
    /// What the program made itself.
    Anonymous,
    /// A code heap of a JVM that the kernel side has been told of ([`Unwinder::set_jvm`]).
    Java,
}

/// A range of executable memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// What is there.
    pub code: Code,
}

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Where it can be read.
    pub source: Source,
    /// Its headers.
    pub headers: Headers,
}

/// What is known of a file.
struct Module {
    /// Its number for the kernel side.
    number: u32,
    /// `None`: it could not be opened.
    headers: Option<Headers>,
}

/// What the kernel side was told of a process.
struct Known {
    incarnation: u64,
    span: Span,
    hash: u64,
}

/// What making and keeping tables took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tables in the kernel.
    pub tables: u64,
    /// Kernel memory of tables and mappings, bytes.
    pub bytes: u64,
    /// Time that making them took, all together, ns.
    pub built_ns: u64,
    /// Tables that had to make room for others.
    pub evicted: u64,
    /// Files whose tables could not be made.
    pub failed: u64,
    /// Files or processes for which there was no room.
    pub without_room: u64,
}

/// Keeps the kernel side supplied.
pub struct Unwinder {
    tables: Tables,
    builder: Builder,
    files: HashMap<FileId, Module>,
    by_number: Vec<FileId>,
    /// The number of all files that cannot be opened or are too many.
    unavailable: u32,
    /// Modules whose tables found no room.
    waiting: Vec<u32>,
    processes: HashMap<u32, Known>,
    jvms: HashMap<u32, Jvm>,
    stats: Stats,
}

/// A failure to set the walk up.
#[derive(Debug, thiserror::Error)]
pub enum UnwindError {
    /// Its maps.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The thread that makes tables.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// The answer to "open this file".
pub type Open<'a> = dyn FnMut(FileId) -> Option<Opened> + 'a;

impl Unwinder {
    /// Knows nothing yet. `budget`: kernel memory for tables and mappings, bytes.
    pub fn new(maps: UnwindMaps, budget: u64) -> Result<Self, UnwindError> {
        let mut tables = Tables::new(maps, budget)?;
        let unavailable = tables.add_module().unwrap_or(NO_MODULE);
        tables.set_state(unavailable, State::Unavailable);
        Ok(Self {
            tables,
            builder: Builder::start().map_err(UnwindError::Thread)?,
            files: HashMap::new(),
            by_number: vec![FileId(u32::MAX)],
            unavailable,
            waiting: Vec::new(),
            processes: HashMap::new(),
            jvms: HashMap::new(),
            stats: Stats::default(),
        })
    }

    /// Whether the kernel side knows mappings of a process.
    pub fn knows(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Which incarnation of it.
    pub fn incarnation(&self, pid: u32) -> Option<u64> {
        self.processes.get(&pid).map(|known| known.incarnation)
    }

    /// Tells the kernel side the executable memory of a process, sorted by address. `false`: it knew exactly this.
    pub fn set_process(
        &mut self,
        pid: u32,
        incarnation: u64,
        ranges: &[Range],
        open: &mut Open<'_>,
    ) -> Result<bool, BpfError> {
        let most = MAPPINGS.chunk_len() as usize - 1;
        let mappings: Vec<Mapping> =
            ranges.iter().take(most).map(|range| self.mapping(range, open)).collect();
        self.stats.without_room += u64::from(ranges.len() > most);
        if mappings.is_empty() {
            self.forget(pid);
            self.tables.set_unknown(pid, incarnation, monotonic_ns().saturating_add(RETRY_NS));
            return Ok(false);
        }
        let hash = hash(&mappings);
        let old = self.processes.get(&pid);
        if old.is_some_and(|old| old.incarnation == incarnation && old.hash == hash) {
            return Ok(false);
        }
        let Some(span) = self.tables.set_process(pid, incarnation, &mappings, now())? else {
            self.stats.without_room += 1;
            self.tables.set_unknown(pid, incarnation, monotonic_ns().saturating_add(RETRY_NS));
            return Ok(false);
        };
        if let Some(old) = self.processes.insert(pid, Known { incarnation, span, hash }) {
            self.tables.give_back_mappings(old.span);
        }
        Ok(true)
    }

    /// Tells the kernel side how the Java code of a process is walked, before its mappings say which it is. `false`: there
    /// is no room for another JVM.
    pub fn set_jvm(&mut self, pid: u32, jvm: Jvm) -> bool {
        if self.jvms.get(&pid) == Some(&jvm) {
            return true;
        }
        let is_there = self.tables.set_jvm(pid, jvm);
        self.stats.without_room += u64::from(!is_there);
        if is_there {
            self.jvms.insert(pid, jvm);
        }
        is_there
    }

    /// Has the tables of these ranges made.
    pub fn prepare(&mut self, ranges: &[Range], open: &mut Open<'_>) {
        for range in ranges {
            self.mapping(range, open);
        }
    }

    /// Tells the kernel side of a process what it was told already. `false`: it is not known.
    pub fn tell_again(&mut self, pid: u32) -> bool {
        self.tell_known(pid, 0)
    }

    /// The kernel side is not to ask for a process for a while: there is nothing that it has not been told.
    pub fn put_off(&mut self, pid: u32) {
        self.tell_known(pid, monotonic_ns().saturating_add(RETRY_NS));
    }

    fn tell_known(&mut self, pid: u32, ask_after_ns: u64) -> bool {
        let Some(known) = self.processes.get(&pid) else { return false };
        self.tables.tell_again(pid, known.incarnation, known.span, ask_after_ns);
        true
    }

    fn mapping(&mut self, range: &Range, open: &mut Open<'_>) -> Mapping {
        let Range { start, end, code } = *range;
        let (module, bias) = match code {
            Code::Anonymous => (NO_MODULE, 0),
            Code::Java => (JAVA, 0),
            Code::File { file, offset } => {
                let unavailable = self.unavailable;
                let module = self.module(file, open);
                let address = module.headers.as_ref().and_then(|headers| headers.address_of_offset(offset));
                address.map_or((unavailable, 0), |address| (module.number, start.wrapping_sub(address)))
            }
        };
        Mapping { start, end, bias, module, padding: 0 }
    }

    /// The module of a file. If it is new, its table is asked for.
    fn module(&mut self, file: FileId, open: &mut Open<'_>) -> &Module {
        let Self { files, tables, builder, by_number, unavailable, stats, .. } = self;
        files.entry(file).or_insert_with(|| {
            let Some(opened) = open(file) else {
                stats.failed += 1;
                return Module { number: *unavailable, headers: None };
            };
            let Some(number) = tables.add_module() else {
                stats.without_room += 1;
                return Module { number: *unavailable, headers: None };
            };
            by_number.push(file);
            builder.want(Job { module: number, source: opened.source });
            Module { number, headers: Some(opened.headers) }
        })
    }

    /// A process ended, or executes another program.
    pub fn forget(&mut self, pid: u32) {
        if let Some(known) = self.processes.remove(&pid) {
            self.tables.remove_process(pid);
            self.tables.give_back_mappings(known.span);
        }
        if self.jvms.remove(&pid).is_some() {
            self.tables.remove_jvm(pid);
        }
    }

    /// Forgets the processes that are gone: events that told of their ends may have been lost.
    pub fn forget_gone(&mut self, is_there: impl Fn(u32) -> bool) {
        let gone: Vec<u32> = self.processes.keys().copied().filter(|&pid| !is_there(pid)).collect();
        gone.into_iter().for_each(|pid| self.forget(pid));
    }

    /// A sample needed a table that had made room: it is made again.
    pub fn want_again(&mut self, request: &Request, open: &mut Open<'_>) {
        let number = request.module;
        if request.ask != Ask::Evicted as u32 || self.tables.is_placed(number) {
            return;
        }
        let Some(&file) = self.by_number.get(number as usize) else { return };
        self.tables.set_state(number, State::Loading);
        match open(file) {
            Some(opened) => self.builder.want(Job { module: number, source: opened.source }),
            None => {
                self.stats.failed += 1;
                self.tables.set_state(number, State::Unavailable);
            }
        }
    }

    /// Waits for the next table. `None`: no further one will come.
    pub async fn next_table(&mut self) -> Option<Built> {
        self.builder.next().await
    }

    /// Takes in a table.
    pub fn add_table(&mut self, built: Built) -> Result<(), BpfError> {
        self.stats.built_ns += built.took_ns;
        let number = built.module;
        match built.table {
            Ok(table) => {
                let state = if built.is_sparse { State::TableOrFramePointer } else { State::Table };
                if self.tables.place(number, &table, state, now())? == Placing::NoRoom {
                    self.stats.without_room += 1;
                    self.tables.set_state(number, State::Unavailable);
                    self.waiting.push(number);
                }
            }
            Err(TableError::NoInformation) => self.tables.set_state(number, State::FramePointer),
            Err(error) => {
                log::debug!("no unwind table of module {number}: {error}");
                self.stats.failed += 1;
                self.tables.set_state(number, State::Unavailable);
            }
        }
        Ok(())
    }

    /// A window ended: every program that ran before has ended too.
    pub fn window_ended(&mut self) {
        self.tables.release();
        if !self.waiting.is_empty() && self.tables.can_evict(now()) {
            for number in std::mem::take(&mut self.waiting) {
                self.tables.set_state(number, State::Evicted);
            }
        }
    }

    /// What it took until now.
    pub fn stats(&self) -> Stats {
        Stats {
            tables: self.tables.placed() as u64,
            bytes: self.tables.chunk_bytes(),
            evicted: self.tables.evicted(),
            ..self.stats
        }
    }

    /// Whether so many files were met that there are numbers for few more: code of others would be walked by frame pointers.
    pub const fn is_worn(&self) -> bool {
        self.by_number.len() > MAX_MODULES / 4 * 3
    }

    /// Kernel memory of all maps, bytes.
    pub fn memory(&self) -> u64 {
        self.tables.memory()
    }
}

fn hash(mappings: &[Mapping]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for mapping in mappings {
        (mapping.start, mapping.end, mapping.bias, mapping.module).hash(&mut hasher);
    }
    hasher.finish()
}

/// Now, in units of `profiler_common::unwind::map::Module::used`.
fn now() -> u32 {
    (monotonic_ns() >> 30) as u32
}
