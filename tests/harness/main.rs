//! Tests of the tests: each class of broken probe is seen as broken. Only `cargo xtask vm-test` runs them.
//!
//! All count a system call that this process makes [`CALLS`] times, from the programs of `profiler-ebpf/broken`. That
//! the broken ones fail here, and on which kernels, is in `tests/expected.txt`: a harness that let one pass would fail
//! its run.

#![expect(clippy::unwrap_used, reason = "these are tests, their helper functions too")]

use std::{env, fs};

use aya::{EbpfLoader, maps::PerCpuArray, programs::RawTracePoint};

/// How often the call is made.
const CALLS: u64 = 100;

/// The object with the programs.
const OBJECT_VARIABLE: &str = "PROFILER_BROKEN_OBJECT";

/// Loads and attaches a program, makes the calls, and checks that each was counted once.
fn counts_exactly(program: &str) {
    let object = env::var_os(OBJECT_VARIABLE).expect("the guest names the object");
    let mut ebpf = EbpfLoader::new()
        .override_global("PROCESS", &std::process::id(), true)
        .override_global("CALL", &u64::try_from(libc::SYS_getppid).unwrap(), true)
        .load(&fs::read(object).unwrap())
        .unwrap();
    let raw: &mut RawTracePoint = ebpf.program_mut(program).unwrap().try_into().unwrap();
    raw.load().unwrap_or_else(|e| panic!("{program} is rejected: {e:?}"));
    raw.attach("sys_enter").unwrap();
    for _ in 0..CALLS {
        _ = rustix::process::getppid();
    }
    let calls: PerCpuArray<_, u64> = PerCpuArray::try_from(ebpf.map("CALLS").unwrap()).unwrap();
    let counted: u64 = calls.get(&0, 0).unwrap().iter().sum();
    assert_eq!(counted, CALLS, "{counted} of {CALLS} calls were counted");
}

#[test]
fn a_sound_probe() {
    counts_exactly("sound");
}

#[test]
fn a_probe_that_never_fires() {
    counts_exactly("never_fires");
}

#[test]
fn a_probe_that_fires_twice() {
    counts_exactly("fires_twice");
}

#[test]
fn a_probe_that_old_kernels_reject() {
    counts_exactly("too_new");
}
