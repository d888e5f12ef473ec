//! Streams the types and strings of a BTF file without keeping them.
//!
//! Layout: a header, then at the offsets it gives (from its own end) the types, one behind the other without an index,
//! and the NUL-terminated strings that types name by their byte position. A type is 12 bytes {name, info, size or type}
//! and data whose length follows from its kind and from the number of elements in `info`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::BtfError;

/// BTF_MAGIC; in the byte order of the machine that the file describes, here always our own.
const MAGIC: u16 = 0xeb9f;

/// Header bytes up to and including `str_len`; from Linux 7.1 `layout_off` and `layout_len` follow.
const HEADER_LEN: u32 = 24;
const HEADER_LEN_WITH_LAYOUT: u32 = 32;

/// Sections beyond this are not believed. A kernel with everything built in has about 10 MB.
const MAX_SECTION: u32 = 128 << 20;

/// Strings beyond this are not believed (KSYM_NAME_LEN is 512).
const MAX_STRING: u64 = 64 << 10;

/// Positions kept per name besides whole strings. The linker of BTF merges equal strings, so one whole string is usual,
/// but many can end alike (`stack`).
const MAX_POSITIONS: usize = 64;

/// Members read of one structure; `task_struct` has about 250.
const MAX_MEMBERS: u32 = 1 << 16;

/// The files of /sys hand out one page per read(2), so a larger buffer saves nothing.
const BUFFER: usize = 64 << 10;

const KIND_INT: u8 = 1;
const KIND_ARRAY: u8 = 3;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
/// BTF_KIND_ENUM.
pub const KIND_ENUM: u8 = 6;
/// BTF_KIND_TYPEDEF.
pub const KIND_TYPEDEF: u8 = 8;
const KIND_FUNC_PROTO: u8 = 13;
const KIND_VAR: u8 = 14;
const KIND_DATASEC: u8 = 15;
const KIND_DECL_TAG: u8 = 17;
const KIND_ENUM64: u8 = 19;

/// The common part of a type.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    /// Position of the name among the strings; 0 is none.
    pub name: u32,
    /// BTF_KIND_*.
    pub kind: u8,
    /// Bit 31 of `info`: for structures, that member offsets carry a bit-field size.
    pub flag: bool,
    /// Number of elements (members, enumerators, parameters) behind the type.
    pub len: u32,
    /// Bytes of a structure or union; another type's id for most others.
    size: u32,
}

impl Type {
    fn new(raw: [u8; 12]) -> Self {
        let info = u32_at(&raw, 4);
        // Up to Linux 7.0 the length has 16 bits and the kind 5; the bits above each were 0 (btf_check_meta), so the
        // wider fields of later kernels read both.
        Self {
            name: u32_at(&raw, 0),
            kind: (info >> 24 & 0x7f) as u8,
            flag: info >> 31 == 1,
            len: info & 0x00ff_ffff,
            size: u32_at(&raw, 8),
        }
    }

    /// The id of the type that this one is a name of or a pointer to.
    pub const fn target(&self) -> u32 {
        self.size
    }

    /// A structure or a union.
    pub const fn is_aggregate(&self) -> bool {
        matches!(self.kind, KIND_STRUCT | KIND_UNION)
    }
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Position of the name among the strings; 0: anonymous.
    pub name: u32,
    /// Its type's id.
    pub ty: u32,
    /// Bits from the start of the structure.
    pub bit_offset: u32,
    /// Bits of a bit field, else 0.
    pub bits: u32,
}

/// The members of a structure or union.
#[derive(Debug, Default)]
pub struct Aggregate {
    /// Bytes.
    pub size: u32,
    /// In the order of the declaration.
    pub members: Vec<Member>,
}

/// An open BTF file.
pub struct Walker {
    path: PathBuf,
    file: BufReader<File>,
    /// File position and length of the types.
    types: (u64, u64),
    /// File position and length of the strings.
    strings: (u64, u64),
    /// From the file itself (Linux 7.1 and later): `(fixed bytes, bytes per element)` by kind.
    layout: Vec<(u8, u8)>,
}

