//! Java names from outside: HotSpot's own tables, read in the memory of the process. No agent, no flag; no attach, unless
//! the user allows it for a version that is not known ([`attach`]).
//!
//! | file | question |
//! |---|---|
//! | `attach` | what is the code called that no table tells of: asks the JVM, only if that is allowed |
//! | `open` | which libjvm does a process run, and where are its tables |
//! | `vmstructs` | which fields, sizes and constants does it export |
//! | `layout`, `fields` | where is what is needed, in this version |
//! | `code_cache` | which block of code does an address lie in, which are there |
//! | `blob` | what is in it: compiled method, bridge, interpreter, stub |
//! | `code` | what is told of it: names, lines, how it came to be |
//! | `scopes` | which methods are active at an address, inlined ones included |
//! | `known` | what code was named before, when other code has taken its place |
//! | `method`, `java_names` | name, descriptor, source file and line of a method |
//! | `threads` | what is each Java thread doing, what has it allocated, which monitor does it wait for |
//! | `wait` | what does a thread wait for that blocks in this code |
//! | `objects` | of which class is the object of a monitor, what is a thread called |
//! | `counters` | what does the JVM count of itself |
//! | `unwind_layout` | the numbers that a walk through Java frames needs |
//!
//! Checked with OpenJDK 8, 11, 17, 21, 25, 26 and 27; the layouts of these and those between are told apart by their tables
//! ([`layout`]).
//!
//! The process runs on while it is read. What is read for one address begins and ends with the same code blob (number
//! of the compilation, method, code), else there is no name ([`Fault::Torn`]).
//!
//! Code is freed, and its memory used again, a few milliseconds after its last frame is gone. A frame that was walked by the
//! JVM's own tables says which code it is of (`profiler_common::unwind::java::CodeFrame`) and is named by that code, from
//! the process or from what is [`known`], or not at all ([`Jvm::name_of`]). A plain address is named by what is there now
//! ([`Jvm::name`]): the walk by frame pointers knows no more.
//!
//! Not supported: 32-bit JVMs, OpenJ9, native images of GraalVM, code that JVMCI compilers (Graal) inlined is read by
//! the same tables but was not tested.

pub mod attach;
pub mod blob;
pub mod code;
pub mod code_cache;
pub mod counters;
pub mod fields;
pub mod java_names;
mod known;
pub mod layout;
mod loops;
pub mod method;
pub mod objects;
pub mod open;
pub mod scopes;
pub mod threads;
pub mod unsigned5;
pub mod unwind_layout;
pub mod vmstructs;
pub mod wait;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use profiler_common::unwind::java::CodeId;

use self::{
    blob::{Blob, DebugInfo, Kind, MAX_METADATA},
    code_cache::CodeHeap,
    known::{Key, Known, KnownCode},
    layout::Layout,
    method::Method,
    objects::Objects,
    unwind_layout::UnwindLayout,
    vmstructs::Tables,
};
pub use self::{
    code::{Code, Frame, Listed, Tier},
    counters::Counters,
    threads::JavaThread,
};
use super::memory::{Bounded, Memory, Pages, Unmapped};
use crate::model::name;

/// Most methods kept at a time, a few hundred bytes each.
const MAX_METHODS: usize = 65_536;
/// Most bytes of one compilation that are looked at for loops. The largest seen have some 100 KB.
const MAX_CODE: u64 = 4 << 20;

/// Most bytes read from one refresh to the next; each read counts as 64 more. A list of 60,000 compiled methods takes
/// 160 MB.
pub const MAX_READ: u64 = 256 << 20;

