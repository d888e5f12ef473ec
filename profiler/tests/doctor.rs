//! `profiler doctor` as a process, with the privileges of this run and with fewer.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::BTreeMap,
    process::{Command, Output},
};

use serde_json::Value;

const PROFILER: &str = env!("CARGO_BIN_EXE_profiler");

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Exit code and status by line of `profiler doctor --json`.
fn judge(command: &mut Command) -> (i32, BTreeMap<String, String>, Value) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let document: Value = serde_json::from_slice(&stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
    });
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = document["rows"].as_array().unwrap();
    let lines = rows.iter().map(|row| (text(row, "id"), text(row, "status"))).collect();
    (status.code().unwrap(), lines, document)
}

/// The doctor with exactly these capabilities. Root keeps its user id: the bounding set limits what exec gives it.
fn with_capabilities(caps: &[&str]) -> Command {
    assert!(is_root() || caps.is_empty(), "choosing capabilities needs root");
    if !is_root() {
        let mut command = Command::new(PROFILER);
        command.args(["doctor", "--json"]);
        return command;
    }
    let list = std::iter::once("-all".to_owned())
        .chain(caps.iter().map(|cap| format!("+{cap}")))
        .collect::<Vec<_>>();
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={}", list.join(","))).arg("--inh-caps=-all");
    command.args([PROFILER, "doctor", "--json"]);
    command
}

#[test]
fn the_exit_code_is_the_verdict() {
    let (code, lines, document) = judge(Command::new(PROFILER).args(["doctor", "--json"]));
    assert_eq!(document["schema"], "profiler.doctor/1");
    let works = |id: &str| lines[id] != "unavailable";
    let can_record = works("kernel") && works("bpf") && works("perf-events");
    assert_eq!(document["meta"]["can_record"], can_record);
    assert_eq!(code, if can_record { 0 } else { 3 });

    let text = Command::new(PROFILER).arg("doctor").output().unwrap();
    assert_eq!(text.status.code(), Some(code));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(!text.contains('\x1b'), "no colour without a terminal");
    assert!(lines.keys().all(|id| text.lines().any(|line| line.starts_with(&format!("{id} ")))), "{text}");
}

#[test]
fn missing_type_information_is_said_and_does_not_forbid_recording() {
    let args = ["doctor", "--json", "--btf", "/none/vmlinux"];
    let (code, lines, document) = judge(Command::new(PROFILER).args(args));
    assert_eq!((lines["btf"].as_str(), lines["children"].as_str()), ("degraded", "unavailable"));
    let row = document["rows"].as_array().unwrap().iter().find(|row| row["id"] == "btf").unwrap();
    assert!(row["reason"].as_str().unwrap().starts_with("/none/vmlinux: No such file or directory"), "{row}");
    let (unchanged, ..) = judge(Command::new(PROFILER).args(["doctor", "--json"]));
    assert_eq!(code, unchanged);
}

#[test]
fn without_capabilities_nothing_can_be_recorded_and_each_refusal_has_a_remedy() {
    let (code, lines, document) = judge(&mut with_capabilities(&[]));
    assert_eq!(code, 3);
    for id in ["bpf", "perf-events", "capabilities", "children"] {
        assert_eq!(lines[id], "unavailable", "{id}");
    }
    for row in document["rows"].as_array().unwrap() {
        if ["bpf", "perf-events", "capabilities", "map-files", "bpf-stats"]
            .contains(&row["id"].as_str().unwrap())
        {
            assert!(!row["mend"].as_array().unwrap().is_empty(), "{row}");
        }
    }
}

/// The table of docs/privileges.md: what each capability buys.
#[test]
fn the_documented_capabilities_are_the_smallest_that_work() {
    let cannot =
        [&["bpf"][..], &["perfmon"], &["syslog", "sys_ptrace", "dac_read_search", "checkpoint_restore"]];
    for caps in cannot {
        assert_eq!(judge(&mut with_capabilities(caps)).0, 3, "{caps:?}");
    }
    assert_eq!(judge(&mut with_capabilities(&["bpf"])).1["kernel-log"], "works");
    assert_eq!(judge(&mut with_capabilities(&["perfmon"])).1["process-events"], "works");
    let essential = ["bpf", "perfmon"];
    let line = |extra: &[&str], id: &str| {
        let (code, lines, _) = judge(&mut with_capabilities(&[&essential, extra].concat()));
        assert_eq!(code, 0, "{extra:?}");
        lines[id].clone()
    };
    for id in ["bpf", "perf-events", "process-events", "children", "kernel-log", "lockdown", "btf"] {
        assert_eq!(line(&[], id), "works", "{id}");
    }
    for (cap, id) in
        [("sys_admin", "bpf-stats"), ("checkpoint_restore", "map-files"), ("sys_admin", "map-files")]
    {
        assert_eq!(line(&[], id), "degraded", "{id} without {cap}");
        assert_eq!(line(&[cap], id), "works", "{id} with {cap}");
    }
    // With kptr_restrict 2 nobody sees addresses.
    let hidden = std::fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap().trim() == "2";
    assert_eq!(line(&["syslog"], "kernel-symbols") == "works", !hidden);
}
