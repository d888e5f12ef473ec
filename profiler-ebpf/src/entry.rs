//! Entries of hash maps that are too large for a program's stack, each with one writer at a time.

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{HashMap, PerCpuArray},
};
use profiler_common::loss::Loss;

use crate::loss;

/// An entry. The caller knows that nobody else writes it now.
#[inline(always)]
pub fn find<K, V, const N: usize>(map: &HashMap<K, V, N>, key: K) -> Option<&'static mut V> {
    // SAFETY: a map value stays valid memory while the program runs, and has one writer at a time.
    map.get_ptr_mut(key).map(|entry| unsafe { &mut *entry })
}

/// An entry, made of `new` if there is none; `full` is counted if there is no room.
#[inline(always)]
pub fn find_or_insert<K: Copy, V, const N: usize>(
    map: &HashMap<K, V, N>,
    new: &PerCpuArray<V, 1>,
    key: K,
    full: Loss,
) -> Option<&'static mut V> {
    if let Some(entry) = find(map, key) {
        return Some(entry);
    }
    // SAFETY: nobody writes it.
    let new: &V = unsafe { &*new.get_ptr(0)? };
    if map.insert(key, new, BPF_ANY as u64).is_err() {
        loss::count(full);
        return None;
    }
    find(map, key)
}
