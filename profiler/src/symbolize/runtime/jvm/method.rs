//! A method: its name, descriptor, source file and lines.
//!
//! Source: share/oops/{method,constMethod,constantPool,klass,symbol}.hpp. `Method` -> `ConstMethod` -> constant pool,
//! which has the name, the descriptor and the class. The bytecode follows the `ConstMethod`, the compressed table of
//! line numbers follows the bytecode.

use super::{
    Fault, java_names,
    layout::{Layout, SourceFile},
    unsigned5::Stream,
};
use crate::{model::name::MAX_NAME_BYTES, symbolize::runtime::memory::Memory};

/// Most bytes of a `ConstMethod` with bytecode and tables; 64 KiB of bytecode is the most that a class file can have.
const MAX_CONST_METHOD: u64 = 1 << 20;
/// Bytes of an entry of a constant pool.
const WORD: u64 = 8;

/// What is known of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its class as Java writes it: `java.util.HashMap$Node`. Cleaned.
    pub class: String,
    /// Its name: `get`, `<init>`. Cleaned.
    pub name: String,
    /// Its descriptor, raw: `(ILjava/lang/String;)V`. Cut where names are.
    descriptor: Vec<u8>,
    /// Name of the source file as the compiler noted it, without a directory. Cleaned.
    pub file: Option<String>,
    /// Bytes of bytecode.
    pub code_size: u32,
    /// Its table of line numbers, raw.
    lines: LineTable,
    /// Address of its `ConstMethod`.
    pub const_method: u64,
}

impl Method {
    /// Reads the method at an address. Whether it is one is for the caller to know, who must check afterwards that
    /// what led here is still there.
    ///
    /// # Errors
    /// A pointer leads nowhere, an index or a length makes no sense.
    pub fn read(memory: &impl Memory, layout: &Layout, method: u64) -> Result<Self, Fault> {
        let fields = &layout.method;
        let const_method = const_method(memory, layout, method)?;
        let pool = memory.u64(const_method.wrapping_add(fields.constants))?;
        let pool_length = fields.pool_length.get(memory, pool)?;
        let entry = |index: i64| -> Result<Vec<u8>, Fault> {
            if !(1..pool_length).contains(&index) {
                return Err(Fault::Torn("an index in a constant pool"));
            }
            let at = pool.wrapping_add(fields.pool_size).wrapping_add(index as u64 * WORD);
            // The lowest bit once marked entries that were not resolved.
            symbol(memory, layout, memory.u64(at)? & !1)
        };
        let name = entry(fields.name_index.get(memory, const_method)?)?;
        let descriptor = entry(fields.signature_index.get(memory, const_method)?)?;
        let holder = memory.u64(pool.wrapping_add(fields.pool_holder))?;
        let class = symbol(memory, layout, memory.u64(holder.wrapping_add(fields.class_name))?)?;
        if name.is_empty() || class.is_empty() || descriptor.first() != Some(&b'(') {
            return Err(Fault::Torn("a name"));
        }
        let index = match fields.source_file {
            Some(SourceFile::Pool(field)) => field.get(memory, pool)?,
            Some(SourceFile::Class(field)) => field.get(memory, holder)?,
            None => 0,
        };
        let file = match index {
            // Method handle intrinsics have a constant pool of their own with the index of another.
            index if (1..pool_length).contains(&index) => Some(java_names::clean(&entry(index)?)),
            _ => None,
        };
        let code_size = fields.code_size.get(memory, const_method)?;
        let lines = match fields.flags.get(memory, const_method)? & fields.has_lines {
            0 => LineTable::default(),
            _ => LineTable::new(
                &table(memory, layout, const_method, code_size)?,
                layout.nmethod.unsigned5_base,
            ),
        };
        let mut descriptor = descriptor;
        descriptor.truncate(MAX_NAME_BYTES);
        Ok(Self {
            class: java_names::class(&class),
            name: java_names::clean(&name),
            descriptor,
            file,
            code_size: code_size as u32,
            lines,
            const_method,
        })
    }

    /// `java.util.HashMap.get`.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.class, self.name)
    }

    /// `int java.lang.String.indexOf(int, int)`, as HotSpot writes it itself (`Method::external_name`).
    pub fn external(&self) -> String {
        java_names::external(&self.qualified(), &self.descriptor)
    }

    /// The line of a bytecode; 0: unknown.
    pub fn line(&self, bci: i32) -> u32 {
        // As Method::line_number_from_bci: an exact entry, else the nearest before. -1 is the method's entry.
        let bci = bci.max(0);
        let mut best: Option<(i32, u32)> = None;
        for (start, line) in self.lines.entries() {
            if start == bci {
                return line;
            }
            if start < bci && best.is_none_or(|(nearest, _)| nearest <= start) {
                best = Some((start, line));
            }
        }
        best.map_or(0, |(_, line)| line)
    }
}

/// A table of line numbers (share/oops/method.cpp, `CompressedLineNumberReadStream`): a byte has both distances if they
/// are small, 0xff says that two numbers follow, 0 ends the table. One that is cut off ends there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LineTable {
    bytes: Box<[u8]>,
    base: u8,
}

impl LineTable {
    /// The table at the start of `bytes`; what is behind it is dropped.
    fn new(bytes: &[u8], base: u8) -> Self {
        let mut entries = Entries::new(bytes, base);
        while entries.next().is_some() {}
        let len = bytes.len() - entries.stream.left();
        Self { bytes: bytes[..len].into(), base }
    }

