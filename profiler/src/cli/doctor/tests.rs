//! What `doctor` says of machines that lack something.

use proptest::prelude::*;
use rustix::io::Errno;

use super::{
    explain::explain,
    facts::{Facts, Host, Tried},
    walk::Walk,
    *,
};
use crate::host::{
    caps::{Cap, CapSet, Capabilities},
    cgroup,
    features::{FEATURES, Feature},
    kernel::{Lockdown, Uname},
    limits::{Limits, ResourceLimit},
    namespaces::Namespaces,
    symbols::Visibility,
};

fn set(caps: &[Cap]) -> CapSet {
    CapSet(caps.iter().map(|cap| 1u64 << cap.0).sum())
}

/// A host on which everything works.
fn good() -> Facts {
    let all = CapSet(u64::MAX >> 23);
    let unlimited = ResourceLimit { soft: None, hard: None };
    Facts {
        host: Host {
            uname: Uname { host: "h".into(), release: "6.1.0-13-amd64".into(), machine: "x86_64".into() },
            lockdown: Some(Lockdown::None),
            boot_parameters: Vec::new(),
            caps: Capabilities { effective: all, permitted: all, bounding: all },
            seccomp: false,
            limits: Limits {
                perf_event_paranoid: Some(2),
                perf_event_max_sample_rate: Some(100_000),
                perf_event_mlock_kb: Some(516),
                perf_cpu_time_max_percent: Some(25),
                perf_event_max_stack: Some(127),
                kptr_restrict: Some(1),
                unprivileged_bpf_disabled: Some(2),
                bpf_stats_enabled: Some(0),
                bpf_jit_enable: Some(1),
            },
            open_files: unlimited,
            locked_memory: unlimited,
            namespaces: Namespaces {
                initial_pid: Some(true),
                initial_cgroup: Some(true),
                initial_user: Some(true),
                container: None,
            },
            cpus: 4,
            executable: "/usr/bin/profiler".into(),
        },
        tried: Tried {
            task_offsets: Ok(()),
            maps: Ok(()),
            ring_buffer: Ok(()),
            perf_program: Ok(()),
            kernel_reads: Ok(()),
            cgroup_program: Ok(()),
            cpu_clock: Ok(()),
            sampling: Ok(()),
            process_events: Ok(()),
            cycles: Ok(()),
            fork_tracepoint: Ok(()),
            stats: Ok(()),
            kernel_addresses: Ok(true),
            visibility: Visibility { readable: 7, refused: 0, example: None },
            map_files: Ok(()),
            features: FEATURES.iter().map(|spec| (spec.feature, Ok(()))).collect(),
            other_features: vec![("bpf-loop", Ok(())), ("sock_send_length", Err(Errno::NOENT))],
            walk: Ok(Walk { rows: 40_000, table_us: 9_300 }),
            sched: Ok(Vec::new()),
            syscalls: Ok(()),
            net: Ok(()),
            packets: Ok(Vec::new()),
            user_code: Ok(()),
            kernel_code: Ok(()),
        },
        tracefs: Some((Some("/sys/kernel/tracing".into()), true)),
        bpffs: Some("/sys/fs/bpf".into()),
        cgroup: cgroup::Version::V2,
    }
}

/// The lines that do not work when the facts are changed so.
fn changed(change: impl FnOnce(&mut Facts)) -> Vec<Check> {
    let mut facts = good();
    change(&mut facts);
    rows::all(&facts).into_iter().filter(|check| check.status != Status::Works).collect()
}

/// Ids and statuses of lines.
fn judged(checks: &[Check]) -> Vec<(&str, Status)> {
    checks.iter().map(|check| (check.id, check.status)).collect()
}

mod explaining;

use Status::{Degraded, Unavailable};

#[test]
fn a_good_host_has_nothing_to_mend() {
    let checks = rows::all(&good());
    assert!(checks.iter().all(|check| check.status == Status::Works && check.mend.is_empty()), "{checks:#?}");
    assert!(can_record(&checks));
    let mut ids: Vec<_> = checks.iter().map(|check| check.id).collect();
    assert!(ESSENTIAL.iter().all(|id| ids.contains(id)));
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are unique");
}

#[test]
fn every_line_is_documented() {
    let text = include_str!("../../../../docs/doctor.md");
    for check in rows::all(&good()) {
        assert!(text.contains(&format!("| `{}` |", check.id)), "docs/doctor.md has no line `{}`", check.id);
    }
}

