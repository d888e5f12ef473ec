//! Slabs: arrays whose places are handed out by a queue of those that are free. Place 0 is nobody's.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf, Pod,
    maps::{Array, IterableMap as _, MapData, Queue},
};

use super::{
    BpfError,
    arena::Shared,
    map::{failed, take},
    stats::map_memory,
};

/// A slab of `T`; `F` is what the queue holds of free places.
pub struct SlabMaps<T: Pod, F: Pod> {
    shared: Shared<T>,
    map: Array<MapData, T>,
    name: &'static str,
    free: Queue<MapData, F>,
}

impl<T: Pod, F: Pod> SlabMaps<T, F> {
    /// Takes both out of the object, and fills the queue.
    pub fn new(
        ebpf: &mut Ebpf,
        (name, free_name): (&'static str, &'static str),
        len: u32,
        free: impl IntoIterator<Item = F>,
    ) -> Result<Self, BpfError> {
        let map: Array<MapData, T> = take(ebpf, name)?;
        let shared = Shared::map(map.map().fd().as_fd(), name, len as usize)?;
        let mut slab = Self { shared, map, name, free: take(ebpf, free_name)? };
        free.into_iter().try_for_each(|free| slab.give_back(free))?;
        Ok(slab)
    }

    /// Makes places free, which hold what a free place does.
    pub fn give_back(&mut self, free: F) -> Result<(), BpfError> {
        self.free.push(free, 0).map_err(failed("give places back to", self.name))
    }

    /// How many places there are, with that which is nobody's.
    pub const fn len(&self) -> usize {
        self.shared.len()
    }

    /// What is at a place; `None`: it is nobody's.
    pub fn get(&self, place: u32) -> Option<T> {
        (place != 0 && (place as usize) < self.shared.len()).then(|| self.shared.get(place as usize))
    }

    /// Writes what is at a place.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn set(&mut self, place: u32, value: T) {
        self.shared.set(place as usize, value);
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        map_memory(self.map.map().fd().as_fd())
    }
}
