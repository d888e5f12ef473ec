//! Steps through code of a HotSpot JVM (`profiler_common::unwind::java`), in the memory of the process that is walked.
//!
//! Which processes are JVMs, and where they have what, user space tells ([`JVMS`]): it gives their code heaps, as far as
//! they are reserved, as mappings that [`map::JAVA`](profiler_common::unwind::map::JAVA) is the module of.

use aya_ebpf::{
    btf_maps::HashMap,
    helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as read_bytes},
    macros::btf_map,
};
use profiler_common::{
    stack::{MAX_FRAMES, WalkEnd},
    unwind::{
        java::{
            self, Blob, CODE_BYTES, CodeId, HEAD_BYTES, HEAD_WORDS, Heap, INTERPRETED_BELOW, Interpreted,
            InterpretedFrame, Jvm, MAX_BACK, MAX_HEAPS, MAX_JVMS, METHOD, Place, RETURN_PC, SENDER_FP,
            SENDER_SP, SHORT_HEAD_BYTES, Shape, by_interpreted, by_place, by_size, is_behind_call, shape,
        },
        memo::FpUse,
        step::{Caller, by_frame_pointer},
    },
};

use super::{ARCH, Walk, logged, read};
use crate::task;

/// Frames of one program.
const FRAMES_PER_CALL: usize = 8;

/// JVMs by process id. Shrunk to one entry at load if tables are not used.
#[btf_map]
static JVMS: HashMap<u32, Jvm, MAX_JVMS> = HashMap::new();

/// What steps read, in per-CPU memory.
#[repr(C)]
pub struct Scratch {
    head: [u32; HEAD_WORDS],
    words: Interpreted,
    code: [u8; CODE_BYTES],
    /// The heap that is looked in. In memory, as the segment is: verifiers then know nothing of it, and need not follow all
    /// that comes behind once for each.
    heap: Heap,
    /// The segment that is looked at.
    segment: u64,
    /// The block that was found.
    block: u64,
    /// A frame that is no address.
    word: u64,
}

/// Walks on through Java code. `None`: there may be more of it, or the next frame is none, which `Walk::java` says.
#[inline(always)]
pub fn frames<const LOG: bool>(walk: &mut Walk) -> Option<WalkEnd> {
    let (len, pc) = (walk.stack.len, walk.registers.pc);
    let Some(jvm) = jvm(walk) else { return Some(not_loaded(walk, len, pc)) };
    let end = some_frames::<LOG>(walk, jvm);
    if self::jvm(walk).is_none() {
        return Some(not_loaded(walk, len, pc));
    }
    match end {
        Some(WalkEnd::BadRead) if task::is_exiting() => Some(WalkEnd::Exiting),
        end => end,
    }
}

/// The JVM that is walked. An update of the map replaces it by another one's, so that what was told by it counts only if it
/// is still the same afterwards.
#[inline(always)]
pub fn jvm(walk: &Walk) -> Option<&'static Jvm> {
    // SAFETY: a value of a preallocated hash map stays valid memory.
    let jvm = JVMS.get_ptr(walk.pid).map(|jvm| unsafe { &*jvm })?;
    // SAFETY: as above; volatile, or the compiler would remember it.
    (unsafe { (&raw const jvm.incarnation).read_volatile() } == walk.incarnation).then_some(jvm)
}

/// Which code has its header at a distance from the first code heap.
#[inline(always)]
pub fn code_at(scratch: &mut Scratch, jvm: &Jvm, offset: u64) -> Option<CodeId> {
    head(scratch, jvm, jvm.code_base.wrapping_add(offset)).ok().map(|blob| blob.code)
}

/// Drops what was walked from a frame on, but for the first frame of all.
#[inline(always)]
fn not_loaded(walk: &mut Walk, len: u32, pc: u64) -> WalkEnd {
    walk.stack.len = len;
    if len == 0 {
        walk.stack.frames[0] = pc;
        walk.stack.len = 1;
    }
    WalkEnd::NotLoaded
}

