//! Trying the walk of user stacks by unwind tables: its programs are loaded as a recording loads them, and a table is
//! made.

use std::{fs::File, path::Path, time::Instant};

use profiler_common::stack::MAX_FRAMES;

use crate::{
    bpf::{
        load::{Kernel, LoadOptions},
        samples::WalkPrograms,
    },
    elf::Bytes,
    host::btf,
    probe::PROBES,
    unwind::eh_frame,
};

/// What it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Rows of this program's own table.
    pub rows: u64,
    /// Time for making it, us.
    pub table_us: u64,
}

/// Loads the programs and makes a table.
///
/// # Errors
/// Why it cannot be done, in one line.
pub fn attempt(btf_path: &Path) -> Result<Walk, String> {
    let offsets = btf::task_offsets(btf_path).map_err(|error| error.to_string())?;
    let options = LoadOptions { stack_limit: MAX_FRAMES as u32, unwind: true, ..LoadOptions::new(offsets) };
    let mut kernel = Kernel::load(&options).map_err(|error| error.to_string())?;
    for (i, probe) in PROBES.iter().enumerate() {
        // Events can share their programs.
        if PROBES[..i].iter().any(|before| before.programs.calls == probe.programs.calls) {
            continue;
        }
        WalkPrograms::load(&mut kernel, &probe.programs).map_err(|error| error.to_string())?;
    }
    let begin = Instant::now();
    let own = File::open("/proc/self/exe").map_err(|error| error.to_string())?;
    let (_, stats) = eh_frame::build(Bytes::File(&own)).map_err(|error| error.to_string())?;
    Ok(Walk { rows: stats.rows, table_us: begin.elapsed().as_micros() as u64 })
}
