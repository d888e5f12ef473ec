//! What is on a page, before it is written in a format.

use std::borrow::Cow;

use super::histogram::Buckets;
use crate::model::{Unit, window::Kind};

/// All numbers of one name.
#[derive(Debug)]
pub struct Family<'a> {
    /// Name with unit, without `_total`.
    pub name: Cow<'static, str>,
    /// One line.
    pub help: &'static str,
    /// Unit of its numbers.
    pub unit: Unit,
    /// What they are.
    pub kind: FamilyKind,
    /// The numbers, each set of labels once.
    pub samples: Vec<Sample<'a>>,
}

/// What numbers of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution that only grows.
    Histogram,
    /// Always 1: the labels are what it says.
    Info,
}

impl From<Kind> for FamilyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter,
            Kind::Gauge => Self::Gauge,
            Kind::Histogram => Self::Histogram,
        }
    }
}

/// A number with its labels.
#[derive(Debug)]
pub struct Sample<'a> {
    /// Name and value, each name once.
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
    /// How much.
    pub value: Value<'a>,
    /// Since when it is counted, ns since the Unix epoch; 0: not known, or a gauge.
    pub since_unix_ns: u64,
}

/// A number, in the unit of the model.
#[derive(Debug)]
pub enum Value<'a> {
    /// Of a counter, gauge or info.
    Number(u64),
    /// Of a histogram.
    Buckets(&'a Buckets),
}

/// The base unit that numbers are shown in, as a part of names; empty: a count.
pub const fn base_unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Nanoseconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Count => "",
    }
}

/// A number in its base unit.
pub fn in_base_unit(value: u64, unit: Unit) -> f64 {
    match unit {
        Unit::Nanoseconds => value as f64 / 1e9,
        Unit::Bytes | Unit::Count => value as f64,
    }
}
