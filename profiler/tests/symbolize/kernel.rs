//! Kernel names of the running kernel, and of text that went away.

use std::fs;

use profiler::{
    model::{ModuleKind, Profile},
    perf::record::ProcessEvent,
    symbolize::{Symbolizer, Watch, is_idle},
};

use crate::program::Resolved;

/// Addresses of functions that every kernel has, from its own table.
fn kernel_functions(names: &[&str]) -> Vec<u64> {
    let text = fs::read_to_string("/proc/kallsyms").unwrap();
    let find = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').nth(2) == Some(name)).unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    };
    names.iter().map(|name| find(name)).collect()
}

#[test]
fn names_of_the_running_kernel() {
    let addresses = kernel_functions(&["vfs_read", "schedule", "do_idle"]);
    assert!(addresses.iter().all(|&address| address != 0), "the tests run as root");
    let mut symbolizer = Symbolizer::new(Watch::All);
    let mut frames = Vec::new();
    for address in &addresses {
        symbolizer.kernel_stack(1, &[*address], &mut frames);
    }
    // A return address at the very start of a function is that of a call at the end of the function before it.
    symbolizer.kernel_stack(1, &[addresses[0], addresses[0] + 5], &mut frames);
    let resolved = Resolved::new(symbolizer, frames);
    let names: Vec<&str> = (0..5).map(|index| resolved.name(index)).collect();
    assert_eq!(names, ["vfs_read", "schedule", "do_idle", "vfs_read", "vfs_read"]);
    assert_eq!(resolved.module(0).path, "[kernel]");
    assert_eq!(resolved.module(0).kind, ModuleKind::Kernel);
    assert!(is_idle(&resolved.profile, &[resolved.location(2)]));
}

#[test]
fn a_bpf_program_that_was_unloaded() {
    let start = 0xffff_ffff_c123_4000;
    let event = |unregistered, time_ns| ProcessEvent::KernelSymbol {
        start,
        len: 0x200,
        name: b"bpf_prog_0123456789abcdef_probe".into(),
        unregistered,
        time_ns,
    };
    let mut symbolizer = Symbolizer::new(Watch::All);
    symbolizer.observe(&event(false, 10));
    symbolizer.observe(&event(true, 30));
    let mut frames = Vec::new();
    symbolizer.kernel_stack(20, &[start + 0x10], &mut frames);
    symbolizer.drained(40);
    let resolved = Resolved::new(symbolizer, frames);
    assert_eq!(resolved.name(0), "bpf_prog_0123456789abcdef_probe");
    assert_eq!(resolved.module(0).path, "[bpf]");
}

#[test]
fn nothing_sampled_nothing_named() {
    let mut profile = Profile::default();
    Symbolizer::new(Watch::All).resolve(&mut profile);
    assert_eq!(profile, Profile::default());
}
