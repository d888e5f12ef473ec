//! The one JSON shape of all tables, described in docs/json.md: schema, circumstances, losses, cost, rows.
//!
//! Keys are snake_case with the unit as suffix. A key that means something else gets another schema version; new keys
//! may come at any time.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufWriter, Write},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{RenderError, RenderOptions, tally::no_stack_label, units};
use crate::model::{
    Cost, FrameKind, FunctionId, Losses, Meta, ModuleId, Profile, Reason, SampleType, StackEnd, ThreadId,
    Unit,
};

/// A table with its circumstances.
#[derive(Debug, Serialize)]
pub struct Document<'a, R> {
    /// `profiler.NAME/VERSION`.
    pub schema: &'a str,
    /// Circumstances.
    pub meta: MetaView<'a>,
    /// Losses.
    pub losses: LossesView<'a>,
    /// Own consumption.
    pub cost: &'a Cost,
    /// The table.
    pub rows: R,
}

impl<'a, R: Serialize> Document<'a, R> {
    /// A table of a profile.
    pub fn new(schema: &'a str, profile: &'a Profile, rows: R) -> Self {
        Self::of_parts(schema, &profile.meta, &profile.losses, &profile.cost, rows)
    }

    /// A table with circumstances of its own.
    pub fn of_parts(schema: &'a str, meta: &'a Meta, losses: &'a Losses, cost: &'a Cost, rows: R) -> Self {
        let meta = MetaView {
            start: units::rfc3339(meta.start_unix_ns),
            event: meta.events.join(","),
            selection: None,
            meta,
        };
        let losses = LossesView { lost_samples: losses.lost_samples(), stack_ends: None, losses };
        Self { schema, meta, losses, cost, rows }
    }

    /// Writes it as one line.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), RenderError> {
        let mut out = BufWriter::new(out);
        serde_json::to_writer(&mut out, self).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }
}

/// [`Meta`], with the start and the events also as text.
#[derive(Debug, Serialize)]
pub struct MetaView<'a> {
    /// Start of the recording, RFC 3339.
    pub start: String,
    /// The events, joined by commas.
    pub event: String,
    /// Which part of the recording the rows are, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<&'a str>,
    #[serde(flatten)]
    meta: &'a Meta,
}

/// [`Losses`], with their sum.
#[derive(Debug, Serialize)]
pub struct LossesView<'a> {
    /// Whole samples lost, of all causes.
    pub lost_samples: u64,
    /// How far the stacks of the rows reach ([`StackEnd::key`]): the sums of each sample type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_ends: Option<BTreeMap<&'static str, BTreeMap<&'a str, i64>>>,
    #[serde(flatten)]
    losses: &'a Losses,
}

/// A row of `profiler.report/1`: one function in one thread. Serialized with two keys per sample type, `self_NAME_UNIT`
/// and `total_NAME_UNIT` (no unit for counts).
struct Row<'a> {
    profile: &'a Profile,
    value_keys: &'a [String],
    merge_by_name: bool,
    key: Key,
    /// Per sample type: samples whose leaf frame it is, samples with it anywhere.
    values: Vec<(i64, i64)>,
}

/// What a row is about. Rows are in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    thread: ThreadId,
    /// `None`: samples without a stack.
    frame: Option<(ModuleId, FunctionId, FrameKind)>,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let thread = &self.profile.threads[self.key.thread.index()];
        let id = |id: u32| (!self.merge_by_name).then_some(id);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &id(thread.pid))?;
        map.serialize_entry("tid", &id(thread.tid))?;
        map.serialize_entry("process", &thread.process)?;
        map.serialize_entry("thread", &thread.name)?;
        let frame = self.key.frame.map(|(module, function, kind)| {
            (&self.profile.modules[module.index()], &self.profile.functions[function.index()], kind)
        });
        map.serialize_entry("module", &frame.map(|(module, ..)| &module.path))?;
        map.serialize_entry("build_id", &frame.and_then(|(module, ..)| module.build_id.as_ref()))?;
        let none = no_stack_label(StackEnd::Complete);
        map.serialize_entry("function", frame.map_or(none, |(_, function, _)| &function.name))?;
        map.serialize_entry("file", &frame.and_then(|(_, function, _)| function.file.as_ref()))?;
        map.serialize_entry("kind", frame.map_or(FrameKind::Unknown, |(.., kind)| kind).key())?;
        let unresolved = frame.and_then(|(_, function, _)| function.unresolved);
        map.serialize_entry("unresolved", &unresolved.map(Reason::key))?;
        for (key, (own, total)) in self.value_keys.iter().zip(&self.values) {
            map.serialize_entry(&format!("self_{key}"), own)?;
            map.serialize_entry(&format!("total_{key}"), total)?;
        }
        map.end()
    }
}

