//! What libjvm exports about its own data structures, for tools that look at it from outside: the `gHotSpotVM*` tables.
//!
//! Source: vmStructs.hpp and vmStructs.cpp of HotSpot (the same exports from JDK 8 on). There are tables of fields
//! (static ones with their address, others with their offset), of types with their sizes, and of constants. How an
//! entry of a table is laid out is exported as well, so nothing of it is assumed here. The tables are filled by the
//! dynamic linker and do not change while the process lives.

use std::collections::HashMap;

use super::Fault;
use crate::symbolize::runtime::memory::Memory;

/// Most entries of one table. JDK 27's largest has 1,300.
const MAX_ENTRIES: u64 = 16_384;
/// Longest name of a type or field. What is longer is cut, and found by nobody.
const MAX_NAME: usize = 256;
/// Largest entry. Real ones have 16 to 48 bytes.
const MAX_STRIDE: u64 = 512;

/// The exported symbols that [`Tables::read`] asks for: each is a variable of 64 bits.
pub const SYMBOLS: [&str; 20] = [
    "gHotSpotVMStructs",
    "gHotSpotVMStructEntryArrayStride",
    "gHotSpotVMStructEntryTypeNameOffset",
    "gHotSpotVMStructEntryFieldNameOffset",
    "gHotSpotVMStructEntryTypeStringOffset",
    "gHotSpotVMStructEntryIsStaticOffset",
    "gHotSpotVMStructEntryOffsetOffset",
    "gHotSpotVMStructEntryAddressOffset",
    "gHotSpotVMTypes",
    "gHotSpotVMTypeEntryArrayStride",
    "gHotSpotVMTypeEntryTypeNameOffset",
    "gHotSpotVMTypeEntrySizeOffset",
    "gHotSpotVMIntConstants",
    "gHotSpotVMIntConstantEntryArrayStride",
    "gHotSpotVMIntConstantEntryNameOffset",
    "gHotSpotVMIntConstantEntryValueOffset",
    "gHotSpotVMLongConstants",
    "gHotSpotVMLongConstantEntryArrayStride",
    "gHotSpotVMLongConstantEntryNameOffset",
    "gHotSpotVMLongConstantEntryValueOffset",
];

/// A field of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Absolute address of a static field, offset in the object of any other.
    pub place: Place,
    /// Its type as C++ writes it: `int`, `u2`, `address`, `Method*`.
    pub kind: String,
}

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    Static(u64),
    /// At this offset in each object.
    Offset(u64),
}

/// A number in an object: where, how wide, and whether it can be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// Offset in the object, bytes.
    pub offset: u64,
    /// 1, 2, 4 or 8 bytes.
    pub size: u8,
    /// Two's complement.
    pub signed: bool,
}

impl Scalar {
    /// The number in the object at `base`.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn get(self, memory: &impl Memory, base: u64) -> Result<i64, Fault> {
        let address = base.checked_add(self.offset).ok_or(Fault::Torn("a pointer"))?;
        Ok(match (self.size, self.signed) {
            (1, false) => i64::from(memory.u8(address)?),
            (1, true) => i64::from(memory.u8(address)? as i8),
            (2, false) => i64::from(u16::from_ne_bytes(memory.array(address)?)),
            (2, true) => i64::from(i16::from_ne_bytes(memory.array(address)?)),
            (4, false) => i64::from(memory.u32(address)?),
            (4, true) => i64::from(memory.u32(address)? as i32),
            _ => memory.u64(address)? as i64,
        })
    }
}

/// The tables of one libjvm in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    fields: HashMap<String, Field>,
    sizes: HashMap<String, u64>,
    constants: HashMap<String, i64>,
}

