//! Lines about naming functions and about the surroundings: symbols, other processes, file systems, namespaces.

use rustix::io::Errno;

use super::{
    super::{
        Check,
        explain::{container_start, errno_words, grant, shown},
        facts::Facts,
    },
    Degraded, Unavailable, words, works, yes_no,
};
use crate::host::{caps::Cap, cgroup::Version, kernel};

pub(super) fn kernel_symbols(facts: &Facts) -> Check {
    let host = &facts.host;
    let syslog = host.caps.allows(Cap::SYSLOG);
    let check =
        works("kernel-symbols", "names of kernel functions", "/proc/kallsyms shows addresses").now(format!(
            "kernel.kptr_restrict = {}, kernel.perf_event_paranoid = {}, CAP_SYSLOG = {}",
            shown(host.limits.kptr_restrict),
            shown(host.limits.perf_event_paranoid),
            yes_no(syslog),
        ));
    match facts.tried.kernel_addresses {
        Ok(true) => check,
        Ok(false) => {
            let check = check.not(Degraded, "/proc/kallsyms hides addresses: kernel frames have no names");
            if host.limits.kptr_restrict.is_some_and(|level| level >= 2) {
                return check.mend(["sudo sysctl kernel.kptr_restrict=1".to_owned()]);
            }
            check.mend(if syslog { Vec::new() } else { grant(&[Cap::SYSLOG], host) })
        }
        Err(errno) => check.not(
            Degraded,
            format!("/proc/kallsyms cannot be read, {}: kernel frames have no names", words(errno)),
        ),
    }
}

pub(super) fn other_processes(facts: &Facts) -> Check {
    let seen = &facts.tried.visibility;
    let check = works(
        "other-processes",
        "functions of other processes",
        format!("the mappings of all {} processes can be read", seen.readable),
    )
    .now(format!(
        "CAP_SYS_PTRACE = {}, CAP_DAC_READ_SEARCH = {}",
        yes_no(facts.host.caps.allows(Cap::SYS_PTRACE)),
        yes_no(facts.host.caps.allows(Cap::DAC_READ_SEARCH)),
    ));
    let wanted = [Cap::SYS_PTRACE, Cap::DAC_READ_SEARCH];
    let missing: Vec<Cap> = wanted.into_iter().filter(|&cap| !facts.host.caps.allows(cap)).collect();
    if let Some((pid, errno)) = seen.example {
        let total = seen.readable + seen.refused;
        let error = errno_words(errno);
        let refused =
            format!("{} of {total} processes cannot be looked into (pid {pid}: {error})", seen.refused);
        if missing.is_empty() {
            return check.not(
                Degraded,
                format!("{refused}, in spite of the capabilities: a security module refuses"),
            );
        }
        return check.not(Degraded, refused).mend(grant(&missing, &facts.host));
    }
    if missing.is_empty() {
        return check;
    }
    // Since Linux 6.13 CAP_PERFMON alone shows the mappings, but not the files behind them.
    let names = missing.iter().map(Cap::to_string).collect::<Vec<_>>().join(" and ");
    check
        .not(
            Degraded,
            format!("mappings can be read, but {names} missing: binaries of other users may not open"),
        )
        .mend(grant(&missing, &facts.host))
}

pub(super) fn map_files(facts: &Facts) -> Check {
    let check = works("map-files", "deleted and replaced binaries", "/proc/PID/map_files can be opened").now(
        format!(
            "CAP_CHECKPOINT_RESTORE = {}, CAP_SYS_ADMIN = {}",
            yes_no(facts.host.caps.effective.has(Cap::CHECKPOINT_RESTORE)),
            yes_no(facts.host.caps.effective.has(Cap::SYS_ADMIN)),
        ),
    );
    match facts.tried.map_files {
        Ok(()) => check,
        Err(errno) => {
            // proc_map_files_get_link asked for CAP_SYS_ADMIN before Linux 5.9 (12886f8ab10c).
            let split = facts.host.uname.version().is_none_or(|v| v >= kernel::Version::new(5, 9, 0));
            let cap = if split { Cap::CHECKPOINT_RESTORE } else { Cap::SYS_ADMIN };
            let check = check.not(
                Degraded,
                format!(
                    "/proc/PID/map_files cannot be opened, {}: functions of deleted binaries have no names",
                    words(errno)
                ),
            );
            if facts.host.caps.allows(cap) { check } else { check.mend(grant(&[cap], &facts.host)) }
        }
    }
}

