//! pprof to model, for files of any origin: every index is checked, every table bounded, all names cleaned.
//!
//! The data is walked once per table instead of being turned into a tree first: memory stays near that of the result,
//! and tables may come in any order.

use std::collections::HashMap;

use prost::Message;

use super::{
    DecodeError,
    limits::{
        MAX_COMMENTS, MAX_ENTRIES, MAX_LINES, MAX_MESSAGE_BYTES, MAX_SAMPLE_TYPES, MAX_STRINGS, NAME_BYTES,
        NAME_BYTES_PER_BYTE,
    },
    marks::{FrameMark, usual_frame_kind},
    meta::Document,
    proto::{self, field},
    samples,
    wire::{Fields, Value, WireError, packed},
};
use crate::model::{
    FrameKind, Function, FunctionId, Line, Location, LocationId, Meta, Module, ModuleId, ModuleKind, Profile,
    Reason, SampleType, Unit, name,
};

/// Comments of another tool that are kept as notes.
const MAX_NOTES: usize = 8;

impl From<WireError> for DecodeError {
    fn from(error: WireError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Decodes unpacked pprof data.
pub fn decode(data: &[u8]) -> Result<Profile, DecodeError> {
    let head = Head::read(data)?;
    let budget = NAME_BYTES.saturating_add(data.len().saturating_mul(NAME_BYTES_PER_BYTE));
    let strings = Strings { table: &head.strings, budget };
    let mut document = match head.strings.last() {
        Some(text) => Document::from_text(text)?,
        None => None,
    };
    let mut decoder = Decoder { data, strings, profile: Profile::default(), is_own: document.is_some() };
    let (sample_types, scales) = decoder.sample_types(&head.sample_types)?;
    decoder.profile.sample_types = sample_types;
    let mappings = decoder.mappings(document.as_mut())?;
    let functions = decoder.functions()?;
    let locations = decoder.locations(&mappings, &functions)?;
    samples::read(&mut decoder, &locations, &scales)?;
    match document {
        Some(document) => {
            decoder.profile.meta = document.meta;
            decoder.profile.losses = document.losses;
            decoder.profile.cost = document.cost;
        }
        None => decoder.profile.meta = decoder.foreign_meta(&head)?,
    }
    Ok(decoder.profile)
}

/// What is said once in a file.
#[derive(Default)]
struct Head<'a> {
    strings: Vec<&'a [u8]>,
    sample_types: Vec<proto::ValueType>,
    comments: Vec<i64>,
    time_ns: i64,
    duration_ns: i64,
    period_type: proto::ValueType,
    period: i64,
}

impl<'a> Head<'a> {
    fn read(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut head = Self::default();
        for item in Fields::new(data) {
            match item? {
                (field::STRING_TABLE, Value::Bytes(text)) => {
                    push(&mut head.strings, text, "strings", MAX_STRINGS)?;
                }
                (field::SAMPLE_TYPE, Value::Bytes(bytes)) => {
                    push(&mut head.sample_types, inner(bytes)?, "sample types", MAX_SAMPLE_TYPES)?;
                }
                (field::PERIOD_TYPE, Value::Bytes(bytes)) => head.period_type = inner(bytes)?,
                (field::COMMENT, Value::Varint(index)) => head.comment(index)?,
                (field::COMMENT, Value::Bytes(bytes)) => {
                    for index in packed(bytes) {
                        head.comment(index?)?;
                    }
                }
                (field::TIME_NANOS, Value::Varint(ns)) => head.time_ns = ns.cast_signed(),
                (field::DURATION_NANOS, Value::Varint(ns)) => head.duration_ns = ns.cast_signed(),
                (field::PERIOD, Value::Varint(period)) => head.period = period.cast_signed(),
                _ => {}
            }
        }
        if head.strings.first() != Some(&&b""[..]) || head.sample_types.is_empty() {
            return Err(damaged("it has no string table or no sample types"));
        }
        Ok(head)
    }

