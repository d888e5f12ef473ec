//! The slabs (`profiler_common::probe::syscalls`): places are taken in ranges from queues that user space fills, and
//! fills again with those of threads that ended.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, Queue},
    macros::btf_map,
};
use profiler_common::probe::syscalls::{Block, Call, Caller, PerCpu, Range, Slab};

/// `BPF_F_MMAPABLE`: user space reads without a system call for each account.
const MMAPABLE: usize = 1 << 10;

/// Threads. All slabs and queues are shrunk to one entry at load if system calls are not looked at.
#[btf_map]
static CALLERS: Array<Caller, 16384, MMAPABLE> = Array::new();

#[btf_map]
static CALLS: Array<Call, 65536, MMAPABLE> = Array::new();

#[btf_map]
static CALL_BLOCKS: Array<Block, 131072, MMAPABLE> = Array::new();

#[btf_map]
static FREE_CALLERS: Queue<Range, 16384> = Queue::new();

#[btf_map]
static FREE_CALLS: Queue<Range, 65536> = Queue::new();

#[btf_map]
static FREE_BLOCKS: Queue<Range, 131072> = Queue::new();

#[btf_map]
static CALL_CPUS: PerCpuArray<PerCpu, 1> = PerCpuArray::new();

/// What this CPU keeps.
#[inline(always)]
pub fn cpu() -> Option<&'static mut PerCpu> {
    // SAFETY: it is this CPU's, and programs of these tracepoints run one after the other (see the module).
    CALL_CPUS.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}

/// The thread at a place.
#[inline(always)]
pub fn caller(place: u32) -> Option<&'static mut Caller> {
    // SAFETY: only the CPU that the thread is on writes; user space only to places that nobody has.
    CALLERS.get_ptr_mut(place).map(|caller| unsafe { &mut *caller })
}

/// The account of a call at a place.
#[inline(always)]
pub fn call(place: u32) -> Option<&'static mut Call> {
    // SAFETY: as in `caller`.
    CALLS.get_ptr_mut(place).map(|call| unsafe { &mut *call })
}

/// The block of a histogram at a place.
#[inline(always)]
pub fn block(place: u32) -> Option<&'static mut Block> {
    // SAFETY: as in `caller`.
    CALL_BLOCKS.get_ptr_mut(place).map(|block| unsafe { &mut *block })
}

/// Takes a place, which holds zeros. 0: there is none left.
#[inline(always)]
pub fn take(cpu: &mut PerCpu, slab: Slab) -> u32 {
    let at = slab as usize;
    let mut range = cpu.ranges[at];
    if range.len == 0 {
        let next = match slab {
            Slab::Callers => FREE_CALLERS.pop(),
            Slab::Calls => FREE_CALLS.pop(),
            Slab::Blocks => FREE_BLOCKS.pop(),
        };
        let Ok(Some(next)) = next else { return 0 };
        range = next;
        let end = range.first.wrapping_add(range.len);
        if end > cpu.ends[at] {
            cpu.ends[at] = end;
        }
    }
    cpu.ranges[at] = Range { first: range.first.wrapping_add(1), len: range.len.wrapping_sub(1) };
    range.first
}
