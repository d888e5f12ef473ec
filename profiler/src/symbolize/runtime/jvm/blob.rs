//! A code blob: what it is, its code, the shape of its frames; of compiled Java code also which compilation it is and
//! where its debug information is.
//!
//! Source: share/code/codeBlob.hpp, share/code/nmethod.hpp.

use profiler_common::unwind::java::CodeId;

use super::{
    Fault,
    code_cache::CodeHeap,
    layout::{Layout, Metadata, Scopes},
};
use crate::symbolize::runtime::memory::Memory;

/// Longest name of a blob; HotSpot's own buffer for them has 64 bytes.
const MAX_NAME: usize = 128;
/// Most bytes of one nmethod's table of addresses, and of its scopes. The largest seen have some 100 KB.
const MAX_SCOPES: u64 = 8 << 20;
/// Most entries of one nmethod's table of metadata.
pub const MAX_METADATA: u64 = 1 << 20;

/// What a blob holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A compiled Java method.
    Compiled(Compilation),
    /// The bridge from Java to a native method.
    NativeWrapper(Compilation),
    /// The bytecode interpreter.
    Interpreter,
    /// Anything else that the JVM made for itself: adapters, stubs, handlers.
    Stub,
}

/// Which compilation of which method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compilation {
    /// Its number, which is given once (to the 2^31st compilation).
    pub id: i32,
    /// Address of the `Method`.
    pub method: u64,
    /// Tier: 1 to 3 C1, 4 C2, else 0.
    pub level: u8,
    /// Entered in the middle of a loop (on-stack replacement).
    pub osr: bool,
}

/// A code blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its address.
    pub address: u64,
    /// Size with everything, bytes.
    pub size: u64,
    /// HotSpot's name for it, raw: `nmethod`, `Interpreter`, `RuntimeStub - ...`.
    pub name: Vec<u8>,
    /// Address of that.
    pub name_at: u64,
    /// What it holds.
    pub kind: Kind,
    /// First instruction.
    pub code_begin: u64,
    /// Address behind the last instruction.
    pub code_end: u64,
    /// Size of a frame, words.
    pub frame_size: i32,
    /// Distance from `code_begin` from which on the frame is complete, bytes; negative: never.
    pub frame_complete: i32,
}

impl Blob {
    /// Reads the blob at an address of `heap`.
    ///
    /// # Errors
    /// It is no blob, or its code is dead.
    pub fn read(memory: &impl Memory, layout: &Layout, heap: &CodeHeap, address: u64) -> Result<Self, Fault> {
        let fields = &layout.blob;
        let size = fields.size.get(memory, address)?;
        let end = u64::try_from(size).ok().and_then(|size| address.checked_add(size));
        let end = end.filter(|&end| size > 0 && end <= heap.high).ok_or(Fault::Torn("the size of a blob"))?;
        let code_begin = fields.code_begin.get(memory, address)?;
        let code_end = fields.code_end.get(memory, address)?;
        if !(address <= code_begin && code_begin <= code_end && code_end <= end) {
            return Err(Fault::Torn("the code of a blob"));
        }
        let name_at = memory.u64(address.wrapping_add(fields.name))?;
        let name = memory.c_string(name_at, MAX_NAME)?;
        // By name, because only JDK 23 and later have a field for it.
        let kind = match &name[..] {
            b"nmethod" => Kind::Compiled(compilation(memory, layout, address)?),
            b"native nmethod" => Kind::NativeWrapper(compilation(memory, layout, address)?),
            b"Interpreter" => Kind::Interpreter,
            _ => Kind::Stub,
        };
        Ok(Self {
            address,
            size: size as u64,
            name,
            name_at,
            kind,
            code_begin,
            code_end,
            frame_size: fields.frame_size.get(memory, address)? as i32,
            frame_complete: fields.frame_complete.get(memory, address)? as i32,
        })
    }

    /// Whether an address lies in its instructions.
    pub const fn covers(&self, address: u64) -> bool {
        self.code_begin <= address && address < self.code_end
    }

