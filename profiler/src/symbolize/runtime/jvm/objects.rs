//! Objects on the Java heap, as far as these are asked for: of which class is the object of a monitor, what is the name of a thread?
//!
//! Source: share/oops/{oop,markWord,arrayOop,klass,instanceKlass,fieldInfo}.hpp, share/oops/compressed{Oops,Klass}.hpp,
//! share/runtime/{objectMonitor,flags/jvmFlag}.hpp. Collectors move objects while they are looked at, and some (ZGC of many
//! generations) keep more than the address in a reference: what leads to no object of the class that it should be has no answer.
//!
//! An object has its class in a field of its own, or, with compact headers (JEP 450, from JDK 24 on), in its mark word.

#[cfg(test)]
mod tests;

use super::{Fault, java_names, layout::Layout, method, unsigned5::Stream, vmstructs::Tables};
use crate::{
    model::name,
    symbolize::runtime::memory::{Memory, Pages, Unmapped},
};

/// Most flags of a JVM. JDK 25 has 1,500.
const MAX_FLAGS: u64 = 8_192;
/// Most fields of a class that are looked at.
const MAX_FIELDS: usize = 1_024;
/// Most classes above another one that are looked at.
const MAX_DEPTH: usize = 64;
/// Most bytes of a text.
const MAX_TEXT: u64 = 512;
/// The lowest bits of the mark word of an object that a collector has moved, the rest of which is where to
/// (`markWord::marked_value`).
const MARKED: u64 = 3;

/// How references are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum References {
    /// As addresses.
    Whole,
    /// In 32 bits, shifted, with a base.
    Narrow(u64, u32),
}

/// Where things are in objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objects {
    /// References to objects.
    oops: References,
    /// References to classes.
    klasses: References,
    klass: Klass,
    /// Offset of a monitor's object, and whether it leads to a place that has the reference (from JDK 16 on).
    monitor: (u64, bool),
    /// The same of the object of a `JavaThread`.
    thread: (u64, bool),
    /// Offset of the class above a class.
    above: u64,
    /// Offset of a class's constant pool.
    constants: u64,
    fields: Fields,
    /// Offsets of an array's length, and of its bytes.
    array: (u64, u64),
}

/// Where an object has its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Klass {
    /// At this offset.
    Field(u64),
    /// In 32 bits as `References::Narrow` has them, above others of its mark word: offset of that, and how many others.
    Mark(u64, u32),
}

/// How the fields of a class are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    /// To JDK 20: six numbers of 16 bits each, in an array; and how many fields there are.
    Slots { array: u64, count: u64 },
    /// From JDK 21 on: compressed numbers.
    Stream { array: u64 },
}

impl Objects {
    /// By a libjvm's tables.
    ///
    /// # Errors
    /// Something is not exported.
    pub(super) fn new(memory: &impl Memory, tables: &Tables, major: u32) -> Result<Self, Fault> {
        const THREAD: &str = "JavaThread::_threadObj";
        let offset = |name: &'static str| tables.offset(name).ok_or(Fault::Missing(name));
        let thread = tables.field(THREAD).ok_or(Fault::Missing(THREAD))?;
        const NARROW_KLASSES: &str = "UseCompressedClassPointers";
        let [narrow_oops, narrow_klasses, compact] =
            flags(memory, tables, ["UseCompressedOops", NARROW_KLASSES, "UseCompactObjectHeaders"])?;
        // JDK 27 has only narrow ones, and no flag.
        let (klass, narrow_klasses) = match tables.offset("oopDesc::_compressed_klass") {
            Some(klass) => (klass, true),
            None => {
                let narrow = narrow_klasses.ok_or(Fault::Missing(NARROW_KLASSES))?;
                (offset("oopDesc::_metadata._klass")?, narrow)
            }
        };
        // That JDK 23 and before know no compact headers is told by the flag's absence.
        let klass = match compact {
            Some(true) => Klass::Mark(offset("oopDesc::_mark")?, klass_shift(tables)?),
            Some(false) | None => Klass::Field(klass),
        };
        let fields = match tables.offset("InstanceKlass::_fieldinfo_stream") {
            Some(array) => Fields::Stream { array },
            None => Fields::Slots {
                array: offset("InstanceKlass::_fields")?,
                count: offset("InstanceKlass::_java_fields_count")?,
            },
        };
        Ok(Self {
            oops: references(memory, tables, narrow_oops == Some(true), OOPS)?,
            klasses: references(memory, tables, narrow_klasses, KLASSES)?,
            klass,
            monitor: (offset("ObjectMonitor::_object")?, major >= 16),
            thread: (offset(THREAD)?, thread.kind == "OopHandle"),
            above: offset("Klass::_super")?,
            constants: offset("InstanceKlass::_constants")?,
            fields,
            array: klass.array(narrow_klasses, major),
        })
    }

