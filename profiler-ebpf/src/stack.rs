//! Stack capture: walk into per-CPU scratch, hash, write once per generation.

use aya_ebpf::{
    EbpfContext, Global,
    bindings::{BPF_F_USER_STACK, BPF_NOEXIST},
    btf_maps::{ArrayOfMaps, HashMap},
    helpers::generated::bpf_get_stack,
    macros::btf_map,
};
use profiler_common::{
    loss::Loss,
    stack::{EMPTY_STACK, MAX_FRAMES, MAX_STACK_BYTES, RawStack, StackHasher, WalkEnd},
};

use crate::loss;

/// `-EEXIST`: another CPU wrote the same stack at the same time.
const EEXIST: i32 = -17;

/// Frames `bpf_get_stack` gives at most: `kernel.perf_event_max_stack`, bounded by `MAX_FRAMES`.
#[unsafe(no_mangle)]
static STACK_LIMIT: Global<u32> = Global::new(MAX_FRAMES as u32);

/// Slot 0: the current generation {hash -> stack}. User space replaces it before it drains the old one.
#[btf_map]
static STACKS: ArrayOfMaps<HashMap<u64, RawStack, 1>, 1> = ArrayOfMaps::new();

/// Which of a task's two stacks.
#[derive(Clone, Copy)]
pub enum Side {
    /// From the kernel's entry to where it was hit.
    Kernel,
    /// Of the user program.
    User,
    /// No stack, but the names of several (`profiler_common::sched::waker`).
    Woken,
}

/// Has the kernel capture a stack of the current task and keeps it under its hash, which is returned. `end` is what
/// is known of the walk's end beforehand: [`WalkEnd::Ended`], or why the stack was not walked by tables.
#[inline(always)]
pub fn capture<C: EbpfContext>(ctx: &C, side: Side, end: WalkEnd, scratch: &mut RawStack) -> u64 {
    let (flags, failed, truncated) = match side {
        Side::Kernel => (0, Loss::KernelStackFailed, Loss::KernelStackTruncated),
        Side::User | Side::Woken => {
            (BPF_F_USER_STACK as u64, Loss::UserStackFailed, Loss::UserStackTruncated)
        }
    };
    // SAFETY: the buffer is MAX_STACK_BYTES long, and the helper writes no more than it is told.
    let bytes =
        unsafe { bpf_get_stack(ctx.as_ptr(), (&raw mut scratch.frames).cast(), MAX_STACK_BYTES, flags) };
    if bytes < 0 {
        loss::count(failed);
        return EMPTY_STACK;
    }
    scratch.len = (bytes as u64 / 8).min(MAX_FRAMES as u64) as u32;
    scratch.end = end as u32;
    if scratch.len >= STACK_LIMIT.load() {
        scratch.end = WalkEnd::Truncated as u32;
        loss::count(truncated);
    }
    keep(side, scratch)
}

/// Keeps a captured stack under its hash, which is returned.
#[inline(always)]
pub fn keep(side: Side, stack: &RawStack) -> u64 {
    let len = stack.len;
    if len == 0 {
        return EMPTY_STACK;
    }
    let hash = hash(side, stack, len);
    insert(hash, stack);
    hash
}

/// The stack's name; the same as `profiler_common::stack::hash_stack` with the side as seed.
#[inline(always)]
fn hash(side: Side, stack: &RawStack, len: u32) -> u64 {
    let mut hasher = StackHasher::new(side as u64);
    // A constant bound with an early exit: what the verifiers of all kernels since 5.3 accept as a loop.
    for i in 0..MAX_FRAMES {
        if i as u32 >= len {
            break;
        }
        hasher.word(stack.frames[i]);
    }
    hasher.word(len as u64 | (stack.end as u64) << 32);
    hasher.finish()
}

#[inline(always)]
fn insert(hash: u64, stack: &RawStack) {
    let Some(stacks) = STACKS.get(0) else {
        loss::count(Loss::NoScratch);
        return;
    };
    if stacks.get_ptr(hash).is_some() {
        return;
    }
    if let Err(error) = stacks.insert(hash, stack, BPF_NOEXIST as u64)
        && error != EEXIST
    {
        loss::count(Loss::StacksFull);
    }
}