pub(super) fn tracefs(facts: &Facts) -> Check {
    const WITHOUT: &str = "no event `tracepoint:...` and no list of them; nothing else needs it";
    let check = works("tracefs", "tracepoints by name (`-e tracepoint:...`)", "their formats can be read");
    match &facts.tracefs {
        Some((Some(dir), true)) => check.now(format!("tracefs is mounted on {}", dir.display())),
        Some((None, true)) => check.now("tracefs is not mounted; it is opened without"),
        Some((_, false)) => check
            .not(Degraded, format!("the events of tracefs cannot be read: {WITHOUT}"))
            .mend(grant(&[Cap::DAC_READ_SEARCH], &facts.host)),
        None => check
            .not(Degraded, format!("tracefs is not mounted, and cannot be opened without: {WITHOUT}"))
            .mend(["sudo mount -t tracefs tracefs /sys/kernel/tracing".to_owned()]),
    }
}

pub(super) fn uprobes(facts: &Facts) -> Check {
    let check = works(
        "uprobes",
        "places in user code (`-e uprobe:...`, `usdt`, `uspan`, `java`)",
        "perf knows uprobes",
    );
    match facts.tried.user_code {
        Ok(()) => check,
        Err(_) => check.not(
            Unavailable,
            "this kernel was built without uprobes (CONFIG_UPROBE_EVENTS): no events `uprobe:...`, `uretprobe:...`, \
             `usdt:...`, `uspan:...`, `java:...`",
        ),
    }
}

pub(super) fn kprobes(facts: &Facts) -> Check {
    const WITHOUT: &str = "no events `kprobe:...`, `kretprobe:...`; nothing else needs it";
    let check = works("kprobes", "places in the kernel's code (`-e kprobe:...`)", "perf knows kprobes");
    match facts.tried.kernel_code {
        Ok(()) => check,
        Err(Errno::NOENT) => check
            .not(Degraded, format!("this kernel was built without kprobes (CONFIG_KPROBE_EVENTS): {WITHOUT}"))
            .mend(["use a kernel built with CONFIG_KPROBES=y and CONFIG_KPROBE_EVENTS=y, or tracepoints"
                .to_owned()]),
        Err(errno) => {
            check.not(Degraded, format!("perf's event source cannot be read, {}: {WITHOUT}", words(errno)))
        }
    }
}

pub(super) fn bpffs(facts: &Facts) -> Check {
    let check = works("bpffs", "bpffs", "mounted");
    match &facts.bpffs {
        Some(dir) => check.now(format!("mounted on {}", dir.display())),
        None => check
            .not(Degraded, "not mounted; nothing is pinned, so recording does not need it")
            .mend(["sudo mount -t bpf bpf /sys/fs/bpf".to_owned()]),
    }
}

pub(super) fn cgroup(facts: &Facts) -> Check {
    let check = works("cgroup", "choosing a cgroup (--cgroup)", "cgroup v2 is mounted")
        .now(format!("cgroups: {}", facts.cgroup.name()));
    match facts.cgroup {
        _ if facts.host.namespaces.initial_cgroup == Some(false) => check
            .not(Unavailable, "inside a cgroup namespace the host's hierarchy is not visible")
            .mend([on_the_host(facts, "--cgroupns=host", "privileged: true")]),
        Version::V2 | Version::Hybrid if facts.tried.cgroup_program.is_err() => check.not(
            Unavailable,
            if facts.tried.perf_program.is_err() {
                "no program can be loaded: see line `bpf`"
            } else {
                "the kernel was built without cgroups in tracing programs"
            },
        ),
        Version::V2 => check,
        Version::Hybrid => check.not(Degraded, "hybrid: only cgroups of the v2 hierarchy can be chosen"),
        Version::V1 | Version::NotMounted => check
            .not(Unavailable, "there is no v2 hierarchy, and only its cgroups can be chosen in the kernel")
            .mend(["sudo mkdir -p /run/cgroup2 && sudo mount -t cgroup2 none /run/cgroup2".to_owned()]),
    }
}

fn on_the_host(facts: &Facts, options: &str, pod: &str) -> String {
    container_start(&facts.host, options, pod)
        .unwrap_or_else(|| "run the profiler on the host itself".to_owned())
}

pub(super) fn pid_namespace(facts: &Facts) -> Check {
    let container = facts.host.namespaces.container.unwrap_or("none found");
    let check = works("pid-namespace", "choosing processes (-p)", "process ids are the host's")
        .now(format!("container: {container}"));
    match facts.host.namespaces.initial_pid {
        Some(true) => check,
        Some(false) => check
            .not(
                Unavailable,
                "in a pid namespace, whose ids are not the kernel's: -p and -- COMMAND would mean other processes",
            )
            .mend([on_the_host(facts, "--pid=host", "hostPID: true")]),
        None => check.not(Degraded, "not known: /proc/self/ns/pid cannot be read"),
    }
}
