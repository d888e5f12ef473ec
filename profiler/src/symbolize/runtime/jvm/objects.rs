//! Objects on the Java heap, as far as their class is asked for: what is a monitor of?
//!
//! Source: share/oops/{oop,klass}.hpp, share/oops/compressedKlass.hpp, share/runtime/objectMonitor.hpp. Collectors move objects
//! while they are looked at, and some (ZGC) keep more than the address in a reference: what leads to no class has none.

use super::{Fault, java_names, layout::Layout, method, vmstructs::Tables};
use crate::symbolize::runtime::memory::{Memory, Unmapped};

/// Where the class of an object is, and the object of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objects {
    /// Offset of an object's class: a pointer, or the lower half of a word.
    klass: u64,
    /// What such a half is added to, shifted.
    narrow: (u64, u32),
    /// Offset of a monitor's object.
    monitor_object: u64,
    /// A monitor leads to a place that has the reference (from JDK 16 on), not to the object itself.
    by_handle: bool,
}

impl Objects {
    /// By a libjvm's tables.
    ///
    /// # Errors
    /// Something is not exported.
    pub(super) fn new(memory: &impl Memory, tables: &Tables) -> Result<Self, Fault> {
        const KLASS: &str = "oopDesc::_metadata._klass";
        const OBJECT: &str = "ObjectMonitor::_object";
        let object = tables.field(OBJECT).ok_or(Fault::Missing(OBJECT))?;
        Ok(Self {
            klass: tables.offset(KLASS).ok_or(Fault::Missing(KLASS))?,
            narrow: narrow(memory, tables)?,
            monitor_object: tables.offset(OBJECT).ok_or(Fault::Missing(OBJECT))?,
            by_handle: !object.kind.ends_with('*'),
        })
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
        let reference = memory.u64(monitor.wrapping_add(self.monitor_object))?;
        let object = if self.by_handle { memory.u64(reference)? } else { reference };
        let word = memory.u64(object.wrapping_add(self.klass))?;
        let (base, shift) = self.narrow;
        let compressed = base.wrapping_add((word & 0xffff_ffff) << shift);
        class_name(memory, layout, compressed).or_else(|_| class_name(memory, layout, word))
    }
}

/// Base and shift of compressed class pointers. They have had several names.
fn narrow(memory: &impl Memory, tables: &Tables) -> Result<(u64, u32), Fault> {
    const BASES: [&str; 3] = [
        "CompressedKlassPointers::_base",
        "CompressedKlassPointers::_narrow_klass._base",
        "Universe::_narrow_klass._base",
    ];
    const SHIFTS: [&str; 3] = [
        "CompressedKlassPointers::_shift",
        "CompressedKlassPointers::_narrow_klass._shift",
        "Universe::_narrow_klass._shift",
    ];
    let first = |names: [&'static str; 3]| {
        let found = names.iter().find_map(|name| tables.address(name));
        found.ok_or(Fault::Missing(names[0]))
    };
    let shift = memory.u32(first(SHIFTS)?)?;
    Ok((memory.u64(first(BASES)?)?, if shift < 32 { shift } else { return Err(Fault::Torn("a shift")) }))
}

/// The name of the class at an address, if it is one: its own name leads back to nothing else that has one.
fn class_name(memory: &impl Memory, layout: &Layout, klass: u64) -> Result<String, Fault> {
    if klass == 0 || !klass.is_multiple_of(8) {
        return Err(Fault::Unmapped(Unmapped { address: klass }));
    }
    let symbol = memory.u64(klass.wrapping_add(layout.method.class_name))?;
    let name = method::symbol(memory, layout, symbol)?;
    // What class files may have in the name of a class, as far as it is ASCII (JVMS 4.2.1), and arrays.
    let is_name = |byte: &u8| byte.is_ascii_graphic() && !b".".contains(byte) || !byte.is_ascii();
    if name.is_empty() || !name.iter().all(is_name) {
        return Err(Fault::Torn("the name of a class"));
    }
    Ok(java_names::class(&name))
}
