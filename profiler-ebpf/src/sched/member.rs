//! Reading members of kernel structures, at offsets patched in before load (`profiler_common::sched::offsets`).
//!
//! A task that came as argument of a BTF tracepoint, or from `bpf_get_current_task_btf`, has a type that the verifier
//! knows: it and what its members point to are read by plain loads (`TYPED`). Any other address is read by
//! `bpf_probe_read_kernel`.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};
use profiler_common::{Comm, sched::offsets::SchedOffsets};

#[unsafe(no_mangle)]
pub static SCHED_OFFSETS: Global<SchedOffsets> = Global::new(SchedOffsets::UNKNOWN);

/// One of the offsets, never a copy of all (see `crate::task`).
macro_rules! sched_offset {
    ($member:ident) => {{
        let offsets = (&raw const $crate::sched::member::SCHED_OFFSETS)
            .cast::<profiler_common::sched::offsets::SchedOffsets>();
        // SAFETY: a member of a global that is initialized and never written; volatile because the loader replaces what
        // the compiler sees.
        unsafe { (&raw const (*offsets).$member).read_volatile() }
    }};
}
pub(crate) use sched_offset;

/// The member at that offset; zeros if the address cannot be read.
#[inline(always)]
pub fn get<const TYPED: bool, T: Copy + Default>(base: *const u8, offset: u32) -> T {
    let address = base.wrapping_add(offset as usize).cast::<T>();
    if TYPED {
        // SAFETY: the verifier checks type, offset and size of the load, and a load that faults reads 0.
        unsafe { address.read_volatile() }
    } else {
        probe(address).unwrap_or_default()
    }
}

/// The member at that offset, a pointer; null if the address cannot be read.
#[inline(always)]
pub fn pointer<const TYPED: bool>(base: *const u8, offset: u32) -> *const u8 {
    let address = base.wrapping_add(offset as usize).cast::<*const u8>();
    if TYPED {
        // SAFETY: as above.
        unsafe { address.read_volatile() }
    } else {
        probe(address).unwrap_or(core::ptr::null())
    }
}

/// What is at that address, whatever the verifier knows of it.
#[inline(always)]
pub fn probe<T>(address: *const T) -> Option<T> {
    // SAFETY: bpf_probe_read_kernel checks the address itself and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(address) }.ok()
}

/// A name that a thread is given. What stands behind the terminator is the caller's memory, not the name.
#[inline(always)]
pub fn given_name(comm: *const Comm) -> Option<Comm> {
    let mut comm = probe(comm)?;
    let mut ended = false;
    for byte in &mut comm {
        ended |= *byte == 0;
        if ended {
            *byte = 0;
        }
    }
    comm[comm.len() - 1] = 0;
    Some(comm)
}