impl Walker {
    /// Opens the file and reads its header.
    pub fn open(path: &Path) -> Result<Self, BtfError> {
        let fail = |source| BtfError::Read { path: path.to_owned(), source };
        let malformed = |what| BtfError::Malformed { path: path.to_owned(), what };
        let mut file = BufReader::with_capacity(BUFFER, File::open(path).map_err(fail)?);
        let mut header = [0; HEADER_LEN_WITH_LAYOUT as usize];
        let got = read_up_to(&mut file, &mut header).map_err(fail)?;
        let header_len = u32_at(&header, 4);
        if got < HEADER_LEN as usize || u16::from_ne_bytes([header[0], header[1]]) != MAGIC {
            return Err(malformed("no BTF header"));
        }
        if header[2] != 1 || !(HEADER_LEN..=4096).contains(&header_len) {
            return Err(malformed("unknown version"));
        }
        let section = |at: usize| {
            let (offset, len) = (u32_at(&header, at), u32_at(&header, at + 4));
            if offset > MAX_SECTION || len > MAX_SECTION {
                return Err(malformed("section too large"));
            }
            Ok((u64::from(header_len) + u64::from(offset), u64::from(len)))
        };
        let (types, strings) = (section(8)?, section(16)?);
        let has_layout = header_len >= HEADER_LEN_WITH_LAYOUT && got == header.len();
        let layout = if has_layout { section(24)? } else { (0, 0) };
        let mut walker = Self { path: path.to_owned(), file, types, strings, layout: Vec::new() };
        walker.read_layout(layout)?;
        Ok(walker)
    }

    fn fail(&self, source: io::Error) -> BtfError {
        BtfError::Read { path: self.path.clone(), source }
    }

    fn malformed(&self, what: &'static str) -> BtfError {
        BtfError::Malformed { path: self.path.clone(), what }
    }

    /// `struct btf_layout { u8 info_sz, elem_sz; u16 flags; }` by kind, so that kinds newer than this program can be
    /// stepped over.
    fn read_layout(&mut self, (position, len): (u64, u64)) -> Result<(), BtfError> {
        let mut entries = vec![0; usize::try_from(len.min(0x80 * 4)).unwrap_or(0)];
        if entries.is_empty() {
            return Ok(());
        }
        self.seek(position)?;
        let got = read_up_to(&mut self.file, &mut entries).map_err(|e| self.fail(e))?;
        self.layout = entries[..got].chunks_exact(4).map(|entry| (entry[0], entry[1])).collect();
        Ok(())
    }

    fn seek(&mut self, position: u64) -> Result<(), BtfError> {
        self.file.seek(SeekFrom::Start(position)).map(drop).map_err(|e| self.fail(e))
    }

    /// For each name, all positions that read as that name. A position may lie inside a longer string that ends alike.
    pub fn positions_of(&mut self, names: &[&str]) -> Result<Vec<Vec<u32>>, BtfError> {
        let (start, len) = self.strings;
        self.seek(start)?;
        let mut found = vec![Vec::new(); names.len()];
        let mut string = Vec::new();
        let mut position = 0;
        while position < len {
            string.clear();
            let limit = MAX_STRING.min(len - position);
            let got = (&mut self.file).take(limit).read_until(0, &mut string).map_err(|e| self.fail(e))?;
            if string.pop() != Some(0) {
                return Err(self.malformed("a string does not end"));
            }
            for (positions, name) in found.iter_mut().zip(names) {
                let is_whole = string.len() == name.len();
                if string.ends_with(name.as_bytes())
                    && !name.is_empty()
                    && (is_whole || positions.len() < MAX_POSITIONS)
                {
                    let at = position + (string.len() - name.len()) as u64;
                    positions.push(u32::try_from(at).unwrap_or(u32::MAX));
                }
            }
            position += got as u64;
        }
        Ok(found)
    }

    /// The id of the first type that `pick` takes. Ids count from 1 (0 is `void`).
    pub fn find(&mut self, pick: impl Fn(u32, &Type) -> bool) -> Result<Option<u32>, BtfError> {
        Ok(self.walk(pick)?.map(|(id, ..)| id))
    }