#[inline(always)]
fn some_frames<const LOG: bool>(walk: &mut Walk, jvm: &Jvm) -> Option<WalkEnd> {
    if walk.interrupted != 0 {
        // What it reads of code is no part of the stack.
        walk.log.spoil();
        match interrupted(walk, jvm) {
            Ok(caller) => take(walk, caller),
            Err(end) => return Some(end),
        }
    }
    for _ in 0..FRAMES_PER_CALL {
        match step::<LOG>(walk, jvm) {
            Ok(Some(caller)) => take(walk, caller),
            Ok(None) => {
                walk.java = 0;
                return None;
            }
            Err(end) => return Some(end),
        }
    }
    None
}

#[inline(always)]
fn take(walk: &mut Walk, caller: Caller) {
    walk.registers = caller.registers;
    walk.interrupted = u32::from(caller.interrupted);
}

/// From a frame that has called something. `Ok(None)`: it is no Java code.
#[inline(always)]
fn step<const LOG: bool>(walk: &mut Walk, jvm: &Jvm) -> Result<Option<Caller>, WalkEnd> {
    let pc = walk.registers.pc;
    let at = pc.wrapping_sub(1);
    if jvm.is_interpreter(at) {
        return interpreted::<LOG>(walk, jvm).map(Some);
    }
    if !heap(walk, jvm, at) {
        return Ok(None);
    }
    if pc == jvm.call_stub_return {
        // Of a stub that is never freed.
        push(walk, pc)?;
        return by_frame_pointer(ARCH, &walk.registers, logged::<LOG>(&mut walk.log, FpUse::RECORD))
            .map(Some);
    }
    let blob = code::<LOG>(walk, jvm, at)?;
    if blob.frame_size > 0 {
        let fp = FpUse { is_used: false, becomes_known: false, read: 0 };
        return by_size(blob.frame_size, &walk.registers, logged::<LOG>(&mut walk.log, fp)).map(Some);
    }
    // Stubs that call have a record at the frame pointer, but that they do nothing vouches for.
    walk.log.spoil();
    if !is_behind_call(pc, read) {
        return Err(WalkEnd::JavaCode);
    }
    by_place(jvm, record(walk), &walk.registers, read).map(Some)
}

/// Where the caller is of a frame with a record at its frame pointer.
#[inline(always)]
fn record(walk: &Walk) -> Place {
    let above = read(walk.registers.fp.wrapping_add(8)).unwrap_or_default();
    Place::at_frame_pointer(&walk.registers, above)
}

/// From a frame that was interrupted anywhere.
#[inline(always)]
fn interrupted(walk: &mut Walk, jvm: &Jvm) -> Result<Caller, WalkEnd> {
    let pc = walk.registers.pc;
    if jvm.is_interpreter(pc) {
        return interpreted::<false>(walk, jvm);
    }
    if !heap(walk, jvm, pc) {
        push(walk, behind(walk, pc))?;
        return Err(WalkEnd::JavaCode);
    }
    let blob = code::<false>(walk, jvm, pc)?;
    let (first, second) = places(walk, &blob, pc)?;
    by_place(jvm, first, &walk.registers, read).or_else(|_| by_place(jvm, second, &walk.registers, read))
}

/// The code at an address of a heap, which becomes a frame.
#[inline(always)]
fn code<const LOG: bool>(walk: &mut Walk, jvm: &Jvm, at: u64) -> Result<Blob, WalkEnd> {
    let blob = blob(walk, jvm, at);
    walk.scratch.word = match &blob {
        Ok(blob) => jvm.code_word(blob.code, own::<LOG>(walk, blob, at)),
        Err(_) => jvm.code_word(CodeId::UNKNOWN, at),
    };
    if LOG && let Ok(blob) = &blob {
        walk.log.note_code(walk.scratch.block.wrapping_sub(jvm.code_base), blob.code);
    }
    push(walk, behind(walk, walk.scratch.word))?;
    blob
}

/// Where a frame is in its code, which is where it is returned to unless it was deoptimized.
#[inline(always)]
fn own<const LOG: bool>(walk: &mut Walk, blob: &Blob, at: u64) -> u64 {
    if walk.interrupted != 0 || !blob.is_deoptimized(walk.registers.pc) {
        return at;
    }
    let place = walk.registers.sp.wrapping_add(u64::from(blob.original_pc));
    let original = read(place);
    if LOG {
        walk.log.note(place, original);
    }
    original.map_or(at, |original| original.wrapping_sub(1))
}

