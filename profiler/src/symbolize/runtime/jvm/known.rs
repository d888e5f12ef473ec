//! Code that was named before: by which code it is and where, because other code takes its place when it is freed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use profiler_common::unwind::java::CodeId;

use super::{
    Code, Fault, Frame, Tier,
    blob::{Blob, DebugInfo},
    method::Method,
    scopes,
};

/// Most bytes of debug information kept of code that was named.
const MAX_BYTES: usize = 64 << 20;

/// Which code, and its first address.
pub type Key = (CodeId, u64);

/// Everything that names an address of one blob, so that the process is not needed for the next one.
#[derive(Debug)]
pub struct Known {
    /// The blob.
    pub blob: Blob,
    /// Its cleaned name.
    pub name: Arc<str>,
    /// Its debug information.
    pub debug: DebugInfo,
    /// By index in the table of metadata.
    pub methods: HashMap<u32, Arc<Method>>,
    /// The compiled one.
    pub method: Option<Arc<Method>>,
}

impl Known {
    /// The names at an address of the blob. `base`: least byte of compressed numbers.
    ///
    /// # Errors
    /// It is none, or the debug information makes no sense.
    pub fn name(&self, base: u8, address: u64) -> Result<Code, Fault> {
        let tier = Tier::of(self.blob.kind);
        let Some(method) = &self.method else {
            return Ok(Code {
                frames: vec![Frame::Made(Arc::clone(&self.name))],
                tier,
                enters_monitor: false,
            });
        };
        let offset = address.checked_sub(self.blob.code_begin).and_then(|offset| u32::try_from(offset).ok());
        let offset = offset.ok_or(Fault::Torn("an address"))?;
        let scopes = scopes::at(&self.debug.pcs, &self.debug.data, base, offset)?;
        let mut frames = Vec::with_capacity(scopes.len().max(1));
        for scope in &scopes {
            let method = self.methods.get(&scope.method).ok_or(Fault::Torn("a scope"))?;
            frames.push(Frame::Java(Arc::clone(method), method.line(scope.bci)));
        }
        // The outermost scope is the compiled method's own.
        let outermost = scopes.last().and_then(|scope| self.methods.get(&scope.method));
        match outermost {
            None => frames.push(Frame::Java(Arc::clone(method), 0)),
            Some(outermost) if **outermost == **method => {}
            Some(_) => return Err(Fault::Torn("a scope")),
        }
        Ok(Code { frames, tier, enters_monitor: false })
    }

    /// Where it is kept.
    pub fn key(&self) -> Key {
        (self.blob.id(), self.blob.code_begin)
    }

    fn bytes(&self) -> usize {
        // A rough size for the rest.
        256 + self.debug.pcs.len() + self.debug.data.len() + 64 * self.methods.len()
    }
}

/// All that is known, bounded: beyond it all is forgotten.
#[derive(Debug, Default)]
pub struct KnownCode {
    all: BTreeMap<Key, Known>,
    /// Which code was seen last at an address, by its first one.
    latest: BTreeMap<u64, CodeId>,
    bytes: usize,
}

impl KnownCode {
    /// What is kept there.
    pub fn get(&self, key: Key) -> Option<&Known> {
        self.all.get(&key)
    }

    /// That code, if it was at that address.
    pub fn of(&self, id: CodeId, address: u64) -> Option<&Known> {
        let (_, known) = self.all.range((id, 0)..=(id, address)).next_back()?;
        known.blob.covers(address).then_some(known)
    }

    /// The code that was seen last at an address.
    pub fn latest(&self, address: u64) -> Option<&Known> {
        let (&first, &id) = self.latest.range(..=address).next_back()?;
        self.get((id, first)).filter(|known| known.blob.covers(address))
    }

    /// Keeps some more.
    pub fn insert(&mut self, known: Known) {
        if self.bytes > MAX_BYTES {
            *self = Self::default();
        }
        let (id, first) = known.key();
        let end = known.blob.code_end;
        // What it overlaps is gone from there.
        let covers =
            |begin: u64, id: CodeId| self.all.get(&(id, begin)).is_none_or(|old| old.blob.code_end > first);
        let overlapped: Vec<u64> = self
            .latest
            .range(..end)
            .rev()
            .map_while(|(&begin, &id)| covers(begin, id).then_some(begin))
            .collect();
        for begin in overlapped {
            self.latest.remove(&begin);
        }
        self.latest.insert(first, id);
        self.bytes += known.bytes();
        if let Some(old) = self.all.insert((id, first), known) {
            self.bytes -= old.bytes();
        }
    }
}
