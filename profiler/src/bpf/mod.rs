//! The kernel side, as user space handles it: load the object, size its maps, swap and drain generations, read counters.
//!
//! Knows maps and programs by name, not what a probe means by them: that is `probe`.

pub mod accounts;
pub mod arena;
pub mod batch;
pub mod calls;
pub mod counters;
pub mod delayed;
pub mod generation;
pub mod in_calls;
pub mod inner;
pub mod kept;
pub mod load;
mod map;
pub mod open_spans;
pub mod options;
pub mod packets;
pub mod runs;
pub mod samples;
mod slab;
pub mod sockets;
pub mod stats;
pub mod targets;
pub mod tuning;
pub mod unwind;
pub mod waits;

use std::io;

/// A failure between user space and the kernel's eBPF side.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object was refused as a whole: a map could not be made, BTF could not be loaded.
    #[error("cannot load the eBPF object: {0}")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program was refused or could not be attached.
    #[error("cannot load or attach eBPF program {program}: {}", cause(source))]
    Program {
        /// Name of the program.
        program: &'static str,
        /// Cause.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a map or program that this binary expects: it was built wrongly.
    #[error("the embedded eBPF object has no {0}")]
    Missing(&'static str),
    /// A map operation failed.
    #[error("cannot {operation} eBPF map {map}: {source}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// Name of the map.
        map: &'static str,
        /// Cause.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A `bpf(2)` call that aya does not wrap failed.
    #[error("bpf({command}) on {map} failed: {source}")]
    Call {
        /// The command.
        command: &'static str,
        /// Name of the map.
        map: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl BpfError {
    /// The operating system's error number at the root of the failure, for `doctor`'s explanation.
    pub fn errno(&self) -> Option<i32> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return io.raw_os_error();
            }
            cause = error.source();
        }
        None
    }
}

/// The cause of a program's failure in one line. What the verifier said, thousands of lines, goes to the diagnostics
/// (`--log-level debug`).
fn cause(error: &aya::programs::ProgramError) -> String {
    let text = error.to_string();
    let (call, verifier) = text.split_once(" Verifier output:").unwrap_or((&text, ""));
    let first = call.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
    // The verifier's last words before its statistics name what it refused.
    let lines = verifier.lines().map(str::trim);
    let rest: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let is_statistics = |line: &str| {
        ["processed ", "stack depth ", "subprog ", "verification time "].iter().any(|s| line.starts_with(s))
    };
    log::debug!("{text}");
    match rest.iter().rev().find(|line| !is_statistics(line)) {
        Some(refused) => format!("{first}: {refused}"),
        None => first,
    }
}
