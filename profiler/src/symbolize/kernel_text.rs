//! Kernel text that comes and goes while recording: BPF programs and trampolines, as the kernel's event stream tells.
//!
//! Addresses are reused, so a sample is looked up by its own time. What was there before the recording and still is at
//! its end is named by kallsyms.

use std::collections::{BTreeMap, VecDeque};

use super::module::{Module, ModuleKey, Modules};
use crate::perf::record::ProcessEvent;

/// Most pieces of text that went away and are kept.
const MAX_PAST: usize = 4096;
/// Most pieces known at a time; a busy host has some hundred programs.
const MAX_LIVE: usize = 65_536;

#[derive(Debug)]
struct Piece {
    start: u64,
    len: u64,
    name: Vec<u8>,
    since_ns: u64,
    key: Option<ModuleKey>,
}

impl Piece {
    fn covers(&self, address: u64) -> bool {
        address.checked_sub(self.start).is_some_and(|offset| offset < self.len)
    }

    fn key(&mut self, modules: &mut Modules) -> ModuleKey {
        *self.key.get_or_insert_with(|| modules.add(Module::KernelSymbol(self.name.clone())))
    }
}

/// The pieces known.
#[derive(Debug, Default)]
pub struct KernelText {
    live: BTreeMap<u64, Piece>,
    /// With the time each went, oldest first.
    past: VecDeque<(Piece, u64)>,
}

impl KernelText {
    /// Takes in a [`ProcessEvent::KernelSymbol`]; other events are none of its business.
    pub fn observe(&mut self, event: &ProcessEvent) {
        let ProcessEvent::KernelSymbol { start, len, name, unregistered, time_ns } = event else { return };
        let piece =
            |since_ns| Piece { start: *start, len: u64::from(*len), name: name.clone(), since_ns, key: None };
        if *unregistered {
            // One that was there before the recording is known from now on, for the samples taken until now.
            let known = self.live.remove(start).filter(|known| known.name == *name);
            self.bury(known.unwrap_or_else(|| piece(0)), *time_ns);
        } else if self.live.len() < MAX_LIVE
            && let Some(old) = self.live.insert(*start, piece(*time_ns))
        {
            self.bury(old, *time_ns);
        }
    }

    fn bury(&mut self, piece: Piece, time_ns: u64) {
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        }
        self.past.push_back((piece, time_ns));
    }

    /// The module of an address at a time; [`ModuleKey::KERNEL`] if it is in none of these pieces.
    pub fn find(&mut self, address: u64, at_ns: u64, modules: &mut Modules) -> ModuleKey {
        let live = self.live.range_mut(..=address).next_back().map(|(_, piece)| piece);
        if let Some(piece) = live.filter(|piece| piece.covers(address) && piece.since_ns <= at_ns) {
            return piece.key(modules);
        }
        let was = |(piece, until): &&mut (Piece, u64)| {
            piece.covers(address) && piece.since_ns <= at_ns && at_ns < *until
        };
        match self.past.iter_mut().rev().find(was) {
            Some((piece, _)) => piece.key(modules),
            None => ModuleKey::KERNEL,
        }
    }

    /// Forgets what went before a time.
    pub fn forget_before(&mut self, time_ns: u64) {
        self.past.retain(|(_, until)| *until >= time_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(start: u64, name: &str, unregistered: bool, time_ns: u64) -> ProcessEvent {
        ProcessEvent::KernelSymbol { start, len: 0x100, name: name.into(), unregistered, time_ns }
    }

    fn name(text: &mut KernelText, modules: &mut Modules, address: u64, at_ns: u64) -> Option<String> {
        let key = text.find(address, at_ns, modules);
        match modules.get(key) {
            Module::KernelSymbol(name) => Some(String::from_utf8(name.clone()).unwrap()),
            _ => None,
        }
    }

    #[test]
    fn programs_are_found_by_address_and_time() {
        let (mut text, mut modules) = (KernelText::default(), Modules::new(1));
        text.observe(&event(0x1000, "before", true, 10));
        text.observe(&event(0x1000, "first", false, 20));
        text.observe(&event(0x1000, "first", true, 30));
        text.observe(&event(0x1000, "second", false, 40));
        let mut at = |address, time| name(&mut text, &mut modules, address, time);
        assert_eq!(at(0x1000, 9).as_deref(), Some("before"), "known only from its end");
        assert_eq!(at(0x1000, 15), None);
        assert_eq!(at(0x10ff, 25).as_deref(), Some("first"));
        assert_eq!(at(0x1000, 35), None);
        assert_eq!(at(0x1000, 45).as_deref(), Some("second"));
        assert_eq!(at(0x1100, 45), None, "behind it");
        assert_eq!(at(0xfff, 45), None, "before it");
        text.forget_before(31);
        assert_eq!(name(&mut text, &mut modules, 0x1000, 25), None);
    }
}
