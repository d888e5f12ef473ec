//! `profiler doctor`: what works on this host, what does not, why, and the command that mends it.
//!
//! Facts are gathered once ([`facts`]), by reading and by trying; [`rows`] judges them without touching the host, so
//! that every judgement is tested on made-up facts; [`explain`] turns the failure of one call into the line of this
//! report that explains it. Line ids are stable: error messages and documents point to them (docs/doctor.md).

pub mod explain;
pub mod facts;
mod net;
mod packets;
mod rows;
mod sched;
mod syscalls;
mod text;
mod walk;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use serde::Serialize;

pub use explain::{Hint, Op, explain_errno};
use facts::Facts;

/// Exit code if recording can work.
pub const EXIT_WORKS: u8 = 0;
/// Exit code if it cannot: a permission or a part of the kernel is missing.
pub const EXIT_CANNOT_RECORD: u8 = 3;

/// Lines without which nothing can be recorded at all.
pub const ESSENTIAL: [&str; 3] = ["kernel", "bpf", "perf-events"];

/// Options of the command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Print JSON (schema profiler.doctor/1)
    #[arg(long)]
    pub json: bool,
    /// Read the kernel's types from this file (simulates a kernel without BTF)
    #[arg(long, value_name = "PATH", hide = true)]
    pub btf: Option<PathBuf>,
}

/// How well a feature works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As designed.
    Works,
    /// In part, or with something else in its place.
    Degraded,
    /// Not at all.
    Unavailable,
}

impl Status {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name of the line, what error messages point to: `perf-events`.
    pub id: &'static str,
    /// What it is about, in words.
    pub feature: &'static str,
    /// How well it works.
    pub status: Status,
    /// Why, in one sentence.
    pub reason: String,
    /// Commands that mend it, each one a way of its own; none if it works or nothing can be done.
    pub mend: Vec<String>,
    /// The values that decide, as they are now: `kernel.perf_event_paranoid = 2`.
    pub current: String,
}

/// Checks everything. Takes some milliseconds; loads and attaches tiny programs and removes them again.
pub fn check_all(options: &Options) -> Vec<Check> {
    rows::all(&Facts::gather(options.btf.as_deref()))
}

/// Whether a recording is possible by these checks.
pub fn can_record(checks: &[Check]) -> bool {
    !checks.iter().any(|check| check.status == Status::Unavailable && ESSENTIAL.contains(&check.id))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    meta: Meta,
    losses: Empty,
    cost: Empty,
    rows: &'a [Check],
}

#[derive(Serialize)]
struct Meta {
    profiler_version: &'static str,
    host: String,
    kernel: String,
    arch: String,
    cpus: u32,
    can_record: bool,
}

#[derive(Serialize)]
struct Empty {}

/// The checks as JSON: the shape of all table commands, docs/json.md.
fn write_json(facts: &Facts, checks: &[Check], out: &mut dyn Write) -> io::Result<()> {
    let document = Document {
        schema: "profiler.doctor/1",
        meta: Meta {
            profiler_version: env!("CARGO_PKG_VERSION"),
            host: facts.host.uname.host.clone(),
            kernel: facts.host.uname.release.clone(),
            arch: facts.host.uname.machine.clone(),
            cpus: facts.host.cpus,
            can_record: can_record(checks),
        },
        losses: Empty {},
        cost: Empty {},
        rows: checks,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

/// Runs the command; yields the exit code, [`EXIT_WORKS`] or [`EXIT_CANNOT_RECORD`].
///
/// # Errors
/// Those of writing to `out`.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let facts = Facts::gather(options.btf.as_deref());
    let checks = rows::all(&facts);
    if options.json {
        write_json(&facts, &checks, out)?;
    } else {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        text::write(&checks, colour, out)?;
    }
    Ok(if can_record(&checks) { EXIT_WORKS } else { EXIT_CANNOT_RECORD })
}

#[cfg(test)]
mod tests;
