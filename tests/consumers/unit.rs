//! The daemon's unit as systemd runs it: hardened, watched, told to reload and to stop; and with each of its capabilities
//! left out.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use profiler_tests::{target::Target, workload};
use serde_json::Value;
use tempfile::TempDir;

use crate::machine::Machine;

/// A user that no process of this machine's is likely to be of.
const USER: u32 = 48271;

/// Processes that spin, and whose names need different rights.
struct Workloads {
    /// Readable for all.
    shared: Target,
    /// Of its user alone.
    private: Target,
    /// Root's, and not there any more.
    deleted: Target,
    /// In the kernel, half of the time.
    _kernel: Target,
    _directory: TempDir,
}

impl Workloads {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = |name: &str, mode| {
            let path = directory.path().join(name);
            fs::copy(workload::path("split-c"), &path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        let (shared, private, deleted) =
            (copy("shared", 0o755), copy("private", 0o700), copy("deleted", 0o755));
        chown(&private, Some(USER), Some(USER)).unwrap();
        let as_user = |program: &Path| {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
            command.arg(program).arg(FOR_MS);
            Target::of(command)
        };
        let workloads = Self {
            shared: as_user(&shared),
            private: as_user(&private),
            deleted: Target::start(&deleted, &[FOR_MS]),
            _kernel: Target::start(&workload::path("kernel"), &[FOR_MS]),
            _directory: directory,
        };
        // It runs: setpriv(1) has become it, too.
        for (target, name) in
            [(&workloads.shared, "shared"), (&workloads.private, "private"), (&workloads.deleted, "deleted")]
        {
            while fs::read_to_string(format!("/proc/{}/comm", target.pid())).unwrap().trim() != name {
                std::thread::yield_now();
            }
        }
        fs::remove_file(deleted).unwrap();
        workloads
    }
}

/// Longer than any test.
const FOR_MS: &str = "600000";

/// What a unit gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sees {
    kernel: bool,
    shared: bool,
    private: bool,
    deleted: bool,
    /// Run time of its own programs.
    cost: bool,
}

const ALL: Sees = Sees { kernel: true, shared: true, private: true, deleted: true, cost: true };

/// What is seen in the machine's history.
fn seen(machine: &Machine) -> Sees {
    let has = |process: &str, name: &str| {
        let stacks = ["--event", "cpu", "--process", process, "-o", "-", "--format", "folded"];
        let stacks = String::from_utf8(machine.query(&stacks)).unwrap();
        assert!(!stacks.is_empty(), "{process} was not sampled");
        stacks.contains(name)
    };
    let notes: Vec<String> = machine.windows().iter().map(|window| window["notes"].to_string()).collect();
    Sees {
        kernel: has("^kernel$", "vfs_read"),
        shared: has("^shared$", "split_work"),
        private: has("^private$", "split_work"),
        deleted: has("^deleted$", "split_work"),
        cost: !notes.iter().any(|note| note.contains("eBPF run time is not measured")),
    }
}

/// The capabilities that the unit keeps.
fn capabilities() -> Vec<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/profiler.service");
    let text = fs::read_to_string(unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    line.split(' ').map(str::to_owned).collect()
}

/// Without it alone, the rest of the unit's capabilities is what is tried.
const RUN_TIME: &str = "CAP_SYS_ADMIN";

/// What is left without each of them. With `CAP_SYS_ADMIN`, which contains three of the others, less would be missing.
/// `None`: nothing, the daemon does not start.
const WITHOUT: [(&str, Option<Sees>); 7] = [
    (RUN_TIME, Some(Sees { cost: false, ..ALL })),
    ("CAP_BPF", None),
    ("CAP_PERFMON", None),
    (
        "CAP_SYS_PTRACE",
        Some(Sees { kernel: true, shared: false, private: false, deleted: false, cost: false }),
    ),
    ("CAP_SYSLOG", Some(Sees { kernel: false, cost: false, ..ALL })),
    ("CAP_DAC_READ_SEARCH", Some(Sees { private: false, cost: false, ..ALL })),
    ("CAP_CHECKPOINT_RESTORE", Some(Sees { deleted: false, cost: false, ..ALL })),
];

