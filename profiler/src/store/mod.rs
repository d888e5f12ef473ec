//! The daemon's history on disk: windows, with what they share kept once, in one SQLite database.
//!
//! | step | where |
//! |---|---|
//! | one process writes: lock, damaged databases moved aside | [`lock`], [`write`] |
//! | tables, views, older schemas | `schema` and `schema.sql`, documented in `docs/store.md` |
//! | a window in one transaction | `insert`, contents by `intern` |
//! | old windows are merged, then removed | `compact`, `retain` |
//! | windows, series, profiles and accounts of a range | [`read`], `profile` |
//!
//! SQLite with a write-ahead log: a reader sees whole windows, whatever the writer does; a writer that is killed leaves
//! whole windows. Sums stay exact: a window that is merged has the sums of its parts, in integers.

mod compact;
mod error;
mod histogram;
mod insert;
mod intern;
pub mod lock;
pub mod notes;
mod profile;
pub mod read;
mod record;
mod retain;
mod schema;
#[cfg(test)]
pub(crate) mod tests;
pub mod write;

use std::time::Duration;

use regex::Regex;
use serde::Serialize;

use crate::model::{
    SampleType,
    window::{Rates, Series},
};
pub use error::{Note, StoreError};
pub use read::Reader;
pub use write::Writer;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Windows that ended longer ago are removed.
    pub max_age: Duration,
    /// Bytes of the database and of its write-ahead log; the oldest windows give way.
    pub max_bytes: u64,
}

/// A range of time, half open. Windows that overlap it are in it, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// From this time on, ns since the Unix epoch.
    pub from_unix_ns: u64,
    /// Before this time, ns since the Unix epoch.
    pub to_unix_ns: u64,
}

/// What is asked for. Parts that are `None` or empty match everything; all parts must match.
#[derive(Clone, Debug)]
pub struct Query {
    /// When.
    pub range: Range,
    /// Command name of the process.
    pub process: Option<Regex>,
    /// Container id, pod, unit or path of the control group.
    pub container: Option<Regex>,
    /// Process id.
    pub pid: Option<u32>,
    /// Sample types, or events whose sample types are meant, by name; for accounts: metrics.
    pub events: Vec<String>,
}

impl Query {
    /// All of a range.
    pub const fn all(range: Range) -> Self {
        Self { range, process: None, container: None, pid: None, events: Vec::new() }
    }
}

/// A window as it is kept: one of the daemon's, or several merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WindowInfo {
    /// Start, ns since the Unix epoch, by the clock at that moment.
    pub start_unix_ns: u64,
    /// End of the last one in it, ns since the Unix epoch.
    pub end_unix_ns: u64,
    /// How long it was looked, ns: shorter than from start to end where windows are missing between.
    pub duration_ns: u64,
    /// Number of the first one in it.
    pub number: u64,
    /// Number of the last one in it.
    pub last_number: u64,
    /// How many are in it.
    pub merged: u64,
    /// Counts the daemon's runs: numbers begin again with each.
    pub run: u64,
    /// The boot that it is of.
    pub boot_id: String,
    /// How closely was looked.
    #[serde(flatten)]
    pub rates: Rates,
    /// Whole samples lost.
    pub lost_samples: u64,
    /// What is to be known of it.
    pub notes: Vec<String>,
}

/// A series with what there is of it in a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeriesInfo {
    /// Whose.
    #[serde(flatten)]
    pub series: Series,
    /// Windows that have samples or numbers of it.
    pub windows: u64,
    /// Start of the first of them, ns since the Unix epoch.
    pub first_unix_ns: u64,
    /// End of the last of them, ns since the Unix epoch.
    pub last_unix_ns: u64,
    /// Exact time on a CPU, ns.
    pub cpu_ns: u64,
    /// Sums of its samples by sample type; those without samples are left out. Who shows them as JSON has a form of its own.
    #[serde(skip)]
    pub totals: Vec<(SampleType, u64)>,
}

/// What [`Writer::maintain`] did. All zero: nothing was to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Windows that were removed because they are too old, the daemon's counted.
    pub expired: u64,
    /// Windows that were removed for want of room, the daemon's counted.
    pub evicted: u64,
    /// Windows that became part of another one.
    pub merged: u64,
    /// Stacks, functions, series and the like that no window uses any more.
    pub unused: u64,
    /// There is more to do; it is done by the next calls.
    pub more: bool,
}
