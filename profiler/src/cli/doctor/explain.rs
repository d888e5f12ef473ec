//! From a failed system call to its cause, its mending, and the line of `doctor` that explains it.
//!
//! The same errno means different things by call, by privilege and by kernel: EPERM of a map's creation is a missing
//! capability, or RLIMIT_MEMLOCK before Linux 5.11, or a seccomp filter although the capability is there.

use std::fmt;

use super::facts::Host;
use crate::host::{caps::Cap, kernel::Version, limits::Sysctl};

/// A call that can fail for want of privilege or of a part of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// perf_event_open(2) of a timer or of process events.
    PerfEventOpen,
    /// perf_event_open(2) of a hardware event.
    PerfEventOpenHardware,
    /// perf_event_open(2) of a hook that the user named.
    PerfEventOpenHook,
    /// mmap(2) of a perf event's ring buffer.
    PerfBuffer,
    /// bpf(2), BPF_MAP_CREATE.
    MapCreate,
    /// bpf(2), BPF_PROG_LOAD.
    ProgramLoad,
    /// Attaching a program to a tracepoint or event.
    ProgramAttach,
    /// bpf(2), BPF_ENABLE_STATS.
    EnableStats,
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::PerfEventOpen | Self::PerfEventOpenHardware | Self::PerfEventOpenHook => "perf_event_open",
            Self::PerfBuffer => "mmap of a perf buffer",
            Self::MapCreate => "creating an eBPF map",
            Self::ProgramLoad => "loading an eBPF program",
            Self::ProgramAttach => "attaching an eBPF program",
            Self::EnableStats => "bpf(BPF_ENABLE_STATS)",
        }
    }

    /// The line that explains its refusal.
    const fn line(self) -> &'static str {
        match self {
            Self::PerfEventOpen | Self::PerfEventOpenHook | Self::PerfBuffer => "perf-events",
            Self::PerfEventOpenHardware => "pmu",
            Self::MapCreate | Self::ProgramLoad | Self::ProgramAttach => "bpf",
            Self::EnableStats => "bpf-stats",
        }
    }
}

/// What a failure means and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The `id` of the line of `profiler doctor`.
    pub line_id: &'static str,
    /// One line: what failed, why, the values that decide, the command that mends it.
    pub text: String,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (see `profiler doctor`, line `{}`)", self.text, self.line_id)
    }
}

/// Explains a failure by this host's present state.
pub fn explain_errno(op: Op, errno: i32) -> Hint {
    explain(op, errno, &Host::read())
}

/// [`explain_errno`] on given facts.
pub fn explain(op: Op, errno: i32, host: &Host) -> Hint {
    let (line_id, cause) = cause(op, errno, host);
    Hint { line_id, text: format!("{} failed: {}: {cause}", op.name(), errno_words(errno)) }
}

fn cause(op: Op, errno: i32, host: &Host) -> (&'static str, String) {
    match errno {
        libc::EPERM | libc::EACCES => refused(op, errno, host),
        libc::EMFILE => ("rlimits", open_files(host)),
        libc::ENFILE => {
            ("rlimits", "the host has too many open files; `sudo sysctl fs.file-max` shows the limit".into())
        }
        libc::ENOMEM => {
            ("rlimits", "no memory for it, in the kernel or in this process's memory cgroup".into())
        }
        libc::ENOSYS => (op.line(), "the kernel was built without it, or a seccomp filter hides it".into()),
        _ => unsupported(op, errno, host),
    }
}

/// The kernel knows what is asked for and does not permit it.
fn refused(op: Op, errno: i32, host: &Host) -> (&'static str, String) {
    if op == Op::PerfBuffer {
        return (op.line(), perf_buffer(host));
    }
    // The verifier says EACCES for a program that it does not believe to be safe; privilege is EPERM.
    if op == Op::ProgramLoad && errno == libc::EACCES {
        let release = &host.uname.release;
        return (
            op.line(),
            format!("the verifier of kernel {release} refuses the program; please report it"),
        );
    }
    let missing: Vec<Cap> = needed(op).iter().copied().filter(|&cap| !host.caps.allows(cap)).collect();
    let old_memory_accounting = op == Op::MapCreate && !since(host, Version::new(5, 11, 0));
    if !missing.is_empty() {
        (op.line(), missing_caps(&missing, host))
    } else if old_memory_accounting {
        ("rlimits", locked_memory(host))
    } else {
        (op.line(), refused_with_caps(host))
    }
}