/// Runs the unit without some of its capabilities for a window; `None`: it does not start.
fn without(machine: &mut Machine, left_out: &[&str]) -> Option<Sees> {
    let left_out = left_out.join(" ");
    let drop_in = format!("[Service]\nRestart=no\nCapabilityBoundingSet=~{left_out}\n");
    machine.drop_in("capabilities", &drop_in);
    if !machine.run("systemctl start profiler").status.success() {
        let journal = machine.journal();
        assert!(
            journal.contains("Operation not permitted") || journal.contains("Permission denied"),
            "{journal}"
        );
        machine.succeeds("systemctl reset-failed profiler");
        return None;
    }
    machine.wait_for("a window", |machine| {
        let status: Value = serde_json::from_str(&machine.succeeds("profiler ctl status --json")).unwrap();
        status["windows"]["written"].as_u64().unwrap() >= 1
    });
    let seen = seen(machine);
    machine.succeeds("systemctl stop profiler");
    fs::remove_dir_all(machine.store()).unwrap();
    Some(seen)
}

#[test]
fn each_capability_of_the_unit_is_needed() {
    let Some(mut machine) = Machine::boot("each_capability_of_the_unit_is_needed") else { return };
    let mut tried = WITHOUT.map(|(name, _)| name).to_vec();
    let mut kept = capabilities();
    tried.sort_unstable();
    kept.sort_unstable();
    assert_eq!(kept, tried, "each has its row");
    let config = "[window]\nlength = \"2s\"\n[sampling]\nfrequency_hz = 199\n[budget]\ncpu_percent = 100\n";
    fs::write(machine.file("/etc/profiler/daemon.toml"), config).unwrap();
    let _workloads = Workloads::start();
    // One that it does not have anyway.
    assert_eq!(without(&mut machine, &["CAP_SYS_BOOT"]), Some(ALL));
    for (name, left) in WITHOUT {
        assert_eq!(without(&mut machine, &[name, RUN_TIME]), left, "without {name}");
    }
}

/// What the unit must not be able to do, by the line that refuses it, as commands of a shell. The machine without that line can.
const FORBIDDEN: [(&str, &str); 12] = [
    ("ProtectSystem", "touch /etc/probe"),
    ("ProtectSystem of programs", "touch /usr/bin/probe"),
    ("ProtectHome", "touch /home/probe"),
    ("ProtectControlGroups", "mkdir /sys/fs/cgroup/probe-$$"),
    ("ProtectHostname", "hostname profiler-test"),
    ("PrivateDevices", "test -e /dev/kmsg"),
    ("PrivateTmp", "test -e /tmp/probe"),
    ("RestrictNamespaces", "unshare --uts true"),
    ("SystemCallFilter", "mount -t tmpfs tmpfs /mnt"),
    ("LockPersonality", "setarch i686 true"),
    ("MemoryDenyWriteExecute", "python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'"),
    (
        "RestrictAddressFamilies",
        "python3 -c 'import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)'",
    ),
];

/// Runs a command with what the unit allows to its process: in a unit that differs by what it executes alone.
fn in_unit(machine: &Machine, script: &str) -> String {
    let unit = fs::read_to_string(machine.file("/etc/systemd/system/profiler.service")).unwrap();
    let differs =
        |line: &str| ["Type=", "Exec", "Watchdog", "Restart="].iter().any(|start| line.starts_with(start));
    let kept: Vec<&str> = unit.lines().filter(|line| !differs(line)).collect();
    let executes = "Type=oneshot\nExecStart=/bin/sh /run/host/shared/probe.sh";
    let unit = kept.join("\n").replace("[Service]", &format!("[Service]\n{executes}"));
    fs::write(machine.file("/etc/systemd/system/probe.service"), unit).unwrap();
    fs::write(machine.file("/run/host/shared/probe.sh"), script).unwrap();
    machine.succeeds("systemctl daemon-reload && systemctl start probe");
    let store = machine.store();
    let said = fs::read_to_string(store.join("probe")).unwrap();
    fs::remove_dir_all(store).unwrap();
    said
}

