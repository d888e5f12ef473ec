//! Tries the accounting of system calls: loads and attaches the programs that do it, for a moment.

use std::path::Path;

use profiler_common::task::TASK_BTF;

use crate::{
    bpf::{
        calls::Room,
        load::{CallOptions, Kernel, LoadOptions},
    },
    host::{btf, features::Feature},
    probe::syscalls::{Depth, SyscallsProbe},
};

/// # Errors
/// Why it cannot be done, in one line.
pub fn attempt(btf_path: &Path) -> Result<(), String> {
    let offsets = btf::task_offsets(btf_path).map_err(|error| error.to_string())?;
    let sched_offsets = btf::sched_offsets(btf_path).map_err(|error| error.to_string())?;
    let room = Room { callers: 64, calls: 64, blocks: 64 };
    let options = LoadOptions {
        helpers: if Feature::TaskBtf.detect(0).is_ok() { TASK_BTF } else { 0 },
        calls: Some(CallOptions { offsets: sched_offsets, room }),
        ..LoadOptions::new(offsets)
    };
    let mut kernel = Kernel::load(&options).map_err(|error| error.to_string())?;
    let mut probe =
        SyscallsProbe::open(&mut kernel, room, Depth::Timed).map_err(|error| error.to_string())?;
    probe.disable();
    Ok(())
}
