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

mod shape;
mod word;

pub use self::{
    shape::{CODE_BYTES, Shape, shape},
    word::{CodeFrame, CodeId, InterpretedFrame, is_java_word},
};
use super::step::{Caller, ends_with_call};
use crate::{registers::Registers, stack::WalkEnd, unwind::Arch};

/// Most code heaps of a JVM: JDK 9 and later have three, with a hot code heap four.
pub const MAX_HEAPS: usize = 4;
/// Most JVMs whose Java code is walked at the same time.
pub const MAX_JVMS: usize = 512;
/// Bytes that are read of a block: its header, and that of the blob behind it, which of an nmethod has up to 352.
pub const HEAD_BYTES: usize = 384;
/// Bytes that every block has (`CodeCacheMinBlockLength` segments): read where there are no more. What is looked for in
/// blobs that are no nmethods is in them.
pub const SHORT_HEAD_BYTES: usize = 128;
/// Room for them, words of 4 bytes; a power of two, so that an index is easily bounded.
pub const HEAD_WORDS: usize = 128;
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
    /// The first address of all code heaps, which [`CodeFrame::offset`] counts from.
    pub code_base: u64,
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
    /// Where its blob says how long its own header is.
    pub header_size: u32,
    /// The bytes of that: 2 or 4.
    pub header_size_bytes: u32,
    /// How long that of an nmethod is, which no other kind of blob has.
    pub nmethod_header: u32,
    /// Where the pointer to the blob's name is.
    pub name: u32,
    /// Where an nmethod has the number of its compilation (four bytes).
    pub compile_id: u32,
    /// Where it says where a deoptimized frame keeps its own return address (four bytes: distance from the stack pointer);
    /// 0: not known.
    pub original_pc: u32,
    /// Where it has the addresses that such a frame is returned to instead, as `code_begin`; 0: not known.
    pub deopt_handlers: [u32; 2],
    /// 1: those are pointers.
    pub deopt_handlers_are_pointers: u32,
    /// Which of [`Interpreted`]'s words is the bytecode's address: 0 or 1.
    pub bcp: u32,
    /// Where a `Method` has the pointer to its `ConstMethod`.
    pub const_method: u32,
    /// The size of a `ConstMethod`, behind which the bytecode is.
    pub bytecode: u32,
    /// Not used.
    pub padding: u32,
}

const _: () = assert!(size_of::<Heap>() == 32);
const _: () = assert!(size_of::<Jvm>() == 2 * 8 + MAX_HEAPS * 32 + 3 * 8 + 20 * 4);

/// What the front of a block says of its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Size of its frames, words with the return address; 0 or less: they have no common size.
    pub frame_size: i32,
    /// Distance from the first instruction from which on the frame is complete, bytes; less than 0: not told.
    pub frame_complete: i32,
    /// First instruction.
    pub code_begin: u64,
    /// Which code it is.
    pub code: CodeId,
    /// Addresses that frames are returned to that were deoptimized; 0: not known, or none.
    pub deopt_handlers: [u64; 2],
    /// Where such a frame has its own return address, bytes above its stack pointer.
    pub original_pc: u32,
}

impl Blob {
    /// Whether an address that is returned to says that the frame was deoptimized. Its own is then at `original_pc`
    /// (`frame::deoptimize`, share/runtime/frame.cpp).
    #[inline(always)]
    pub const fn is_deoptimized(&self, pc: u64) -> bool {
        pc != 0 && (pc == self.deopt_handlers[0] || pc == self.deopt_handlers[1])
    }
}

impl Jvm {
    /// What a block's first words say, if the block is in use.
    #[inline(always)]
    pub fn blob(&self, block: u64, head: &[u32; HEAD_WORDS]) -> Option<Blob> {
        let word = |offset: u32| head[(offset >> 2) as usize % HEAD_WORDS];
        let pointer = |offset: u32| u64::from(word(offset)) | u64::from(word(offset.wrapping_add(4))) << 32;
        // A distance, from the blob's start.
        let place = |distance: u32| {
            block.wrapping_add(u64::from(self.block_header)).wrapping_add(u64::from(distance))
        };
        if word(self.used) >> ((self.used & 3) * 8) & 0xff == 0 {
            return None;
        }
        let complete = word(self.frame_complete);
        let frame_complete = match self.frame_complete_bytes {
            2 => i32::from((complete >> ((self.frame_complete & 2) * 8)) as i16),
            _ => complete as i32,
        };
        let code_begin = match self.code_begin_is_pointer {
            0 => place(word(self.code_begin)),
            _ => pointer(self.code_begin),
        };
        let header = word(self.header_size);
        let header = match self.header_size_bytes {
            2 => header >> ((self.header_size & 2) * 8) & 0xffff,
            _ => header,
        };
        let (mut code, mut deopt_handlers, mut original_pc) = (CodeId::other(pointer(self.name)), [0; 2], 0);
        if header == self.nmethod_header {
            code = CodeId::compilation(word(self.compile_id));
            original_pc = word(self.original_pc);
            for (at, found) in self.deopt_handlers.iter().zip(&mut deopt_handlers) {
                // Of those that an nmethod does not have, the distance is -1.
                *found = match self.deopt_handlers_are_pointers {
                    _ if *at == 0 || self.original_pc == 0 => 0,
                    0 if word(*at) as i32 <= 0 => 0,
                    0 => place(word(*at)),
                    _ => pointer(*at),
                };
            }
        }
        let frame_size = word(self.frame_size) as i32;
        Some(Blob { frame_size, frame_complete, code_begin, code, deopt_handlers, original_pc })
    }