#[test]
fn an_old_kernel_cannot_record() {
    let lines = changed(|f| f.host.uname.release = "5.4.0-1-amd64".into());
    assert_eq!(lines[0].id, "kernel");
    assert!(!can_record(&lines));
    let strange = changed(|f| f.host.uname.release = "custom".into());
    assert_eq!(judged(&strange), [("kernel", Degraded)]);
}

#[test]
fn without_type_information_children_are_not_followed() {
    let lines = changed(|f| f.tried.task_offsets = Err("/x: No such file".into()));
    assert_eq!(judged(&lines), [("btf", Degraded), ("children", Unavailable)]);
    assert!(lines[0].reason.starts_with("/x: No such file"), "{}", lines[0].reason);
    assert!(can_record(&lines));
}

#[test]
fn without_a_counter_the_timer_samples() {
    let lines = changed(|f| f.tried.cycles = Err(Errno::NOENT));
    assert_eq!(judged(&lines), [("pmu", Degraded)]);
    assert!(lines[0].reason.contains("(ENOENT)") && lines[0].mend.is_empty(), "{:?}", lines[0]);
}

#[test]
fn missing_capabilities_are_named_with_the_commands() {
    let lines = changed(|f| {
        f.host.caps.effective = CapSet(0);
        f.tried.maps = Err(Errno::PERM);
        f.tried.perf_program = Err(Errno::PERM);
        f.tried.cpu_clock = Err(Errno::ACCESS);
        f.tried.sampling = Err(Errno::ACCESS);
    });
    assert!(!can_record(&lines));
    let line = |id| lines.iter().find(|check| check.id == id).unwrap();
    assert_eq!(line("bpf").reason, "not permitted: CAP_BPF and CAP_PERFMON missing");
    assert_eq!(
        line("bpf").mend,
        ["sudo /usr/bin/profiler ...", "sudo setcap cap_bpf,cap_perfmon+ep /usr/bin/profiler"]
    );
    assert!(line("bpf").current.contains("kernel.unprivileged_bpf_disabled = 2"));
    assert!(line("perf-events").current.contains("kernel.perf_event_paranoid = 2"));
    assert_eq!(line("capabilities").status, Unavailable);
    assert_eq!(line("perf-paranoid").status, Degraded);
}

#[test]
fn only_optional_capabilities_missing_is_degraded() {
    let lines = changed(|f| f.host.caps.effective = set(&[Cap::BPF, Cap::PERFMON]));
    let capabilities = lines.iter().find(|check| check.id == "capabilities").unwrap();
    assert_eq!(capabilities.status, Degraded);
    assert!(capabilities.reason.contains("CAP_SYSLOG (name kernel functions)"), "{}", capabilities.reason);
    // What is there already must not be lost by setcap, which replaces the whole set.
    assert!(capabilities.mend[1].contains("cap_bpf,cap_perfmon,cap_sys_ptrace"), "{:?}", capabilities.mend);
    assert!(can_record(&lines));
}

#[test]
fn beyond_the_bounding_set_the_container_is_mended() {
    let no_caps = |container, bounding| {
        changed(|f| {
            f.host.caps.effective = CapSet(0);
            f.host.caps.bounding = bounding;
            f.host.namespaces.container = container;
            f.tried.maps = Err(Errno::PERM);
        })
        .remove(0)
        .mend
    };
    assert_eq!(no_caps(Some("docker"), CapSet(0)), ["docker run --privileged --pid=host ..."]);
    assert_eq!(no_caps(None, CapSet(0)), ["capsh --print  # the bounding set must hold cap_bpf,cap_perfmon"]);
    // An image's marker file on a host of its own is no container: the bounding set decides.
    assert!(no_caps(Some("docker"), CapSet(u64::MAX))[0].starts_with("sudo "));
}

#[test]
fn namespaces_are_left_by_the_engines_own_means() {
    let mend = |container| {
        changed(|f| {
            f.host.namespaces.initial_pid = Some(false);
            f.host.namespaces.container = container;
        })
        .remove(0)
        .mend
        .remove(0)
    };
    assert_eq!(mend(Some("podman")), "sudo podman run --pid=host ...");
    assert_eq!(mend(Some("kubernetes")), "hostPID: true  # in the pod's specification");
    assert_eq!(mend(None), "run the profiler on the host itself");
}

