//! The numbers that a walk through Java frames needs, told by the JVM itself where it exports them.
//!
//! Source: share/runtime/frame.hpp, cpu/x86/frame_x86.hpp (interpreted and entry frames), share/code/codeBlob.hpp.

use profiler_common::unwind::java::{CodeFrame, HEAD_BYTES, Heap, Jvm, MAX_HEAPS, SHORT_HEAD_BYTES};

use super::{
    Fault,
    code_cache::{self, CodeHeap},
    layout::{Layout, Pointer},
    vmstructs::{Scalar, Tables},
};
use crate::symbolize::runtime::memory::Memory;

/// Most names of compiled code: HotSpot has two.
const NMETHOD_NAMES: [&[u8]; 2] = [b"nmethod", b"native nmethod"];

/// What a walk needs of one JVM. Offsets are in bytes from the start of the object that the field's name begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindLayout {
    /// Major version of the JDK.
    pub major: u32,
    /// The code heaps: `[low, high)` in use, address and shift of the segment map.
    pub heaps: Vec<CodeHeap>,
    /// Offset of a block's `used` flag (one byte).
    pub block_used: u64,
    /// Size of a block's header, behind which the blob is.
    pub block_header: u64,
    /// Offset of the pointer to a blob's name.
    pub blob_name: u64,
    /// Size of a blob's own header, bytes.
    pub blob_header_size: Scalar,
    /// Size of a frame, in words.
    pub blob_frame_size: Scalar,
    /// Distance from the first instruction from which on the frame is complete, bytes.
    pub blob_frame_complete: Scalar,
    /// First instruction.
    pub blob_code_begin: Pointer,
    /// Addresses of the strings `nmethod` and `native nmethod`, where code of that kind was seen; a blob whose name is
    /// one of them is compiled code.
    pub nmethod_names: [Option<u64>; 2],
    /// Size of the header of compiled code, which no other blob has.
    pub nmethod_header_size: u64,
    /// Offset of the `Method*`.
    pub nmethod_method: u64,
    /// Number of the compilation.
    pub nmethod_compile_id: Scalar,
    /// Where a deoptimized frame keeps its own return address, from the stack pointer.
    pub nmethod_orig_pc_offset: Option<Scalar>,
    /// Where such frames are returned to instead.
    pub nmethod_deopt_handlers: [Option<Pointer>; 2],
    /// Addresses of the interpreter's code: first and behind the last.
    pub interpreter: (u64, u64),
    /// Where Java code returns to native code that called it.
    pub call_stub_return: u64,
    /// Offset from such a frame's frame pointer to the `JavaCallWrapper*`, in words.
    pub entry_frame_call_wrapper: i64,
    /// Offset of the `JavaFrameAnchor` in a `JavaCallWrapper`.
    pub call_wrapper_anchor: u64,
    /// Offset of the `JavaFrameAnchor` in a `JavaThread`.
    pub thread_anchor: u64,
    /// Offsets of the stack pointer, the program counter and the frame pointer in a `JavaFrameAnchor`.
    pub anchor: [u64; 3],
    /// Offsets of the sender's stack pointer, the `Method*` and the bytecode's address from an interpreted frame's frame
    /// pointer, in bytes. `None`: not known for this architecture.
    pub interpreted_frame: Option<InterpretedFrame>,
    /// Offset of the `ConstMethod*` in a `Method`.
    pub const_method: u64,
    /// Size of a `ConstMethod`, behind which the bytecode is.
    pub const_method_size: u64,
}

/// Offsets from the frame pointer of an interpreted frame, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterpretedFrame {
    /// The stack pointer of the caller.
    pub sender_sp: i64,
    /// The `Method*`.
    pub method: i64,
    /// The address of the bytecode.
    pub bcp: i64,
}

impl InterpretedFrame {
    /// cpu/x86/frame_x86.hpp, `interpreter_frame_*_offset`: -1, -3, and -8 behind the mirror that JDK 9 added.
    const fn of(major: u32) -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self { sender_sp: -8, method: -24, bcp: if major == 8 { -56 } else { -64 } })
        } else {
            None
        }
    }
}

