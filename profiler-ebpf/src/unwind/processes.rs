//! Which mappings a process has, as far as user space has told, and asking it.

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{HashMap, RingBuf},
    macros::btf_map,
};
use profiler_common::{
    loss::Loss,
    unwind::map::{Ask, MAX_PROCESSES, NO_MODULE, Process, Request},
};

use crate::loss;

/// User space is asked for the same process at most this often, ns: a program that starts maps one library after the
/// other. User space itself puts off what it cannot answer.
const ASK_INTERVAL_NS: u64 = 2_000_000;

/// Bytes of requests that user space has not read yet: 32 each with their head.
const REQUEST_BYTES: usize = 64 * 1024;

/// Processes by id. Shrunk to one entry at load if tables are not used.
#[btf_map]
static PROCESSES: HashMap<u32, Process, MAX_PROCESSES> = HashMap::new();

#[btf_map]
static REQUESTS: RingBuf<Request, REQUEST_BYTES> = RingBuf::new();

/// The mappings of a process.
pub struct Found {
    /// Index of the first one.
    pub first: u32,
    /// Their number.
    pub count: u32,
    /// Which telling of user space's they are of.
    pub version: u64,
}

/// What is known of this incarnation of a process. If nothing is, user space is asked.
#[inline(always)]
pub fn find(pid: u32, incarnation: u64, now_ns: u64) -> Option<Found> {
    if let Some(known) = PROCESSES.get_ptr(pid) {
        // SAFETY: a value of a preallocated hash map stays valid memory, but an update replaces it by another one and
        // gives the old one to another process. Whose it is is therefore read last.
        let (first, count, version, whose) = unsafe {
            (
                (&raw const (*known).first).read_volatile(),
                (&raw const (*known).count).read_volatile(),
                (&raw const (*known).version).read_volatile(),
                (&raw const (*known).incarnation).read_volatile(),
            )
        };
        if whose == incarnation && count != 0 {
            return Some(Found { first, count, version });
        }
    }
    ask(Ask::UnknownProcess, NO_MODULE, pid, incarnation, now_ns);
    None
}

/// Asks user space for the mappings of a process, unless it was asked a moment ago.
#[inline(always)]
pub fn ask(why: Ask, module: u32, pid: u32, incarnation: u64, now_ns: u64) {
    match PROCESSES.get_ptr_mut(pid) {
        // SAFETY: as in `find`; two CPUs may both ask, which does no harm.
        Some(known) if unsafe { (*known).incarnation } == incarnation => {
            // SAFETY: as above.
            let known = unsafe { &mut *known };
            if now_ns < known.ask_after_ns {
                return;
            }
            known.ask_after_ns = now_ns + ASK_INTERVAL_NS;
        }
        _ => {
            let new = Process {
                incarnation,
                ask_after_ns: now_ns + ASK_INTERVAL_NS,
                first: 0,
                count: 0,
                version: 0,
            };
            if PROCESSES.insert(pid, new, BPF_ANY as u64).is_err() {
                loss::count(Loss::UnwindProcessesFull);
                return;
            }
        }
    }
    let request = Request { pid, ask: why as u32, incarnation, module, padding: 0 };
    if REQUESTS.output(request, 0).is_err() {
        loss::count(Loss::UnwindRequestsFull);
    }
}

/// Forgets a process that is gone.
#[inline(always)]
pub fn forget(pid: u32) {
    // It need not be there.
    _ = PROCESSES.remove(pid);
}
