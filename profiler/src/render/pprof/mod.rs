//! The recording file: a gzip-compressed pprof, which other tools read too and which this profiler re-reads without
//! loss. docs/recording.md describes it.

mod decode;
mod encode;
mod gunzip;
mod limits;
mod marks;
mod meta;
mod proto;
mod samples;
mod wire;

#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

#[cfg(test)]
pub(super) use marks::usual_frame_kind;

use super::{RenderError, RenderOptions};
use crate::model::Profile;

/// Why a file is not a recording.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Reading failed.
    #[error("{0}")]
    Read(io::Error),
    /// No bytes at all.
    #[error("it is empty")]
    Empty,
    /// Something else.
    #[error("not a pprof file: {0}")]
    NotPprof(&'static str),
    /// The compressed data stops early.
    #[error("truncated gzip stream: the file was cut, or is still being written")]
    TruncatedGzip,
    /// The compressed data is wrong.
    #[error("corrupt gzip stream: {0}")]
    CorruptGzip(io::Error),
    /// More data than is read.
    #[error("too large: more than {limit} bytes unpacked")]
    TooLarge {
        /// Bytes allowed for this file.
        limit: u64,
    },
    /// More of something than is read.
    #[error("too large: more than {limit} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// Not a protobuf message, or not one of this schema.
    #[error("damaged or no pprof file: {0}")]
    Damaged(String),
    /// The profiler's own metadata cannot be read.
    #[error("damaged metadata: {0}")]
    Metadata(String),
    /// The profiler's own metadata has another version.
    #[error("recorded by another version of profiler (metadata version {0}, this one reads 1)")]
    OtherVersion(String),
}

/// Reads a recording, or any other tool's pprof file with what it has.
///
/// # Errors
/// Whatever the bytes are, they give a profile with valid ids or a [`DecodeError`].
pub fn read(reader: impl Read) -> Result<Profile, DecodeError> {
    decode::decode(&gunzip::unpacked(reader)?)
}

/// Writes a recording. Stacks, functions and modules that no sample uses are left out.
///
/// # Errors
/// Those of writing.
pub fn write(profile: &Profile, _options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    encode::encode(profile, out)
}
