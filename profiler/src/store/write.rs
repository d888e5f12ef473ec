//! The writer: the one process that has the lock. A window is a transaction.
//!
//! What goes wrong leaves the store as it was: a full disk is told ([`StoreError::Full`]) and the next window can be
//! kept again; a damaged database is moved aside, a new one begun, and a [`Note`] says so.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, TransactionBehavior};

use super::{
    Limits, Maintained, Note, StoreError, compact,
    insert::{self, Insert},
    intern::Interner,
    lock::Lock,
    retain,
    schema::{self, FILE},
};
use crate::model::{when::unix_ns, window::Window};

/// Databases up to this size are checked whole when they are opened: that takes some 0.2 s. Of larger ones damage shows
/// when it is read.
const MAX_CHECKED_BYTES: u64 = 64 << 20;

/// Damaged databases that are kept.
const MAX_DAMAGED: usize = 2;

/// What the name of a damaged database begins with; the time follows, s since the Unix epoch.
const DAMAGED: &str = "history.db.damaged-";

/// Writes windows, merges and removes old ones.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    limits: Limits,
    /// `None`: it could not be opened again, which the next call tries.
    database: Option<Database>,
    notes: Vec<Note>,
    _lock: Lock,
}

/// An open database.
pub(super) struct Database {
    pub connection: Connection,
    pub interner: Interner,
    /// Windows removed since unused contents were last removed.
    pub since_unused: u64,
    /// Device and inode of its file.
    identity: (u64, u64),
    /// Length of the file after the last work.
    bytes: u64,
    /// Counts the daemon's runs.
    run: i64,
    /// Boot and number of the last window of this run.
    last: Option<(String, u64)>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("run", &self.run).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Writer {
    /// Takes the lock of a directory, makes both if they are not there, and opens the database. A damaged one is moved
    /// aside, see [`Writer::take_notes`].
    ///
    /// # Errors
    /// [`StoreError`]: another writer, no rights, no room, a newer schema, another program's database.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let lock = Lock::take(dir)?;
        let mut writer =
            Self { path: dir.join(FILE), limits, database: None, notes: Vec::new(), _lock: lock };
        writer.database()?;
        Ok(writer)
    }

    /// Keeps a window. After an error nothing of it is kept, and what was there before is whole.
    ///
    /// # Errors
    /// [`StoreError::Full`]: it can be tried again. [`StoreError::Window`], [`StoreError::SampleType`]: it cannot be kept.
    pub fn append(&mut self, window: &Window) -> Result<(), StoreError> {
        let places = insert::check(window)?;
        self.with(|path, database| {
            let run = match &database.last {
                Some((boot, number)) if *boot == window.boot_id && *number < window.number => database.run,
                None => database.run,
                Some(_) => database.run.saturating_add(1),
            };
            database.transaction(path, |connection, interner| {
                Insert { connection, interner }.window(window, &places, run)
            })?;
            (database.run, database.last) = (run, Some((window.boot_id.clone(), window.number)));
            Ok(())
        })
    }

    /// Merges windows that are old, removes those that are too old or too many, and what no window uses; so much of it
    /// that it takes a fraction of a second; looking for what is not used, which is not done each time, reads all samples.
    /// To be called once for each window.
    ///
    /// # Errors
    /// As [`Writer::append`]; what was done until then stays done.
    pub fn maintain(&mut self) -> Result<Maintained, StoreError> {
        self.maintain_at(unix_ns())
    }

    /// [`Writer::maintain`] at that time, ns since the Unix epoch.
    pub(super) fn maintain_at(&mut self, now_unix_ns: u64) -> Result<Maintained, StoreError> {
        let limits = self.limits;
        self.with(|path, database| {
            let mut done = Maintained::default();
            retain::expire(path, database, now_unix_ns, limits.max_age, &mut done)?;
            compact::run(path, database, now_unix_ns, &mut done)?;
            retain::evict(path, database, limits.max_bytes, &mut done)?;
            Ok(done)
        })
    }

    /// Bytes of the database and of its write-ahead log.
    pub fn bytes(&self) -> u64 {
        retain::bytes(&self.path)
    }

