//! What a JVM counts of itself: collections, safepoints, compilations, classes, the heap. The same numbers that
//! `jcmd PID PerfCounter.print` shows, read where they are kept, so that no file of the process is looked for.
//!
//! Source: share/runtime/perfMemory.hpp (`PerfDataPrologue`, `PerfDataEntry`; version 2 from JDK 5 to 27). They are in memory
//! unless the JVM was started with `-XX:-UsePerfData`. A JVM in a container, or one that keeps them out of its file
//! (`-XX:+PerfDisableSharedMem`), has them at the same place.

use std::collections::HashMap;

use super::{Fault, Jvm, MAX_READ, java_names, vmstructs::Tables};
use crate::symbolize::runtime::memory::Memory;

/// Most bytes: `PerfDataMemorySize` is 32 or 64 KiB, and can be set to 1 MiB at most.
const MAX_BYTES: u64 = 1 << 20;
/// `PerfDataPrologue`: magic number, byte order, version, bytes in use, overflow, time, offset and number of entries.
const PROLOGUE: usize = 32;
/// `PerfDataEntry` without what it leads to.
const ENTRY: usize = 20;
/// The first bytes, in this order on all machines.
const MAGIC: [u8; 4] = [0xca, 0xfe, 0xc0, 0xc0];
/// The only version there is.
const VERSION: u8 = 2;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A text, cleaned.
    Text(String),
}

/// All of them, by name: `sun.gc.collector.0.invocations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(HashMap<String, Value>);

impl Counters {
    /// Reads them. What the JVM adds meanwhile may be missing.
    ///
    /// # Errors
    /// It keeps none, or what is there is not what it should be.
    pub(super) fn read(memory: &impl Memory, tables: &Tables) -> Result<Self, Fault> {
        const START: &str = "PerfMemory::_start";
        const END: &str = "PerfMemory::_end";
        let at = |name: &'static str| -> Result<u64, Fault> {
            Ok(memory.u64(tables.address(name).ok_or(Fault::Missing(name))?)?)
        };
        let (start, end) = (at(START)?, at(END)?);
        if start == 0 {
            return Err(Fault::Off("its counters (-XX:-UsePerfData)"));
        }
        let len = end.checked_sub(start).filter(|&len| (PROLOGUE as u64..=MAX_BYTES).contains(&len));
        Self::parse(&memory.bytes(start, len.ok_or(Fault::Torn("the counters"))? as usize)?)
    }

    /// The counters in such memory.
    ///
    /// # Errors
    /// It is none.
    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let torn = || Fault::Torn("the counters");
        let half = |at: usize| -> Option<usize> {
            let bytes = bytes.get(at..at.checked_add(4)?)?;
            usize::try_from(i32::from_ne_bytes(bytes.try_into().ok()?)).ok()
        };
        let byte_order = u8::from(cfg!(target_endian = "little"));
        if bytes.get(..4) != Some(&MAGIC) || bytes.get(4..6) != Some(&[byte_order, VERSION]) {
            return Err(torn());
        }
        let mut at = half(24).ok_or_else(torn)?;
        let entries = half(28).ok_or_else(torn)?;
        let mut counters = HashMap::new();
        // An entry that another thread is just adding is behind all others.
        for _ in 0..entries.min(bytes.len() / ENTRY) {
            let Some(len) = half(at).filter(|&len| len >= ENTRY) else { break };
            let Some(entry) = at.checked_add(len).and_then(|end| bytes.get(at..end)) else { break };
            if let Some((name, value)) = value(entry) {
                counters.insert(name, value);
            }
            at += len;
        }
        Ok(Self(counters))
    }

    /// A number that cannot be negative.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            Value::Text(_) => None,
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Value::Text(text) => Some(text),
            Value::Number(_) => None,
        }
    }

    /// A time, which is counted in ticks, in ns.
    pub fn ns(&self, name: &str) -> Option<u64> {
        let per_second = self.number("sun.os.hrt.frequency").filter(|&per_second| per_second != 0)?;
        let ns = u128::from(self.number(name)?) * 1_000_000_000 / u128::from(per_second);
        u64::try_from(ns).ok()
    }
}

