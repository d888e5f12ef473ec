//! Tries the accounting of threads: loads and attaches the programs that do it, with the gate closed.

use std::path::Path;

use profiler_common::task::TASK_PT_REGS;

use crate::{
    bpf::load::{Kernel, LoadOptions, SchedOptions},
    host::{btf, features::Feature, kernel_stack},
    perf::counters::Counters,
    probe::sched::SchedProbe,
};

/// What is missing of it here, in words.
///
/// # Errors
/// Why it cannot be done, in one line.
pub fn attempt(btf_path: &Path) -> Result<Vec<String>, String> {
    let mut offsets = btf::task_offsets(btf_path).map_err(|error| error.to_string())?;
    let sched_offsets = btf::sched_offsets(btf_path).map_err(|error| error.to_string())?;
    let mut missing = Vec::new();
    let has_helper = Feature::TaskPtRegs.detect(0).is_ok();
    if !has_helper {
        match kernel_stack::user_registers_offset(btf_path) {
            Ok(offset) => offsets.user_registers = offset,
            Err(error) => missing.push(format!("what threads are blocked by is not known: {error}")),
        }
    }
    let options = LoadOptions {
        helpers: if has_helper { TASK_PT_REGS } else { 0 },
        sched: Some(SchedOptions { offsets: sched_offsets, threads: 1, counters: 0 }),
        ..LoadOptions::new(offsets)
    };
    let mut kernel = Kernel::load(&options).map_err(|error| error.to_string())?;
    let (probe, _) =
        SchedProbe::open(&mut kernel, Counters::default(), true).map_err(|error| error.to_string())?;
    missing.extend(probe.notes().iter().cloned());
    Ok(missing)
}