/// Where the caller can be, the likelier first.
#[inline(always)]
fn places(walk: &mut Walk, blob: &Blob, pc: u64) -> Result<(Place, Place), WalkEnd> {
    let frame = &walk.registers;
    let top = Place::of(Shape::None, 0, frame);
    if blob.frame_size <= 0 || blob.frame_complete < 0 {
        return Ok((top, record(walk)));
    }
    let before = read(pc.wrapping_sub(8)).ok_or(WalkEnd::JavaCode)?;
    // SAFETY: the buffer is as long; the helper checks the address itself and fails instead of faulting.
    let failed =
        unsafe { read_bytes((&raw mut walk.scratch.code).cast(), CODE_BYTES as u32, pc as *const _) };
    if failed != 0 {
        return Err(WalkEnd::JavaCode);
    }
    let shape = shape(pc.wrapping_sub(blob.code_begin), blob.frame_complete, before, &walk.scratch.code);
    Ok((Place::of(shape, blob.frame_size, frame), top))
}

/// From a frame of the interpreter.
#[inline(always)]
fn interpreted<const LOG: bool>(walk: &mut Walk, jvm: &Jvm) -> Result<Caller, WalkEnd> {
    let caller = of_interpreted::<LOG>(walk, jvm);
    let word = match (&caller, walk.interrupted) {
        (Ok(_), _) => behind(walk, walk.scratch.word),
        // What the frame cannot be told of is still the interpreter's.
        (Err(_), 0) => walk.registers.pc,
        (Err(_), _) => behind(walk, walk.registers.pc),
    };
    push(walk, word)?;
    caller
}

/// The caller. What the frame is as a word is in `Scratch::word` then.
#[inline(always)]
fn of_interpreted<const LOG: bool>(walk: &mut Walk, jvm: &Jvm) -> Result<Caller, WalkEnd> {
    java::check_interpreted(&walk.registers)?;
    let fp = walk.registers.fp;
    // SAFETY: the buffer is as long; the helper checks the address itself and fails instead of faulting.
    let failed = unsafe {
        read_bytes(
            (&raw mut walk.scratch.words).cast(),
            size_of::<Interpreted>() as u32,
            fp.wrapping_sub(INTERPRETED_BELOW) as *const _,
        )
    };
    if failed != 0 {
        return Err(WalkEnd::BadRead);
    }
    let words = &walk.scratch.words;
    let caller = by_interpreted(&walk.registers, words)?;
    if walk.interrupted != 0 {
        // The frame may be about to be made or left.
        by_place(jvm, Place { sp: fp.wrapping_add(16), fp }, &walk.registers, read)?;
    }
    let (method, bcp) = (words[METHOD], words[jvm.bcp as usize & 1]);
    if LOG {
        walk.log.use_fp();
        for i in [METHOD, SENDER_SP, RETURN_PC] {
            walk.log.note(fp.wrapping_sub(INTERPRETED_BELOW).wrapping_add(i as u64 * 8), Some(words[i]));
        }
        let bcp_at = fp.wrapping_sub(INTERPRETED_BELOW).wrapping_add(u64::from(jvm.bcp & 1) * 8);
        walk.log.note(bcp_at, Some(bcp));
        walk.log.note_fp(fp, Some(words[SENDER_FP]));
    }
    let const_method = read(method.wrapping_add(u64::from(jvm.const_method))).unwrap_or_default();
    let bci = u16::try_from(bcp.wrapping_sub(const_method.wrapping_add(u64::from(jvm.bytecode)))).ok();
    // Native methods have no bytecode. Of an interrupted frame not all may be there yet: its words are pushed one by one.
    let is_whole = walk.interrupted == 0 || walk.registers.sp <= fp.wrapping_sub(INTERPRETED_BELOW);
    if (bcp == 0 || bci.is_some()) && is_whole {
        walk.scratch.word = InterpretedFrame { method, bci }.word().ok_or(WalkEnd::JavaCode)?;
    } else if walk.interrupted != 0 {
        walk.scratch.word = walk.registers.pc;
    } else {
        return Err(WalkEnd::JavaCode);
    }
    Ok(caller)
}

