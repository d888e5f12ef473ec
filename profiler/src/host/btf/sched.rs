//! What tells why a task is blocked: members of the task, of its open files and of their file systems.

use std::path::Path;

use profiler_common::sched::offsets::SchedOffsets;

use super::{BtfError, member_offsets, single_bit, size_and_offsets};

/// The members that the programs of the scheduler read.
///
/// # Errors
/// [`BtfError`]. There is no accounting then.
pub fn sched_offsets(path: &Path) -> Result<SchedOffsets, BtfError> {
    // `state` became `__state` in Linux 5.14 (2f064a59a11f).
    let [state, nvcsw, nivcsw, comm, exit_state, on_cpu, on_rq, files] = member_offsets(
        path,
        "task_struct",
        [
            &["__state", "state"],
            &["nvcsw"],
            &["nivcsw"],
            &["comm"],
            &["exit_state"],
            &["on_cpu"],
            &["on_rq"],
            &["files"],
        ],
    )?;
    let (in_iowait, in_iowait_mask) = single_bit(path, "task_struct", "in_iowait")?;
    let [fdt] = member_offsets(path, "files_struct", [&["fdt"]])?;
    let [max_fds, fd] = member_offsets(path, "fdtable", [&["max_fds"], &["fd"]])?;
    let [f_inode] = member_offsets(path, "file", [&["f_inode"]])?;
    let [i_mode, i_sb] = member_offsets(path, "inode", [&["i_mode"], &["i_sb"]])?;
    let [s_magic] = member_offsets(path, "super_block", [&["s_magic"]])?;
    Ok(SchedOffsets {
        known: 1,
        state,
        in_iowait,
        in_iowait_mask,
        nvcsw,
        nivcsw,
        run_delay: run_delay(path)?,
        comm,
        exit_state,
        on_cpu,
        on_rq,
        files,
        fdt,
        max_fds,
        fd,
        f_inode,
        i_mode,
        i_sb,
        s_magic,
        thread_status: thread_status(path)?,
    })
}

/// `sched_info.run_delay` inside of the task; 0 without CONFIG_SCHED_INFO, which leaves the structure empty.
fn run_delay(path: &Path) -> Result<u32, BtfError> {
    let (_, [info]) = size_and_offsets(path, "task_struct", ["sched_info"])?;
    let inside = member_offsets(path, "sched_info", [&["run_delay"]]);
    match (info, inside) {
        (Some(info), Ok([run_delay])) => Ok(info + run_delay),
        (None, _) | (_, Err(BtfError::NoMember { .. } | BtfError::NoStructure { .. })) => Ok(0),
        (_, Err(error)) => Err(error),
    }
}

/// What tells a system call of a 32-bit program, inside of the task: `thread_info.status` on x86-64, `thread_info.flags`
/// on arm64.
fn thread_status(path: &Path) -> Result<u32, BtfError> {
    let member = if cfg!(target_arch = "x86_64") { "status" } else { "flags" };
    let [thread_info] = member_offsets(path, "task_struct", [&["thread_info"]])?;
    let [status] = member_offsets(path, "thread_info", [&[member]])?;
    Ok(thread_info + status)
}