    fn comment(&mut self, index: u64) -> Result<(), DecodeError> {
        push(&mut self.comments, index.cast_signed(), "comments", MAX_COMMENTS)
    }
}

/// The string table, and how many bytes of names may still be copied out of it.
pub(super) struct Strings<'a> {
    table: &'a [&'a [u8]],
    budget: usize,
}

impl<'a> Strings<'a> {
    /// The raw bytes of a string.
    pub(super) fn bytes(&self, index: i64) -> Result<&'a [u8], DecodeError> {
        let text = usize::try_from(index).ok().and_then(|i| self.table.get(i));
        text.copied().ok_or_else(|| damaged(format!("string {index} of {} does not exist", self.table.len())))
    }

    /// A cleaned name; `None` if it is empty.
    pub(super) fn name(&mut self, index: i64) -> Result<Option<String>, DecodeError> {
        let bytes = self.bytes(index)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let name = name::clean(bytes);
        self.spend(name.len())?;
        Ok(Some(name))
    }

    /// Accounts for a name that was built.
    fn spend(&mut self, bytes: usize) -> Result<(), DecodeError> {
        let limit = self.budget;
        self.budget =
            limit.checked_sub(bytes).ok_or(DecodeError::TooMany { what: "bytes of names", limit })?;
        Ok(())
    }
}

/// The state that the passes share.
pub(super) struct Decoder<'a> {
    pub(super) data: &'a [u8],
    pub(super) strings: Strings<'a>,
    pub(super) profile: Profile,
    /// The file has this profiler's metadata: addresses are as the model has them.
    is_own: bool,
}

/// A mapping of the file.
#[derive(Clone, Copy)]
struct Mapping {
    module: ModuleId,
    /// Added to an address to make it a file offset.
    shift: u64,
}

/// A function of the file.
#[derive(Clone, Copy)]
struct MarkedFunction {
    id: FunctionId,
    kind: Option<FrameKind>,
}