#[test]
fn surroundings_have_their_own_lines() {
    type Case = (&'static str, Status, fn(&mut Facts));
    let cases: [Case; 18] = [
        ("capabilities", Unavailable, |f| f.host.namespaces.initial_user = Some(false)),
        ("tracefs", Degraded, |f| f.tracefs = None),
        ("tracefs", Degraded, |f| f.tracefs = Some((Some("/t".into()), false))),
        ("uprobes", Unavailable, |f| f.tried.user_code = Err(Errno::NOENT)),
        ("kprobes", Degraded, |f| f.tried.kernel_code = Err(Errno::NOENT)),
        ("kprobes", Degraded, |f| f.tried.kernel_code = Err(Errno::ACCESS)),
        ("bpffs", Degraded, |f| f.bpffs = None),
        ("cgroup", Degraded, |f| f.cgroup = cgroup::Version::Hybrid),
        ("cgroup", Unavailable, |f| f.cgroup = cgroup::Version::V1),
        ("cgroup", Unavailable, |f| f.host.namespaces.initial_cgroup = Some(false)),
        ("pid-namespace", Unavailable, |f| f.host.namespaces.initial_pid = Some(false)),
        ("rlimits", Degraded, |f| f.host.open_files.soft = Some(100)),
        ("sample-rate", Degraded, |f| f.host.limits.perf_event_max_sample_rate = Some(250)),
        ("kernel-symbols", Degraded, |f| f.tried.kernel_addresses = Ok(false)),
        ("map-files", Degraded, |f| f.tried.map_files = Err(Errno::PERM)),
        ("process-events", Degraded, |f| f.tried.process_events = Err(Errno::ACCESS)),
        ("kernel-log", Unavailable, |f| f.tried.ring_buffer = Err(Errno::INVAL)),
        ("bpf", Degraded, |f| f.host.limits.bpf_jit_enable = Some(0)),
    ];
    for (id, status, change) in cases {
        let lines = changed(change);
        assert_eq!(judged(&lines), [(id, status)]);
        assert!(can_record(&lines), "{id} is not essential");
    }
}

#[test]
fn confidentiality_costs_what_reads_kernel_memory() {
    let lines = changed(|f| {
        f.host.lockdown = Some(Lockdown::Confidentiality);
        f.tried.kernel_reads = Err(Errno::INVAL);
    });
    assert_eq!(judged(&lines), [("children", Unavailable), ("lockdown", Degraded)]);
    assert!(lines[1].current.ends_with("confidentiality"), "{}", lines[1].current);
}

#[test]
fn a_feature_that_is_missing_has_a_fallback() {
    let lines = changed(|f| f.tried.features = vec![(Feature::TaskPtRegs, Ok(()))]);
    assert_eq!(judged(&lines), [("task-btf", Degraded), ("mmap-build-id", Degraded)]);
    let lines = changed(|f| f.tried.features[0].1 = Err(Errno::INVAL));
    assert_eq!(judged(&lines), [("task-btf", Degraded)]);
    assert_eq!(
        lines[0].reason,
        "not here, Invalid argument (EINVAL); fallback: bpf_probe_read_kernel for each member"
    );
    assert_eq!(lines[0].current, "in Linux 5.11 and later (3ca1032ab7ab)");
    assert!(can_record(&lines) && lines[0].mend.is_empty());
}

#[test]
fn without_privileges_features_are_not_called_missing() {
    let lines = changed(|f| {
        f.host.caps.effective = CapSet(0);
        f.tried.perf_program = Err(Errno::PERM);
        for (_, result) in &mut f.tried.features {
            *result = Err(Errno::PERM);
        }
    });
    let line = |id| lines.iter().find(|check| check.id == id).unwrap();
    assert_eq!(line("task-btf").reason, "no program can be loaded: see line `bpf`");
    assert_eq!(line("mmap-build-id").reason, "not permitted: CAP_PERFMON missing");
}

#[test]
fn what_newer_kernels_have_is_listed_for_reports() {
    let mut facts = good();
    let list = |facts: &Facts| {
        rows::all(facts).into_iter().find(|check| check.id == "kernel-features").unwrap().reason
    };
    assert_eq!(
        list(&facts),
        "found: task-btf, task-pt-regs, mmap-build-id, bpf-loop; missing: sock_send_length"
    );
    facts.tried.features[1].1 = Err(Errno::PERM);
    assert!(list(&facts).ends_with("missing: sock_send_length; not allowed to look for: task-pt-regs"));
}

#[test]
fn a_process_that_refuses_in_spite_of_all_is_counted() {
    let lines = changed(|f| {
        f.tried.visibility = Visibility { readable: 8, refused: 1, example: Some((1, libc::EACCES)) };
    });
    assert_eq!(judged(&lines), [("other-processes", Degraded)]);
    assert!(
        lines[0]
            .reason
            .starts_with("1 of 9 processes cannot be looked into (pid 1: Permission denied (EACCES))"),
        "{}",
        lines[0].reason
    );
}

#[test]
fn small_memory_limits_count_on_old_kernels_only() {
    let small = ResourceLimit { soft: Some(64 << 10), hard: None };
    assert!(changed(|f| f.host.locked_memory = small).is_empty());
    let old = changed(|f| {
        f.host.uname.release = "5.10.0".into();
        f.host.locked_memory = small;
    });
    assert_eq!(judged(&old), [("rlimits", Degraded)]);

    let mut facts = good();
    facts.host.locked_memory = small;
    facts.host.uname.release = "5.10.0".into();
    let hint = explain(Op::MapCreate, libc::EPERM, &facts.host);
    assert_eq!(hint.line_id, "rlimits");
    assert!(hint.text.contains("RLIMIT_MEMLOCK = 64 KiB; `ulimit -l unlimited`"), "{hint}");
}

#[test]
fn the_text_is_aligned_and_points_to_what_was_said() {
    let check = |id, status, mend: &[&str]| Check {
        id,
        feature: "a feature",
        status,
        reason: "because".into(),
        mend: mend.iter().map(|&m| m.to_owned()).collect(),
        current: "x = 1".into(),
    };
    let checks = [
        check("kernel", Status::Works, &[]),
        check("bpf", Unavailable, &["sudo this", "sudo that"]),
        check("pmu", Degraded, &["sudo this", "sudo that"]),
    ];
    let mut out = Vec::new();
    text::write(&checks, false, &mut out).unwrap();
    let expected = "\
LINE    STATUS       FEATURE    REASON
kernel  works        a feature  because
bpf     unavailable  a feature  because
                     now:  x = 1
                     mend: sudo this
                     mend: sudo that
pmu     degraded     a feature  because
                     now:  x = 1
                     mend: as line `bpf`

`profiler record` cannot work here: 1 work, 1 degraded, 1 unavailable.
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut coloured = Vec::new();
    text::write(&checks, true, &mut coloured).unwrap();
    assert!(String::from_utf8(coloured).unwrap().contains("\x1b[31munavailable\x1b[0m  a feature"));
}

#[test]
fn json_has_the_shape_of_all_tables() {
    let facts = good();
    let mut out = Vec::new();
    write_json(&facts, &rows::all(&facts), &mut out).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(document["schema"], "profiler.doctor/1");
    assert_eq!(document["meta"]["kernel"], "6.1.0-13-amd64");
    assert_eq!(document["meta"]["can_record"], true);
    assert!(document["losses"].is_object() && document["cost"].is_object());
    let row = &document["rows"][0];
    let keys: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["current", "feature", "id", "mend", "reason", "status"]);
    assert_eq!((row["id"].as_str(), row["status"].as_str()), (Some("kernel"), Some("works")));
}

proptest! {
    #[test]
    fn no_set_of_failures_breaks_the_judgement(bits: u32, caps: u64) {
        let mut facts = good();
        facts.host.caps.effective = CapSet(caps);
        let t = &mut facts.tried;
        let tries = [
            &mut t.maps, &mut t.ring_buffer, &mut t.perf_program, &mut t.kernel_reads, &mut t.cgroup_program,
            &mut t.cpu_clock, &mut t.sampling, &mut t.process_events, &mut t.cycles, &mut t.fork_tracepoint,
            &mut t.stats, &mut t.map_files,
        ];
        let essential = bits & 0b101 != 0 || bits & 0b110_0000 != 0;
        for (i, result) in tries.into_iter().enumerate() {
            if bits >> i & 1 == 1 { *result = Err(Errno::PERM) }
        }
        let checks = rows::all(&facts);
        // Recording works exactly if maps, program, timer event and their joining work.
        prop_assert_eq!(can_record(&checks), !essential);
        prop_assert!(checks.iter().all(|c| c.status != Status::Works || c.mend.is_empty()));
    }
}
