//! One function per line of the report: pure judgement of [`Facts`].
//!
//! Here: what recording itself needs. [`accounting`] judges what accounts need, [`names`] what naming and what the
//! surroundings need, [`features`] what newer kernels have.

mod accounting;
mod features;
mod names;

use rustix::io::Errno;

use super::{
    Check, Status,
    explain::{self, Op, WANTED, explain, shown},
    facts::{Facts, Try},
};
use crate::host::{caps::Cap, kernel::FLOOR};

use Status::{Degraded, Unavailable, Works};

/// Samples per second and CPU that should be possible: the finest rate that the documents use.
const WANTED_RATE_HZ: i64 = 999;

/// All lines, in the order of the report: what recording cannot do without, what it loses without, the surroundings.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    [
        kernel,
        bpf,
        perf_events,
        capabilities,
        pmu,
        process_events,
        btf,
        unwind_tables,
        accounting::scheduler,
        accounting::syscalls,
        accounting::net,
        accounting::packets,
        children,
        perf_paranoid,
        sample_rate,
        lockdown,
        rlimits,
        bpf_stats,
        kernel_log,
        names::kernel_symbols,
        names::other_processes,
        names::map_files,
        names::tracefs,
        names::uprobes,
        names::kprobes,
        names::bpffs,
        names::cgroup,
        names::pid_namespace,
        features::list,
    ]
    .map(|row| row(facts))
    .into_iter()
    .chain(features::with_fallback(facts))
    .collect()
}

/// A line that works.
fn works(id: &'static str, feature: &'static str, reason: impl Into<String>) -> Check {
    Check { id, feature, status: Works, reason: reason.into(), mend: Vec::new(), current: String::new() }
}

impl Check {
    fn not(self, status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), ..self }
    }

    fn mend(self, commands: impl IntoIterator<Item = String>) -> Self {
        Self { mend: commands.into_iter().collect(), ..self }
    }

    fn now(self, current: impl Into<String>) -> Self {
        Self { current: current.into(), ..self }
    }
}

/// What a failed attempt means: the explanation's text; if privilege is missing, how to get it.
fn failed(check: Check, status: Status, op: Op, errno: Errno, caps: &[Cap], facts: &Facts) -> Check {
    let missing: Vec<Cap> = caps.iter().copied().filter(|&cap| !facts.host.caps.allows(cap)).collect();
    let denied = matches!(errno, Errno::PERM | Errno::ACCESS);
    if denied && !missing.is_empty() {
        let names = missing.iter().map(Cap::to_string).collect::<Vec<_>>().join(" and ");
        let reason = format!("not permitted: {names} missing");
        return check.not(status, reason).mend(explain::grant(&missing, &facts.host));
    }
    check.not(status, explain(op, errno.raw_os_error(), &facts.host).text)
}

/// The first failure of several attempts.
fn first_failure(tries: &[(Op, Try)]) -> Option<(Op, Errno)> {
    tries.iter().find_map(|&(op, result)| result.err().map(|errno| (op, errno)))
}

fn kernel(facts: &Facts) -> Check {
    let release = &facts.host.uname.release;
    let check = works("kernel", "kernel version", format!("{release} (needed: {FLOOR} or newer)"));
    let check = if facts.host.boot_parameters.is_empty() {
        check.now(format!("release {release}"))
    } else {
        check.now(format!("release {release}, booted with {}", facts.host.boot_parameters.join(" ")))
    };
    match facts.host.uname.version() {
        Some(version) if version >= FLOOR => check,
        Some(_) => check
            .not(
                Unavailable,
                format!("kernel {release} is older than {FLOOR}, which has ring buffers and CAP_BPF"),
            )
            .mend(["install a newer kernel".to_owned()]),
        None => check
            .not(Degraded, "the release is not a version number; everything below was tried all the same"),
    }
}

