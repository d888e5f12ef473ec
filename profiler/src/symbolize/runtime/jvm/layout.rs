//! Where HotSpot keeps what is read here, by the tables of the very libjvm that runs ([`Tables`]).
//!
//! What differs between versions is told by which fields are exported, each named below with the version that brought
//! or dropped it. A field that a version should have and has not is an error: another layout is not guessed.
//!
//! | JDK | code start | method of compiled code | scopes | metadata |
//! |---|---|---|---|---|
//! | 8 | blob + `_code_offset` | `nmethod::_method` | in the nmethod, by offset | nmethod + `_metadata_offset` |
//! | 11-22 | `_code_begin` | `CompiledMethod::_method` | in the nmethod, `_scopes_data_begin` | the same |
//! | 23, 24 | blob + `_code_offset` | `nmethod::_method` | in `_immutable_data` | nmethod + `_data_offset` + `_metadata_offset` |
//! | 25- | the same | the same | the same | `CodeBlob::_mutable_data` + `_relocation_size` |

use super::{Fault, vmstructs::Scalar};
use crate::symbolize::runtime::memory::Memory;

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Major version of the JDK.
    pub major: u32,
    /// The list of code heaps.
    pub heaps: Heaps,
    /// A code heap.
    pub heap: Heap,
    /// A code blob of any kind.
    pub blob: Blob,
    /// A blob that is compiled Java code.
    pub nmethod: Nmethod,
    /// Methods, and what their names and lines are in.
    pub method: Method,
}

/// The list of code heaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heaps {
    /// JDK 8: address of the pointer to the only one.
    One(u64),
    /// From JDK 9: a growable array of pointers.
    Several {
        /// Address of the pointer to the array.
        list: u64,
        /// Its number of elements.
        len: Scalar,
        /// Offset of the pointer to its elements.
        data: u64,
    },
}

/// `CodeHeap`, and the header of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Offset of the first address.
    pub low: u64,
    /// Offset of the address behind what is in use.
    pub high: u64,
    /// Offset of the address behind what is reserved.
    pub reserved_high: u64,
    /// Offset of the address of the segment map.
    pub segmap: u64,
    /// Binary logarithm of a segment's size.
    pub log2_segment_size: Scalar,
    /// Length of a block in segments.
    pub block_length: Scalar,
    /// Whether a block is in use.
    pub block_used: Scalar,
    /// Size of a block's header, bytes.
    pub block_header: u64,
}

/// `CodeBlob`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Offset of the pointer to the name.
    pub name: u64,
    /// Size with everything, bytes.
    pub size: Scalar,
    /// Size of its own header, bytes.
    pub header_size: Scalar,
    /// Size of a frame, words.
    pub frame_size: Scalar,
    /// Offset in the code from which on the frame is complete, bytes.
    pub frame_complete: Scalar,
    /// First instruction.
    pub code_begin: Pointer,
    /// Address behind the last instruction.
    pub code_end: Pointer,
}

/// How an object tells an address inside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// Offset of a field that has the address.
    Absolute(u64),
    /// A field that has the distance from the object's start.
    Relative(Scalar),
}

impl Pointer {
    /// The address, for the object at `base`.
    ///
    /// # Errors
    /// The memory cannot be read, or the distance is negative.
    pub fn get(self, memory: &impl Memory, base: u64) -> Result<u64, Fault> {
        match self {
            Self::Absolute(offset) => Ok(memory.u64(base.wrapping_add(offset))?),
            Self::Relative(scalar) => {
                let distance =
                    u64::try_from(scalar.get(memory, base)?).map_err(|_| Fault::Torn("an offset"))?;
                base.checked_add(distance).ok_or(Fault::Torn("an offset"))
            }
        }
    }
}