impl Decoder<'_> {
    /// Sample types, and what their values must be multiplied by to be in the model's units.
    fn sample_types(
        &mut self,
        types: &[proto::ValueType],
    ) -> Result<(Vec<SampleType>, Vec<i64>), DecodeError> {
        let mut out = (Vec::new(), Vec::new());
        for value_type in types {
            let name = self.strings.name(value_type.r#type)?.unwrap_or_else(|| "[empty]".to_owned());
            let (unit, scale) = unit(self.strings.bytes(value_type.unit)?);
            out.0.push(SampleType { name, unit });
            out.1.push(scale);
        }
        Ok(out)
    }

    fn mappings(&mut self, document: Option<&mut Document>) -> Result<HashMap<u64, Mapping>, DecodeError> {
        let kind_of = document.unwrap_or(&mut Document::default()).module_kinds();
        let mut ids = HashMap::new();
        for message in messages::<proto::Mapping>(self.data, field::MAPPING) {
            let message = message?;
            let mut module = Module {
                path: self.strings.name(message.filename)?.unwrap_or_else(|| "[unknown]".to_owned()),
                build_id: self.strings.name(message.build_id)?,
                kind: ModuleKind::Native,
            };
            module.kind = kind_of(&module);
            let is_file = module.kind == ModuleKind::Native && !self.is_own;
            let shift = if is_file { message.file_offset.wrapping_sub(message.memory_start) } else { 0 };
            let id = ModuleId(next_id(&self.profile.modules, "mappings")?);
            self.profile.modules.push(module);
            insert(&mut ids, message.id, Mapping { module: id, shift }, "mapping")?;
        }
        Ok(ids)
    }

    fn functions(&mut self) -> Result<HashMap<u64, MarkedFunction>, DecodeError> {
        let mut ids = HashMap::new();
        let mut known = HashMap::new();
        for message in messages::<proto::Function>(self.data, field::FUNCTION) {
            let message = message?;
            let mark = FrameMark::parse(self.strings.bytes(message.system_name)?);
            let key = (message.name, message.filename, mark.unresolved);
            let id = match known.get(&key) {
                Some(&id) => id,
                None => {
                    let id = FunctionId(next_id(&self.profile.functions, "functions")?);
                    let function = Function {
                        name: self.strings.name(message.name)?.unwrap_or_else(|| "[empty]".to_owned()),
                        file: self.strings.name(message.filename)?,
                        unresolved: mark.unresolved,
                    };
                    self.profile.functions.push(function);
                    known.insert(key, id);
                    id
                }
            };
            insert(&mut ids, message.id, MarkedFunction { id, kind: mark.kind }, "function")?;
        }
        Ok(ids)
    }

    fn locations(
        &mut self,
        mappings: &HashMap<u64, Mapping>,
        functions: &HashMap<u64, MarkedFunction>,
    ) -> Result<HashMap<u64, LocationId>, DecodeError> {
        let mut ids = HashMap::new();
        let mut no_mapping = None;
        for message in messages::<proto::Location>(self.data, field::LOCATION) {
            let message = message?;
            let mapping = match message.mapping_id {
                0 => *no_mapping.get_or_insert_with(|| self.no_mapping()),
                id => *mappings.get(&id).ok_or_else(|| damaged(format!("mapping {id} does not exist")))?,
            };
            let mut location = Location {
                module: mapping.module,
                address: message.address.wrapping_add(mapping.shift),
                lines: Vec::with_capacity(message.line.len().min(MAX_LINES)),
                kind: usual_frame_kind(self.profile.modules[mapping.module.index()].kind),
            };
            for line in &message.line {
                let function = functions.get(&line.function_id);
                let function = function
                    .ok_or_else(|| damaged(format!("function {} does not exist", line.function_id)))?;
                let number = u32::try_from(line.line).unwrap_or(0);
                let line = Line { function: function.id, line: number };
                push(&mut location.lines, line, "functions at one address", MAX_LINES)?;
                // The last one is the physical function, whose mark counts.
                location.kind = function.kind.unwrap_or(location.kind);
            }
            if location.lines.is_empty() {
                location.lines.push(self.nameless(&location)?);
            } else if message.mapping_id == 0 {
                // Another tool's frame: named, but not placed.
                location.kind = FrameKind::Native;
            }
            let id = LocationId(next_id(&self.profile.locations, "locations")?);
            self.profile.locations.push(location);
            insert(&mut ids, message.id, id, "location")?;
        }
        Ok(ids)
    }

    fn no_mapping(&mut self) -> Mapping {
        // Bounded: mappings are at most MAX_ENTRIES, and this is called once.
        let module = ModuleId(self.profile.modules.len() as u32);
        let path = "[unknown]".to_owned();
        self.profile.modules.push(Module { path, build_id: None, kind: ModuleKind::Unknown });
        Mapping { module, shift: 0 }
    }

    /// The stand-in for a location that another tool left without a function.
    fn nameless(&mut self, location: &Location) -> Result<Line, DecodeError> {
        let module = &self.profile.modules[location.module.index()];
        let reason = if module.kind == ModuleKind::Unknown { Reason::NoMapping } else { Reason::NoSymbols };
        let name = format!("{}+{:#x} [{}]", module.name(), location.address, reason.words());
        self.strings.spend(name.len())?;
        let id = FunctionId(next_id(&self.profile.functions, "functions")?);
        self.profile.functions.push(Function { name, file: None, unresolved: Some(reason) });
        Ok(Line { function: id, line: 0 })
    }

    fn foreign_meta(&mut self, head: &Head<'_>) -> Result<Meta, DecodeError> {
        let period_type = self.strings.name(head.period_type.r#type)?.unwrap_or_default();
        let (unit, scale) = unit(self.strings.bytes(head.period_type.unit)?);
        let period_ns = u64::try_from(head.period.saturating_mul(scale)).unwrap_or(0);
        let is_time = unit == Unit::Nanoseconds && period_ns != 0;
        let mut notes = vec!["written by another tool: host, losses and cost are not known".to_owned()];
        for &comment in head.comments.iter().take(MAX_NOTES) {
            notes.extend(self.strings.name(comment)?);
        }
        Ok(Meta {
            start_unix_ns: u64::try_from(head.time_ns).unwrap_or(0),
            duration_ns: u64::try_from(head.duration_ns).unwrap_or(0),
            events: self.profile.sample_types.iter().map(|t| t.name.clone()).collect(),
            sampler: period_type,
            frequency_hz: if is_time { (1_000_000_000 + period_ns / 2) / period_ns } else { 0 },
            notes,
            ..Meta::default()
        })
    }
}

/// The inner messages of one table.
pub(super) fn messages<M: Message + Default>(
    data: &[u8],
    table: u32,
) -> impl Iterator<Item = Result<M, DecodeError>> {
    raw_messages(data, table).map(|bytes| inner(bytes?))
}

/// The inner messages of one table, as bytes of at most [`MAX_MESSAGE_BYTES`].
pub(super) fn raw_messages(data: &[u8], table: u32) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    Fields::new(data).filter_map(move |item| match item {
        Ok((number, _)) if number != table => None,
        Ok((_, Value::Bytes(bytes))) if bytes.len() <= MAX_MESSAGE_BYTES => Some(Ok(bytes)),
        Ok((_, Value::Bytes(_))) => {
            Some(Err(DecodeError::TooMany { what: "bytes in one entry", limit: MAX_MESSAGE_BYTES }))
        }
        Ok(_) => Some(Err(damaged(format!("field {table} is not a message")))),
        Err(error) => Some(Err(error.into())),
    })
}