fn bpf(facts: &Facts) -> Check {
    let (host, tried) = (&facts.host, &facts.tried);
    let check = works("bpf", "eBPF programs and maps", "a program and its maps were made and removed").now(format!(
        "kernel.unprivileged_bpf_disabled = {}, net.core.bpf_jit_enable = {}, CAP_BPF = {}, CAP_PERFMON = {}",
        shown(host.limits.unprivileged_bpf_disabled),
        shown(host.limits.bpf_jit_enable),
        yes_no(host.caps.allows(Cap::BPF)),
        yes_no(host.caps.allows(Cap::PERFMON)),
    ));
    let tries = [(Op::MapCreate, tried.maps), (Op::ProgramLoad, tried.perf_program)];
    match first_failure(&tries) {
        Some((op, errno)) => failed(check, Unavailable, op, errno, &[Cap::BPF, Cap::PERFMON], facts),
        None if host.limits.bpf_jit_enable == Some(0) => check
            .not(Degraded, "programs are interpreted, which makes each sample several times dearer")
            .mend(["sudo sysctl net.core.bpf_jit_enable=1".to_owned()]),
        None => check,
    }
}

fn perf_events(facts: &Facts) -> Check {
    let (host, tried) = (&facts.host, &facts.tried);
    let check = works("perf-events", "timer samples (cpu-clock)", "a program ran on a CPU's timer event")
        .now(format!(
            "kernel.perf_event_paranoid = {}, CAP_PERFMON = {}",
            shown(host.limits.perf_event_paranoid),
            yes_no(host.caps.allows(Cap::PERFMON)),
        ));
    if let Err(errno) = tried.cpu_clock {
        return failed(check, Unavailable, Op::PerfEventOpen, errno, &[Cap::PERFMON], facts);
    }
    match (tried.perf_program, tried.sampling) {
        (Ok(()), Ok(())) => check,
        (Ok(()), Err(errno)) => {
            failed(check, Unavailable, Op::ProgramAttach, errno, &[Cap::BPF, Cap::PERFMON], facts)
        }
        (Err(_), _) => {
            check.not(Unavailable, "the event opens, but no program can run on it: see line `bpf`")
        }
    }
}

fn capabilities(facts: &Facts) -> Check {
    let has = |cap| facts.host.caps.allows(cap);
    let missing: Vec<(Cap, &str)> = WANTED.into_iter().filter(|&(cap, _)| !has(cap)).collect();
    let current = WANTED.map(|(cap, _)| format!("{cap} = {}", yes_no(has(cap)))).join(", ");
    let check = works("capabilities", "capabilities", "all that are of use are there").now(current);
    if facts.host.namespaces.initial_user == Some(false) {
        return check
            .not(Unavailable, "held in a user namespace, where they do not count for tracing")
            .mend(["run the profiler on the host itself, as root".to_owned()]);
    }
    if missing.is_empty() {
        return check;
    }
    let list = missing.iter().map(|(cap, use_)| format!("{cap} ({use_})")).collect::<Vec<_>>().join(", ");
    let essential = missing.iter().any(|&(cap, _)| matches!(cap, Cap::BPF | Cap::PERFMON));
    let status = if essential { Unavailable } else { Degraded };
    let caps: Vec<Cap> = missing.iter().map(|&(cap, _)| cap).collect();
    check.not(status, format!("missing: {list}")).mend(explain::grant(&caps, &facts.host))
}

fn pmu(facts: &Facts) -> Check {
    let check = works("pmu", "hardware cycle counter", "samples can be driven by CPU cycles");
    match facts.tried.cycles {
        Ok(()) => check,
        Err(errno @ (Errno::PERM | Errno::ACCESS)) => {
            let op = Op::PerfEventOpenHardware;
            failed(check, Degraded, op, errno, &[Cap::PERFMON], facts)
        }
        Err(errno) => check
            .not(
                Degraded,
                format!(
                    "no counter that can sample, {}: samples are driven by the cpu-clock timer",
                    words(errno)
                ),
            )
            .now("usual in virtual machines; the hypervisor would have to pass the counters through"),
    }
}

