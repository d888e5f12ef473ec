//! The set of target processes: user space puts in the first ones, the kernel side adds their children and removes what
//! is gone; this notices when none is left.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    BpfError,
    map::{failed, is_gone, take},
};

/// Processes that the set can hold. The kernel side declares the same number.
pub const MAX_TARGETS: u32 = 16384;

const NAME: &str = "TARGETS";

/// The set, and a handle on each process that user space put in.
pub struct Targets {
    map: HashMap<MapData, u32, u8>,
    watched: Vec<(u32, OwnedFd)>,
}

impl Targets {
    /// Takes the map out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        Ok(Self { map: take(ebpf, NAME)?, watched: Vec::new() })
    }

    /// Adds a process. One that is gone already is left out, and `false` says so.
    pub fn add(&mut self, pid: u32) -> Result<bool, BpfError> {
        if self.watched.iter().any(|(known, _)| *known == pid) {
            return Ok(true);
        }
        let Some(handle) = handle(pid) else { return Ok(false) };
        self.map.insert(pid, 1, 0).map_err(failed("add a process to", NAME))?;
        self.watched.push((pid, handle));
        Ok(true)
    }

    /// Adds those of some processes that are there.
    pub fn add_all(&mut self, pids: &[u32]) -> Result<(), BpfError> {
        pids.iter().try_for_each(|&pid| self.add(pid).map(drop))
    }

    /// Removes the watched processes that have ended (the kernel side does so only when it follows children) and tells
    /// whether any target is left. Of children the kernel side can miss the end: when none but they are left, they are looked
    /// for.
    pub fn any_left(&mut self) -> Result<bool, BpfError> {
        let mut ended = Vec::new();
        self.watched.retain(|(pid, handle)| {
            let gone = has_ended(handle.as_fd());
            ended.extend(gone.then_some(*pid));
            !gone
        });
        for pid in ended {
            self.remove(pid)?;
        }
        if !self.watched.is_empty() {
            return Ok(true);
        }
        let others: Vec<u32> = self.map.keys().filter_map(Result::ok).collect();
        for pid in others {
            if handle(pid).is_some_and(|handle| !has_ended(handle.as_fd())) {
                return Ok(true);
            }
            self.remove(pid)?;
        }
        Ok(false)
    }

    fn remove(&mut self, pid: u32) -> Result<(), BpfError> {
        match self.map.remove(&pid) {
            Ok(()) => Ok(()),
            // The kernel side may have been faster.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(failed("remove a process from", NAME)(error)),
        }
    }

    /// Kernel memory of the map, bytes.
    pub fn map_memory(&self) -> u64 {
        super::stats::map_memory(aya::maps::IterableMap::map(&self.map).fd().as_fd())
    }
}

/// A handle on a process, if there is one of that id.
fn handle(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}

/// A pidfd is readable once its process has ended, reaped or not.
fn has_ended(handle: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(handle, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
