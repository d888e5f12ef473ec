//! From a libjvm's tables to a [`Layout`]: which exported field is what, in which version.

use super::{
    Fault,
    layout::{Blob, Heap, Heaps, Layout, Metadata, Method, Nmethod, Pointer, Scopes, SourceFile},
    vmstructs::{Scalar, Tables},
};
use crate::symbolize::runtime::memory::Memory;

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
        header_size: get.scalar("CodeBlob::_header_size")?,
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
        header_size: get.size("nmethod")?,
        method,
        compile_id: get.scalar("nmethod::_compile_id")?,
        level: get.scalar("nmethod::_comp_level")?,
        state: get.scalar("nmethod::_state")?,
        dead_state,
        entry_bci: get.scalar("nmethod::_entry_bci")?,
        orig_pc_offset: get.0.scalar("nmethod::_orig_pc_offset"),
        deopt_handlers: DEOPT_HANDLERS.map(|names| deopt_handler(get, names)),
        scopes: scopes(get)?,
        metadata: metadata(get)?,
        unsigned5_base: u8::from(major >= 20),
    })
}

/// Names of the addresses that deoptimized frames are returned to, and of distances to them: after ordinary calls, and after
/// method handles' calls, which JDK 26 has no other one for. None (JDK 8): such frames are frames at the handler.
const DEOPT_HANDLERS: [(&[&str], &[&str]); 2] = [
    // A pointer in JDK 9 to 22; renamed in 26.
    (
        &["CompiledMethod::_deopt_handler_begin", "nmethod::_deopt_handler_begin"],
        &["nmethod::_deopt_handler_offset", "nmethod::_deopt_handler_entry_offset"],
    ),
    (
        &["CompiledMethod::_deopt_mh_handler_begin", "nmethod::_deopt_mh_handler_begin"],
        &["nmethod::_deopt_mh_handler_offset"],
    ),
];

fn deopt_handler(get: Getter<'_>, (pointers, distances): (&[&str], &[&str])) -> Option<Pointer> {
    let pointer = pointers.iter().find_map(|name| get.0.offset(name)).map(Pointer::Absolute);
    pointer.or_else(|| distances.iter().find_map(|name| get.0.scalar(name)).map(Pointer::Relative))
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
        access_flags: get.0.offset("Method::_access_flags").filter(|_| cfg!(target_endian = "little")),
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
        source_file: source_file(get),
        pool_size: get.size("ConstantPool")?,
        class_name: get.offset("Klass::_name")?,
        symbol_length,
        symbol_shift,
        symbol_body: get.offset("Symbol::_body").or_else(|_| get.offset("Symbol::_body[0]"))?,
    })
}

fn source_file(get: Getter<'_>) -> Option<SourceFile> {
    let pool = get.0.scalar("ConstantPool::_source_file_name_index").map(SourceFile::Pool);
    pool.or_else(|| get.0.scalar("InstanceKlass::_source_file_name_index").map(SourceFile::Class))
}