impl UnwindLayout {
    /// Reads them.
    ///
    /// # Errors
    /// Something is not exported, the JVM is still starting, or the process is gone.
    pub fn new(memory: &impl Memory, tables: &Tables, layout: &Layout) -> Result<Self, Fault> {
        // The heaps are made one after the other, and the interpreter gives a part of its buffer back when it is made: what
        // is read now is final only because this was so before.
        if !has_java_threads(memory, tables)? {
            return Err(Fault::Torn("no Java thread yet"));
        }
        let heaps = code_cache::read_heaps(memory, layout)?;
        let offset = |name: &'static str| tables.offset(name).ok_or(Fault::Missing(name));
        const WRAPPER: &str = "frame::entry_frame_call_wrapper_offset";
        Ok(Self {
            major: layout.major,
            nmethod_names: nmethod_names(memory, layout, &heaps)?,
            heaps,
            block_used: layout.heap.block_used.offset,
            block_header: layout.heap.block_header,
            blob_name: layout.blob.name,
            blob_header_size: layout.blob.header_size,
            blob_frame_size: layout.blob.frame_size,
            blob_frame_complete: layout.blob.frame_complete,
            blob_code_begin: layout.blob.code_begin,
            nmethod_header_size: layout.nmethod.header_size,
            nmethod_method: layout.nmethod.method,
            nmethod_compile_id: layout.nmethod.compile_id,
            nmethod_orig_pc_offset: layout.nmethod.orig_pc_offset,
            nmethod_deopt_handlers: layout.nmethod.deopt_handlers,
            interpreter: interpreter(memory, tables)?,
            call_stub_return: call_stub_return(memory, tables)?,
            entry_frame_call_wrapper: tables.constant(WRAPPER).ok_or(Fault::Missing(WRAPPER))?,
            call_wrapper_anchor: offset("JavaCallWrapper::_anchor")?,
            thread_anchor: offset("JavaThread::_anchor")?,
            anchor: [
                offset("JavaFrameAnchor::_last_Java_sp")?,
                offset("JavaFrameAnchor::_last_Java_pc")?,
                offset("JavaFrameAnchor::_last_Java_fp")?,
            ],
            interpreted_frame: InterpretedFrame::of(layout.major),
            const_method: layout.method.const_method,
            const_method_size: layout.method.const_method_size,
        })
    }

    /// The first address of all code heaps ([`Jvm::code_base`]). `None`: they reach further than the words of frames do.
    pub fn code_base(&self) -> Option<u64> {
        let heaps = || self.heaps.iter().filter(|heap| heap.low < heap.reserved_high);
        let base = heaps().map(|heap| heap.low).min()?;
        let end = heaps().map(|heap| heap.reserved_high).max()?;
        (end - base <= CodeFrame::MAX_BYTES).then_some(base)
    }

    /// The same as the kernel side takes it. `None`: it does not know such frames, or not so many heaps, or something is
    /// further behind the start of a block than it looks.
    pub fn jvm(&self, incarnation: u64) -> Option<Jvm> {
        let bcp = match self.interpreted_frame? {
            InterpretedFrame { sender_sp: -8, method: -24, bcp: -64 } => 0,
            InterpretedFrame { sender_sp: -8, method: -24, bcp: -56 } => 1,
            _ => return None,
        };
        let mut heaps = [Heap::default(); MAX_HEAPS];
        for (i, heap) in self.heaps.iter().enumerate() {
            let CodeHeap { low, reserved_high: high, segmap, log2_segment_size: shift, .. } = *heap;
            *heaps.get_mut(i)? = Heap { low, high, segmap, shift, padding: 0 };
        }
        let within = |offset: u64, bytes: u64, all: usize| {
            (offset.checked_add(bytes)? <= all as u64).then_some(offset as u32)
        };
        let in_blob = |offset, bytes| within(self.block_header + offset, bytes, SHORT_HEAD_BYTES);
        let of_blob = |field: Scalar| in_blob(field.offset, u64::from(field.size));
        let in_nmethod = |offset, bytes| within(self.block_header + offset, bytes, HEAD_BYTES);
        let of_nmethod = |field: Scalar| match field.size {
            4 => in_nmethod(field.offset, 4),
            _ => None,
        };
        let (code_begin, code_begin_is_pointer) = match self.blob_code_begin {
            Pointer::Absolute(offset) => (in_blob(offset, 8)?, 1),
            Pointer::Relative(field) if field.size == 4 => (of_blob(field)?, 0),
            Pointer::Relative(_) => return None,
        };
        let is_size = |field: Scalar| matches!(field.size, 2 | 4);
        if self.blob_frame_size.size != 4
            || !is_size(self.blob_frame_complete)
            || !is_size(self.blob_header_size)
        {
            return None;
        }
        // Without these, deoptimized frames are frames at their handler.
        let handlers = self.nmethod_deopt_handlers.map(|handler| match handler? {
            Pointer::Absolute(offset) => Some((in_nmethod(offset, 8)?, 1)),
            Pointer::Relative(field) => Some((of_nmethod(field)?, 0)),
        });
        Some(Jvm {
            incarnation,
            code_base: self.code_base()?,
            heaps,
            interpreter: self.interpreter.0,
            interpreter_end: self.interpreter.1,
            call_stub_return: self.call_stub_return,
            used: within(self.block_used, 1, SHORT_HEAD_BYTES)?,
            frame_size: of_blob(self.blob_frame_size)?,
            frame_complete: of_blob(self.blob_frame_complete)?,
            frame_complete_bytes: u32::from(self.blob_frame_complete.size),
            code_begin,
            code_begin_is_pointer,
            block_header: self.block_header as u32,
            header_size: of_blob(self.blob_header_size)?,
            header_size_bytes: u32::from(self.blob_header_size.size),
            nmethod_header: u32::try_from(self.nmethod_header_size).ok()?,
            name: in_blob(self.blob_name, 8)?,
            compile_id: of_nmethod(self.nmethod_compile_id)?,
            original_pc: self.nmethod_orig_pc_offset.and_then(of_nmethod).unwrap_or(0),
            deopt_handlers: handlers.map(|handler| handler.map_or(0, |(offset, _)| offset)),
            deopt_handlers_are_pointers: handlers[0].map_or(0, |(_, is_pointer)| is_pointer),
            bcp,
            const_method: u32::try_from(self.const_method).ok()?,
            bytecode: u32::try_from(self.const_method_size).ok()?,
            padding: 0,
        })
    }
}

