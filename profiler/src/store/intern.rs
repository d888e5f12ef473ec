//! What windows share is in the database once: rows found by their content, ids of the recent ones kept in memory.
//!
//! Contents come from targets. The hash that finds them is keyed with a secret of the store, so that nobody can make
//! many of one hash; whether it is the same content the database compares.

#[expect(
    deprecated,
    reason = "hashes in the database need an algorithm that stays as it is, which this one promises"
)]
use std::hash::SipHasher;
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher, RandomState},
};

use rusqlite::{
    Connection, OptionalExtension as _, ToSql, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};

/// Most ids kept in memory, of all tables: 24 bytes each and the table's slack.
const MAX_CACHED: usize = 100_000;

/// A value of a column.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    Null,
    Int(i64),
    Text(&'a str),
}

impl Cell<'_> {
    /// Feeds it to a hash whose value is kept on disk: byte by byte, as no other version of a library would do it.
    fn feed(self, hasher: &mut impl Hasher) {
        match self {
            Self::Null => hasher.write(&[0]),
            Self::Int(number) => {
                hasher.write(&[1]);
                hasher.write(&number.to_le_bytes());
            }
            Self::Text(text) => {
                hasher.write(&[2]);
                hasher.write(&(text.len() as u64).to_le_bytes());
                hasher.write(text.as_bytes());
            }
        }
    }
}

impl<'a> From<Option<&'a str>> for Cell<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// A table of contents.
pub struct Table {
    name: &'static str,
    /// Its number: contents of two tables are never taken for each other.
    number: u8,
    find: &'static str,
    insert: &'static str,
}

macro_rules! table {
    ($number:literal, $name:ident, $($at:literal $column:ident),+) => {
        Table {
            name: stringify!($name),
            number: $number,
            find: concat!("SELECT id FROM ", stringify!($name), " WHERE hash = ?1",
                $(" AND ", stringify!($column), " IS ?", $at),+),
            insert: concat!("INSERT INTO ", stringify!($name), " (hash", $(", ", stringify!($column)),+,
                ") VALUES (?1", $(", ?", $at),+, ")"),
        }
    };
}

pub const CIRCUMSTANCES: Table = table!(0, circumstances, 2 text);
pub const PLACES: Table = table!(1, places, 2 cgroup, 3 unit, 4 runtime, 5 container, 6 pod);
pub const SERIES: Table = table!(2, series, 2 pid, 3 start_ns, 4 comm, 5 place);
pub const THREAD_NAMES: Table = table!(3, thread_names, 2 name);
pub const MEASURES: Table = table!(4, measures, 2 metric, 3 label);
pub const MODULES: Table = table!(5, modules, 2 path, 3 build_id, 4 kind);
pub const FUNCTIONS: Table = table!(6, functions, 2 name, 3 file, 4 unresolved);
pub const LOCATIONS: Table = table!(7, locations, 2 module, 3 address, 4 kind, 5 lines);
pub const STACKS: Table = table!(8, stacks, 2 cut, 3 leaf, 4 locations);

/// Ids by content.
pub struct Interner {
    keys: [u64; 2],
    /// By two hashes of the content: 128 bits that nobody outside can aim at.
    ids: HashMap<(u64, u64), i64>,
}

impl Interner {
    /// That of a database; makes its secret if it has none.
    pub fn new(connection: &Connection) -> rusqlite::Result<Self> {
        let mut keys = [0; 2];
        for (key, name) in keys.iter_mut().zip(["hash_key_0", "hash_key_1"]) {
            let random = RandomState::new().build_hasher().finish();
            let sql = "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            connection.execute(sql, (name, random.cast_signed()))?;
            let sql = "SELECT value FROM settings WHERE name = ?1";
            *key = connection.query_row(sql, [name], |row| row.get::<_, i64>(0))?.cast_unsigned();
        }
        Ok(Self { keys, ids: HashMap::new() })
    }

    /// Forgets all ids: the transaction that made some of them did not come about, or rows were removed.
    pub fn forget(&mut self) {
        self.ids.clear();
    }

    /// The id of a content, which is put into the database if it is not there.
    pub fn id(
        &mut self,
        connection: &Connection,
        table: &Table,
        content: &[Cell<'_>],
    ) -> rusqlite::Result<i64> {
        let [first, second] = self.keys;
        let key = (hash(first, second, table, content), hash(second, first, table, content));
        if let Some(&id) = self.ids.get(&key) {
            return Ok(id);
        }
        let hash = Cell::Int(key.0.cast_signed());
        let values = || params_from_iter(std::iter::once(&hash).chain(content));
        let mut find = connection.prepare_cached(table.find)?;
        let id = match find.query_row(values(), |row| row.get(0)).optional()? {
            Some(id) => id,
            None => connection.prepare_cached(table.insert)?.insert(values())?,
        };
        if self.ids.len() >= MAX_CACHED {
            self.ids.clear();
        }
        self.ids.insert(key, id);
        Ok(id)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[expect(deprecated, reason = "see the import")]
fn hash(key: u64, other: u64, table: &Table, content: &[Cell<'_>]) -> u64 {
    let mut hasher = SipHasher::new_with_keys(key, other);
    hasher.write(&[table.number]);
    for cell in content {
        cell.feed(&mut hasher);
    }
    hasher.finish()
}