/// Why something cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Memory that should be there is not.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// libjvm does not export what is needed: a version that is not known here.
    #[error("this JVM does not export {0}")]
    Missing(&'static str),
    /// An exported table makes no sense.
    #[error("an exported table of this JVM makes no sense: {0}")]
    Table(&'static str),
    /// Something changed while it was read, or is damaged.
    #[error("changed while it was read: {0}")]
    Torn(&'static str),
    /// The JVM was told to do without.
    #[error("this JVM does not keep {0}")]
    Off(&'static str),
    /// There is no (living) code at that address.
    #[error("no code there")]
    NoCode,
}

/// A running JVM.
#[derive(Debug)]
pub struct Jvm<M> {
    memory: Bounded<M>,
    layout: Layout,
    tables: Tables,
    heaps: Vec<CodeHeap>,
    /// Once it was asked for.
    objects: Option<Result<Objects, Fault>>,
    /// By address of the `Method`; only while nothing else can have come to be there.
    methods: HashMap<u64, Arc<Method>>,
    /// Code that was named.
    known: KnownCode,
}

impl<M: Memory> Jvm<M> {
    /// The JVM in a memory; `symbol` gives the absolute address of a variable that its libjvm exports.
    ///
    /// # Errors
    /// Its version is not known here, or it is not initialized yet.
    pub fn new(memory: M, symbol: impl Fn(&str) -> Option<u64>) -> Result<Self, Fault> {
        let memory = Bounded::new(memory, MAX_READ);
        let tables = Tables::read(&Pages::new(&memory), symbol)?;
        let layout = Layout::new(&tables, &memory)?;
        let heaps = code_cache::read_heaps(&memory, &layout)?;
        Ok(Self {
            memory,
            layout,
            tables,
            heaps,
            objects: None,
            methods: HashMap::new(),
            known: KnownCode::default(),
        })
    }

    /// Takes in how the code cache has grown, and forgets what may have changed. Before each round of names.
    ///
    /// # Errors
    /// The process is gone.
    pub fn refresh(&mut self) -> Result<(), Fault> {
        self.methods.clear();
        self.memory.allow(MAX_READ);
        self.heaps = code_cache::read_heaps(&self.memory, &self.layout)?;
        Ok(())
    }

    /// Major version of the JDK.
    pub const fn major(&self) -> u32 {
        self.layout.major
    }

    /// Its code heaps, as they were at the last `refresh`.
    pub fn heaps(&self) -> &[CodeHeap] {
        &self.heaps
    }

    /// Whether an address lies in memory that is reserved for code.
    pub fn covers(&self, address: u64) -> bool {
        self.heaps.iter().any(|heap| heap.low <= address && address < heap.reserved_high)
    }

    /// The numbers that a walk through Java frames needs.
    ///
    /// # Errors
    /// They are not exported, the JVM is still starting, or the process is gone.
    pub fn layout(&self) -> Result<UnwindLayout, Fault> {
        UnwindLayout::new(&self.memory, &self.tables, &self.layout)
    }

    /// The code that is at an address now: the sampled instruction, or for a caller an address inside its call instruction.
    ///
    /// # Errors
    /// There is none, or it changed while it was read.
    pub fn name(&mut self, address: u64) -> Result<Code, Fault> {
        match self.now_at(address, None) {
            Ok(key) => self.known_name(self.known.get(key), address),
            // Code that was there when it was last named, and is free now, is what was sampled.
            Err(Fault::NoCode) => self.remembered(address, None),
            Err(fault) => Err(fault),
        }
    }

    /// The same of the code that a frame says was there.
    ///
    /// # Errors
    /// It is not there any more and was not named before, or it changed while it was read.
    pub fn name_of(&mut self, id: CodeId, address: u64) -> Result<Code, Fault> {
        if self.known.of(id, address).is_none() {
            self.now_at(address, Some(id))?;
        }
        self.remembered(address, Some(id))
    }

    /// What was known of an address before, without a look at the process, which is gone. `id`: of that code; else of what
    /// was seen there last.
    ///
    /// # Errors
    /// Nothing was.
    pub fn remembered(&self, address: u64, id: Option<CodeId>) -> Result<Code, Fault> {
        let known = match id {
            Some(id) => self.known.of(id, address),
            None => self.known.latest(address),
        };
        self.known_name(known, address)
    }

    /// An interpreted frame: `method` is what the frame has as its `Method`, `bci` the index of its bytecode, if it has
    /// some.
    ///
    /// # Errors
    /// That is no method, or it has no such bytecode.
    pub fn interpreted(&mut self, method: u64, bci: Option<u16>) -> Result<Code, Fault> {
        let found = self.method(method)?;
        let line = match bci {
            // A native method's frame has the place of its first bytecode, of which there is none, once the interpreter
            // has called into the JVM (`InterpreterMacroAssembler::save_bcp`).
            Some(0) if found.code_size == 0 => 0,
            Some(bci) if u32::from(bci) >= found.code_size => return Err(Fault::Torn("a bytecode's index")),
            Some(bci) => found.line(i32::from(bci)),
            None => 0,
        };
        let enters_monitor =
            bci.is_some_and(|bci| wait::enters_monitor(&self.memory, &self.layout, method, &found, bci));
        Ok(Code { frames: vec![Frame::Java(found, line)], tier: Tier::Interpreter, enters_monitor })
    }

    /// All code there is. What is freed or made meanwhile may be missing; `Err` entries are blobs that could not be
    /// read whole.
    ///
    /// # Errors
    /// The process is gone.
    pub fn all_code(&mut self) -> Result<Vec<Result<Listed, Fault>>, Fault> {
        self.refresh()?;
        let heaps = self.heaps.clone();
        let blobs = code_cache::all_blobs(&self.memory, &self.layout, &heaps)?;
        Ok(blobs.into_iter().map(|address| self.listed(&heaps, address)).collect())
    }

    fn listed(&mut self, heaps: &[CodeHeap], address: u64) -> Result<Listed, Fault> {
        let heap = heaps.iter().find(|heap| heap.covers(address)).ok_or(Fault::NoCode)?;
        let blob = Blob::read(&self.memory, &self.layout, heap, address)?;
        let method = blob.compilation().map(|compilation| self.method(compilation.method)).transpose()?;
        if !blob.is_same(&self.memory, &self.layout, heap) {
            return Err(Fault::Torn("a blob"));
        }
        Ok(Listed { tier: Tier::of(blob.kind), method, blob })
    }

    /// The code at an address now, which is known afterwards. `wanted`: other code is none.
    fn now_at(&mut self, address: u64, wanted: Option<CodeId>) -> Result<Key, Fault> {
        let heap = *self.heaps.iter().find(|heap| heap.covers(address)).ok_or(Fault::NoCode)?;
        let at = heap.blob(&self.memory, &self.layout.heap, address)?;
        let blob = Blob::read(&self.memory, &self.layout, &heap, at)?;
        if !blob.covers(address) {
            return Err(Fault::Torn("an address"));
        }
        if wanted.is_some_and(|wanted| wanted != blob.id()) {
            return Err(Fault::Torn("the code at an address"));
        }
        let key = (blob.id(), blob.code_begin);
        if self.known.get(key).is_some_and(|known| known.blob == blob) {
            return Ok(key);
        }
        let known = self.read_known(blob)?;
        if !known.blob.is_same(&self.memory, &self.layout, &heap) {
            return Err(Fault::Torn("a blob"));
        }
        self.known.insert(known);
        Ok(key)
    }

    /// The names of everything in a blob.
    fn read_known(&mut self, blob: Blob) -> Result<Known, Fault> {
        let method = blob.compilation().map(|compilation| self.method(compilation.method)).transpose()?;
        let debug = match blob.kind {
            Kind::Compiled(_) => self.debug_info(&blob)?,
            _ => DebugInfo::default(),
        };
        let mut methods = HashMap::new();
        for index in scopes::methods(&debug.pcs, &debug.data, self.layout.nmethod.unsigned5_base)? {
            let slot = u64::from(index).checked_sub(1).filter(|&slot| slot < MAX_METADATA);
            let slot = slot.ok_or(Fault::Torn("a method's index"))?;
            let address = self.memory.u64(debug.metadata.wrapping_add(8 * slot))?;
            methods.insert(index, self.method(address)?);
        }
        let name = name::clean(&blob.name).into();
        Ok(Known { blob, name, debug, methods, method })
    }

    /// That of a compilation, completed by what its code says.
    fn debug_info(&self, blob: &Blob) -> Result<DebugInfo, Fault> {
        let debug = DebugInfo::read(&self.memory, &self.layout, blob.address)?;
        let bytes = blob.code_end - blob.code_begin;
        if !cfg!(target_arch = "x86_64") || bytes > MAX_CODE {
            return Ok(debug);
        }
        let code = self.memory.bytes(blob.code_begin, bytes as usize)?;
        Ok(DebugInfo { pcs: scopes::with_loops(&debug.pcs, &code), ..debug })
    }

    fn known_name(&self, known: Option<&Known>, address: u64) -> Result<Code, Fault> {
        known.ok_or(Fault::NoCode)?.name(self.layout.nmethod.unsigned5_base, address)
    }

    fn method(&mut self, address: u64) -> Result<Arc<Method>, Fault> {
        if let Some(method) = self.methods.get(&address) {
            return Ok(Arc::clone(method));
        }
        let method = Arc::new(Method::read(&self.memory, &self.layout, address)?);
        if self.methods.len() >= MAX_METHODS {
            self.methods.clear();
        }
        self.methods.insert(address, Arc::clone(&method));
        Ok(method)
    }
}