fn process_events(facts: &Facts) -> Check {
    let check =
        works("process-events", "process events", "exec, mmap, fork and exit of all processes are reported");
    match facts.tried.process_events {
        Ok(()) => check,
        Err(errno) => failed(check, Degraded, Op::PerfEventOpen, errno, &[Cap::PERFMON], facts),
    }
}

fn btf(facts: &Facts) -> Check {
    let check = works(
        "btf",
        "kernel type information (BTF)",
        "the members of `task_struct` that are needed are there",
    );
    match &facts.tried.task_offsets {
        Ok(()) => check,
        Err(reason) => check
            .not(
                Degraded,
                format!("{reason}; reused process ids are not told apart, children cannot be followed"),
            )
            .mend([
                "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (all large distributions' are)".to_owned()
            ]),
    }
}

fn unwind_tables(facts: &Facts) -> Check {
    let check = works(
        "unwind-tables",
        "whole user stacks without frame pointers",
        "user stacks are walked in the kernel by unwind tables",
    );
    match &facts.tried.walk {
        Ok(walk) => check.now(format!(
            "this program's own table has {} rows and was made in {:.1} ms",
            walk.rows,
            walk.table_us as f64 / 1000.0
        )),
        Err(_) if facts.tried.task_offsets.is_err() => check.not(
            Degraded,
            "needs the kernel's type information, see line `btf`: stacks are walked by frame pointers",
        ),
        Err(reason) => check.not(Degraded, format!("{reason}: user stacks are walked by frame pointers")),
    }
}

fn children(facts: &Facts) -> Check {
    let tried = &facts.tried;
    let check =
        works("children", "following children of -p and of a command", "forks are seen in the kernel");
    if tried.task_offsets.is_err() {
        return check.not(Unavailable, "needs the kernel's type information: see line `btf`");
    }
    let tries = [(Op::ProgramLoad, tried.kernel_reads), (Op::ProgramAttach, tried.fork_tracepoint)];
    match first_failure(&tries) {
        Some((op, errno)) => failed(check, Unavailable, op, errno, &[Cap::BPF, Cap::PERFMON], facts),
        None => check,
    }
}

fn perf_paranoid(facts: &Facts) -> Check {
    let level = shown(facts.host.limits.perf_event_paranoid);
    let check = works("perf-paranoid", "kernel.perf_event_paranoid", "does not apply to who has CAP_PERFMON")
        .now(format!("kernel.perf_event_paranoid = {level}"));
    if facts.host.caps.allows(Cap::PERFMON) {
        return check;
    }
    match facts.host.limits.perf_event_paranoid {
        None => check.not(
            Unavailable,
            "not readable: the kernel was built without perf events, or /proc is not mounted",
        ),
        Some(level) if level <= 0 => check.not(
            Degraded,
            "allows events on whole CPUs to anyone, but eBPF programs on them need CAP_PERFMON",
        ),
        Some(_) => check.not(Degraded, "forbids events on whole CPUs to who has no CAP_PERFMON"),
    }
}

fn sample_rate(facts: &Facts) -> Check {
    let limits = &facts.host.limits;
    let max = shown(limits.perf_event_max_sample_rate);
    let check = works("sample-rate", "highest sample rate", format!("up to {max} Hz per CPU")).now(format!(
        "kernel.perf_event_max_sample_rate = {max}, kernel.perf_cpu_time_max_percent = {}",
        shown(limits.perf_cpu_time_max_percent)
    ));
    match limits.perf_event_max_sample_rate {
        Some(rate) if rate < WANTED_RATE_HZ => check
            .not(Degraded, format!("only {rate} Hz: the kernel lowers the limit when samples take it long"))
            .mend(["sudo sysctl kernel.perf_event_max_sample_rate=100000".to_owned()]),
        Some(_) => check,
        None => check.not(Degraded, "the limit is not readable"),
    }
}

