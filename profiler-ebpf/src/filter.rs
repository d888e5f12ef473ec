//! The filter every probe applies before it walks a stack (`profiler_common::filter`).

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use aya_ebpf::{Global, btf_maps::HashMap, macros::btf_map};
use profiler_common::{Comm, filter::FilterConfig};

#[unsafe(no_mangle)]
static FILTER: Global<FilterConfig> = Global::new(FilterConfig::ALL);

/// Processes to look at, by id; the value says nothing. Shrunk to one entry at load if there is no process filter.
#[btf_map]
pub static TARGETS: HashMap<u32, u8, 16384> = HashMap::new();

/// The configuration. Its parts are constants for the verifier, so that code of parts that are off is removed.
#[inline(always)]
pub fn config() -> FilterConfig {
    FILTER.load()
}

/// True if the process is a target.
#[inline(always)]
pub fn is_target(pid: u32) -> bool {
    TARGETS.get_ptr(pid).is_some()
}

/// True if an event of the current task is wanted.
#[inline(always)]
pub fn wanted(config: &FilterConfig, pid: u32, comm: &Comm) -> bool {
    if config.by_process != 0 && !is_target(pid) {
        return false;
    }
    if config.exclude_pid != 0 && config.exclude_pid == pid {
        return false;
    }
    if config.comm_len != 0 && config.comm != *comm {
        return false;
    }
    config.cgroup_id == 0 || in_cgroup(config)
}

/// Whether the current task is in the control group, if the filter names one, or below it.
#[inline(always)]
pub fn in_cgroup(config: &FilterConfig) -> bool {
    // SAFETY: the helper has no precondition.
    let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(config.cgroup_level as i32) };
    ancestor == config.cgroup_id
}