fn inner<M: Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(DecodeError::TooMany { what: "bytes in one entry", limit: MAX_MESSAGE_BYTES });
    }
    M::decode(bytes).map_err(|error| damaged(error.to_string()))
}

/// A damage in words.
pub(super) fn damaged(what: impl Into<String>) -> DecodeError {
    DecodeError::Damaged(what.into())
}

/// The id of a table's next entry.
pub(super) fn next_id<T>(table: &[T], what: &'static str) -> Result<u32, DecodeError> {
    let fits = u32::try_from(table.len()).ok().filter(|_| table.len() < MAX_ENTRIES);
    fits.ok_or(DecodeError::TooMany { what, limit: MAX_ENTRIES })
}

fn push<T>(list: &mut Vec<T>, item: T, what: &'static str, limit: usize) -> Result<(), DecodeError> {
    if list.len() >= limit {
        return Err(DecodeError::TooMany { what, limit });
    }
    list.push(item);
    Ok(())
}

fn insert<T>(ids: &mut HashMap<u64, T>, id: u64, entry: T, what: &str) -> Result<(), DecodeError> {
    if id == 0 || ids.insert(id, entry).is_some() {
        return Err(damaged(format!("{what} id {id} is zero or not unique")));
    }
    Ok(())
}

/// The model's unit for a pprof unit, and the factor to it.
pub(super) fn unit(name: &[u8]) -> (Unit, i64) {
    match name {
        b"nanoseconds" | b"ns" => (Unit::Nanoseconds, 1),
        b"microseconds" | b"us" => (Unit::Nanoseconds, 1_000),
        b"milliseconds" | b"ms" => (Unit::Nanoseconds, 1_000_000),
        b"seconds" | b"s" => (Unit::Nanoseconds, 1_000_000_000),
        b"bytes" => (Unit::Bytes, 1),
        b"kilobytes" | b"kB" => (Unit::Bytes, 1 << 10),
        b"megabytes" | b"MB" => (Unit::Bytes, 1 << 20),
        _ => (Unit::Count, 1),
    }
}
