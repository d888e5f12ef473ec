//! What is told of a piece of code: the methods active at an address of it, and how it came to be.

use std::sync::Arc;

use super::{
    blob::{Blob, Kind},
    method::Method,
};
use crate::symbolize::dwarf::Activation;

/// How code came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Compiled by C1.
    C1,
    /// Compiled by C2 (or a JVMCI compiler).
    C2,
    /// The bridge to a native method.
    NativeWrapper,
    /// The interpreter.
    Interpreter,
    /// What the JVM generates for itself.
    Stub,
}

impl Tier {
    /// Stable key (JSON).
    pub const fn key(self) -> &'static str {
        match self {
            Self::C1 => "c1",
            Self::C2 => "c2",
            Self::NativeWrapper => "native",
            Self::Interpreter => "interpreter",
            Self::Stub => "stub",
        }
    }

    pub(super) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Compiled(compilation) if compilation.level == 4 => Self::C2,
            Kind::Compiled(_) => Self::C1,
            Kind::NativeWrapper(_) => Self::NativeWrapper,
            Kind::Interpreter => Self::Interpreter,
            Kind::Stub => Self::Stub,
        }
    }
}

/// The code at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// What is active there: the innermost inlined method first, the compiled one last. Never empty.
    pub frames: Vec<Frame>,
    /// How it came to be.
    pub tier: Tier,
    /// It is an interpreted frame that enters a monitor.
    pub enters_monitor: bool,
}

/// What is active at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A Java method, and the line in it; 0: unknown.
    Java(Arc<Method>, u32),
    /// What the JVM made for itself, by its cleaned name.
    Made(Arc<str>),
}

impl Frame {
    /// `java.util.HashMap.get` with its file and line, or the name of what the JVM made.
    pub fn activation(&self) -> Activation {
        match self {
            Self::Java(method, line) => {
                Activation { name: method.qualified(), file: method.file.clone(), line: *line }
            }
            Self::Made(name) => Activation { name: name.to_string(), file: None, line: 0 },
        }
    }
}

/// A code blob with what it is called: a row of the listing of all code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The blob.
    pub blob: Blob,
    /// How it came to be.
    pub tier: Tier,
    /// The method, for compiled code and bridges.
    pub method: Option<Arc<Method>>,
}
