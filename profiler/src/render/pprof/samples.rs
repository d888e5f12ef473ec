//! The last pass of decoding: samples, their stacks and their threads.

use std::collections::HashMap;

use prost::Message;

use super::{
    DecodeError,
    decode::{Decoder, damaged, next_id, raw_messages, unit},
    limits::{FRAMES_PER_BYTE, FREE_FRAMES, MAX_STACK},
    proto::{self, field},
};
use crate::model::{LocationId, Sample, Stack, StackEnd, StackId, Thread, ThreadId, Unit};

/// Reads all samples into the decoder's profile. `scales` has a factor per sample type.
pub fn read(
    decoder: &mut Decoder<'_>,
    locations: &HashMap<u64, LocationId>,
    scales: &[i64],
) -> Result<(), DecodeError> {
    let mut reader = Reader {
        locations,
        stacks: HashMap::new(),
        frames: 0,
        max_frames: FREE_FRAMES.saturating_add(decoder.data.len().saturating_mul(FRAMES_PER_BYTE)),
        threads: HashMap::new(),
        raw_threads: HashMap::new(),
        sums: vec![0; scales.len()],
    };
    // One message for all samples: its vectors are reused.
    let mut message = proto::Sample::default();
    for bytes in raw_messages(decoder.data, field::SAMPLE) {
        message.clear();
        message.merge(bytes?).map_err(|error| damaged(error.to_string()))?;
        let labels = Labels::of(decoder, &message.label)?;
        let sample = Sample {
            thread: reader.thread(decoder, labels.thread)?,
            stack: reader.stack(decoder, &message.location_id, labels.end)?,
            window_start_ns: labels.window_start_ns,
            values: reader.values(&message.value, scales)?,
        };
        next_id(&decoder.profile.samples, "samples")?;
        decoder.profile.samples.push(sample);
    }
    decoder.profile.stacks = by_id(reader.stacks, |id| id.0);
    decoder.profile.threads = by_id(reader.threads, |id| id.0);
    Ok(())
}

/// A thread before its names are looked up: equal ones need no look-up.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct RawThread {
    pid: u32,
    tid: u32,
    incarnation: u64,
    process: i64,
    name: i64,
}

/// What a sample's labels say.
struct Labels {
    thread: RawThread,
    window_start_ns: u64,
    end: StackEnd,
}