    /// The first type that `pick` takes, and what is behind its common part: parameters, values.
    pub fn with_data(
        &mut self,
        pick: impl Fn(u32, &Type) -> bool,
    ) -> Result<Option<(u32, Type, Vec<u8>)>, BtfError> {
        let Some((id, ty, left)) = self.walk(pick)? else { return Ok(None) };
        let size = self.data_len(&ty)?;
        if size > left {
            return Err(self.malformed("a type ends behind its section"));
        }
        let mut data = Vec::new();
        (&mut self.file).take(size).read_to_end(&mut data).map_err(|e| self.fail(e))?;
        Ok(Some((id, ty, data)))
    }

    /// The string at a position; empty behind the end, U+FFFD for what is no UTF-8.
    pub fn string(&mut self, position: u32) -> Result<String, BtfError> {
        let (start, len) = self.strings;
        let Some(left) = len.checked_sub(u64::from(position)) else { return Ok(String::new()) };
        self.seek(start + u64::from(position))?;
        let mut string = Vec::new();
        (&mut self.file).take(MAX_STRING.min(left)).read_until(0, &mut string).map_err(|e| self.fail(e))?;
        string.pop_if(|end| *end == 0);
        Ok(String::from_utf8_lossy(&string).into_owned())
    }

    /// The members of the first structure or union that `pick` takes.
    pub fn aggregate(&mut self, pick: impl Fn(u32, &Type) -> bool) -> Result<Option<Aggregate>, BtfError> {
        let Some((_, ty, left)) = self.walk(pick)? else { return Ok(None) };
        let mut aggregate = Aggregate { size: ty.size, members: Vec::new() };
        if !ty.is_aggregate() || ty.len > MAX_MEMBERS || u64::from(ty.len) * 12 > left {
            return Err(self.malformed("members end behind their section"));
        }
        for _ in 0..ty.len {
            let mut raw = [0; 12];
            self.file.read_exact(&mut raw).map_err(|e| self.fail(e))?;
            let offset = u32_at(&raw, 8);
            let (bit_offset, bits) = if ty.flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            aggregate.members.push(Member { name: u32_at(&raw, 0), ty: u32_at(&raw, 4), bit_offset, bits });
        }
        Ok(Some(aggregate))
    }

    /// Reads types up to the first that `pick` takes; the file then stands behind its common part, with so many bytes
    /// of the section left.
    fn walk(&mut self, pick: impl Fn(u32, &Type) -> bool) -> Result<Option<(u32, Type, u64)>, BtfError> {
        let (start, mut left) = self.types;
        self.seek(start)?;
        let mut id = 0;
        while left > 0 {
            let mut raw = [0; 12];
            left = left.checked_sub(12).ok_or_else(|| self.malformed("a type ends behind its section"))?;
            self.file.read_exact(&mut raw).map_err(|e| self.fail(e))?;
            id += 1;
            let ty = Type::new(raw);
            if pick(id, &ty) {
                return Ok(Some((id, ty, left)));
            }
            let size = self.data_len(&ty)?;
            left = left.checked_sub(size).ok_or_else(|| self.malformed("a type ends behind its section"))?;
            // At most 2^24 elements of 255 bytes: fits, and a seek inside the buffer costs nothing.
            self.file.seek_relative(size as i64).map_err(|e| self.fail(e))?;
        }
        Ok(None)
    }

    /// Bytes behind the common part of a type.
    fn data_len(&self, ty: &Type) -> Result<u64, BtfError> {
        let len = u64::from(ty.len);
        Ok(match ty.kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => len * 12,
            KIND_ENUM | KIND_FUNC_PROTO => len * 8,
            // Pointer, forward, typedef, qualifiers, function, float, type tag: nothing more.
            2 | 7..=12 | 16 | 18 => 0,
            kind => match self.layout.get(usize::from(kind)) {
                Some(&(fixed, element)) if kind != 0 => u64::from(fixed) + len * u64::from(element),
                _ => return Err(BtfError::UnknownKind { path: self.path.clone(), kind }),
            },
        })
    }
}

/// Fills as much of `out` as the file has.
fn read_up_to(file: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < out.len() {
        match file.read(&mut out[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// The number at `at`, which lies inside `bytes` at every call.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}