    /// The word for an address in the code heaps, and which code is there.
    #[inline(always)]
    pub const fn code_word(&self, code: CodeId, address: u64) -> u64 {
        CodeFrame { code, offset: address.wrapping_sub(self.code_base) as u32 }.word()
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
pub const SENDER_SP: usize = 7;
/// Which of them is the caller's frame pointer.
pub const SENDER_FP: usize = 8;
/// Which of them is the return address.
pub const RETURN_PC: usize = 9;

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
            header_size: 16 + 16,
            header_size_bytes: 4,
            nmethod_header: 352,
            name: 16 + 96,
            compile_id: 16 + 304,
            original_pc: 16 + 300,
            deopt_handlers: [16 + 128, 16 + 136],
            deopt_handlers_are_pointers: 1,
            ..Jvm::default()
        }
    }

    #[test]
    fn a_blob_says_what_its_frames_are() {
        let mut head = [0u32; HEAD_WORDS];
        head[2] = 1;
        (head[11], head[9]) = (6, 12);
        (head[12], head[13]) = (CODE as u32, (CODE >> 32) as u32);
        (head[28], head[29]) = (0x4000, 0x7000);
        let blob = Blob {
            frame_size: 6,
            frame_complete: 12,
            code_begin: CODE,
            code: CodeId::other(0x7000_0000_4000),
            deopt_handlers: [0; 2],
            original_pc: 0,
        };
        assert_eq!(jvm().blob(0x5000, &head), Some(blob));
        // JDK 25: a distance, and two bytes of which the other two are something else.
        let newer =
            Jvm { code_begin_is_pointer: 0, frame_complete: 16 + 22, frame_complete_bytes: 2, ..jvm() };
        (head[12], head[9]) = (0x80, 0xffff_1234);
        let blob = Blob { frame_complete: -1, code_begin: 0x5000 + 16 + 0x80, ..blob };
        assert_eq!(newer.blob(0x5000, &head), Some(blob));
        // The byte beside is not the one.
        head[2] = 0xff00;
        assert_eq!(jvm().blob(0x5000, &head), None);
    }

    #[test]
    fn a_compilation_says_which_it_is() {
        let mut head = [0u32; HEAD_WORDS];
        (head[2], head[8], head[80], head[79]) = (1, 352, 77, 40);
        (head[36], head[37], head[38], head[39]) = (CODE as u32 + 0x50, (CODE >> 32) as u32, 0, 0);
        let of = |jvm: Jvm, head: &_| jvm.blob(0x5000, head).unwrap();
        let blob = of(jvm(), &head);
        assert_eq!((blob.code, blob.original_pc), (CodeId::compilation(77), 40));
        assert!(blob.is_deoptimized(CODE + 0x50));
        assert!(
            !blob.is_deoptimized(CODE + 0x51) && !blob.is_deoptimized(0),
            "the other handler is not there"
        );
        assert!(!of(Jvm { original_pc: 0, ..jvm() }, &head).is_deoptimized(CODE + 0x50));
        // JDK 25: two bytes for the header, distances for the handlers.
        let newer =
            Jvm { header_size: 16 + 18, header_size_bytes: 2, deopt_handlers_are_pointers: 0, ..jvm() };
        (head[8], head[36], head[38]) = (352 << 16 | 5, 0x90, u32::MAX);
        let blob = of(newer, &head);
        assert_eq!(blob.code, CodeId::compilation(77));
        assert!(blob.is_deoptimized(0x5000 + 16 + 0x90) && !blob.is_deoptimized(0x5000 + 15));
        // Another kind of blob.
        head[8] = 104 << 16 | 352;
        assert!(!of(newer, &head).code.is_compilation());
        assert!(!of(newer, &head).is_deoptimized(0x5000 + 16 + 0x90));
    }

    #[test]
    fn a_segment_map_is_followed_to_its_block() {
        assert_eq!(
            [back(7, 0), back(7, 3), back(7, FREE), back(7, 8)],
            [Ok(7), Err(Some(4)), Err(None), Err(None)]
        );
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

    }
}
