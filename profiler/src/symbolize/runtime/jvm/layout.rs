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

use super::{
    Fault,
    vmstructs::{Scalar, Tables},
};
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

/// `Method`, `ConstMethod`, `ConstantPool`, `Klass`, `Symbol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Offset of the `ConstMethod*`.
    pub const_method: u64,
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
    /// Index of the source file's name, 0 for none.
    pub source_file: Option<Scalar>,
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

impl Layout {
    /// The layout by a libjvm's tables. `memory` has the version's number.
    ///
    /// # Errors
    /// A field that is needed is not exported: a version that is not known here.
    pub fn new(tables: &Tables, memory: &impl Memory) -> Result<Self, Fault> {
        let major = major(tables, memory)?;
        let get = Getter(tables);
        Ok(Self {
            major,
            heaps: heaps(get)?,
            heap: heap(get)?,
            blob: blob(get)?,
            nmethod: nmethod(get, major)?,
            method: method(get)?,
        })
    }
}

/// JDK 8 counts HotSpot's version apart (25); it alone has a single code heap.
fn major(tables: &Tables, memory: &impl Memory) -> Result<u32, Fault> {
    if tables.address("CodeCache::_heap").is_some() {
        return Ok(8);
    }
    const NAME: &str = "Abstract_VM_Version::_vm_major_version";
    let major = memory.u32(tables.address(NAME).ok_or(Fault::Missing(NAME))?)?;
    if (9..1000).contains(&major) { Ok(major) } else { Err(Fault::Table("version")) }
}

/// Fields that must be there.
#[derive(Clone, Copy)]
struct Getter<'a>(&'a Tables);

impl Getter<'_> {
    fn address(self, name: &'static str) -> Result<u64, Fault> {
        self.0.address(name).ok_or(Fault::Missing(name))
    }

    fn offset(self, name: &'static str) -> Result<u64, Fault> {
        self.0.offset(name).ok_or(Fault::Missing(name))
    }

    fn scalar(self, name: &'static str) -> Result<Scalar, Fault> {
        self.0.scalar(name).ok_or(Fault::Missing(name))
    }

    fn size(self, name: &'static str) -> Result<u64, Fault> {
        self.0.size(name).ok_or(Fault::Missing(name))
    }

    fn relative(self, name: &'static str) -> Result<Pointer, Fault> {
        self.scalar(name).map(Pointer::Relative)
    }

    fn has(self, name: &str) -> bool {
        self.0.field(name).is_some()
    }
}

fn heaps(get: Getter<'_>) -> Result<Heaps, Fault> {
    if let Some(heap) = get.0.address("CodeCache::_heap") {
        return Ok(Heaps::One(heap));
    }
    // Renamed in JDK 13.
    let len = get.scalar("GrowableArrayBase::_len").or_else(|_| get.scalar("GenericGrowableArray::_len"))?;
    Ok(Heaps::Several {
        list: get.address("CodeCache::_heaps")?,
        len,
        data: get.offset("GrowableArray<int>::_data")?,
    })
}

fn heap(get: Getter<'_>) -> Result<Heap, Fault> {
    let (memory, segmap) = (get.offset("CodeHeap::_memory")?, get.offset("CodeHeap::_segmap")?);
    let (low, high) = (get.offset("VirtualSpace::_low")?, get.offset("VirtualSpace::_high")?);
    let used = get.scalar("HeapBlock::Header::_used")?;
    Ok(Heap {
        low: memory + low,
        high: memory + high,
        reserved_high: memory + get.offset("VirtualSpace::_high_boundary")?,
        segmap: segmap + low,
        log2_segment_size: get.scalar("CodeHeap::_log2_segment_size")?,
        block_length: get.scalar("HeapBlock::Header::_length")?,
        block_used: used,
        // `_used` is its last member, and it is aligned to words: 16 bytes, 8 from JDK 25 on.
        block_header: (used.offset + 8) & !7,
    })
}

fn blob(get: Getter<'_>) -> Result<Blob, Fault> {
    let (code_begin, code_end) = match get.has("CodeBlob::_code_begin") {
        true => (
            Pointer::Absolute(get.offset("CodeBlob::_code_begin")?),
            Pointer::Absolute(get.offset("CodeBlob::_code_end")?),
        ),
        false => (get.relative("CodeBlob::_code_offset")?, get.relative("CodeBlob::_data_offset")?),
    };
    Ok(Blob {
        name: get.offset("CodeBlob::_name")?,
        size: get.scalar("CodeBlob::_size")?,
        frame_size: get.scalar("CodeBlob::_frame_size")?,
        frame_complete: get.scalar("CodeBlob::_frame_complete_offset")?,
        code_begin,
        code_end,
    })
}