    /// Other limits; they hold after the next [`Writer::maintain`].
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What happened beside errors since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Does something with the database, with a new one if it turns out to be damaged.
    fn with<T>(
        &mut self,
        mut work: impl FnMut(&Path, &mut Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let path = self.path.clone();
        let result = match self.database().and_then(|database| work(&path, database)) {
            Err(StoreError::Damaged { cause, .. }) => {
                self.move_aside(cause)?;
                work(&path, self.database()?)
            }
            result => result,
        };
        if let Some(database) = &mut self.database {
            database.bytes = length(&path);
        }
        result
    }

    /// The database; opened if it is not, or if its file is not the one that was opened.
    fn database(&mut self) -> Result<&mut Database, StoreError> {
        if let Some(database) = &self.database
            && identity(&self.path).ok() != Some(database.identity)
        {
            self.database = None;
            // A log that is left belongs to no database that is there.
            remove_logs(&self.path)?;
            self.notes.push(Note::Vanished { path: self.path.clone() });
        }
        // Somebody has cut it: what SQLite has in memory would hide that. Opening it tells what is left.
        self.database.take_if(|database| length(&self.path) < database.bytes);
        let database = match self.database.take() {
            Some(database) => database,
            None => match Database::open(&self.path, &mut self.notes) {
                Err(StoreError::Damaged { cause, .. }) => {
                    self.move_aside(cause)?;
                    Database::open(&self.path, &mut self.notes)?
                }
                result => result?,
            },
        };
        Ok(self.database.insert(database))
    }

    /// Keeps the damaged database, with its log, under another name.
    fn move_aside(&mut self, cause: String) -> Result<(), StoreError> {
        self.database = None;
        let now = unix_ns() / 1_000_000_000;
        // Names of before are passed by: two can be damaged within a second.
        let free = (now..).map(|time| self.path.with_file_name(format!("{DAMAGED}{time}")));
        let to = free.into_iter().find(|to| fs::symlink_metadata(to).is_err());
        let to = to.unwrap_or_else(|| self.path.with_file_name(DAMAGED));
        for suffix in ["", "-wal"] {
            match fs::rename(with_suffix(&self.path, suffix), with_suffix(&to, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io(&self.path, error));
                }
                _ => {}
            }
        }
        remove_logs(&self.path)?;
        self.notes.push(Note::MovedAside { to, cause });
        self.remove_old_damaged()
    }

    fn remove_old_damaged(&mut self) -> Result<(), StoreError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let fail = |error| StoreError::io(dir, error);
        let mut damaged = Vec::new();
        for entry in fs::read_dir(dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let time = name.to_str().and_then(|name| name.strip_prefix(DAMAGED)?.parse::<u64>().ok());
            damaged.extend(time);
        }
        damaged.sort_unstable();
        for time in damaged.iter().rev().skip(MAX_DAMAGED) {
            let path = dir.join(format!("{DAMAGED}{time}"));
            remove(&path)?;
            remove(&with_suffix(&path, "-wal"))?;
            self.notes.push(Note::Removed { path });
        }
        Ok(())
    }
}

impl Database {
    fn open(path: &Path, notes: &mut Vec<Note>) -> Result<Self, StoreError> {
        let fail = |cause| StoreError::sql(path, cause);
        // Made with its rights before SQLite does, which gives those of the database to its log.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        made.map_err(|error| StoreError::io(path, error))?;
        check_length(path)?;
        let mut connection = schema::open_to_write(path)?;
        notes.extend(schema::migrate(&mut connection, path)?);
        if retain::bytes(path) <= MAX_CHECKED_BYTES {
            let verdict: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fail)?;
            if verdict != "ok" {
                return Err(StoreError::Damaged { path: path.to_owned(), cause: verdict });
            }
        }
        let run = connection
            .query_row("SELECT coalesce(max(run), 0) + 1 FROM windows", [], |row| row.get(0))
            .map_err(fail)?;
        let interner = Interner::new(&connection).map_err(fail)?;
        let identity = identity(path).map_err(|error| StoreError::io(path, error))?;
        Ok(Self { connection, interner, since_unused: 0, identity, bytes: length(path), run, last: None })
    }

    /// All of it or nothing.
    pub(super) fn transaction<T>(
        &mut self,
        path: &Path,
        work: impl FnOnce(&Connection, &mut Interner) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let result = transaction.and_then(|transaction| {
            let value = work(&transaction, &mut self.interner)?;
            transaction.commit()?;
            Ok(value)
        });
        result.map_err(|cause| {
            // Ids that were made are not there.
            self.interner.forget();
            StoreError::sql(path, cause)
        })
    }
}

/// A file that is shorter than its header says was cut, unless the rest is in the log still.
fn check_length(path: &Path) -> Result<(), StoreError> {
    let fail = |error| StoreError::io(path, error);
    let bytes = fs::metadata(path).map_err(fail)?.len();
    let log = fs::metadata(with_suffix(path, "-wal")).map_or(0, |log| log.len());
    if bytes == 0 || log != 0 {
        return Ok(());
    }
    let damaged = |cause: &str| Err(StoreError::Damaged { path: path.to_owned(), cause: cause.to_owned() });
    let mut header = [0; 100];
    let mut file = fs::File::open(path).map_err(fail)?;
    if io::Read::read_exact(&mut file, &mut header).is_err() {
        return damaged("it is shorter than a header");
    }
    // Size of a page, where 1 stands for 65,536, and number of pages: <https://www.sqlite.org/fileformat2.html>.
    let page = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        page => page,
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    if bytes < page * pages { damaged("it is shorter than it says") } else { Ok(()) }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The path of a file that belongs to the database.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_logs(path: &Path) -> Result<(), StoreError> {
    remove(&with_suffix(path, "-wal"))?;
    remove(&with_suffix(path, "-shm"))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path, error)),
        _ => Ok(()),
    }
}