    fn referenced(memory: &impl Memory, base: u64, (offset, by_handle): (u64, bool)) -> Result<u64, Fault> {
        let word = memory.u64(base.wrapping_add(offset))?;
        Ok(if by_handle { memory.u64(word)? } else { word })
    }

    fn klass_of(&self, memory: &impl Memory, object: u64) -> Result<u64, Fault> {
        match self.klass {
            Klass::Field(offset) => self.klasses.get(memory, object.wrapping_add(offset)),
            Klass::Mark(offset, bits) => match memory.u64(object.wrapping_add(offset))? {
                mark if mark & MARKED == MARKED => Err(Fault::Torn("an object")),
                mark => self.klasses.widen((mark >> bits) as u32, object),
            },
        }
    }

    /// The class of the object that a monitor is of: `java.util.HashMap`.
    ///
    /// # Errors
    /// It has none, or it moved.
    pub(super) fn class_of_monitor(
        &self,
        memory: &impl Memory,
        layout: &Layout,
        monitor: u64,
    ) -> Result<String, Fault> {
        let object = Self::referenced(memory, monitor, self.monitor)?;
        Ok(java_names::class(&class_name(memory, layout, self.klass_of(memory, object)?)?))
    }

    /// The name of a Java thread. Cleaned.
    ///
    /// # Errors
    /// It has none (yet), or it moved.
    pub(super) fn thread_name(
        &self,
        memory: &impl Memory,
        layout: &Layout,
        thread: u64,
    ) -> Result<String, Fault> {
        let object = Self::referenced(memory, thread, self.thread)?;
        let mut klass = self.klass_of(memory, object)?;
        for _ in 0..MAX_DEPTH {
            if class_name(memory, layout, klass)? == b"java/lang/Thread" {
                let name = self.field(memory, layout, klass, (b"name", b"Ljava/lang/String;"));
                return self.text(memory, layout, self.oops.get(memory, object.wrapping_add(name?))?);
            }
            klass = memory.u64(klass.wrapping_add(self.above))?;
        }
        Err(Fault::Torn("a thread"))
    }

    /// The text of a `java.lang.String`. Cleaned; cut if it is long.
    fn text(&self, memory: &impl Memory, layout: &Layout, string: u64) -> Result<String, Fault> {
        let klass = self.klass_of(memory, string)?;
        if class_name(memory, layout, klass)? != b"java/lang/String" {
            return Err(Fault::Torn("a text"));
        }
        let bytes = self.field(memory, layout, klass, (b"value", b"[B"));
        // Until JDK 8 all texts are of characters of 16 bits.
        let (value, is_wide) = match bytes {
            Ok(value) => {
                let coder = self.field(memory, layout, klass, (b"coder", b"B"))?;
                (value, memory.u8(string.wrapping_add(coder))? != 0)
            }
            Err(_) => (self.field(memory, layout, klass, (b"value", b"[C"))?, true),
        };
        let array = self.oops.get(memory, string.wrapping_add(value))?;
        let length = u64::from(memory.u32(array.wrapping_add(self.array.0))?);
        // Characters, or bytes.
        let width = if is_wide && bytes.is_err() { 2 } else { 1 };
        let len = length.saturating_mul(width).min(MAX_TEXT) as usize;
        let bytes = memory.bytes(array.wrapping_add(self.array.1), len)?;
        let text = if is_wide {
            let units: Vec<u16> = bytes.as_chunks().0.iter().map(|unit| u16::from_ne_bytes(*unit)).collect();
            String::from_utf16_lossy(&units)
        } else {
            bytes.iter().map(|&byte| char::from(byte)).collect()
        };
        Ok(name::clean(text.as_bytes()))
    }

