//! The messages of a pprof file, by the field numbers of its public schema (`profile.proto` of the pprof project).
//!
//! Only the inner messages are derived. The outer `Profile` message is written and read field by field
//! ([`super::wire`]): so that neither a long recording nor a hostile file is ever held in memory as a whole tree of
//! messages. Strings are indices into the file's string table, whose first entry is empty.

/// Field numbers of the outer message.
pub mod field {
    /// `repeated ValueType`.
    pub const SAMPLE_TYPE: u32 = 1;
    /// `repeated Sample`.
    pub const SAMPLE: u32 = 2;
    /// `repeated Mapping`.
    pub const MAPPING: u32 = 3;
    /// `repeated Location`.
    pub const LOCATION: u32 = 4;
    /// `repeated Function`.
    pub const FUNCTION: u32 = 5;
    /// `repeated string`.
    pub const STRING_TABLE: u32 = 6;
    /// Start of the recording, ns since the Unix epoch.
    pub const TIME_NANOS: u32 = 9;
    /// Its duration, ns.
    pub const DURATION_NANOS: u32 = 10;
    /// `ValueType`: what is counted between two samples.
    pub const PERIOD_TYPE: u32 = 11;
    /// How many of it.
    pub const PERIOD: u32 = 12;
    /// `repeated int64`, string indices.
    pub const COMMENT: u32 = 13;
    /// String index: the sample type a viewer shows first.
    pub const DEFAULT_SAMPLE_TYPE: u32 = 14;
}

/// What a value means.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ValueType {
    /// Name, a string index.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Unit, a string index.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// A stack with its values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sample {
    /// Location ids, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value per sample type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// Who and when.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A key with a string or a number.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Label {
    /// Key, a string index.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Value, a string index; 0: the value is `num`.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// Value, a number.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// Unit of `num`, a string index.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A mapped file.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Mapping {
    /// Not 0, unique.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// Address behind the last one.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// File offset of `memory_start`.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Path, a string index.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Build id, a string index.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// A viewer need not look for function names,
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// file names,
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// line numbers,
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// inlined functions.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A code address.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Location {
    /// Not 0, unique.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// A mapping's id; 0: none.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// Address, in terms of the mapping's memory range.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Functions, innermost inlined one first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A function and a source line.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Line {
    /// A function's id.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Source line.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Function {
    /// Not 0, unique.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name for people, a string index.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Name as the system knows it, a string index.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Source file, a string index.
    #[prost(int64, tag = "4")]
    pub filename: i64,
}
