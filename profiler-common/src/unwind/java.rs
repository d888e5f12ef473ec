//! Steps through code of a HotSpot JVM, which has no unwind tables: a frame's size is in the header of the piece of code
//! (*blob*) around the address, which the map of its heap's segments leads to.
//!
//! User space reads once from the JVM where all that is ([`Jvm`]); the eBPF side reads the memory of the process it is
//! running in. Everything here is pure: memory is read through closures.
//!
//! Sources, all of OpenJDK: share/memory/heap.cpp (segment map), share/code/codeBlob.hpp, cpu/x86/frame_x86.{hpp,cpp},
//! cpu/x86/templateInterpreterGenerator_x86.cpp (frames of the interpreter), cpu/x86/macroAssembler_x86.cpp
//! (`verified_entry`), cpu/x86/c1_MacroAssembler_x86.cpp (`build_frame`, `remove_frame`), cpu/x86/stubGenerator_x86_64.cpp
//! (`generate_call_stub`).

use core::hint::black_box;

use super::step::{Caller, ends_with_call};
use crate::{registers::Registers, stack::WalkEnd, unwind::Arch};

/// Most code heaps of a JVM: JDK 9 and later have three, with a hot code heap four.
pub const MAX_HEAPS: usize = 4;
/// Most JVMs whose Java code is walked at the same time.
pub const MAX_JVMS: usize = 512;
/// Words of 4 bytes that are read of a block (of 256 bytes or more). JDK 21 has what is needed up to the 108th byte.
pub const HEAD_WORDS: usize = 32;
/// Most steps back to a block's first segment, of 254 segments each: blobs of up to 350 KB. HotSpot's largest, its own
/// stubs, have 110 KB.
pub const MAX_BACK: usize = 12;
/// In a segment map: no block here.
const FREE: u8 = 0xff;
/// Largest frame, words: HotSpot's own stacks have 1 MB by default.
const MAX_FRAME_WORDS: u32 = 1 << 20;
/// Furthest from an interpreted frame to its caller's: 65,535 local variables.
const MAX_LOCALS_BYTES: u64 = 1 << 20;

/// A code heap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// First address.
    pub low: u64,
    /// Address behind what is reserved: the heap grows up to there.
    pub high: u64,
    /// Address of the segment map.
    pub segmap: u64,
    /// Binary logarithm of a segment's size, bytes.
    pub shift: u32,
    /// Not used.
    pub padding: u32,
}

/// What a walk needs of one JVM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jvm {
    /// Of which incarnation of the process (`sample::CountKey::incarnation`).
    pub incarnation: u64,
    /// The code heaps; those that are not there have no addresses.
    pub heaps: [Heap; MAX_HEAPS],
    /// The interpreter's code: first address.
    pub interpreter: u64,
    /// Address behind its last.
    pub interpreter_end: u64,
    /// Where Java code returns to native code that called it.
    pub call_stub_return: u64,
    /// Where a block says whether it is in use, bytes from its start (one byte).
    pub used: u32,
    /// Where its blob says how large its frames are, bytes from the block's start (four bytes, words).
    pub frame_size: u32,
    /// Where it says from which distance on they are complete.
    pub frame_complete: u32,
    /// The bytes of that: 2 or 4.
    pub frame_complete_bytes: u32,
    /// Where it says where its first instruction is: a pointer, or four bytes of distance from the blob.
    pub code_begin: u32,
    /// 1: that is a pointer.
    pub code_begin_is_pointer: u32,
    /// Bytes of a block before the blob.
    pub block_header: u32,
    /// Which of [`Interpreted`]'s words is the bytecode's address: 0 or 1.
    pub bcp: u32,
    /// Where a `Method` has the pointer to its `ConstMethod`.
    pub const_method: u32,
    /// The size of a `ConstMethod`, behind which the bytecode is.
    pub bytecode: u32,
}