/// Capabilities without which the call is refused, found by trying (docs/privileges.md).
const fn needed(op: Op) -> &'static [Cap] {
    match op {
        Op::PerfEventOpen | Op::PerfEventOpenHardware | Op::PerfEventOpenHook | Op::PerfBuffer => {
            &[Cap::PERFMON]
        }
        Op::MapCreate => &[Cap::BPF],
        Op::ProgramLoad | Op::ProgramAttach => &[Cap::BPF, Cap::PERFMON],
        Op::EnableStats => &[Cap::SYS_ADMIN],
    }
}

/// What is missing, with the values that decide, and how to give it.
pub(super) fn missing_caps(missing: &[Cap], host: &Host) -> String {
    let names = missing.iter().map(Cap::to_string).collect::<Vec<_>>().join(" and ");
    let verb = if missing.len() == 1 { "is" } else { "are" };
    let paranoid = shown(host.limits.perf_event_paranoid);
    let sysctl = if missing.contains(&Cap::PERFMON) {
        format!(" (kernel.perf_event_paranoid = {paranoid})")
    } else {
        String::new()
    };
    let commands = grant(missing, host).join("`, or `");
    format!("{names} {verb} missing{sysctl}; `{commands}`")
}

/// Commands that give capabilities to this program.
pub(super) fn grant(missing: &[Cap], host: &Host) -> Vec<String> {
    let executable = crate::model::name::clean(host.executable.as_os_str().as_encoded_bytes());
    // setcap replaces the file's whole set, so what is there already is listed with what is missing.
    let all: Vec<String> = WANTED
        .iter()
        .map(|&(cap, _)| cap)
        .filter(|&cap| missing.contains(&cap) || host.caps.effective.has(cap))
        .map(Cap::name)
        .collect();
    let bounded_out = missing.iter().any(|&cap| !host.caps.bounding.has(cap));
    let mut commands = Vec::new();
    // Neither sudo nor setcap passes the bounding set, which container engines make small.
    if !bounded_out {
        commands.push(format!("sudo {} ...", quoted(&executable)));
        commands.push(format!("sudo setcap {}+ep {}", all.join(","), quoted(&executable)));
    }
    if bounded_out || host.namespaces.initial_pid == Some(false) {
        commands.extend(container_start(
            host,
            "--privileged --pid=host",
            "hostPID: true, securityContext: {privileged: true}",
        ));
    }
    if commands.is_empty() {
        commands.push(format!("capsh --print  # the bounding set must hold {}", all.join(",")));
    }
    commands
}

/// How to start this container with other options: for engines with a command line, and for a pod's specification.
pub(super) fn container_start(host: &Host, options: &str, pod: &str) -> Option<String> {
    match host.namespaces.container? {
        "docker" => Some(format!("docker run {options} ...")),
        "podman" => Some(format!("sudo podman run {options} ...")),
        "kubernetes" => Some(format!("{pod}  # in the pod's specification")),
        _ => None,
    }
}

