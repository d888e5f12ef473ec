//! The arrays of performance counters that the kernel side reads.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use profiler_common::probe::sched::COUNTERS;

use super::{BpfError, stats::map_memory};

/// An array for each counter, with a place for each CPU.
const MAPS: [&str; COUNTERS] = ["COUNTER_0", "COUNTER_1", "COUNTER_2", "COUNTER_3"];

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;

/// `union bpf_attr`, the part for commands on elements.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The arrays. Dropped, their events are taken out of them (`perf_event_fd_array_release`, kernel/bpf/arraymap.c).
pub struct CounterEvents(Vec<MapData>);

impl CounterEvents {
    /// Takes the maps out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let mut take = |name| match ebpf.take_map(name) {
            Some(Map::PerfEventArray(map)) => Ok(map),
            _ => Err(BpfError::Missing(name)),
        };
        Ok(Self(MAPS.into_iter().map(&mut take).collect::<Result<_, _>>()?))
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        self.0.iter().map(|map| map_memory(map.fd().as_fd())).sum()
    }

    /// Puts in the `index`-th counter of a CPU. aya has only events that programs write to.
    pub fn set(&mut self, cpu: u32, index: usize, event: BorrowedFd<'_>) -> Result<(), BpfError> {
        let (Some(map), Some(&name)) = (self.0.get(index), MAPS.get(index)) else { return Ok(()) };
        let value = event.as_raw_fd();
        let attr = ElementAttr {
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            _padding: 0,
            key: (&raw const cpu) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        // SAFETY: attr is a valid bpf_attr of the given size; key and value have the sizes of the map's (4 bytes each) and
        // outlive the call, which takes its own reference of the event.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const attr, size_of::<ElementAttr>())
        };
        if result == 0 {
            return Ok(());
        }
        Err(BpfError::Call { command: "BPF_MAP_UPDATE_ELEM", map: name, source: io::Error::last_os_error() })
    }
}
