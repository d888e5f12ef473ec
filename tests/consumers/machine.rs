//! A machine with systemd as its first process, on this machine's kernel: in namespaces of its own, with this machine's
//! programs, and the profiler installed as its packages do it.
//!
//! The kernel side counts processes by the ids that they have on the host, and so the unit, as it does on a real machine,
//! must see the host's `/proc`: the one thing that a drop-in of [`Machine`] changes of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use profiler_tests::{binary, skip::skip};
use serde_json::Value;
use tempfile::TempDir;

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// Becomes the machine: `SHARED PROFILER PACKAGING`.
const ENTER: &str = include_str!("machine/enter.sh");
/// Its first steps, with the same arguments.
const BOOT: &str = include_str!("machine/boot.sh");
/// Longest wait for anything in it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The machine. Dropped, it is gone.
pub struct Machine {
    child: Child,
    /// Its first process, as the host knows it.
    init: u32,
    shared: TempDir,
}

impl Machine {
    /// Starts it, and returns when systemd answers; `None`: there is no systemd here, or no cgroup v2, and the test is
    /// skipped.
    pub fn boot(test: &str) -> Option<Self> {
        if !Path::new(SYSTEMD).exists() {
            skip(test, "no systemd: `cargo xtask setup --tests`");
            return None;
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        if !mounts.lines().any(|mount| mount.split(' ').nth(2) == Some("cgroup2")) {
            skip(test, "no cgroup v2 hierarchy");
            return None;
        }
        let shared = TempDir::new().unwrap();
        fs::write(shared.path().join("enter.sh"), ENTER).unwrap();
        fs::write(shared.path().join("boot.sh"), BOOT).unwrap();
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
        let mut command = Command::new("sh");
        command.arg(shared.path().join("enter.sh")).arg(shared.path()).arg(binary::profiler());
        let child = command.arg(packaging).stdin(Stdio::null()).spawn().unwrap();
        let mut machine = Self { child, init: 0, shared };
        machine.wait_for("systemd starts", |machine| {
            let children = format!("/proc/{0}/task/{0}/children", machine.child.id());
            let children = fs::read_to_string(children).unwrap_or_default();
            machine.init = children.trim().parse().unwrap_or(0);
            let program = fs::read_link(format!("/proc/{}/exe", machine.init));
            program.is_ok_and(|program| program.ends_with("systemd"))
        });
        machine.wait_for("systemd answers", |machine| {
            machine.run("systemctl is-system-running").stdout.starts_with(b"running")
        });
        machine.drop_in("proc", "[Service]\nBindReadOnlyPaths=/run/host/proc:/proc\n");
        Some(machine)
    }

    /// Waits until something is so; fails if the machine is gone, or it takes too long.
    pub fn wait_for(&mut self, what: &str, is_so: impl Fn(&mut Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{what}: {ended:?}\n{}", self.journal());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a command in it, with all rights.
    pub fn run(&self, command: &str) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.init.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid"]);
        // Found in the machine: the host's `PATH` can lead elsewhere.
        enter.args(["--cgroup", "--", "/bin/sh", "-c", command]).env("PATH", "/usr/bin:/usr/sbin");
        enter.stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed; gives what it prints.
    pub fn succeeds(&self, command: &str) -> String {
        let output = self.run(command);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {text}{errors}\n{}", self.journal());
        text
    }

    /// A property of the profiler's unit.
    pub fn property(&self, name: &str) -> String {
        self.succeeds(&format!("systemctl show --property={name} --value profiler"))
    }

    /// What the unit said, and systemd of it.
    pub fn journal(&self) -> String {
        String::from_utf8_lossy(&self.run("journalctl --no-pager --unit=profiler --output=cat").stdout)
            .into_owned()
    }

    /// A file of the machine, as the host sees it.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Changes the unit.
    pub fn drop_in(&self, name: &str, text: &str) {
        let directory = self.file("/etc/systemd/system/profiler.service.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{name}.conf")), text).unwrap();
        self.succeeds("systemctl daemon-reload");
    }

    /// The history.
    pub fn store(&self) -> PathBuf {
        self.shared.path().join("var/lib/profiler")
    }

    /// What `profiler query ARGUMENTS` says of its last hour.
    pub fn query(&self, arguments: &[&str]) -> Vec<u8> {
        let mut query = Command::new(binary::profiler());
        query.args(["query", "--last", "1h", "--store"]).arg(self.store()).args(arguments);
        let output = query.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The windows of its history.
    pub fn windows(&self) -> Vec<Value> {
        let list: Value = serde_json::from_slice(&self.query(&["--list", "--json"])).unwrap();
        list["windows"].as_array().unwrap().clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All that is in it ends with its first process, which ends with our child.
        _ = self.child.kill();
        _ = self.child.wait();
        let Ok(cgroup) = fs::read_to_string(self.shared.path().join("cgroup")) else { return };
        let begun = Instant::now();
        while !remove(Path::new(cgroup.trim())) && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a control group and those below; false: processes are still in there.
fn remove(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let mut groups = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.all(|entry| remove(&entry.path())) && fs::remove_dir(cgroup).is_ok()
}