/// `nmethod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nmethod {
    /// Size of its header, which no other blob has.
    pub header_size: u64,
    /// Offset of the `Method*`.
    pub method: u64,
    /// Number of the compilation.
    pub compile_id: Scalar,
    /// Tier: 0 none, 1 to 3 C1, 4 C2.
    pub level: Scalar,
    /// Life cycle.
    pub state: Scalar,
    /// From this state on the code is dead and its methods may be gone; none from JDK 20 on.
    pub dead_state: Option<i64>,
    /// Bytecode index of the entry: -1, or where an on-stack replacement goes in.
    pub entry_bci: Scalar,
    /// Where a deoptimized frame keeps its own return address: offset from the stack pointer.
    pub orig_pc_offset: Option<Scalar>,
    /// The addresses that deoptimized frames are returned to instead: those of ordinary calls, and of method handles'.
    pub deopt_handlers: [Option<Pointer>; 2],
    /// Where the debug information is.
    pub scopes: Scopes,
    /// Where the table of `Method*` and other metadata is.
    pub metadata: Metadata,
    /// Least byte of compressed numbers: 1 from JDK 20 on (JDK-8292758), else 0.
    pub unsigned5_base: u8,
}

/// Where an nmethod's debug information is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// To JDK 22, inside: scope data, directly before the table of addresses.
    Inside {
        /// First byte of scope data.
        data: Pointer,
        /// The table of addresses, which is the end of the scope data.
        pcs: Pointer,
        /// End of the table.
        end: Pointer,
    },
    /// From JDK 23 (JDK-8331087): apart, the table of addresses first.
    Immutable {
        /// Offset of the pointer to it.
        base: u64,
        /// Its size, bytes.
        size: Scalar,
        /// Distance of the table.
        pcs: Scalar,
        /// Distance of the scope data, which is the end of the table.
        data: Scalar,
    },
}

/// Where an nmethod's table of metadata is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// To JDK 22: at a distance from the nmethod.
    Inside(Scalar),
    /// JDK 23 and 24: at a distance from the data section.
    InData {
        /// Distance of the data section.
        data: Scalar,
        /// Distance in it.
        metadata: Scalar,
    },
    /// From JDK 25 (JDK-8343789): apart, behind the relocations.
    Mutable {
        /// Offset of the pointer to it.
        base: u64,
        /// Size of the relocations, bytes.
        relocations: Scalar,
    },
}

/// What has the index of a source file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFile {
    /// JDK 8 and 11: the class.
    Class(Scalar),
    /// JDK 17 and later: the constant pool.
    Pool(Scalar),
}

/// `Method`, `ConstMethod`, `ConstantPool`, `Klass`, `Symbol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Offset of the `ConstMethod*`.
    pub const_method: u64,
    /// Offset of the access flags, in an order in which the lowest byte is the first.
    pub access_flags: Option<u64>,
    /// Offset of its `ConstantPool*`.
    pub constants: u64,
    /// Its flags.
    pub flags: Scalar,
    /// The flag of methods that have a line number table.
    pub has_lines: i64,
    /// Bytes of bytecode.
    pub code_size: Scalar,
    /// Index of the name in the constant pool.
    pub name_index: Scalar,
    /// Index of the descriptor.
    pub signature_index: Scalar,
    /// Size of a `ConstMethod`: bytecode follows, then the line number table.
    pub const_method_size: u64,
    /// Size of a method's own `ConstMethod` with all that follows, words.
    pub const_method_words: Scalar,
    /// Offset of the constant pool's class.
    pub pool_holder: u64,
    /// Number of entries of the constant pool.
    pub pool_length: Scalar,
    /// Index of the source file's name in the constant pool, 0 for none.
    pub source_file: Option<SourceFile>,
    /// Size of a `ConstantPool`: its entries follow, 8 bytes each.
    pub pool_size: u64,
    /// Offset of the class's name in a `Klass`.
    pub class_name: u64,
    /// Length of a symbol.
    pub symbol_length: Scalar,
    /// Bits that the length is above (12 to 14 keep it over the reference count).
    pub symbol_shift: u32,
    /// Offset of a symbol's text.
    pub symbol_body: u64,
}