impl Tables {
    /// Reads the tables; `symbol` gives the absolute address of an exported variable.
    ///
    /// # Errors
    /// A symbol is missing, an entry's layout is none, or the memory cannot be read.
    pub fn read(memory: &impl Memory, symbol: impl Fn(&str) -> Option<u64>) -> Result<Self, Fault> {
        let variable = |name: &'static str| -> Result<u64, Fault> {
            Ok(memory.u64(symbol(name).ok_or(Fault::Missing(name))?)?)
        };
        let mut tables = Self::default();
        tables.read_fields(memory, &variable)?;
        let types = Table {
            start: variable("gHotSpotVMTypes")?,
            stride: variable("gHotSpotVMTypeEntryArrayStride")?,
            name: variable("gHotSpotVMTypeEntryTypeNameOffset")?,
        };
        let size = variable("gHotSpotVMTypeEntrySizeOffset")?;
        types.each(memory, |entry, name| {
            tables.sizes.insert(name, entry.word(size)?);
            Ok(())
        })?;
        let ints = Table {
            start: variable("gHotSpotVMIntConstants")?,
            stride: variable("gHotSpotVMIntConstantEntryArrayStride")?,
            name: variable("gHotSpotVMIntConstantEntryNameOffset")?,
        };
        let value = variable("gHotSpotVMIntConstantEntryValueOffset")?;
        ints.each(memory, |entry, name| {
            tables.constants.insert(name, i64::from(entry.half(value)? as i32));
            Ok(())
        })?;
        let longs = Table {
            start: variable("gHotSpotVMLongConstants")?,
            stride: variable("gHotSpotVMLongConstantEntryArrayStride")?,
            name: variable("gHotSpotVMLongConstantEntryNameOffset")?,
        };
        let value = variable("gHotSpotVMLongConstantEntryValueOffset")?;
        longs.each(memory, |entry, name| {
            tables.constants.insert(name, entry.word(value)? as i64);
            Ok(())
        })?;
        Ok(tables)
    }

    fn read_fields(
        &mut self,
        memory: &impl Memory,
        variable: &impl Fn(&'static str) -> Result<u64, Fault>,
    ) -> Result<(), Fault> {
        let fields = Table {
            start: variable("gHotSpotVMStructs")?,
            stride: variable("gHotSpotVMStructEntryArrayStride")?,
            name: variable("gHotSpotVMStructEntryFieldNameOffset")?,
        };
        let owner = variable("gHotSpotVMStructEntryTypeNameOffset")?;
        let kind = variable("gHotSpotVMStructEntryTypeStringOffset")?;
        let is_static = variable("gHotSpotVMStructEntryIsStaticOffset")?;
        let offset = variable("gHotSpotVMStructEntryOffsetOffset")?;
        let address = variable("gHotSpotVMStructEntryAddressOffset")?;
        fields.each(memory, |entry, field| {
            let owner = text(memory, entry.word(owner)?)?;
            let place = match entry.half(is_static)? {
                0 => Place::Offset(entry.word(offset)?),
                _ => Place::Static(entry.word(address)?),
            };
            // Some entries (arrays at an object's end) have no type.
            let kind = match entry.word(kind)? {
                0 => String::new(),
                pointer => text(memory, pointer)?,
            };
            self.fields.insert(format!("{owner}::{field}"), Field { place, kind });
            Ok(())
        })
    }

    /// A field by the name of its type and its own, as in `CodeBlob::_size`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// The address of a static field.
    pub fn address(&self, name: &str) -> Option<u64> {
        match self.field(name)?.place {
            Place::Static(address) => Some(address),
            Place::Offset(_) => None,
        }
    }

    /// The offset of a field that is not static. None real is larger than 64 KiB.
    pub fn offset(&self, name: &str) -> Option<u64> {
        match self.field(name)?.place {
            Place::Offset(offset) => Some(offset).filter(|&offset| offset < 1 << 16),
            Place::Static(_) => None,
        }
    }

    /// A field that is a number.
    pub fn scalar(&self, name: &str) -> Option<Scalar> {
        let (size, signed) = width(&self.field(name)?.kind)?;
        Some(Scalar { offset: self.offset(name)?, size, signed })
    }

    /// The size of a type, bytes. None real is larger than 64 KiB.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.sizes.get(name).copied().filter(|&size| size < 1 << 16)
    }

    /// A constant.
    pub fn constant(&self, name: &str) -> Option<i64> {
        self.constants.get(name).copied()
    }

    /// Number of fields, types and constants.
    pub fn len(&self) -> usize {
        self.fields.len() + self.sizes.len() + self.constants.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tables that tests make.
#[cfg(test)]
impl Tables {
    /// Of static fields and their addresses, fields with type and offset, sizes, and constants.
    pub fn made(
        statics: &[(&str, u64)],
        offsets: &[(&str, &str, u64)],
        sizes: &[(&str, u64)],
        constants: &[(&str, i64)],
    ) -> Self {
        let place = |place, kind: &str| Field { place, kind: kind.to_owned() };
        let statics =
            statics.iter().map(|&(name, at)| (name.to_owned(), place(Place::Static(at), "address")));
        let offsets =
            offsets.iter().map(|&(name, kind, at)| (name.to_owned(), place(Place::Offset(at), kind)));
        Self {
            fields: statics.chain(offsets).collect(),
            sizes: sizes.iter().map(|&(name, size)| (name.to_owned(), size)).collect(),
            constants: constants.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// Another value of a constant, or none.
    pub fn set_constant(&mut self, name: &str, value: Option<i64>) {
        self.constants.remove(name);
        self.constants.extend(value.map(|value| (name.to_owned(), value)));
    }
}

/// Width in bytes and sign of the C++ types that fields of interest have, over all versions.
fn width(kind: &str) -> Option<(u8, bool)> {
    if kind.ends_with('*') {
        return Some((8, false));
    }
    Some(match kind.trim_start_matches("volatile ").trim_start_matches("const ") {
        "u1" | "bool" | "uint8_t" | "unsigned char" | "CodeBlobKind" => (1, false),
        "jbyte" | "int8_t" | "signed char" | "char" | "CompLevel" => (1, true),
        "u2" | "uint16_t" | "unsigned short" => (2, false),
        "int16_t" | "short" => (2, true),
        "u4" | "uint32_t" | "unsigned int" | "juint" | "uint" => (4, false),
        // The last three: an enumeration, and the two names that the type of thread ids has had.
        "int" | "jint" | "int32_t" | "ThreadState" | "OSThread::thread_id_t" | "pid_t" => (4, true),
        "address" | "size_t" | "uint64_t" | "uintptr_t" => (8, false),
        "intptr_t" | "int64_t" | "jlong" | "long" => (8, true),
        _ => return None,
    })
}

fn text(memory: &impl Memory, address: u64) -> Result<String, Fault> {
    Ok(String::from_utf8_lossy(&memory.c_string(address, MAX_NAME)?).into_owned())
}

/// One table: entries up to the one whose name is NULL.
#[derive(Clone, Copy)]
struct Table {
    start: u64,
    stride: u64,
    /// Offset of the pointer to the name.
    name: u64,
}

impl Table {
    fn each(
        self,
        memory: &impl Memory,
        mut each: impl FnMut(Entry<'_>, String) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.stride == 0 || self.stride > MAX_STRIDE {
            return Err(Fault::Table("stride"));
        }
        for index in 0..MAX_ENTRIES {
            let at = self.start.checked_add(index * self.stride).ok_or(Fault::Table("address"))?;
            let bytes = memory.bytes(at, self.stride as usize)?;
            let entry = Entry { bytes: &bytes };
            match entry.word(self.name)? {
                0 => return Ok(()),
                name => each(entry, text(memory, name)?)?,
            }
        }
        Err(Fault::Table("no end"))
    }
}

struct Entry<'a> {
    bytes: &'a [u8],
}

impl Entry<'_> {
    fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], Fault> {
        let part = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..));
        part.and_then(|part| part.first_chunk()).copied().ok_or(Fault::Table("offset"))
    }

    fn word(&self, offset: u64) -> Result<u64, Fault> {
        Ok(u64::from_ne_bytes(self.array(offset)?))
    }

    fn half(&self, offset: u64) -> Result<u32, Fault> {
        Ok(u32::from_ne_bytes(self.array(offset)?))
    }
}