impl<M: Memory> Jvm<M> {
    /// What it counts of itself.
    ///
    /// # Errors
    /// It keeps no counters, or the process is gone.
    pub fn counters(&self) -> Result<Counters, Fault> {
        self.memory.allow(MAX_READ);
        Counters::read(&self.memory, &self.tables)
    }
}

/// Name and value of an entry; `None`: it is no number and no text.
fn value(entry: &[u8]) -> Option<(String, Value)> {
    let half = |at: usize| Some(i32::from_ne_bytes(entry.get(at..at + 4)?.try_into().ok()?));
    let offset = |at: usize| usize::try_from(half(at)?).ok();
    let before_nul = |bytes: &[u8]| match bytes.split(|&byte| byte == 0).next()? {
        [] => Some(String::new()),
        text => Some(java_names::clean(text)),
    };
    let name = before_nul(entry.get(offset(4)?..)?)?;
    let data = entry.get(offset(16)?..)?;
    let value = match (entry.get(12)?, half(8)?) {
        // A jlong, and no vector of them.
        (b'J', 0) => Value::Number(i64::from_ne_bytes(*data.first_chunk()?)),
        (b'B', len) => Value::Text(before_nul(data.get(..usize::try_from(len).ok()?)?)?),
        _ => return None,
    };
    Some((name, value))
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Such memory, with these numbers and texts.
    pub fn made(numbers: &[(&str, i64)], texts: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = vec![0xca, 0xfe, 0xc0, 0xc0, u8::from(cfg!(target_endian = "little")), 2, 0, 1];
        bytes.resize(24, 0);
        let count = (numbers.len() + texts.len()) as i32;
        bytes.extend([PROLOGUE as i32, count].map(i32::to_ne_bytes).concat());
        let mut put = |name: &str, kind: u8, vector: usize, data: &[u8]| {
            let at = (ENTRY + name.len() + 1).next_multiple_of(8);
            let len = (at + data.len()).next_multiple_of(8);
            let mut entry = [len as i32, ENTRY as i32, vector as i32].map(i32::to_ne_bytes).concat();
            entry.extend([kind, 0, 0, 0]);
            entry.extend((at as i32).to_ne_bytes());
            entry.extend(name.as_bytes());
            entry.resize(at, 0);
            entry.extend(data);
            entry.resize(len, 0);
            bytes.extend(entry);
        };
        numbers.iter().for_each(|(name, number)| put(name, b'J', 0, &number.to_ne_bytes()));
        texts.iter().for_each(|(name, text)| put(name, b'B', text.len() + 1, format!("{text}\0").as_bytes()));
        bytes
    }

    fn some() -> Vec<u8> {
        made(
            &[("sun.os.hrt.frequency", 2_000_000_000), ("sun.rt.safepointTime", 500), ("negative", -1)],
            &[("sun.gc.lastCause", "G1 Evacuation\u{1b}[m Pause"), ("empty", "")],
        )
    }

    #[test]
    fn numbers_and_texts_have_names() {
        let counters = Counters::parse(&some()).unwrap();
        assert_eq!(counters.ns("sun.rt.safepointTime"), Some(250));
        assert_eq!((counters.number("negative"), counters.number("other")), (None, None));
        let cause = counters.text("sun.gc.lastCause").unwrap();
        assert!(cause.starts_with("G1 Evacuation") && !cause.contains('\u{1b}'), "{cause}");
        assert_eq!((counters.text("empty"), counters.text("sun.rt.safepointTime")), (Some(""), None));
    }

    #[test]
    fn what_is_no_such_memory_is_refused() {
        for (at, byte) in [(0, 0), (4, 7), (5, 1), (24, 0xff)] {
            let mut bytes = some();
            bytes[at] = byte;
            let found = Counters::parse(&bytes);
            assert!(found.as_ref().is_err() || found == Ok(Counters::default()), "{at}: {found:?}");
        }
        assert!(Counters::parse(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..40)) {
            let mut bytes = some();
            for (at, byte) in changes {
                let len = bytes.len();
                bytes[at % len] = byte;
            }
            _ = Counters::parse(&bytes);
        }
    }
}