/// `samples`, `cpu_ns`, `alloc_bytes`: a sample type's name in snake_case with its unit.
pub fn value_key(sample_type: &SampleType) -> String {
    let snake = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let mut key: String = sample_type.name.chars().map(snake).collect();
    let suffix = match sample_type.unit {
        Unit::Count => "",
        Unit::Nanoseconds => "_ns",
        Unit::Bytes => "_bytes",
    };
    if !key.ends_with(suffix) {
        key.push_str(suffix);
    }
    key
}

/// The keys of all sample types; another tool's file may have two of the same name, which are numbered.
fn value_keys(sample_types: &[SampleType]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (i, sample_type) in sample_types.iter().enumerate() {
        let key = value_key(sample_type);
        keys.push(if keys.contains(&key) { format!("{key}_{}", i + 1) } else { key });
    }
    keys
}

/// Writes `profiler.report/1`.
///
/// # Errors
/// Those of writing.
pub fn write(profile: &Profile, options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    let value_keys = value_keys(&profile.sample_types);
    let merge_by_name = options.merge_by_name;
    let row = |(key, values)| Row { profile, value_keys: &value_keys, merge_by_name, key, values };
    let rows: Vec<_> = rows(profile, merge_by_name).into_iter().map(row).collect();
    let mut document = Document::new("profiler.report/1", profile, rows);
    document.meta.selection = options.selection.as_deref();
    document.losses.stack_ends = Some(stack_ends(profile, &value_keys));
    document.write(out)
}

/// What each sample type sums up to, by how far the stacks reach. Ends that no stack has are left out.
fn stack_ends<'a>(
    profile: &Profile,
    value_keys: &'a [String],
) -> BTreeMap<&'static str, BTreeMap<&'a str, i64>> {
    let mut ends: BTreeMap<_, BTreeMap<_, i64>> = BTreeMap::new();
    for sample in &profile.samples {
        let sums = ends.entry(profile.stacks[sample.stack.index()].end.key()).or_default();
        for (key, value) in value_keys.iter().zip(&sample.values) {
            let sum = sums.entry(key.as_str()).or_default();
            *sum = sum.saturating_add(*value);
        }
    }
    ends
}