    /// Its compilation, if it has one.
    pub const fn compilation(&self) -> Option<Compilation> {
        match self.kind {
            Kind::Compiled(compilation) | Kind::NativeWrapper(compilation) => Some(compilation),
            Kind::Interpreter | Kind::Stub => None,
        }
    }

    /// Which code it is, as the frames of stacks say it.
    pub fn id(&self) -> CodeId {
        match self.compilation() {
            Some(compilation) => CodeId::compilation(compilation.id as u32),
            None => CodeId::other(self.name_at),
        }
    }

    /// Whether the blob is still there and the same: what was read through it since is then its own.
    pub fn is_same(&self, memory: &impl Memory, layout: &Layout, heap: &CodeHeap) -> bool {
        heap.blob(memory, &layout.heap, self.code_begin).is_ok_and(|address| address == self.address)
            && Self::read(memory, layout, heap, self.address).is_ok_and(|now| now == *self)
    }
}

fn compilation(memory: &impl Memory, layout: &Layout, nmethod: u64) -> Result<Compilation, Fault> {
    let fields = &layout.nmethod;
    let state = fields.state.get(memory, nmethod)?;
    let method = memory.u64(nmethod.wrapping_add(fields.method))?;
    if method == 0 || fields.dead_state.is_some_and(|dead| state >= dead) {
        return Err(Fault::NoCode);
    }
    Ok(Compilation {
        id: fields.compile_id.get(memory, nmethod)? as i32,
        method,
        level: u8::try_from(fields.level.get(memory, nmethod)?).unwrap_or_default(),
        // InvocationEntryBci, the entry of what was compiled as a whole.
        osr: fields.entry_bci.get(memory, nmethod)? != -1,
    })
}

/// The debug information of one nmethod, copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugInfo {
    /// Its table of addresses (`PcDesc`).
    pub pcs: Vec<u8>,
    /// Its scopes.
    pub data: Vec<u8>,
    /// Address of its table of metadata.
    pub metadata: u64,
}

impl DebugInfo {
    /// Reads that of the nmethod at an address.
    ///
    /// # Errors
    /// Its parts make no sense.
    pub fn read(memory: &impl Memory, layout: &Layout, nmethod: u64) -> Result<Self, Fault> {
        let (pcs, data) = match layout.nmethod.scopes {
            Scopes::Inside { data, pcs, end } => {
                let (data, pcs) = (data.get(memory, nmethod)?, pcs.get(memory, nmethod)?);
                (pcs..end.get(memory, nmethod)?, data..pcs)
            }
            Scopes::Immutable { base, size, pcs, data } => {
                let base = memory.u64(nmethod.wrapping_add(base))?;
                let at = |distance: i64| base.wrapping_add(distance as u64);
                let data = at(data.get(memory, nmethod)?);
                (at(pcs.get(memory, nmethod)?)..data, data..at(size.get(memory, nmethod)?))
            }
        };
        let copy = |range: std::ops::Range<u64>| -> Result<Vec<u8>, Fault> {
            let len = range.end.checked_sub(range.start).filter(|&len| len <= MAX_SCOPES);
            Ok(memory.bytes(range.start, len.ok_or(Fault::Torn("debug information"))? as usize)?)
        };
        Ok(Self { pcs: copy(pcs)?, data: copy(data)?, metadata: metadata(memory, layout, nmethod)? })
    }
}

fn metadata(memory: &impl Memory, layout: &Layout, nmethod: u64) -> Result<u64, Fault> {
    let distance = |value: i64| u64::try_from(value).map_err(|_| Fault::Torn("an offset"));
    Ok(match layout.nmethod.metadata {
        Metadata::Inside(metadata) => nmethod.wrapping_add(distance(metadata.get(memory, nmethod)?)?),
        Metadata::InData { data, metadata } => nmethod
            .wrapping_add(distance(data.get(memory, nmethod)?)?)
            .wrapping_add(distance(metadata.get(memory, nmethod)?)?),
        Metadata::Mutable { base, relocations } => {
            memory.u64(nmethod.wrapping_add(base))?.wrapping_add(distance(relocations.get(memory, nmethod)?)?)
        }
    })
}
