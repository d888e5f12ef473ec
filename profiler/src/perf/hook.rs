//! Programs at hooks that perf gives numbers or paths: tracepoints.
//!
//! An event of perf's stands for the hook. A program that is set for it runs at every hit on every CPU, whatever CPU the
//! event was opened for, and whether it counts or not (`perf_event_set_bpf_prog`, kernel/events/core.c).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use perf_event_open_sys::{bindings::PERF_TYPE_TRACEPOINT, ioctls};

use super::sampler::{attr, check, open};

/// A program at a hook. Dropped, it is taken away; it may then still be running.
pub struct Hook(OwnedFd);

impl Hook {
    /// A tracepoint, by its id. Nothing runs at it yet.
    ///
    /// # Errors
    /// What perf_event_open(2) says.
    pub fn tracepoint(id: u64, cpu: u32) -> io::Result<Self> {
        let mut attr = attr();
        (attr.type_, attr.config) = (PERF_TYPE_TRACEPOINT, id);
        Ok(Self(open(&mut attr, cpu)?))
    }

    /// From now on the program runs at each hit.
    ///
    /// # Errors
    /// What PERF_EVENT_IOC_SET_BPF says: E2BIG if too many programs are there already.
    pub fn set(&self, program: impl AsFd) -> io::Result<()> {
        // SAFETY: both are open descriptors; the ioctl takes the program's number by value.
        check(unsafe { ioctls::SET_BPF(self.0.as_raw_fd(), program.as_fd().as_raw_fd() as u32) })
    }
}