fn lockdown(facts: &Facts) -> Check {
    let state =
        facts.host.lockdown.map_or("not shown (no lockdown, or securityfs is not mounted)", |s| s.name());
    let check = works("lockdown", "reads of kernel memory (lockdown)", "programs may read kernel memory")
        .now(format!("/sys/kernel/security/lockdown: {state}"));
    match (facts.tried.perf_program, facts.tried.kernel_reads) {
        (_, Ok(())) => check,
        (Err(_), _) => check.not(Unavailable, "no program can be loaded: see line `bpf`"),
        (Ok(()), Err(errno)) => check
            .not(Degraded, format!(
                    "refused, {}, as by lockdown=confidentiality: reused process ids are not told apart, children \
                     cannot be followed",
                    words(errno)
                ))
            .mend(["boot with lockdown=integrity".to_owned()]),
    }
}

/// Open files that a recording needs: two events per CPU, a program and a dozen maps, and the symbol files it names from.
fn files_needed(cpus: u32) -> u64 {
    2 * u64::from(cpus) + 256
}

/// Bytes of maps that count against RLIMIT_MEMLOCK before Linux 5.11.
const MAPS_BYTES: u64 = 64 << 20;

fn rlimits(facts: &Facts) -> Check {
    let host = &facts.host;
    let need = files_needed(host.cpus);
    let amount = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    let check =
        works("rlimits", "resource limits", format!("{need} open files are enough for {} CPUs", host.cpus))
            .now(format!(
                "RLIMIT_NOFILE = {}, RLIMIT_MEMLOCK = {} bytes, kernel.perf_event_mlock_kb = {}",
                amount(host.open_files.soft),
                amount(host.locked_memory.soft),
                shown(host.limits.perf_event_mlock_kb),
            ));
    let memory_counts = host.uname.version().is_some_and(|v| v < crate::host::kernel::Version::new(5, 11, 0));
    if !host.open_files.allows(need) {
        check
            .not(Degraded, format!("about {need} open files are needed"))
            .mend(["ulimit -n 65536".to_owned()])
    } else if memory_counts && !host.locked_memory.allows(MAPS_BYTES) {
        check
            .not(Degraded, "before Linux 5.11 maps count against RLIMIT_MEMLOCK, which is small")
            .mend(["ulimit -l unlimited".to_owned()])
    } else {
        check
    }
}

fn bpf_stats(facts: &Facts) -> Check {
    let value = shown(facts.host.limits.bpf_stats_enabled);
    let check = works("bpf-stats", "run time of our eBPF programs", "measured while recording").now(format!(
        "kernel.bpf_stats_enabled = {value}, CAP_SYS_ADMIN = {}",
        yes_no(facts.host.caps.effective.has(Cap::SYS_ADMIN))
    ));
    match facts.tried.stats {
        Ok(()) => check,
        Err(_) if facts.host.limits.bpf_stats_enabled == Some(1) => check,
        Err(errno) => {
            let mut check = failed(check, Degraded, Op::EnableStats, errno, &[Cap::SYS_ADMIN], facts);
            check.mend.insert(0, "sudo sysctl kernel.bpf_stats_enabled=1".to_owned());
            check.reason.push_str("; the cost that a report states lacks the programs' own time");
            check
        }
    }
}

fn kernel_log(facts: &Facts) -> Check {
    let check = works(
        "kernel-log",
        "log of the kernel side (--log-level debug)",
        "a ring buffer was made and removed",
    );
    match facts.tried.ring_buffer {
        Ok(()) => check,
        Err(errno) => failed(check, Unavailable, Op::MapCreate, errno, &[Cap::BPF], facts),
    }
}

/// An error in words, with its name.
fn words(errno: Errno) -> String {
    explain::errno_words(errno.raw_os_error())
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}