/// Sums per thread and frame, largest own value of the first sample type first within a thread.
fn rows(profile: &Profile, merge_by_name: bool) -> Vec<(Key, Vec<(i64, i64)>)> {
    let threads = representatives(profile, merge_by_name);
    let mut frames_of: HashMap<_, Vec<_>> = HashMap::new();
    let mut rows: HashMap<Key, Vec<(i64, i64)>> = HashMap::new();
    for sample in &profile.samples {
        let thread = threads[sample.thread.index()];
        // The leaf first, every frame once, however often it recurs.
        let frames = frames_of.entry(sample.stack).or_insert_with(|| {
            let all = profile.frames(sample.stack).map(|f| Some((f.module_id, f.function_id, f.kind)));
            let mut seen = std::collections::HashSet::new();
            let mut distinct: Vec<_> = all.filter(|frame| seen.insert(*frame)).collect();
            if distinct.is_empty() {
                distinct.push(None);
            }
            distinct
        });
        for (i, &frame) in frames.iter().enumerate() {
            let zero = || vec![(0, 0); profile.sample_types.len()];
            let sums = rows.entry(Key { thread, frame }).or_insert_with(zero);
            for ((own, total), value) in sums.iter_mut().zip(&sample.values) {
                *total = total.saturating_add(*value);
                if i == 0 {
                    *own = own.saturating_add(*value);
                }
            }
        }
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_unstable_by(|(a, va), (b, vb)| {
        a.thread.cmp(&b.thread).then_with(|| vb.cmp(va)).then_with(|| a.cmp(b))
    });
    rows
}

/// For each thread, the one that stands for all of its process and thread name, or itself.
fn representatives(profile: &Profile, merge_by_name: bool) -> Vec<ThreadId> {
    let ids = (0..).map(ThreadId).zip(&profile.threads);
    if !merge_by_name {
        return ids.map(|(id, _)| id).collect();
    }
    let mut first = HashMap::new();
    ids.map(|(id, thread)| *first.entry((&thread.process, &thread.name)).or_insert(id)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::render::fixture;

    fn json(profile: &Profile, options: &RenderOptions) -> Value {
        let mut out = Vec::new();
        write(profile, options, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn the_shape_is_the_documented_one() {
        let value = json(&fixture::mixed(), &RenderOptions::default());
        assert_eq!(value["schema"], "profiler.report/1");
        assert_eq!(value["meta"]["host"], "kestrel");
        assert_eq!(value["meta"]["start"], "2026-01-02T03:04:05.678Z");
        assert_eq!(value["meta"]["event"], "cpu");
        assert_eq!(value["meta"]["duration_ns"], 3_000_123_456u64);
        assert_eq!(value["losses"]["lost_samples"], 12);
        assert_eq!(value["losses"]["counters"]["user_stack_truncated"], 90);
        assert_eq!(value["losses"]["unresolved"]["no_symbols"], 53);
        assert_eq!(value["cost"]["kernel_map_bytes"], 4_300_800);
        let rows = value["rows"].as_array().unwrap();
        let outer = rows.iter().find(|row| row["function"] == "crunch::outer").unwrap();
        assert_eq!(
            (&outer["self_samples"], &outer["total_samples"]),
            (&0.into(), &300.into()),
            "recursion counts once"
        );
        assert_eq!(outer["total_cpu_ns"], 3_000_000_000u64);
        let stripped = rows.iter().find(|row| row["unresolved"] == "no_symbols").unwrap();
        assert_eq!(stripped["function"], "libstripped.so.3+0x1f3 [no symbols]");
    }

    #[test]
    fn processes_of_one_name_are_one_if_asked() {
        let clock = |merge_by_name| {
            let value = json(&fixture::mixed(), &RenderOptions { merge_by_name, ..RenderOptions::default() });
            let rows = value["rows"].as_array().unwrap().clone();
            rows.into_iter()
                .filter(|row| row["process"] == "date" && row["self_samples"] != 0)
                .collect::<Vec<_>>()
        };
        assert_eq!(clock(false).len(), 3);
        assert_eq!((clock(true).len(), &clock(true)[0]["self_samples"]), (1, &90.into()));
        assert_eq!(clock(true)[0]["pid"], Value::Null);
    }

    #[test]
    fn keys_carry_the_unit() {
        let key = |name, unit| value_key(&SampleType::new(name, unit));
        assert_eq!(key("samples", Unit::Count), "samples");
        assert_eq!(key("cpu", Unit::Nanoseconds), "cpu_ns");
        assert_eq!(key("rx_bytes", Unit::Bytes), "rx_bytes");
        assert_eq!(key("Off-CPU", Unit::Nanoseconds), "off_cpu_ns");
    }

    proptest! {
        #[test]
        fn own_values_add_up_to_the_total(profile in fixture::profiles(), merge: bool) {
            for index in 0..profile.sample_types.len() {
                let sum: i64 = rows(&profile, merge).iter().map(|(_, values)| values[index].0).sum();
                prop_assert_eq!(sum, profile.total(index));
            }
            let keys = value_keys(&profile.sample_types);
            let ends = stack_ends(&profile, &keys);
            for (index, key) in keys.iter().enumerate() {
                let sum: i64 = ends.values().map(|sums| sums[key.as_str()]).sum();
                prop_assert_eq!(sum, profile.total(index));
            }
        }
    }
}