const _: () = assert!(size_of::<Heap>() == 32);
const _: () = assert!(size_of::<Jvm>() == 8 + MAX_HEAPS * 32 + 3 * 8 + 10 * 4);

/// What the front of a block says of its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Size of its frames, words with the return address; 0 or less: they have no common size.
    pub frame_size: i32,
    /// Distance from the first instruction from which on the frame is complete, bytes; less than 0: not told.
    pub frame_complete: i32,
    /// First instruction.
    pub code_begin: u64,
}

impl Jvm {
    /// What a block's first words say, if the block is in use.
    #[inline(always)]
    pub fn blob(&self, block: u64, head: &[u32; HEAD_WORDS]) -> Option<Blob> {
        let word = |offset: u32| head[(offset >> 2) as usize % HEAD_WORDS];
        if word(self.used) >> ((self.used & 3) * 8) & 0xff == 0 {
            return None;
        }
        let complete = word(self.frame_complete);
        let frame_complete = match self.frame_complete_bytes {
            2 => i32::from((complete >> ((self.frame_complete & 2) * 8)) as i16),
            _ => complete as i32,
        };
        let begin = u64::from(word(self.code_begin));
        let code_begin = match self.code_begin_is_pointer {
            0 => block.wrapping_add(u64::from(self.block_header)).wrapping_add(begin),
            _ => begin | u64::from(word(self.code_begin.wrapping_add(4))) << 32,
        };
        Some(Blob { frame_size: word(self.frame_size) as i32, frame_complete, code_begin })
    }

    /// Whether an address is the interpreter's.
    #[inline(always)]
    pub const fn is_interpreter(&self, address: u64) -> bool {
        self.interpreter <= address && address < self.interpreter_end
    }
}

/// One step back in a segment map, from the byte of a segment: `Ok` is the segment that the block begins with.
#[inline(always)]
pub const fn back(segment: u64, byte: u8) -> Result<u64, Option<u64>> {
    match byte {
        0 => Ok(segment),
        FREE => Err(None),
        back => Err(segment.checked_sub(back as u64)),
    }
}

/// Takes a step out of compiled code whose frame is complete. `read` gives the word at a user address: first the
/// caller's frame pointer, which such code uses for anything, then the return address.
///
/// # Errors
/// The frame makes no sense, or cannot be read.
#[inline(always)]
pub fn by_size(
    frame_size: i32,
    frame: &Registers,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Result<Caller, WalkEnd> {
    let words = frame_size as u32;
    // Room for both, at least.
    if !(2..=MAX_FRAME_WORDS).contains(&words) {
        return Err(WalkEnd::JavaCode);
    }
    let cfa = frame.sp.wrapping_add(u64::from(words) * 8);
    let fp = read(cfa.wrapping_sub(16)).ok_or(WalkEnd::BadRead)?;
    let pc = read(cfa.wrapping_sub(8)).ok_or(WalkEnd::BadRead)?;
    if pc == 0 {
        return Err(WalkEnd::JavaCode);
    }
    Ok(Caller { registers: Registers { pc, sp: cfa, fp, lr: 0 }, interrupted: false })
}

/// Words of an interpreted frame, from 64 bytes below the frame pointer on.
pub type Interpreted = [u64; 10];
/// From the first of them to the frame pointer, bytes.
pub const INTERPRETED_BELOW: u64 = 64;
/// Which of them is the `Method*`.
pub const METHOD: usize = 5;
/// Which of them is the caller's stack pointer.
const SENDER_SP: usize = 7;
/// Which of them is the caller's frame pointer.
const SENDER_FP: usize = 8;
/// Which of them is the return address.
const RETURN_PC: usize = 9;

/// Whether a frame pointer can be that of an interpreted frame.
///
/// # Errors
/// It cannot.
#[inline(always)]
pub const fn check_interpreted(frame: &Registers) -> Result<(), WalkEnd> {
    if frame.fp < frame.sp || frame.fp & 7 != 0 { Err(WalkEnd::JavaCode) } else { Ok(()) }
}

/// Takes a step out of an interpreted frame.
///
/// # Errors
/// It is none.
#[inline(always)]
pub fn by_interpreted(frame: &Registers, words: &Interpreted) -> Result<Caller, WalkEnd> {
    let (pc, sp, fp) = (words[RETURN_PC], words[SENDER_SP], words[SENDER_FP]);
    // At least above the return address; calls by method handles have taken a word away.
    let above = sp.wrapping_sub(frame.fp.wrapping_add(8));
    if above > MAX_LOCALS_BYTES || sp & 7 != 0 || pc == 0 {
        return Err(WalkEnd::JavaCode);
    }
    Ok(Caller { registers: Registers { pc, sp, fp, lr: 0 }, interrupted: false })
}

/// How far a compiled function has come in making or leaving its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The stack pointer is at the return address.
    None,
    /// It is at the caller's frame pointer.
    Pushed,
    /// The frame is complete.
    Complete,
    /// It has its size, but the caller's frame pointer is still in its register.
    Sized,
}

