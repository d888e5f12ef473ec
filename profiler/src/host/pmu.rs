//! What perf_event_open(2) allows here: found by opening events and closing them again.
//!
//! A virtual machine often has no performance counters, and what is allowed depends on the kernel, its sysctls, LSMs
//! and seccomp: no file tells it all.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use perf_event_open_sys::{
    bindings::{
        PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_DUMMY, PERF_FLAG_FD_CLOEXEC,
        PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE, perf_event_attr,
    },
    ioctls, perf_event_open,
};
use rustix::io::Errno;

/// An event to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Samples by the hardware's cycle counter.
    Cycles,
    /// Samples by a timer.
    CpuClock,
    /// The side band: exec, mmap, fork and comm records of all processes.
    ProcessEvents,
    /// The same, with the build id of the file in its mmap records.
    ProcessEventsBuildId,
}

/// Whose events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything on one CPU, as a recording opens it.
    Cpu(u32),
    /// This thread, on any CPU.
    Own,
}

/// Opens the event, disabled.
///
/// # Errors
/// That of perf_event_open(2): EACCES or EPERM by `kernel.perf_event_paranoid`, ENOENT without a PMU, EOPNOTSUPP if it
/// cannot sample, ENOSYS without perf.
pub fn open(event: Event, scope: Scope) -> Result<OwnedFd, Errno> {
    let mut attr = perf_event_attr::default();
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.set_disabled(1);
    match event {
        Event::Cycles => {
            attr.type_ = PERF_TYPE_HARDWARE;
            attr.config = u64::from(PERF_COUNT_HW_CPU_CYCLES);
        }
        Event::CpuClock => {
            attr.type_ = PERF_TYPE_SOFTWARE;
            attr.config = u64::from(PERF_COUNT_SW_CPU_CLOCK);
        }
        Event::ProcessEvents | Event::ProcessEventsBuildId => {
            attr.type_ = PERF_TYPE_SOFTWARE;
            attr.config = u64::from(PERF_COUNT_SW_DUMMY);
            attr.set_task(1);
            attr.set_comm(1);
            attr.set_mmap(1);
            attr.set_mmap2(1);
            attr.set_build_id(u64::from(event == Event::ProcessEventsBuildId));
        }
    }
    if matches!(event, Event::Cycles | Event::CpuClock) {
        // As in a recording: an event that can count but not interrupt is of no use.
        attr.set_freq(1);
        attr.sample_freq = 99;
    }
    let (pid, cpu) = match scope {
        Scope::Cpu(cpu) => (-1, i32::try_from(cpu).map_err(|_| Errno::INVAL)?),
        Scope::Own => (0, -1),
    };
    // SAFETY: `attr` is a whole perf_event_attr of the size it states and outlives the call; no group leader.
    let fd = unsafe { perf_event_open(&mut attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC.into()) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call has just returned this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches an eBPF program of type perf_event to an event, as a recording does.
///
/// # Errors
/// That of PERF_EVENT_IOC_SET_BPF.
pub fn attach(event: &OwnedFd, program: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: both descriptors are open for the time of the call, which takes its own reference of the program.
    let result = unsafe { ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd() as u32) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

pub(super) fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_does_not_exist_is_refused() {
        let error = open(Event::CpuClock, Scope::Cpu(1 << 15)).unwrap_err();
        // Unprivileged, the permission is checked first.
        assert!(matches!(error, Errno::INVAL | Errno::NODEV | Errno::ACCESS | Errno::PERM), "{error}");
        assert_eq!(open(Event::CpuClock, Scope::Cpu(u32::MAX)).unwrap_err(), Errno::INVAL);
    }
}
