//! What pprof has no field for: one JSON document, and the same in a few lines for people as the file's comments.
//!
//! The document is the last entry of the string table, starts with `profiler.meta/1 ` and is referred to by nothing. A
//! comment would be the obvious place, but `go tool pprof` prints all comments above every table and into the legend
//! of every graph. A later, incompatible layout gets another number.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    model::{Cost, Losses, Meta, Module, ModuleKind, Profile, name},
    render::units,
};

use super::{DecodeError, limits::MAX_META_BYTES, marks::usual_module_kind};

/// First word of the document, without its version.
const PREFIX: &[u8] = b"profiler.meta/";
/// The version this profiler writes and reads.
const VERSION: &[u8] = b"1";

/// The document.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Document {
    /// Circumstances.
    pub meta: Meta,
    /// Losses.
    pub losses: Losses,
    /// Own consumption.
    pub cost: Cost,
    /// Modules of another kind than their path suggests.
    module_kinds: Vec<ModuleKindEntry>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ModuleKindEntry {
    path: String,
    build_id: Option<String>,
    kind: String,
}

impl Document {
    /// The document of a profile.
    pub fn of(profile: &Profile) -> Self {
        let exceptions = profile.modules.iter().filter(|m| usual_module_kind(&m.path) != m.kind);
        Self {
            meta: profile.meta.clone(),
            losses: profile.losses.clone(),
            cost: profile.cost.clone(),
            module_kinds: exceptions
                .map(|module| ModuleKindEntry {
                    path: module.path.clone(),
                    build_id: module.build_id.clone(),
                    kind: module.kind.key().to_owned(),
                })
                .collect(),
        }
    }

    /// The string.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        Ok(format!("profiler.meta/1 {}", serde_json::to_string(self)?))
    }

    /// Reads a string; `None` if it is another one.
    ///
    /// # Errors
    /// A document of another version, or one that cannot be read.
    pub fn from_text(text: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some(rest) = text.strip_prefix(PREFIX) else { return Ok(None) };
        let space = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
        let (version, json) = rest.split_at(space);
        if version != VERSION {
            return Err(DecodeError::OtherVersion(name::clean(&version[..version.len().min(20)])));
        }
        if json.len() > MAX_META_BYTES {
            return Err(DecodeError::TooMany { what: "bytes of metadata", limit: MAX_META_BYTES });
        }
        let damaged =
            |error: serde_json::Error| DecodeError::Metadata(name::clean(error.to_string().as_bytes()));
        let mut value: Value = serde_json::from_slice(json).map_err(damaged)?;
        clean(&mut value);
        serde_json::from_value(value).map(Some).map_err(damaged)
    }

    /// Takes the exceptional kinds out, as a look-up.
    pub fn module_kinds(&mut self) -> impl Fn(&Module) -> ModuleKind + use<> {
        let exceptions: std::collections::HashMap<_, _> = std::mem::take(&mut self.module_kinds)
            .into_iter()
            .filter_map(|e| Some(((e.path, e.build_id), ModuleKind::from_key(&e.kind)?)))
            .collect();
        move |module| {
            let exception = exceptions.get(&(module.path.clone(), module.build_id.clone()));
            exception.copied().unwrap_or_else(|| usual_module_kind(&module.path))
        }
    }
}

/// Cleans all strings and keys of a foreign document. Depth is bounded by the JSON parser.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) if !text.is_empty() => *text = name::clean(text.as_bytes()),
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(map) => {
            let entries = std::mem::take(map);
            map.extend(entries.into_iter().map(|(key, mut value)| {
                clean(&mut value);
                (name::clean(key.as_bytes()), value)
            }));
        }
        _ => {}
    }
}

/// The lines for people, as `go tool pprof -comments` shows them.
pub fn lines(profile: &Profile) -> Vec<String> {
    let (meta, losses) = (&profile.meta, &profile.losses);
    let mut lines = vec![
        format!(
            "profiler {} on {}, Linux {} {}, {} CPUs",
            meta.profiler_version, meta.host, meta.kernel, meta.arch, meta.cpus
        ),
        format!(
            "{} by {} at {} Hz for {}: {}",
            meta.events.join(", "),
            meta.sampler,
            meta.frequency_hz,
            units::seconds(meta.duration_ns),
            meta.target
        ),
        format!("lost samples: {}", losses.lost_samples()),
    ];
    let counted: Vec<_> =
        losses.counters.iter().filter(|(_, n)| **n != 0).map(|(cause, n)| format!("{cause} {n}")).collect();
    if !counted.is_empty() {
        lines.push(format!("loss counters: {}", counted.join(", ")));
    }
    lines
}
