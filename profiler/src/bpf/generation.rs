//! Two generations of an aggregating hash map behind one map-in-map slot, drained without loss.
//!
//! The kernel side always writes to the map in slot 0. Replacing the slot returns only after every program that could
//! still hold the old map has ended (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c), so what is then read is complete.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::{
    Ebpf, Pod,
    maps::{ArrayOfMaps, HashMap, MapData},
};

use super::{BpfError, batch, inner};

/// A pair of hash maps, one of them current.
pub struct Generations<K, V> {
    name: &'static str,
    slot: ArrayOfMaps<MapData, HashMap<MapData, K, V>>,
    maps: [HashMap<MapData, K, V>; 2],
    current: usize,
}

impl<K: Pod, V: Pod> Generations<K, V> {
    /// Makes both generations with room for `entries` each, and puts the first into the slot of the outer map `name`.
    pub fn new(ebpf: &mut Ebpf, name: &'static str, entries: u32) -> Result<Self, BpfError> {
        let failed =
            |operation| move |source| BpfError::Map { operation, map: name, source: Box::new(source) };
        let outer = ebpf.take_map(name).ok_or(BpfError::Missing(name))?;
        let mut slot: ArrayOfMaps<MapData, HashMap<MapData, K, V>> =
            outer.try_into().map_err(failed("open"))?;
        let make = || inner::hash_map(name, entries, 0);
        let maps = [make()?, make()?];
        slot.set(0, &maps[0], 0).map_err(failed("set the first generation of"))?;
        Ok(Self { name, slot, maps, current: 0 })
    }

    /// Starts a new generation and drains the old one.
    pub fn rotate(&mut self, each: impl FnMut(&K, &V)) -> Result<(), BpfError> {
        let old = self.current;
        self.current = 1 - old;
        self.wait_for_programs()?;
        batch::drain(map_fd(&self.maps[old]), self.name, each)
    }

    /// Sets the slot (again), which waits until every program that runs now has ended.
    pub fn wait_for_programs(&mut self) -> Result<(), BpfError> {
        self.slot.set(0, &self.maps[self.current], 0).map_err(|source| BpfError::Map {
            operation: "start a new generation of",
            map: self.name,
            source: Box::new(source),
        })
    }

    /// Drains the current generation. Only when no program writes any more.
    pub fn finish(&mut self, each: impl FnMut(&K, &V)) -> Result<(), BpfError> {
        batch::drain(map_fd(&self.maps[self.current]), self.name, each)
    }

    /// The file descriptors of both generations, for their memory use.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.maps.iter().map(map_fd)
    }
}

fn map_fd<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> BorrowedFd<'_> {
    aya::maps::IterableMap::map(map).fd().as_fd()
}