    /// First bytecode index and line of each stretch, in the order of the table.
    fn entries(&self) -> Entries<'_> {
        Entries::new(&self.bytes, self.base)
    }
}

struct Entries<'a> {
    stream: Stream<'a>,
    bci: i32,
    line: i32,
    ended: bool,
}

impl<'a> Entries<'a> {
    const fn new(bytes: &'a [u8], base: u8) -> Self {
        Self { stream: Stream::new(bytes, base), bci: 0, line: 0, ended: false }
    }
}

impl Iterator for Entries<'_> {
    type Item = (i32, u32);

    fn next(&mut self) -> Option<(i32, u32)> {
        const LARGE: u8 = 0xff;
        if self.ended {
            return None;
        }
        let (bcis, lines) = match self.stream.byte()? {
            0 => {
                self.ended = true;
                return None;
            }
            LARGE => (self.stream.signed()?, self.stream.signed()?),
            small => (i32::from(small >> 3), i32::from(small & 7)),
        };
        (self.bci, self.line) = (self.bci.wrapping_add(bcis), self.line.wrapping_add(lines));
        Some((self.bci, u32::try_from(self.line).unwrap_or(0)))
    }
}

/// Address of the `ConstMethod` of the method at an address.
///
/// # Errors
/// The pointer cannot be read, or is none.
pub fn const_method(memory: &impl Memory, layout: &Layout, method: u64) -> Result<u64, Fault> {
    match memory.u64(method.wrapping_add(layout.method.const_method))? {
        0 => Err(Fault::Torn("a method")),
        address => Ok(address),
    }
}

/// The text of a `Symbol`, raw.
///
/// # Errors
/// It cannot be read.
pub(super) fn symbol(memory: &impl Memory, layout: &Layout, address: u64) -> Result<Vec<u8>, Fault> {
    let fields = &layout.method;
    let length = fields.symbol_length.get(memory, address)? >> fields.symbol_shift & 0xffff;
    Ok(memory.bytes(address.wrapping_add(fields.symbol_body), length as usize)?)
}

/// What follows the bytecode of a method.
fn table(memory: &impl Memory, layout: &Layout, const_method: u64, code_size: i64) -> Result<Vec<u8>, Fault> {
    let fields = &layout.method;
    let size = u64::try_from(fields.const_method_words.get(memory, const_method)?).unwrap_or(u64::MAX);
    let end = size.checked_mul(WORD).filter(|&size| size <= MAX_CONST_METHOD);
    let start = fields.const_method_size + code_size as u64;
    let len = end.and_then(|end| end.checked_sub(start)).ok_or(Fault::Torn("a method's size"))?;
    Ok(memory.bytes(const_method.wrapping_add(start), len as usize)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::unsigned5::tests::encode, *};

    /// A table of these entries, the first byte behind it included.
    fn packed(entries: &[(i32, u32)], base: u8) -> Vec<u8> {
        let (mut bci, mut line) = (0, 0);
        let mut table = Vec::new();
        for &(next_bci, next_line) in entries {
            match (next_bci - bci, next_line as i32 - line) {
                (bcis @ 0..0x1f, lines @ 0..8) if (bcis, lines) != (0, 0) => {
                    table.push((bcis << 3 | lines) as u8)
                }
                (bcis, lines) => {
                    table.push(0xff);
                    for number in [bcis, lines] {
                        encode((number << 1 ^ number >> 31) as u32, base, &mut table);
                    }
                }
            }
            (bci, line) = (next_bci, next_line as i32);
        }
        table.extend([0, 0x55]);
        table
    }

    fn lines(table: &[u8], base: u8) -> Vec<(i32, u32)> {
        LineTable::new(table, base).entries().collect()
    }

    fn method(entries: &[(i32, u32)]) -> Method {
        Method {
            class: "a.B".to_owned(),
            name: "c".to_owned(),
            descriptor: b"(I)V".to_vec(),
            file: None,
            code_size: 100,
            lines: LineTable::new(&packed(entries, 1), 1),
            const_method: 0,
        }
    }

    #[test]
    fn line_tables_are_unpacked() {
        for base in [0, 1] {
            // Large steps where one goes back or has too many bits.
            let entries = [(0, 10), (3, 12), (40, 5), (41, 6)];
            let table = packed(&entries, base);
            assert_eq!(table[..1], [0xff]);
            assert_eq!(lines(&table, base), entries);
            for cut in 0..table.len() {
                assert!(lines(&table[..cut], base).len() <= 4);
            }
        }
        assert_eq!(lines(&[], 0), []);
        assert_eq!(lines(&[0], 0), []);
    }

    #[test]
    fn a_bytecode_has_the_line_of_the_entry_before_it() {
        let method = method(&[(0, 10), (10, 11), (5, 14), (10, 99)]);
        assert_eq!([-1, 0, 4, 5, 9, 10, 1000].map(|bci| method.line(bci)), [10, 10, 10, 14, 14, 11, 99]);
        assert_eq!(self::method(&[]).line(3), 0);
        assert_eq!(self::method(&[(4, 7)]).line(3), 0);
    }

    proptest! {
        #[test]
        fn anything_is_a_table_or_none(table: Vec<u8>, base in 0u8..2) {
            prop_assert!(lines(&table, base).len() <= table.len());
        }
    }
}
