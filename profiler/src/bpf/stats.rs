//! Counters and the kernel side's own cost: per-CPU arrays, program run time, map memory.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray},
    sys::{Stats, enable_stats},
};

use super::{
    BpfError,
    map::{again, failed},
    runs::Runs,
};
use crate::host::file;

/// A per-CPU array of monotonic counters, read as sums over all CPUs.
pub struct Counters {
    name: &'static str,
    array: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// The array of that name. It stays in the object: several probes count in one.
    pub fn new(ebpf: &Ebpf, name: &'static str) -> Result<Self, BpfError> {
        let Some(Map::PerCpuArray(map)) = ebpf.map(name) else { return Err(BpfError::Missing(name)) };
        let array = Map::PerCpuArray(again(map, name)?).try_into().map_err(failed("open", name))?;
        Ok(Self { name, array })
    }

    /// The sum of one counter over all CPUs.
    pub fn sum(&self, index: u32) -> Result<u64, BpfError> {
        let values = self.array.get(&index, 0).map_err(failed("read", self.name))?;
        Ok(values.iter().sum())
    }
}

/// Run time and runs of all loaded programs, while this exists (`BPF_ENABLE_STATS`, Linux 5.8).
pub struct RunTime {
    _enabled: Option<OwnedFd>,
}

impl RunTime {
    /// Switches the accounting on. Without the permission to, the cost is reported as 0 and the second value says why.
    pub fn enable() -> (Self, Option<String>) {
        match enable_stats(Stats::RunTime) {
            Ok(fd) => (Self { _enabled: Some(fd) }, None),
            Err(error) => (
                Self { _enabled: None },
                Some(format!("eBPF run time is not measured: {}: {}", error.call, error.io_error)),
            ),
        }
    }

    /// The same if it is `asked` for; a reason why it cannot be goes to the notes.
    pub fn if_asked(asked: bool, notes: &mut Vec<String>) -> Option<Self> {
        let (run_time, note) = asked.then(Self::enable).unzip();
        notes.extend(note.flatten());
        run_time
    }

    /// Sum over the object's programs: (run time in ns, runs).
    pub fn read(&self, ebpf: &Ebpf) -> (u64, u64) {
        let all = Runs::sum(loaded(ebpf).map(runs_of));
        (all.ns, all.count)
    }
}

/// The object's loaded programs, to look at them while the object is in use.
pub fn programs(ebpf: &Ebpf) -> Vec<OwnedFd> {
    loaded(ebpf).filter_map(|fd| fd.try_clone_to_owned().ok()).collect()
}

fn loaded(ebpf: &Ebpf) -> impl Iterator<Item = BorrowedFd<'_>> {
    ebpf.programs().filter_map(|(_, program)| Some(program.fd().ok()?.as_fd()))
}

/// What the kernel counts of a program; 0 if it does not say.
pub fn runs_of(program: BorrowedFd<'_>) -> Runs {
    Runs::of(program).unwrap_or_default()
}

/// Runs of all loaded programs that the kernel left out because the same program was running on that CPU.
pub fn missed(ebpf: &Ebpf) -> u64 {
    Runs::sum(loaded(ebpf).map(runs_of)).missed
}

/// The same of one program.
pub fn missed_of(program: BorrowedFd<'_>) -> u64 {
    runs_of(program).missed
}

/// Kernel memory of one map in bytes (`memlock` of its fdinfo, bpf_map_show_fdinfo in kernel/bpf/syscall.c); 0 if the
/// kernel does not say.
pub fn map_memory(map: BorrowedFd<'_>) -> u64 {
    fdinfo(map, "memlock:")
}

/// The descriptor of a map, of the kinds whose memory counts.
pub fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    let data = match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::Queue(data)
        | Map::RingBuf(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd())
}

/// A number in what the kernel says of a descriptor; 0 if it does not.
fn fdinfo(fd: BorrowedFd<'_>, key: &str) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = file::read_text(path, file::SMALL).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