    /// Offset of the field of a class that has this name and descriptor.
    fn field(
        &self,
        memory: &impl Memory,
        layout: &Layout,
        klass: u64,
        (name, descriptor): (&[u8], &[u8]),
    ) -> Result<u64, Fault> {
        let pool = memory.u64(klass.wrapping_add(self.constants))?;
        let is_it = |index: u32, wanted: &[u8]| -> Result<bool, Fault> {
            let at = pool.wrapping_add(layout.method.pool_size).wrapping_add(8 * u64::from(index));
            Ok(method::symbol(memory, layout, memory.u64(at)? & !1)? == wanted)
        };
        let fields = match self.fields {
            Fields::Slots { array, count } => slots(memory, klass, array, count)?,
            Fields::Stream { array } => stream(memory, klass, array)?,
        };
        for (of_name, of_descriptor, offset) in fields {
            if is_it(of_name, name)? && is_it(of_descriptor, descriptor)? {
                return Ok(u64::from(offset));
            }
        }
        Err(Fault::Torn("the fields of a class"))
    }
}

impl Klass {
    /// Offsets of an array's length, which follows what all objects have, and of its bytes: aligned to words until JDK 22
    /// (`arrayOopDesc::base_offset_in_bytes`).
    const fn array(self, narrow: bool, major: u32) -> (u64, u64) {
        let length = match (self, narrow) {
            (Self::Mark(mark, _), _) => mark + 8,
            (Self::Field(klass), true) => klass + 4,
            (Self::Field(klass), false) => klass + 8,
        };
        let bytes = length + 4;
        (length, if major < 23 { bytes.next_multiple_of(8) } else { bytes })
    }
}

impl References {
    /// The reference at an address.
    fn get(self, memory: &impl Memory, address: u64) -> Result<u64, Fault> {
        match self {
            Self::Narrow(..) => self.widen(memory.u32(address)?, address),
            Self::Whole => match memory.u64(address)? {
                0 => Err(Fault::Unmapped(Unmapped { address })),
                reference => Ok(reference),
            },
        }
    }

    /// A narrow reference of which `address` is where it was found. There are none of others.
    fn widen(self, half: u32, address: u64) -> Result<u64, Fault> {
        match self {
            Self::Narrow(base, shift) if half != 0 => Ok(base.wrapping_add(u64::from(half) << shift)),
            Self::Narrow(..) | Self::Whole => Err(Fault::Unmapped(Unmapped { address })),
        }
    }
}

/// Name index, descriptor index and offset of each field of a class.
type Listed = Vec<(u32, u32, u32)>;

/// A field has its name at the second number, its descriptor at the third, and its offset, above two bits of what it is, at the
/// last two.
fn slots(memory: &impl Memory, klass: u64, array: u64, count: u64) -> Result<Listed, Fault> {
    let array = memory.u64(klass.wrapping_add(array))?;
    let count = usize::from(u16::from_ne_bytes(memory.array(klass.wrapping_add(count))?)).min(MAX_FIELDS);
    // Behind its length.
    let bytes = memory.bytes(array.wrapping_add(4), count * 12)?;
    let number =
        |field: &[u8; 12], at: usize| u32::from(u16::from_ne_bytes([field[2 * at], field[2 * at + 1]]));
    let field = |field: &[u8; 12]| {
        (number(field, 1), number(field, 2), (number(field, 5) << 16 | number(field, 4)) >> 2)
    };
    Ok(bytes.as_chunks().0.iter().map(field).collect())
}

/// How many fields the class file has, how many the JVM added; then of each name, descriptor, offset, access and flags, and up to
/// three numbers more by flags.
fn stream(memory: &impl Memory, klass: u64, array: u64) -> Result<Listed, Fault> {
    /// `_ff_initialized`, `_ff_generic`, `_ff_contended`.
    const MORE: u32 = 1 << 0 | 1 << 2 | 1 << 4;
    let torn = || Fault::Torn("the fields of a class");
    let array = memory.u64(klass.wrapping_add(array))?;
    let len = (memory.u32(array)? as usize).min(MAX_FIELDS * 20);
    let bytes = memory.bytes(array.wrapping_add(4), len)?;
    let mut stream = Stream::new(&bytes, 1);
    let mut number = || stream.number().ok_or_else(torn);
    let (count, _) = (number()?, number()?);
    let mut fields = Vec::new();
    for _ in 0..count.min(MAX_FIELDS as u32) {
        fields.push((number()?, number()?, number()?));
        let (_, flags) = (number()?, number()?);
        for _ in 0..(flags & MORE).count_ones() {
            number()?;
        }
    }
    Ok(fields)
}