/// Whether there is a thread that can run Java code. The first is there when all parts of the JVM are made, the compilers
/// apart (`Threads::create_vm`, share/runtime/threads.cpp).
fn has_java_threads(memory: &impl Memory, tables: &Tables) -> Result<bool, Fault> {
    // JDK 8 and 11: a chain.
    if let Some(first) = tables.address("Threads::_thread_list") {
        return Ok(memory.u64(first)? != 0);
    }
    const LIST: &str = "ThreadsSMRSupport::_java_thread_list";
    const LENGTH: &str = "ThreadsList::_length";
    let list = memory.u64(tables.address(LIST).ok_or(Fault::Missing(LIST))?)?;
    Ok(list != 0 && tables.scalar(LENGTH).ok_or(Fault::Missing(LENGTH))?.get(memory, list)? != 0)
}

/// It is made before the first Java code runs.
fn call_stub_return(memory: &impl Memory, tables: &Tables) -> Result<u64, Fault> {
    const NAME: &str = "StubRoutines::_call_stub_return_address";
    match memory.u64(tables.address(NAME).ok_or(Fault::Missing(NAME))?)? {
        0 => Err(Fault::Torn("the stub that calls Java code")),
        address => Ok(address),
    }
}

/// The interpreter's code is a queue of stubs in one buffer.
fn interpreter(memory: &impl Memory, tables: &Tables) -> Result<(u64, u64), Fault> {
    const CODE: &str = "AbstractInterpreter::_code";
    const BUFFER: &str = "StubQueue::_stub_buffer";
    const LIMIT: &str = "StubQueue::_buffer_limit";
    let queue = memory.u64(tables.address(CODE).ok_or(Fault::Missing(CODE))?)?;
    let buffer = tables.offset(BUFFER).ok_or(Fault::Missing(BUFFER))?;
    let low = memory.u64(queue.wrapping_add(buffer))?;
    let limit = tables.scalar(LIMIT).ok_or(Fault::Missing(LIMIT))?.get(memory, queue)?;
    let high = u64::try_from(limit).ok().and_then(|limit| low.checked_add(limit));
    Ok((low, high.ok_or(Fault::Torn("the interpreter"))?))
}

/// The strings are literals of libjvm: every blob of a kind points to the same.
fn nmethod_names(
    memory: &impl Memory,
    layout: &Layout,
    heaps: &[CodeHeap],
) -> Result<[Option<u64>; 2], Fault> {
    let mut names = [None; 2];
    for blob in code_cache::all_blobs(memory, layout, heaps)? {
        let pointer = memory.u64(blob.wrapping_add(layout.blob.name))?;
        if names.contains(&Some(pointer)) {
            continue;
        }
        let Ok(text) = memory.c_string(pointer, 32) else { continue };
        if let Some(which) = NMETHOD_NAMES.iter().position(|name| **name == *text) {
            names[which] = Some(pointer);
        }
        if names.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(names)
}