/// Bytes of code that [`shape`] looks at, from the instruction on.
pub const CODE_BYTES: usize = 32;

/// The shape of an interrupted frame, by the instructions that come next. `before`: the 8 bytes before them, the nearest
/// one the highest.
///
/// Frames are made by `[push rbp; [mov rbp, rsp]] sub rsp, SIZE`, behind a check of the stack's bound and before a
/// check for the collector, or by `sub rsp, SIZE; mov [rsp + N], rbp`. They are left by `add rsp, SIZE; pop rbp` or
/// `leave`, a poll for safepoints, and `ret`.
#[inline(always)]
pub fn shape(offset: u64, frame_complete: i32, before: u64, code: &[u8; CODE_BYTES]) -> Shape {
    const PUSH: u8 = 0x55;
    const POP: u8 = 0x5d;
    let left = (frame_complete as u32 as u64).wrapping_sub(offset);
    if frame_complete < 0 || offset >= frame_complete as u32 as u64 {
        return if is_return(code, 0) {
            Shape::None
        } else if code[0] == POP && is_return(code, 1) {
            Shape::Pushed
        } else {
            Shape::Complete
        };
    }
    let subs = subs(code);
    let is_move =
        code[0] == 0x48 && (code[1] == 0x8b && code[2] == 0xec || code[1] == 0x89 && code[2] == 0xe5);
    let last = (before >> 56) as u8;
    let last_but_move = before >> 40 == 0xec_8b48 || before >> 40 == 0xe5_8948;
    if subs & 1 != 0 {
        let is_pushed = last == PUSH || (last_but_move && (before >> 32) as u8 == PUSH);
        return if is_pushed { Shape::Pushed } else { Shape::None };
    }
    if is_move && last == PUSH {
        return Shape::Pushed;
    }
    if code[0] == 0x48 && code[1] == 0x89 && (code[2] | 0xc0) == 0xec && code[3] == 0x24 {
        return Shape::Sized;
    }
    // Behind the frame's making there is only the collector's check.
    let is_ahead = left >= SUB_PLACES as u64 || subs & ((1 << (left & 31)) - 1) != 0;
    if is_ahead { Shape::None } else { Shape::Complete }
}

/// Where [`subs`] looks.
const SUB_PLACES: usize = CODE_BYTES - 2;

/// Where in code there can be `sub rsp, SIZE`, a bit for each byte. Without branches, each of which a verifier would
/// follow to both sides (`row::search`).
#[inline(always)]
fn subs(code: &[u8; CODE_BYTES]) -> u64 {
    let mut found = 0;
    for at in 0..SUB_PLACES {
        let bytes = u64::from(code[at]) | u64::from(code[at + 1]) << 8 | u64::from(code[at + 2]) << 16;
        // The size in one byte, or in four.
        let differs = black_box(bytes & 0xff_fdff ^ 0xec_8148);
        found |= differs.wrapping_sub(1) >> 63 << at;
    }
    found
}

