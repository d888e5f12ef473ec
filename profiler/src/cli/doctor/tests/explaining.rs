//! What failures of single calls are said to mean.

use super::*;

const OPS: [Op; 8] = [
    Op::PerfEventOpen,
    Op::PerfEventOpenHardware,
    Op::PerfEventOpenHook,
    Op::PerfBuffer,
    Op::MapCreate,
    Op::ProgramLoad,
    Op::ProgramAttach,
    Op::EnableStats,
];

#[test]
fn a_refusal_names_capability_sysctl_and_command() {
    let mut facts = good();
    facts.host.caps.effective = CapSet(0);
    let hint = explain(Op::PerfEventOpen, libc::EACCES, &facts.host);
    assert_eq!(
        hint.to_string(),
        "perf_event_open failed: Permission denied (EACCES): CAP_PERFMON is missing (kernel.perf_event_paranoid = 2); \
         `sudo /usr/bin/profiler ...`, or `sudo setcap cap_perfmon+ep /usr/bin/profiler` \
         (see `profiler doctor`, line `perf-events`)"
    );
    let hint = explain(Op::ProgramLoad, libc::EPERM, &facts.host);
    assert!(hint.text.contains("CAP_BPF and CAP_PERFMON are missing"), "{hint}");
    assert_eq!(hint.line_id, "bpf");
    facts.host.executable = "/home/a user/it's".into();
    let hint = explain(Op::EnableStats, libc::EPERM, &facts.host);
    assert!(hint.text.contains(r"cap_sys_admin+ep '/home/a user/it'\''s'"), "{hint}");
}

#[test]
fn a_refusal_in_spite_of_capabilities_names_what_else_there_is() {
    let text = |change: fn(&mut Host)| {
        let mut host = good().host;
        change(&mut host);
        explain(Op::PerfEventOpen, libc::EPERM, &host).text
    };
    assert!(text(|_| ()).contains("a security module"));
    assert!(text(|h| h.seccomp = true).contains("a seccomp filter is active"));
    assert!(text(|h| h.namespaces.initial_user = Some(false)).contains("user namespace"));
    assert!(text(|h| h.lockdown = Some(Lockdown::Integrity)).contains("locked down (integrity)"));
    assert!(text(|h| h.limits.perf_event_paranoid = Some(4)).contains("kernel.perf_event_paranoid = 4"));
}

#[test]
fn a_hook_that_is_refused_is_explained_as_one() {
    let text = |errno| explain(Op::PerfEventOpenHook, errno, &good().host).text;
    assert!(text(libc::EINVAL).contains("lets nothing be hooked there"));
    assert!(text(libc::EILSEQ).contains("no instruction begins there"));
    assert!(text(libc::EADDRNOTAVAIL).contains("several functions"));
    assert!(text(libc::EACCES).contains("perf_event_open"));
}

#[test]
fn each_errno_has_its_line() {
    let host = good().host;
    for (op, errno, line) in [
        (Op::PerfEventOpen, libc::EINVAL, "sample-rate"),
        (Op::PerfEventOpenHardware, libc::ENOENT, "pmu"),
        (Op::PerfEventOpenHardware, libc::EOPNOTSUPP, "pmu"),
        (Op::PerfEventOpenHook, libc::EINVAL, "perf-events"),
        (Op::PerfEventOpenHook, libc::EMFILE, "rlimits"),
        (Op::PerfEventOpen, libc::EMFILE, "rlimits"),
        (Op::PerfBuffer, libc::EPERM, "perf-events"),
        (Op::MapCreate, libc::ENOMEM, "rlimits"),
        (Op::MapCreate, libc::EINVAL, "bpf"),
        (Op::ProgramLoad, libc::EACCES, "bpf"),
        (Op::ProgramLoad, 524, "bpf"),
        (Op::ProgramAttach, libc::ENOENT, "bpf"),
        (Op::EnableStats, libc::EINVAL, "bpf-stats"),
        (Op::ProgramLoad, libc::ENOSPC, "bpf"),
    ] {
        assert_eq!(explain(op, errno, &host).line_id, line, "{op:?} {errno}");
    }
    assert!(explain(Op::ProgramLoad, libc::EACCES, &host).text.contains("verifier"));
}

proptest! {
    #[test]
    fn every_failure_points_to_a_line_that_exists(
        op in prop::sample::select(&OPS[..]), errno in 1i32..600, caps: u64, docker: bool, seccomp: bool,
        release in prop::sample::select(&["5.8.0", "5.10.1", "6.18.0", "x"][..]),
    ) {
        let mut facts = good();
        facts.host.caps.effective = CapSet(caps);
        facts.host.caps.bounding = CapSet(caps.rotate_left(3));
        facts.host.seccomp = seccomp;
        facts.host.uname.release = release.to_owned();
        facts.host.namespaces.container = docker.then_some("docker");
        let hint = explain(op, errno, &facts.host);
        let ids: Vec<_> = rows::all(&facts).iter().map(|check| check.id).collect();
        prop_assert!(ids.contains(&hint.line_id), "{}", hint);
        prop_assert!(hint.text.len() > 20 && !hint.text.contains('\n'));
    }
}
