//! Samples of the current task, counted by stack: what a count is keyed by, what is kept for it, and the programs of a
//! probe that takes them.

use crate::Comm;

/// Key of the counts map: who was hit, and where.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountKey {
    /// Process id in the initial pid namespace (`tgid`).
    pub pid: u32,
    /// Thread id in the initial pid namespace; 0 is a CPU's idle task.
    pub tid: u32,
    /// Tells processes apart that had the same id, and images that the same process executed: start time (ns since
    /// boot) + number of `execve`s. 0 where the kernel has no BTF. For an idle task: its CPU, so that no two CPUs ever
    /// write the same key.
    pub incarnation: u64,
    /// Name of the kernel stack, `EMPTY_STACK` for a sample that hit user mode.
    pub kernel_stack: u64,
    /// Name of the user stack, `EMPTY_STACK` for a kernel thread.
    pub user_stack: u64,
}

const _: () = assert!(size_of::<CountKey>() == 32);

/// Value of the counts map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountValue {
    /// Samples.
    pub count: u64,
    /// `CLOCK_MONOTONIC` of the first of them, ns, before its user stack was walked.
    pub first_ns: u64,
    /// The thread's command name at the first of them.
    pub comm: Comm,
}

const _: () = assert!(size_of::<CountValue>() == 32);

/// Index of a per-CPU counter of the probe (monotonic, never reset).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Times that the event hit (timer ticks, switches), whatever became of it.
    Hits = 0,
    /// Of these: rejected by the filter.
    Filtered = 1,
    /// Of these: hit the idle task (whether it is recorded or not).
    IdleTask = 2,
}

impl Seen {
    /// Number of counters.
    pub const COUNT: usize = 3;
}

/// The programs of a probe, by the names that they have in the object.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// What is attached.
    pub sample: &'static str,
    /// The program array through which a walk by tables goes on: [`WALK`] and [`COUNT`] are its indices.
    pub calls: &'static str,
    /// What walks.
    pub walk: &'static str,
    /// What counts a sample whose user stack has been walked.
    pub count: &'static str,
}

/// Index of the program that walks.
pub const WALK: u32 = 0;
/// Index of the program that counts what was walked.
pub const COUNT: u32 = 1;

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for CountKey {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for CountValue {}