/// What is not a return address as if it were one, unless it is the first: readers subtract one from callers.
#[inline(always)]
fn behind(walk: &Walk, pc: u64) -> u64 {
    if walk.stack.len == 0 { pc } else { pc.wrapping_add(1) }
}

/// Notes a frame.
#[inline(always)]
fn push(walk: &mut Walk, word: u64) -> Result<(), WalkEnd> {
    // Read here: what is kept on the stack meanwhile has no bounds for verifiers before Linux 5.12.
    // SAFETY: a member.
    let depth = unsafe { (&raw const walk.stack.len).read_volatile() } as usize;
    if depth >= MAX_FRAMES {
        return Err(WalkEnd::Truncated);
    }
    walk.stack.frames[depth] = word;
    walk.stack.len = depth as u32 + 1;
    Ok(())
}

/// Finds the code heap that an address lies in.
#[inline(always)]
fn heap(walk: &mut Walk, jvm: &Jvm, at: u64) -> bool {
    walk.scratch.heap.high = 0;
    for i in 0..MAX_HEAPS {
        let heap = &jvm.heaps[i];
        if heap.low <= at && at < heap.high {
            // Member by member: of a whole one the compiler makes a call of a copying loop.
            let found = &mut walk.scratch.heap;
            (found.low, found.segmap, found.shift) = (heap.low, heap.segmap, heap.shift);
            found.high = heap.high;
        }
    }
    // SAFETY: a member; volatile, or the compiler would see through it.
    unsafe { (&raw const walk.scratch.heap.high).read_volatile() != 0 }
}

/// The blob that an address of a heap lies in.
#[inline(always)]
fn blob(walk: &mut Walk, jvm: &Jvm, at: u64) -> Result<Blob, WalkEnd> {
    let heap = &raw const walk.scratch.heap;
    // SAFETY: members; volatile, or the compiler would see through it.
    let (low, segmap, shift) = unsafe {
        (
            (&raw const (*heap).low).read_volatile(),
            (&raw const (*heap).segmap).read_volatile(),
            (&raw const (*heap).shift).read_volatile() & 31,
        )
    };
    walk.scratch.segment = at.wrapping_sub(low) >> shift;
    let mut is_found = false;
    for _ in 0..MAX_BACK {
        // SAFETY: a member; volatile, or the compiler would see through it.
        let segment = unsafe { (&raw const walk.scratch.segment).read_volatile() };
        // SAFETY: the helper checks the address itself and fails instead of faulting.
        let byte = unsafe { bpf_probe_read_user(segmap.wrapping_add(segment) as *const u8) };
        match java::back(segment, byte.map_err(|_| WalkEnd::JavaCode)?) {
            Ok(_) => {
                is_found = true;
                break;
            }
            Err(Some(next)) => walk.scratch.segment = next,
            Err(None) => return Err(WalkEnd::JavaCode),
        }
    }
    if !is_found {
        return Err(WalkEnd::JavaCode);
    }
    // SAFETY: as above.
    let segment = unsafe { (&raw const walk.scratch.segment).read_volatile() };
    let block = low.wrapping_add(segment << shift);
    walk.scratch.block = block;
    head(&mut walk.scratch, jvm, block)
}

/// What the block says that begins at an address.
#[inline(always)]
fn head(scratch: &mut Scratch, jvm: &Jvm, block: u64) -> Result<Blob, WalkEnd> {
    let head = &raw mut scratch.head;
    // SAFETY: the buffer is longer; the helper checks the address itself and fails instead of faulting.
    let read = |bytes: usize| unsafe { read_bytes(head.cast(), bytes as u32, block as *const _) == 0 };
    let is_whole = read(HEAD_BYTES);
    if !is_whole && !read(SHORT_HEAD_BYTES) {
        return Err(WalkEnd::JavaCode);
    }
    let blob = jvm.blob(block, &scratch.head).ok_or(WalkEnd::JavaCode)?;
    // The header of an nmethod is as long as what is read; of others there may be nothing behind them.
    if !is_whole && blob.code.is_compilation() { Err(WalkEnd::JavaCode) } else { Ok(blob) }
}