/// Whether the instructions from there on return, but for a poll: `cmp rsp, [r15 + N]; ja` since JDK 16,
/// `mov r10, [r15 + N]; test [r10], eax` or `test [rip + N], eax` before.
#[inline(always)]
const fn is_return(code: &[u8; CODE_BYTES], at: usize) -> bool {
    const RET: u8 = 0xc3;
    code[at] == RET
        || (code[at] == 0x0f && code[at + 1] == 0x87 && code[at + 6] == RET)
        || (code[at] == 0x49
            && code[at + 1] == 0x3b
            && code[at + 2] == 0xa7
            && code[at + 7] == 0x0f
            && code[at + 8] == 0x87
            && code[at + 13] == RET)
        || (code[at] == 0x41 && code[at + 1] == 0x85 && code[at + 2] == 0x02 && code[at + 3] == RET)
        || (code[at] == 0x4d
            && code[at + 1] == 0x8b
            && code[at + 2] == 0x97
            && code[at + 7] == 0x41
            && code[at + 8] == 0x85
            && code[at + 9] == 0x02
            && code[at + 10] == RET)
        || (code[at] == 0x85 && code[at + 1] == 0x05 && code[at + 6] == RET)
}

/// Where the registers of an interrupted frame's caller are: the places of return address and frame pointer (`None`: in
/// its register), and the caller's stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stack pointer of the caller; the return address is below it.
    pub sp: u64,
    /// Where its frame pointer is; 0: in the register.
    pub fp: u64,
}

impl Place {
    /// Those of a frame of a shape.
    #[inline(always)]
    pub fn of(shape: Shape, frame_size: i32, frame: &Registers) -> Self {
        let at = |words: u64, fp: u64| Self { sp: frame.sp.wrapping_add(words * 8), fp };
        let size = u64::from(frame_size as u32).min(u64::from(MAX_FRAME_WORDS));
        match shape {
            Shape::None => at(1, 0),
            Shape::Pushed => at(2, frame.sp),
            Shape::Sized => at(size, 0),
            Shape::Complete => at(size, frame.sp.wrapping_add(size * 8).wrapping_sub(16)),
        }
    }

    /// The same for a frame with a record at its frame pointer, from the word above that: the return address, or what
    /// the entry barrier of compiled code (`generate_method_entry_barrier`) has between the two.
    #[inline(always)]
    pub const fn at_frame_pointer(frame: &Registers, above: u64) -> Self {
        let cookie = (above == u64::MAX) as u64 * 8;
        Self { sp: frame.fp.wrapping_add(16 + cookie), fp: frame.fp }
    }
}

/// Takes a step to where a frame's caller is thought to be: it is believed only if its `pc` stands behind a call, or is
/// the interpreter's, which has its callees return to places that nothing calls from.
///
/// # Errors
/// It does not.
#[inline(always)]
pub fn by_place(
    jvm: &Jvm,
    place: Place,
    frame: &Registers,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Result<Caller, WalkEnd> {
    if place.sp <= frame.sp || place.sp & 7 != 0 {
        return Err(WalkEnd::JavaCode);
    }
    let pc = read(place.sp.wrapping_sub(8)).ok_or(WalkEnd::JavaCode)?;
    if !jvm.is_interpreter(pc) && !is_behind_call(pc, &mut read) {
        return Err(WalkEnd::JavaCode);
    }
    let fp = if place.fp == 0 { frame.fp } else { read(place.fp).ok_or(WalkEnd::JavaCode)? };
    Ok(Caller { registers: Registers { pc, sp: place.sp, fp, lr: 0 }, interrupted: false })
}

/// Whether an address stands behind a call. Of stubs that are returned to, one does not: where the frames of a virtual
/// thread end that are on the stack, with others on the heap (`cont_returnBarrier`).
#[inline(always)]
pub fn is_behind_call(pc: u64, mut read: impl FnMut(u64) -> Option<u64>) -> bool {
    read(pc.wrapping_sub(8)).is_some_and(|before| ends_with_call(Arch::X86_64, before))
}

/// An interpreted frame as a word of a stack: which method, and which bytecode of it. No address has its highest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterpretedFrame {
    /// The `Method*`.
    pub method: u64,
    /// Index of the bytecode; `None`: not known (native methods have none).
    pub bci: Option<u16>,
}