fn nmethod(get: Getter<'_>, major: u32) -> Result<Nmethod, Fault> {
    // The states that follow `not_entrant` (1 in JDK 8, 2 later): zombie and unloaded; gone in JDK 20 (JDK-8290025).
    let dead_state = match major {
        8 => Some(2),
        9..20 => Some(3),
        _ => None,
    };
    let method = get.offset("CompiledMethod::_method").or_else(|_| get.offset("nmethod::_method"))?;
    Ok(Nmethod {
        method,
        compile_id: get.scalar("nmethod::_compile_id")?,
        level: get.scalar("nmethod::_comp_level")?,
        state: get.scalar("nmethod::_state")?,
        dead_state,
        entry_bci: get.scalar("nmethod::_entry_bci")?,
        orig_pc_offset: get.0.scalar("nmethod::_orig_pc_offset"),
        scopes: scopes(get)?,
        metadata: metadata(get)?,
        unsigned5_base: u8::from(major >= 20),
    })
}

fn scopes(get: Getter<'_>) -> Result<Scopes, Fault> {
    if get.has("nmethod::_immutable_data") {
        return Ok(Scopes::Immutable {
            base: get.offset("nmethod::_immutable_data")?,
            size: get.scalar("nmethod::_immutable_data_size")?,
            pcs: get.scalar("nmethod::_scopes_pcs_offset")?,
            data: get.scalar("nmethod::_scopes_data_offset")?,
        });
    }
    Ok(Scopes::Inside {
        data: match get.has("CompiledMethod::_scopes_data_begin") {
            true => Pointer::Absolute(get.offset("CompiledMethod::_scopes_data_begin")?),
            false => get.relative("nmethod::_scopes_data_offset")?,
        },
        pcs: get.relative("nmethod::_scopes_pcs_offset")?,
        end: get.relative("nmethod::_dependencies_offset")?,
    })
}

fn metadata(get: Getter<'_>) -> Result<Metadata, Fault> {
    if get.has("CodeBlob::_mutable_data") {
        return Ok(Metadata::Mutable {
            base: get.offset("CodeBlob::_mutable_data")?,
            relocations: get.scalar("CodeBlob::_relocation_size")?,
        });
    }
    let metadata = get.scalar("nmethod::_metadata_offset")?;
    if get.has("nmethod::_immutable_data") {
        return Ok(Metadata::InData { data: get.scalar("CodeBlob::_data_offset")?, metadata });
    }
    Ok(Metadata::Inside(metadata))
}

fn method(get: Getter<'_>) -> Result<Method, Fault> {
    // 12 to 14 have both in one field of 32 bits, the length in the upper half.
    let (symbol_length, symbol_shift) = match get.0.scalar("Symbol::_length") {
        Some(length) => (length, 0),
        None => (get.scalar("Symbol::_length_and_refcount")?, 16),
    };
    Ok(Method {
        const_method: get.offset("Method::_constMethod")?,
        constants: get.offset("ConstMethod::_constants")?,
        // An object of its own from JDK 21 on.
        flags: get.scalar("ConstMethod::_flags").or_else(|_| get.scalar("ConstMethod::_flags._flags"))?,
        has_lines: get.0.constant("ConstMethod::_has_linenumber_table").unwrap_or(1),
        code_size: get.scalar("ConstMethod::_code_size")?,
        name_index: get.scalar("ConstMethod::_name_index")?,
        signature_index: get.scalar("ConstMethod::_signature_index")?,
        const_method_size: get.size("ConstMethod")?,
        const_method_words: get.scalar("ConstMethod::_constMethod_size")?,
        pool_holder: get.offset("ConstantPool::_pool_holder")?,
        pool_length: get.scalar("ConstantPool::_length")?,
        source_file: get.0.scalar("ConstantPool::_source_file_name_index"),
        pool_size: get.size("ConstantPool")?,
        class_name: get.offset("Klass::_name")?,
        symbol_length,
        symbol_shift,
        symbol_body: get.offset("Symbol::_body").or_else(|_| get.offset("Symbol::_body[0]"))?,
    })
}
