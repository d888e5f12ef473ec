//! The facts that the report judges: what is read ([`Host`]) and what is tried ([`Tried`]).

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{
    net, packets, sched, syscalls,
    walk::{self, Walk},
};
use crate::{
    host::{
        bpf::{self, Map, Program},
        btf,
        caps::Capabilities,
        cgroup, cpus,
        features::{FEATURES, Feature, OTHERS},
        file, fs,
        kernel::{self, Lockdown, Uname},
        limits::{Limits, ResourceLimit},
        namespaces::Namespaces,
        pmu::{self, Event, Scope},
        symbols::{self, Visibility},
        tracefs::Tracefs,
    },
    perf::hook,
};

/// The result of trying something.
pub type Try = Result<(), Errno>;

/// What can be read about the host and this process. Cheap: a few small files.
#[derive(Clone, Debug)]
pub struct Host {
    /// Release, machine, host name.
    pub uname: Uname,
    /// Lockdown, if the kernel tells.
    pub lockdown: Option<Lockdown>,
    /// Boot parameters that limit a profiler.
    pub boot_parameters: Vec<String>,
    /// This process's capabilities.
    pub caps: Capabilities,
    /// A seccomp filter is active.
    pub seccomp: bool,
    /// sysctls.
    pub limits: Limits,
    /// RLIMIT_NOFILE.
    pub open_files: ResourceLimit,
    /// RLIMIT_MEMLOCK.
    pub locked_memory: ResourceLimit,
    /// Namespaces and container.
    pub namespaces: Namespaces,
    /// Online CPUs.
    pub cpus: u32,
    /// This executable, for the commands that mend.
    pub executable: PathBuf,
}

impl Host {
    /// Reads them.
    pub fn read() -> Self {
        let status = file::read_text("/proc/self/status", file::SMALL).unwrap_or_default();
        Self {
            uname: Uname::read(),
            lockdown: Lockdown::read(),
            boot_parameters: kernel::boot_parameters(),
            caps: Capabilities::parse(&status).unwrap_or_default(),
            seccomp: file::field(&status, "Seccomp").is_some_and(|mode| mode != "0"),
            limits: Limits::read(),
            open_files: ResourceLimit::open_files(),
            locked_memory: ResourceLimit::locked_memory(),
            namespaces: Namespaces::read(),
            cpus: u32::try_from(cpus::online().len()).unwrap_or(u32::MAX),
            executable: std::env::current_exe().unwrap_or_else(|_| "profiler".into()),
        }
    }
}

/// What was tried. Everything that was made is closed again.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Offsets in `task_struct`; the reason in words if not.
    pub task_offsets: Result<(), String>,
    /// Maps: per-CPU array and array of maps (the two generations).
    pub maps: Try,
    /// A ring buffer map.
    pub ring_buffer: Try,
    /// A program of type perf_event that captures a stack.
    pub perf_program: Try,
    /// A program that reads kernel memory.
    pub kernel_reads: Try,
    /// A program that asks for the current task's cgroup.
    pub cgroup_program: Try,
    /// A timer event on a CPU.
    pub cpu_clock: Try,
    /// The program attached to the timer event. The first failure of the two if one of them could not be made.
    pub sampling: Try,
    /// The side band on a CPU.
    pub process_events: Try,
    /// The cycle counter on a CPU.
    pub cycles: Try,
    /// A program on the fork tracepoint.
    pub fork_tracepoint: Try,
    /// Measurement of the programs' run time.
    pub stats: Try,
    /// Kernel symbol addresses are shown; `Err`: /proc/kallsyms cannot be read.
    pub kernel_addresses: Result<bool, Errno>,
    /// Other processes.
    pub visibility: Visibility,
    /// Files behind /proc/self/map_files.
    pub map_files: Try,
    /// Kernel features that have a fallback.
    pub features: Vec<(Feature, Try)>,
    /// Other features of newer kernels, by name.
    pub other_features: Vec<(&'static str, Try)>,
    /// The walk of user stacks by unwind tables; the reason in words if not.
    pub walk: Result<Walk, String>,
    /// The accounting of threads; what is missing of it, or the reason in words if it cannot be done.
    pub sched: Result<Vec<String>, String>,
    /// The accounting of system calls; the reason in words if it cannot be done.
    pub syscalls: Result<(), String>,
    /// Accounting of sockets.
    pub net: Result<(), String>,
    /// What the network does; what is missing of it, or the reason in words if it cannot be told.
    pub packets: Result<Vec<String>, String>,
    /// Whether perf knows uprobes.
    pub user_code: Try,
    /// Whether perf knows kprobes.
    pub kernel_code: Try,
}

