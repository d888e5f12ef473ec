//! Sample types: what the numbers of a sample mean.

use serde::{Deserialize, Serialize};

/// The unit of a sample type's values. Scaling (ns to s, bytes to MiB) happens only in `render`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number of occurrences.
    Count,
    /// Nanoseconds.
    Nanoseconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The unit's name in pprof files and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Nanoseconds => "nanoseconds",
            Self::Bytes => "bytes",
        }
    }

    /// The unit of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Count, Self::Nanoseconds, Self::Bytes].into_iter().find(|unit| unit.name() == name)
    }
}

/// One dimension of a sample's values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SampleType {
    /// Name, as in pprof: `samples`, `cpu`, ...
    pub name: String,
    /// Unit of the values.
    pub unit: Unit,
}

impl SampleType {
    /// A sample type of that name and unit.
    pub fn new(name: &str, unit: Unit) -> Self {
        Self { name: name.to_owned(), unit }
    }
}