#[test]
fn the_unit_is_allowed_nothing_else() {
    let Some(machine) = Machine::boot("the_unit_is_allowed_nothing_else") else { return };
    let tries: Vec<String> =
        FORBIDDEN.iter().map(|(line, tried)| format!("( {tried} ) 2> /dev/null && echo '{line}'")).collect();
    let tries = format!("touch /tmp/probe-own\n{}\necho end", tries.join("\n"));
    machine.succeeds("touch /tmp/probe");
    let can = machine.succeeds(&tries);
    let all: Vec<&str> = FORBIDDEN.iter().map(|(line, _)| *line).chain(["end"]).collect();
    assert_eq!(can.lines().collect::<Vec<_>>(), all, "without the unit's lines all of it can be done");
    let script = format!("( {tries} ) > /var/lib/profiler/probe\n");
    assert_eq!(in_unit(&machine, &script), "end\n", "the unit can");
}

/// What a path of the daemon's HTTP answers in the machine's network.
fn http(machine: &Machine, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n");
    let output = machine.succeeds(&format!(
        "exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/7077; printf \"{request}\" >&3; head -1 <&3'"
    ));
    output.trim().to_owned()
}

#[test]
fn systemd_runs_the_unit() {
    let Some(mut machine) = Machine::boot("systemd_runs_the_unit") else { return };
    // So that a window is longer than that.
    machine.drop_in("watchdog", "[Service]\nWatchdogSec=4\n");
    let workloads = Workloads::start();
    // It says READY: else systemd would wait, and end it.
    machine.succeeds("systemctl start profiler");
    assert_eq!(machine.property("ActiveState"), "active");
    let main = machine.property("MainPID");
    assert_eq!(http(&machine, "/healthz"), "HTTP/1.1 200 OK");
    assert_eq!(http(&machine, "/debug/pprof/profile?seconds=1"), "HTTP/1.1 200 OK");
    // Not of one process: in a namespace of its own, ids are not those that the kernel reports by.
    let profile = format!("/debug/pprof/profile?seconds=1&pid={}", workloads.private.pid());
    assert_eq!(http(&machine, &profile), "HTTP/1.1 503 Service Unavailable");
    machine.wait_for("a window", |machine| !machine.windows().is_empty());
    assert_eq!(seen(&machine), ALL);
    let status: Value = serde_json::from_str(&machine.succeeds("profiler ctl status --json")).unwrap();
    assert!(status["cost"]["ebpf_run_ns"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(machine.windows()[0]["duration_ns"].as_u64().unwrap() / 1_000_000_000, 10, "as configured");

    let time = |name: &str| machine.property(name).parse::<u64>().unwrap();
    let alive_for_us = time("WatchdogTimestampMonotonic") - time("ActiveEnterTimestampMonotonic");
    assert!(alive_for_us > 4_000_000, "the last sign of life is of {alive_for_us} us after the start");

    let config = fs::read_to_string(machine.file("/etc/profiler/daemon.toml")).unwrap();
    let config = config.replace("frequency_hz = 19", "frequency_hz = 23");
    fs::write(machine.file("/etc/profiler/daemon.toml"), config).unwrap();
    machine.succeeds("systemctl reload profiler");
    machine.wait_for("the new rate", |machine| {
        let status: Value = serde_json::from_str(&machine.succeeds("profiler ctl status --json")).unwrap();
        status["governor"]["frequency_hz"] == 23
    });
    machine.succeeds("profiler ctl flush");
    assert_eq!((machine.property("NRestarts"), machine.property("MainPID")), ("0".to_owned(), main));

    let before = machine.windows().len();
    machine.succeeds("systemctl stop profiler");
    assert_eq!(
        (machine.property("Result"), machine.property("ExecMainStatus")),
        ("success".into(), "0".into())
    );
    let windows = machine.windows();
    assert_eq!(windows.len(), before + 1, "the last window is kept");
    let numbers: Vec<u64> = windows.iter().map(|window| window["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let journal = machine.journal();
    // What it says of its budget, and that the rate was changed, it must.
    assert!(journal.contains("sampling.frequency_hz: 23 instead of 19"), "{journal}");
    for word in ["denied", "permitted", "failed", "cannot", "lost"] {
        assert!(!journal.contains(word), "{journal}");
    }
}
