//! Why the store could not do something, so that the daemon can go on and a user knows what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ffi;

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The user may not use the store.
    #[error("{}: no right to use this store", path.display())]
    Denied {
        /// Its directory or file.
        path: PathBuf,
    },
    /// There is none.
    #[error("{}: there is no store", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process writes to it.
    #[error("{}: the store is being written by {}", dir.display(), pid.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process, as it says.
        pid: Option<u32>,
    },
    /// There is no room; what was to be written is not in the store, what was there is whole. The next attempt can succeed.
    #[error("{}: no room on the file system", path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error("{}: the database is damaged: {cause}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// A later version of the profiler wrote it.
    #[error("{}: the database has schema {found}, this profiler knows {known}", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The last schema that is known.
        known: i64,
    },
    /// An earlier version of the profiler wrote it, and a reader changes nothing.
    #[error("{}: the database has the old schema {found}; the daemon brings it to schema {known} when it starts", path.display())]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that is needed.
        known: i64,
    },
    /// A database of another program.
    #[error("{}: this is a database, but not one of the profiler", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// Another process has locked the database for too long.
    #[error("{}: another program has locked the database", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The window has a sample type that there is no column for.
    #[error("no column for the sample type {name:?}")]
    SampleType {
        /// Its name.
        name: String,
    },
    /// The window contradicts itself.
    #[error("the window contradicts itself: {0}")]
    Window(&'static str),
    /// Nothing of that name is kept.
    #[error("no event {name:?}; the store has {known}")]
    NoEvent {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Anything else that SQLite says.
    #[error("{}: {cause}", path.display())]
    Sql {
        /// The database.
        path: PathBuf,
        /// What it says.
        cause: rusqlite::Error,
    },
}

impl StoreError {
    pub(super) fn io(path: &Path, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, cause },
        }
    }

    pub(super) fn sql(path: &Path, cause: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        let path = path.to_owned();
        let code = match &cause {
            Error::SqliteFailure(error, _) => (error.code, error.extended_code),
            // A value is not what it was written as.
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
            | Error::QueryReturnedNoRows
            // The statements are fixed: the schema is not what it was.
            | Error::SqlInputError { .. } => {
                return Self::Damaged { path, cause: cause.to_string() };
            }
            _ => return Self::Sql { path, cause },
        };
        match code {
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => {
                Self::Damaged { path, cause: cause.to_string() }
            }
            // The index of the write-ahead log cannot be made larger.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Self::Full { path },
            // A file ended before it should; or the schema is not what it was.
            (_, ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_ERROR)
            | (ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch, _) => {
                Self::Damaged { path, cause: cause.to_string() }
            }
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Busy { path },
            (ErrorCode::PermissionDenied, _) => Self::Denied { path },
            _ => Self::Sql { path, cause },
        }
    }
}

/// What was found in the database is not what is ever written there.
pub(super) fn damage(what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Null, what.into())
}

/// What the daemon has to tell of the store beside errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The database was damaged, and moved aside; a new one was begun.
    MovedAside {
        /// Where it is now.
        to: PathBuf,
        /// What was found.
        cause: String,
    },
    /// A damaged database of before was removed: only the two newest are kept.
    Removed {
        /// Which.
        path: PathBuf,
    },
    /// The database's file was removed or replaced while it was being written; a new one was begun.
    Vanished {
        /// Where it was.
        path: PathBuf,
    },
    /// The database was brought to the schema of this profiler.
    Migrated {
        /// Its schema before.
        from: i64,
        /// Its schema now.
        to: i64,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MovedAside { to, cause } => {
                write!(
                    f,
                    "the history was damaged ({cause}): it is kept as {}, a new one was begun",
                    to.display()
                )
            }
            Self::Removed { path } => {
                write!(f, "{}: removed, two damaged databases that are newer are kept", path.display())
            }
            Self::Vanished { path } => {
                write!(f, "{}: was removed or replaced; a new history was begun", path.display())
            }
            Self::Migrated { from, to } => write!(f, "the history was brought from schema {from} to {to}"),
        }
    }
}