fn quoted(path: &str) -> String {
    let plain = path.chars().all(|c| c.is_alphanumeric() || "/._-+:,@%".contains(c));
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// The capabilities that are of use, and what for. The first two are essential.
pub(super) const WANTED: [(Cap, &str); 7] = [
    (Cap::BPF, "load eBPF programs and maps"),
    (Cap::PERFMON, "sample all processes"),
    (Cap::SYS_PTRACE, "name functions of other users' processes"),
    (Cap::DAC_READ_SEARCH, "read their binaries, whatever their mode, and tracefs"),
    (Cap::CHECKPOINT_RESTORE, "name functions of deleted binaries"),
    (Cap::SYSLOG, "name kernel functions"),
    (Cap::SYS_ADMIN, "measure the run time of the eBPF programs themselves"),
];

fn refused_with_caps(host: &Host) -> String {
    let mut causes = Vec::new();
    if host.namespaces.initial_user == Some(false) {
        causes.push("capabilities in a user namespace do not count".to_owned());
    }
    if let Some(lockdown) = host.lockdown.filter(|&state| state != crate::host::kernel::Lockdown::None) {
        causes.push(format!("the kernel is locked down ({})", lockdown.name()));
    }
    if host.seccomp {
        causes.push("a seccomp filter is active".to_owned());
    }
    if host.limits.perf_event_paranoid.is_some_and(|level| level > 2) {
        let level = shown(host.limits.perf_event_paranoid);
        causes.push(format!(
            "kernel.perf_event_paranoid = {level}; `sudo sysctl kernel.perf_event_paranoid=2`"
        ));
    }
    if causes.is_empty() {
        causes
            .push("a security module (SELinux, AppArmor, ...) refuses it; its audit log says why".to_owned());
    }
    format!("the capabilities are there, but {}", causes.join(", and "))
}

fn perf_buffer(host: &Host) -> String {
    let kb = shown(host.limits.perf_event_mlock_kb);
    let memlock = bytes(host.locked_memory.soft);
    format!(
        "more buffer memory than kernel.perf_event_mlock_kb = {kb} per CPU and RLIMIT_MEMLOCK = {memlock} allow \
         without CAP_IPC_LOCK; `sudo sysctl kernel.perf_event_mlock_kb=2048`"
    )
}

fn open_files(host: &Host) -> String {
    let limit = host.open_files.soft.map_or("unlimited".to_owned(), |n| n.to_string());
    format!("too many open files (RLIMIT_NOFILE = {limit}); `ulimit -n 65536`")
}

fn locked_memory(host: &Host) -> String {
    let limit = bytes(host.locked_memory.soft);
    format!("before Linux 5.11 maps count against RLIMIT_MEMLOCK = {limit}; `ulimit -l unlimited`")
}

/// The kernel does not know what is asked for, or the values do not fit.
fn unsupported(op: Op, errno: i32, host: &Host) -> (&'static str, String) {
    let release = &host.uname.release;
    let cause = match (op, errno) {
        (Op::PerfEventOpenHook, libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP) => {
            "the kernel lets nothing be hooked there: in its own code, what hooks themselves run through \
             (/sys/kernel/debug/kprobes/blacklist); in a program, an instruction that cannot be stepped over"
                .to_owned()
        }
        (Op::PerfEventOpenHook, libc::EILSEQ) => "no instruction begins there".to_owned(),
        (Op::PerfEventOpenHook, libc::ENOENT) => format!("kernel {release} has no such place"),
        (Op::PerfEventOpenHook, libc::EADDRNOTAVAIL) => "there are several functions of that name".to_owned(),
        (Op::PerfEventOpen | Op::PerfEventOpenHardware, libc::EINVAL) => {
            let rate = shown(host.limits.perf_event_max_sample_rate);
            let text = format!(
                "the sample rate may be above kernel.perf_event_max_sample_rate = {rate}; a lower -F, or `sudo sysctl \
                 kernel.perf_event_max_sample_rate=100000`"
            );
            return ("sample-rate", text);
        }
        (Op::PerfEventOpen | Op::PerfEventOpenHardware, libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV) => {
            return (
                "pmu",
                "this machine has no such counter, or it cannot sample; the cpu-clock timer can".into(),
            );
        }
        (Op::PerfEventOpen | Op::PerfEventOpenHardware, libc::EBUSY) => {
            "another profiler holds the counter for itself".to_owned()
        }
        (Op::ProgramAttach, libc::ENOENT) => format!("kernel {release} has no such tracepoint"),
        (Op::ProgramAttach, libc::EEXIST | libc::EBUSY) => "another program is attached there".to_owned(),
        (Op::MapCreate, libc::E2BIG) => "the map is larger than this kernel allows".to_owned(),
        (Op::ProgramLoad, libc::E2BIG) => {
            format!("the program is too complex for the verifier of kernel {release}")
        }
        (Op::ProgramLoad, libc::ENOSPC) => "the verifier's log did not fit; please report it".to_owned(),
        (_, libc::ENOSPC) => "no room left for it in the kernel".to_owned(),
        (Op::MapCreate | Op::ProgramLoad | Op::EnableStats, libc::EINVAL | libc::ENOENT | ENOTSUPP) => {
            format!("kernel {release} does not know this kind, or a helper that it uses")
        }
        (_, libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP) => format!("kernel {release} does not support it"),
        _ => "an unexpected answer of the kernel; please report it".to_owned(),
    };
    (op.line(), cause)
}

/// The kernel's internal ENOTSUPP, which some bpf(2) calls return though it has no name outside (include/linux/errno.h).
const ENOTSUPP: i32 = 524;

fn since(host: &Host, version: Version) -> bool {
    host.uname.version().is_none_or(|running| running >= version)
}

/// An error as people search for it: `Operation not permitted (EPERM)`.
pub(super) fn errno_words(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::E2BIG => "E2BIG",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::ENOSYS => "ENOSYS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        ENOTSUPP => return "not supported (ENOTSUPP)".to_owned(),
        _ => return std::io::Error::from_raw_os_error(errno).to_string(),
    };
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    format!("{} ({name})", text.split(" (os error").next().unwrap_or_default())
}

/// A sysctl's value for people.
pub(super) fn shown(value: Sysctl) -> String {
    value.map_or("not readable".to_owned(), |value| value.to_string())
}

fn bytes(limit: Option<u64>) -> String {
    limit.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10))
}