impl Labels {
    fn of(decoder: &Decoder<'_>, labels: &[proto::Label]) -> Result<Self, DecodeError> {
        let mut out = Self { thread: RawThread::default(), window_start_ns: 0, end: StackEnd::Complete };
        for label in labels {
            let text = decoder.strings.bytes(label.str)?;
            let thread = &mut out.thread;
            match decoder.strings.bytes(label.key)? {
                b"process" | b"comm" => thread.process = label.str,
                b"thread" | b"thread_name" => thread.name = label.str,
                b"pid" => thread.pid = id(label, text)?,
                b"tid" | b"thread_id" => thread.tid = id(label, text)?,
                b"incarnation" => thread.incarnation = label.num.cast_unsigned(),
                b"window" => out.window_start_ns = window(label, decoder.strings.bytes(label.num_unit)?)?,
                b"stack_end" => {
                    let end = std::str::from_utf8(text).ok().and_then(StackEnd::from_key);
                    out.end = end.unwrap_or(StackEnd::Broken);
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

/// A process or thread id; some tools store it as text.
fn id(label: &proto::Label, text: &[u8]) -> Result<u32, DecodeError> {
    let id = if text.is_empty() {
        u32::try_from(label.num).ok()
    } else {
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok())
    };
    id.ok_or_else(|| damaged("a process or thread id is out of range"))
}

fn window(label: &proto::Label, unit_name: &[u8]) -> Result<u64, DecodeError> {
    let scale = match unit(unit_name) {
        (Unit::Nanoseconds, scale) => scale,
        _ => 1,
    };
    let ns = label.num.checked_mul(scale).and_then(|ns| u64::try_from(ns).ok());
    ns.ok_or_else(|| damaged("a window start is out of range"))
}

struct Reader<'a> {
    locations: &'a HashMap<u64, LocationId>,
    stacks: HashMap<Stack, StackId>,
    /// Frames of all stacks, inlined ones expanded.
    frames: usize,
    max_frames: usize,
    threads: HashMap<Thread, ThreadId>,
    raw_threads: HashMap<RawThread, ThreadId>,
    /// Sum of absolute values per sample type.
    sums: Vec<i64>,
}

impl Reader<'_> {
    fn stack(&mut self, decoder: &Decoder<'_>, ids: &[u64], end: StackEnd) -> Result<StackId, DecodeError> {
        if ids.len() > MAX_STACK {
            return Err(DecodeError::TooMany { what: "frames in one stack", limit: MAX_STACK });
        }
        let location = |id: &u64| {
            let location = self.locations.get(id).copied();
            location.ok_or_else(|| damaged(format!("location {id} does not exist")))
        };
        let stack = Stack { locations: ids.iter().map(location).collect::<Result<_, _>>()?, end };
        if let Some(&id) = self.stacks.get(&stack) {
            return Ok(id);
        }
        let lines = stack.locations.iter().map(|id| decoder.profile.locations[id.index()].lines.len());
        self.frames = self.frames.saturating_add(lines.sum());
        if self.frames > self.max_frames {
            return Err(DecodeError::TooMany { what: "frames in all stacks", limit: self.max_frames });
        }
        // Stacks are fewer than samples, whose number is bounded.
        let id = StackId(self.stacks.len() as u32);
        self.stacks.insert(stack, id);
        Ok(id)
    }

    fn thread(&mut self, decoder: &mut Decoder<'_>, raw: RawThread) -> Result<ThreadId, DecodeError> {
        if let Some(&id) = self.raw_threads.get(&raw) {
            return Ok(id);
        }
        let process = match decoder.strings.name(raw.process)? {
            Some(process) => process,
            None => main_module(decoder),
        };
        let thread = Thread {
            pid: raw.pid,
            tid: raw.tid,
            name: decoder.strings.name(raw.name)?.unwrap_or_else(|| process.clone()),
            process,
            incarnation: raw.incarnation,
        };
        let next = ThreadId(self.threads.len() as u32);
        let id = *self.threads.entry(thread).or_insert(next);
        self.raw_threads.insert(raw, id);
        Ok(id)
    }

    fn values(&mut self, values: &[i64], scales: &[i64]) -> Result<Vec<i64>, DecodeError> {
        if values.len() != scales.len() {
            let (got, want) = (values.len(), scales.len());
            return Err(damaged(format!("a sample has {got} values for {want} sample types")));
        }
        let overflow = || damaged("the values of the samples add up to more than 63 bits");
        let mut out = Vec::with_capacity(values.len());
        for ((value, scale), sum) in values.iter().zip(scales).zip(&mut self.sums) {
            let value = value.checked_mul(*scale).ok_or_else(overflow)?;
            *sum = value.checked_abs().and_then(|v| sum.checked_add(v)).ok_or_else(overflow)?;
            out.push(value);
        }
        Ok(out)
    }
}

/// What another tool's process is called: by convention its executable is the first mapping.
fn main_module(decoder: &Decoder<'_>) -> String {
    decoder.profile.modules.first().map_or("[unknown]", |module| module.name()).to_owned()
}

fn by_id<T, I: Copy>(interned: HashMap<T, I>, key: impl Fn(I) -> u32) -> Vec<T> {
    let mut entries: Vec<_> = interned.into_iter().collect();
    entries.sort_unstable_by_key(|(_, id)| key(*id));
    entries.into_iter().map(|(entry, _)| entry).collect()
}