impl Tried {
    fn all(btf_path: &Path) -> Self {
        let first_cpu = cpus::online().first().copied().unwrap_or(0);
        let cpu = Scope::Cpu(first_cpu);
        let io = |result: std::io::Result<()>| {
            result.map_err(|e| Errno::from_raw_os_error(e.raw_os_error().unwrap_or(libc::ENOENT)))
        };
        let program = bpf::load(Program::PerfEventStack);
        let clock = pmu::open(Event::CpuClock, cpu);
        let sampling = match (&clock, &program) {
            (Ok(clock), Ok(program)) => pmu::attach(clock, program),
            (Err(error), _) | (_, Err(error)) => Err(*error),
        };
        Self {
            task_offsets: btf::task_offsets(btf_path).map(drop).map_err(|error| error.to_string()),
            maps: bpf::create_map(Map::PerCpuArray).and_then(|_| bpf::create_map(Map::ArrayOfMaps)).map(drop),
            ring_buffer: bpf::create_map(Map::RingBuffer).map(drop),
            perf_program: program.map(drop),
            kernel_reads: bpf::load(Program::PerfEventReadKernel).map(drop),
            cgroup_program: bpf::load(Program::PerfEventCgroup).map(drop),
            cpu_clock: clock.map(drop),
            sampling,
            process_events: pmu::open(Event::ProcessEvents, cpu).map(drop),
            cycles: pmu::open(Event::Cycles, cpu).map(drop),
            fork_tracepoint: bpf::load(Program::RawTracepoint)
                .and_then(|p| bpf::attach_raw_tracepoint(&p, c"sched_process_fork"))
                .map(drop),
            stats: bpf::enable_stats().map(drop),
            kernel_addresses: symbols::kernel_addresses_visible()
                .map_err(|e| Errno::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO))),
            visibility: symbols::visibility(),
            map_files: io(symbols::map_files_open()),
            features: FEATURES.iter().map(|spec| (spec.feature, spec.feature.detect(first_cpu))).collect(),
            other_features: OTHERS.iter().map(|other| (other.name, (other.detect)())).collect(),
            walk: walk::attempt(btf_path),
            sched: sched::attempt(btf_path),
            syscalls: syscalls::attempt(btf_path),
            net: net::attempt(btf_path),
            packets: packets::attempt(btf_path),
            user_code: io(hook::has_user_code()),
            kernel_code: io(hook::has_kernel_code()),
        }
    }

    /// Whether that feature is there.
    pub fn feature(&self, feature: Feature) -> Try {
        let found = self.features.iter().find(|(tried, _)| *tried == feature);
        found.map_or(Err(Errno::NOSYS), |(_, result)| *result)
    }
}

/// Everything the report judges.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What was read.
    pub host: Host,
    /// What was tried.
    pub tried: Tried,
    /// Where tracefs is mounted (`None`: nowhere, but it can be opened), and whether its events can be read.
    pub tracefs: Option<(Option<PathBuf>, bool)>,
    /// Where bpffs is mounted.
    pub bpffs: Option<PathBuf>,
    /// cgroup hierarchies.
    pub cgroup: cgroup::Version,
}

impl Facts {
    /// Gathers them; BTF is read from `btf_path` or the running kernel's place.
    pub fn gather(btf_path: Option<&Path>) -> Self {
        let mounts = fs::mounts();
        let point = |fs_type| fs::find(&mounts, fs_type).map(|mount| mount.point.clone());
        Self {
            host: Host::read(),
            tried: Tried::all(btf_path.unwrap_or(Path::new(btf::VMLINUX))),
            tracefs: Tracefs::open().ok().map(|tracefs| {
                (point("tracefs"), tracefs.names("sched").is_ok_and(|names| !names.is_empty()))
            }),
            bpffs: point("bpf"),
            cgroup: cgroup::Version::of(&mounts),
        }
    }
}