impl InterpretedFrame {
    const MARK: u64 = 0b1000;
    /// One less than the highest, because readers of callers subtract one from what was made larger by one.
    const NO_BCI: u16 = 0xfffe;

    /// The word. `None`: the method has an address that none has.
    #[inline(always)]
    pub const fn word(self) -> Option<u64> {
        if self.method >> 47 != 0 || self.method & 7 != 0 || self.method == 0 {
            return None;
        }
        let bci = match self.bci {
            Some(bci) if bci < Self::NO_BCI => bci,
            _ => Self::NO_BCI,
        };
        Some(Self::MARK << 60 | self.method << 13 | bci as u64)
    }

    /// What the word of a frame says, if it is that of an interpreted one.
    pub const fn of_word(word: u64) -> Option<Self> {
        if word >> 60 != Self::MARK {
            return None;
        }
        let bci = word as u16;
        let method = word >> 16 << 20 >> 17;
        Some(Self { method, bci: if bci < Self::NO_BCI { Some(bci) } else { None } })
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Jvm {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SP: u64 = 0x7f00_0000_1000;
    const CODE: u64 = 0x7f11_0000_0000;

    fn frame() -> Registers {
        Registers { pc: CODE + 0x40, sp: SP, fp: SP + 0x100, lr: 0 }
    }

    fn jvm() -> Jvm {
        Jvm {
            interpreter: 0x7f12_0000_0000,
            interpreter_end: 0x7f12_0001_0000,
            used: 8,
            frame_size: 16 + 28,
            frame_complete: 16 + 20,
            frame_complete_bytes: 4,
            code_begin: 16 + 32,
            code_begin_is_pointer: 1,
            block_header: 16,
            ..Jvm::default()
        }
    }

    fn code(bytes: &[u8]) -> [u8; CODE_BYTES] {
        let mut code = [0x90; CODE_BYTES];
        code[..bytes.len()].copy_from_slice(bytes);
        code
    }

    #[test]
    fn a_blob_says_what_its_frames_are() {
        let mut head = [0u32; HEAD_WORDS];
        head[2] = 1;
        (head[11], head[9]) = (6, 12);
        (head[12], head[13]) = (CODE as u32, (CODE >> 32) as u32);
        let blob = Blob { frame_size: 6, frame_complete: 12, code_begin: CODE };
        assert_eq!(jvm().blob(0x5000, &head), Some(blob));
        // JDK 25: a distance, and two bytes of which the other two are something else.
        let newer =
            Jvm { code_begin_is_pointer: 0, frame_complete: 16 + 22, frame_complete_bytes: 2, ..jvm() };
        (head[12], head[9]) = (0x80, 0xffff_1234);
        let blob = Blob { frame_size: 6, frame_complete: -1, code_begin: 0x5000 + 16 + 0x80 };
        assert_eq!(newer.blob(0x5000, &head), Some(blob));
        // The byte beside is not the one.
        head[2] = 0xff00;
        assert_eq!(jvm().blob(0x5000, &head), None);
    }

    #[test]
    fn a_segment_map_is_followed_to_its_block() {
        assert_eq!(
            [back(7, 0), back(7, 3), back(7, FREE), back(7, 8)],
            [Ok(7), Err(Some(4)), Err(None), Err(None)]
        );
    }

    /// What two compilers make, instruction by instruction, with the shape before each.
    #[test]
    fn frames_are_seen_to_be_made_and_left() {
        use Shape::{Complete, None, Pushed, Sized};
        let poll = [0x49, 0x3b, 0xa7, 0x20, 4, 0, 0, 0x0f, 0x87, 9, 0, 0, 0];
        // Bang, push, sub; barrier; body; add, pop, poll, ret.
        let made: &[(&[u8], Shape)] = &[
            (&[0x89, 0x84, 0x24, 0, 0xc0, 0xfe, 0xff], None),
            (&[0x55], None),
            (&[0x48, 0x83, 0xec, 0x30], Pushed),
            (&[0x41, 0x81, 0x7f, 0x20, 0x62, 0, 0, 0], Complete),
            (&[0x0f, 0x85, 1, 2, 3, 4], Complete),
        ];
        let left: &[(&[u8], Shape)] = &[
            (&[0x41, 0x3b, 0xc8], Complete),
            (&[0x48, 0x83, 0xc4, 0x30], Complete),
            (&[0x5d], Pushed),
            (&poll[..7], None),
            (&poll[7..], None),
            (&[0xc3], None),
        ];
        check(&[made, left], 26);
        // By a frame pointer, as bridges to native methods do.
        let made: &[(&[u8], Shape)] =
            &[(&[0x55], None), (&[0x48, 0x8b, 0xec], Pushed), (&[0x48, 0x81, 0xec, 0x40, 1, 0, 0], Pushed)];
        check(&[made, &[(&[0x48, 0x8b, 0xc8], Complete), (&[0xc9], Complete), (&[0xc3], None)]], 11);
        // In one step, of functions that call nothing.
        let made: &[(&[u8], Shape)] =
            &[(&[0x48, 0x81, 0xec, 0x18, 0, 0, 0], None), (&[0x48, 0x89, 0x6c, 0x24, 0x10], Sized)];
        check(&[made, left], 12);
        // The instructions before a frame can be many: a check of the class, at another entry.
        assert_eq!(shape(0, 60, 0, &code(&[0x44, 0x8b, 0x56, 8])), None);
    }

    fn check(parts: &[&[(&[u8], Shape)]], complete: i32) {
        let all: std::vec::Vec<u8> =
            parts.iter().flat_map(|part| part.iter()).flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        let mut at = 0;
        for (bytes, expected) in parts.iter().flat_map(|part| part.iter()) {
            let rest = &all[at..];
            let mut before = [0x90; 8];
            let known = at.min(8);
            before[8 - known..].copy_from_slice(&all[at - known..at]);
            let code = code(&rest[..rest.len().min(CODE_BYTES)]);
            let found = shape(at as u64, complete, u64::from_le_bytes(before), &code);
            assert_eq!(found, *expected, "before {bytes:x?}");
            at += bytes.len();
        }
    }

    #[test]
    fn a_compiled_frame_is_left_by_its_size() {
        let memory: HashMap<u64, u64> = [(SP + 32, 7), (SP + 40, CODE)].into();
        let read = |address| memory.get(&address).copied();
        let registers = Registers { pc: CODE, sp: SP + 48, fp: 7, lr: 0 };
        assert_eq!(by_size(6, &frame(), read), Ok(Caller { registers, interrupted: false }));
        assert_eq!(by_size(7, &frame(), read), Err(WalkEnd::BadRead));
        for size in [0, 1, -1, i32::MAX] {
            assert_eq!(by_size(size, &frame(), read), Err(WalkEnd::JavaCode));
        }
    }

    #[test]
    fn a_caller_is_believed_by_its_call() {
        let call = u64::from_le_bytes([0, 0, 0, 0xe8, 1, 2, 3, 4]);
        let interpreter = jvm().interpreter + 0x100;
        let memory: HashMap<u64, u64> =
            [(SP, CODE), (CODE - 8, call), (SP + 8, CODE + 0x500), (SP + 16, interpreter), (SP + 24, 9)]
                .into();
        let read = |address| memory.get(&address).copied();
        let at = |words: u64, fp| by_place(&jvm(), Place { sp: SP + 8 * words, fp }, &frame(), read);
        let caller = |pc, words: u64, fp| {
            Ok(Caller { registers: Registers { pc, sp: SP + 8 * words, fp, lr: 0 }, interrupted: false })
        };
        assert_eq!(at(1, 0), caller(CODE, 1, frame().fp));
        assert_eq!(at(1, SP + 24), caller(CODE, 1, 9));
        assert_eq!(at(2, 0), Err(WalkEnd::JavaCode), "nothing calls there");
        assert_eq!(at(3, 0), caller(interpreter, 3, frame().fp));
        assert_eq!(at(0, 0), Err(WalkEnd::JavaCode), "it is not further out");
        assert_eq!(Place::at_frame_pointer(&frame(), u64::MAX).sp, frame().fp + 24);
        assert_eq!(Place::at_frame_pointer(&frame(), CODE).sp, frame().fp + 16);
    }

    #[test]
    fn an_interpreted_frame_has_its_caller() {
        let mut words = [0; 10];
        (words[SENDER_SP], words[SENDER_FP], words[RETURN_PC]) = (frame().fp + 32, 5, CODE);
        let registers = Registers { pc: CODE, sp: frame().fp + 32, fp: 5, lr: 0 };
        assert_eq!(by_interpreted(&frame(), &words), Ok(Caller { registers, interrupted: false }));
        for wrong in [frame().fp, frame().fp + 33, frame().fp + (2 << 20), 0] {
            words[SENDER_SP] = wrong;
            assert_eq!(by_interpreted(&frame(), &words), Err(WalkEnd::JavaCode), "{wrong:#x}");
        }
        assert_eq!(check_interpreted(&frame()), Ok(()));
        assert_eq!(check_interpreted(&Registers { fp: SP - 8, ..frame() }), Err(WalkEnd::JavaCode));
    }

    proptest! {
        #[test]
        fn interpreted_frames_are_words(method in 1u64..1 << 44, bci in 0u16..0xfffe, is_caller: bool) {
            let frame = InterpretedFrame { method: method << 3, bci: Some(bci) };
            let word = frame.word().unwrap();
            // As the kernel side writes callers, and readers read them.
            let read = word.wrapping_add(u64::from(is_caller)).wrapping_sub(u64::from(is_caller));
            prop_assert_eq!(InterpretedFrame::of_word(read), Some(frame));
            let native = InterpretedFrame { bci: None, ..frame };
            let word = native.word().unwrap();
            prop_assert_eq!(InterpretedFrame::of_word(word), Some(native));
            prop_assert_eq!((word + 1) >> 16, word >> 16);
        }

        #[test]
        fn no_address_is_an_interpreted_frame(address in 0u64..1 << 57) {
            prop_assert_eq!(InterpretedFrame::of_word(address), None);
            prop_assert_eq!(InterpretedFrame::of_word(!address), None);
        }

        /// Whatever is read, the stack pointer moves outwards.
        #[test]
        fn the_walk_goes_outwards(size: i32, sp in 0u64..1 << 47, fp in 0u64..1 << 47, word: u64, words: Interpreted) {
            let frame = Registers { pc: CODE, sp, fp, lr: 0 };
            if let Ok(next) = by_size(size, &frame, |_| Some(word)) {
                prop_assert!(next.registers.sp > sp);
            }
            if check_interpreted(&frame).is_ok() && let Ok(next) = by_interpreted(&frame, &words) {
                prop_assert!(next.registers.sp > sp);
            }
        }

        #[test]
        fn any_code_has_a_shape(offset: u64, complete: i32, before: u64, code: [u8; CODE_BYTES]) {
            let shape = shape(offset, complete, before, &code);
            prop_assert!(Place::of(shape, complete, &frame()).sp >= SP);
        }
    }
}