/// The names that base and shift of narrow references have had.
type Names = [[&'static str; 2]; 3];

const OOPS: Names = [
    ["CompressedOops::_base", "CompressedOops::_shift"],
    ["CompressedOops::_narrow_oop._base", "CompressedOops::_narrow_oop._shift"],
    ["Universe::_narrow_oop._base", "Universe::_narrow_oop._shift"],
];
const KLASSES: Names = [
    ["CompressedKlassPointers::_base", "CompressedKlassPointers::_shift"],
    ["CompressedKlassPointers::_narrow_klass._base", "CompressedKlassPointers::_narrow_klass._shift"],
    ["Universe::_narrow_klass._base", "Universe::_narrow_klass._shift"],
];

fn references(
    memory: &impl Memory,
    tables: &Tables,
    narrow: bool,
    names: Names,
) -> Result<References, Fault> {
    if !narrow {
        return Ok(References::Whole);
    }
    let found = names.iter().find_map(|[base, shift]| Some((tables.address(base)?, tables.address(shift)?)));
    let (base, shift) = found.ok_or(Fault::Missing(names[0][0]))?;
    match memory.u32(shift)? {
        shift @ 0..32 => Ok(References::Narrow(memory.u64(base)?, shift)),
        _ => Err(Fault::Torn("a shift")),
    }
}

/// How many bits of a mark word are below the class.
fn klass_shift(tables: &Tables) -> Result<u32, Fault> {
    const SHIFT: &str = "markWord::klass_shift";
    let shift = tables.constant(SHIFT).ok_or(Fault::Missing(SHIFT))?;
    u32::try_from(shift).ok().filter(|shift| (32..64).contains(shift)).ok_or(Fault::Table("a shift"))
}

/// Whether flags of the JVM are set. `None`: it has no such flag.
pub(super) fn flags<const N: usize>(
    memory: &impl Memory,
    tables: &Tables,
    names: [&str; N],
) -> Result<[Option<bool>; N], Fault> {
    // Its name until JDK 9.
    let of = |what: [&'static str; 2]| {
        what.into_iter()
            .find_map(|name| tables.address(name).or_else(|| tables.offset(name)))
            .ok_or(Fault::Missing(what[0]))
    };
    let size = tables.size("JVMFlag").or_else(|| tables.size("Flag")).ok_or(Fault::Missing("JVMFlag"))?;
    let first = memory.u64(of(["JVMFlag::flags", "Flag::flags"])?)?;
    let count = memory.u64(of(["JVMFlag::numFlags", "Flag::numFlags"])?)?.min(MAX_FLAGS);
    let (name, value) = (of(["JVMFlag::_name", "Flag::_name"])?, of(["JVMFlag::_addr", "Flag::_addr"])?);
    // Small pieces of a table and of texts that do not change.
    let memory = Pages::new(memory);
    let mut set = [None; N];
    for at in (0..count).map(|index| first.wrapping_add(index * size)) {
        let Ok(found) = memory.u64(at.wrapping_add(name)).and_then(|name| memory.c_string(name, 64)) else {
            continue;
        };
        if let Some(which) = names.iter().position(|name| name.as_bytes() == found) {
            set[which] = Some(memory.u8(memory.u64(at.wrapping_add(value))?)? != 0);
        }
    }
    Ok(set)
}

/// The name of the class at an address, raw, if it can be one.
fn class_name(memory: &impl Memory, layout: &Layout, klass: u64) -> Result<Vec<u8>, Fault> {
    if klass == 0 || !klass.is_multiple_of(8) {
        return Err(Fault::Unmapped(Unmapped { address: klass }));
    }
    let symbol = memory.u64(klass.wrapping_add(layout.method.class_name))?;
    let name = method::symbol(memory, layout, symbol)?;
    // What class files may have in the name of a class, as far as it is ASCII (JVMS 4.2.1), and arrays.
    let is_name = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.' || !byte.is_ascii();
    if name.is_empty() || !name.iter().all(is_name) {
        return Err(Fault::Torn("the name of a class"));
    }
    Ok(name)
}
