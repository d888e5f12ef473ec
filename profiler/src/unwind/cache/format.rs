//! The bytes of a kept table, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic |
//! | 4 | CRC-32 of everything behind it |
//! | 4 | format |
//! | 16 | version of the program that made it, NUL-padded |
//! | 4, 4 | architecture, owner of the file |
//! | 4, 64 | build id, its length and NUL-padded |
//! | 4, 4, 4, 4 | first page, pages, rows, rules |
//! | 4 (pages + 1), 4 rows, 8 rules | the parts of the table |

use profiler_common::unwind::Arch;

use super::Key;
use crate::unwind::{
    rules::MAX_RULES,
    table::{MAX_PAGES, MAX_ROWS, Table},
};

const MAGIC: &[u8; 8] = b"unwind\x1a\n";
/// Counts up when a table of the same file would be another one, and the program's version stays.
const FORMAT: u32 = 2;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The checksum covers what is behind it.
const CHECKED_FROM: usize = 12;
const HEADER: usize = 8 + 4 + 4 + 16 + 4 + 4 + 4 + 64 + 4 * 4;
/// Longest table.
pub const MAX_LEN: u64 = (HEADER + (MAX_PAGES + 1) * 4 + MAX_ROWS * 4 + MAX_RULES * 8) as u64;

/// The bytes of a table.
pub fn encode(key: &Key<'_>, table: &Table) -> Vec<u8> {
    let len = HEADER + (table.pages.len() + table.rows.len()) * 4 + table.rules.len() * 8;
    let mut out = Vec::with_capacity(len);
    out.extend(MAGIC);
    out.extend([0; 4]);
    out.extend(identity(key));
    for count in
        [table.first_page, table.page_count() as u32, table.rows.len() as u32, table.rules.len() as u32]
    {
        out.extend(count.to_le_bytes());
    }
    out.extend(table.pages.iter().flat_map(|word| word.to_le_bytes()));
    out.extend(table.rows.iter().flat_map(|word| word.to_le_bytes()));
    out.extend(table.rules.iter().flat_map(|word| word.to_le_bytes()));
    let checksum = crc32fast::hash(&out[CHECKED_FROM..]);
    out[8..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// The table, if it is this key's, made by this version, whole and sound.
pub fn decode(key: &Key<'_>, bytes: &[u8]) -> Option<Table> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (checksum, checked) = rest.split_first_chunk()?;
    let rest = checked.strip_prefix(identity(key).as_slice())?;
    let (counts, mut rest) = rest.split_first_chunk::<16>()?;
    let count = |index: usize| counts[index * 4..].first_chunk().map(|raw| u32::from_le_bytes(*raw));
    let (pages, rows, rules) = (count(1)? as usize, count(2)? as usize, count(3)? as usize);
    if pages > MAX_PAGES || rows > MAX_ROWS || rules > MAX_RULES {
        return None;
    }
    if rest.len() != (pages + 1 + rows) * 4 + rules * 8
        || crc32fast::hash(checked) != u32::from_le_bytes(*checksum)
    {
        return None;
    }
    let mut part = |len: usize| {
        let (part, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(part)
    };
    let table = Table {
        arch: key.arch,
        first_page: count(0)?,
        pages: words(part((pages + 1) * 4)?),
        rows: words(part(rows * 4)?),
        rules: part(rules * 8)?.as_chunks().0.iter().map(|raw| u64::from_le_bytes(*raw)).collect(),
    };
    table.is_sound().then_some(table)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|raw| u32::from_le_bytes(*raw)).collect()
}

/// What a kept table must begin with, behind the checksum.
fn identity(key: &Key<'_>) -> Vec<u8> {
    let arch: u32 = match key.arch {
        Arch::X86_64 => 1,
        Arch::Aarch64 => 2,
    };
    let mut out = FORMAT.to_le_bytes().to_vec();
    out.extend(padded::<16>(VERSION.as_bytes()));
    out.extend([arch, key.owner, key.build_id.len() as u32].map(u32::to_le_bytes).concat());
    out.extend(padded::<64>(key.build_id));
    out
}

/// The first `N` bytes, NUL-padded. Build ids are not longer (see [`crate::elf`]).
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}
