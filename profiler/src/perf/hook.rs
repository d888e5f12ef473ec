//! Programs at hooks that perf gives numbers, paths or names: tracepoints, places in user code and in the kernel's.
//!
//! An event of perf's stands for the hook. A program that is set for it runs at every hit on every CPU, whatever CPU the
//! event was opened for, and whether it counts or not (`perf_event_set_bpf_prog`, kernel/events/core.c).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
};

use perf_event_open_sys::{bindings::PERF_TYPE_TRACEPOINT, ioctls};

use super::sampler::{attr, check, open};
use crate::host::file;

/// What /sys says of perf's events in user code (Linux 4.17).
const UPROBES: &str = "/sys/bus/event_source/devices/uprobe";

/// A place in user code.
#[derive(Clone, Debug)]
pub struct UserCode {
    /// The file, as this process sees it.
    pub path: PathBuf,
    /// Where in the file, bytes.
    pub offset: u64,
    /// Where in the file a number of 16 bits is that the kernel raises by one in all processes, as long as the hook is there.
    pub semaphore: Option<u64>,
    /// Not when it is come to, but when the function that begins there returns.
    pub returns: bool,
}

/// What /sys says of perf's events in the kernel's code (Linux 4.17).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// A place in the kernel's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCode {
    /// The function.
    pub function: CString,
    /// How far into it, bytes.
    pub offset: u64,
    /// Not when it is come to, but when the function returns.
    pub returns: bool,
}

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

    /// A place in user code. Nothing runs at it yet.
    ///
    /// # Errors
    /// What perf_event_open(2) says: `EINVAL` and `ENOTSUPP` for code that the kernel cannot step over; those of reading what
    /// /sys says of uprobes; a semaphore that it has no room for.
    pub fn user_code(code: &UserCode, cpu: u32) -> io::Result<Self> {
        let path = CString::new(code.path.as_os_str().as_bytes())?;
        let mut attr = attr();
        attr.type_ = number(UPROBES, "type")? as u32;
        if code.returns {
            attr.config |= set(UPROBES, "retprobe", 1)?;
        }
        if let Some(offset) = code.semaphore {
            attr.config |= set(UPROBES, "ref_ctr_offset", offset)?;
        }
        attr.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
        attr.__bindgen_anon_4.probe_offset = code.offset;
        // The kernel has read the path when the call returns.
        Ok(Self(open(&mut attr, cpu)?))
    }

    /// A place in the kernel's code. Nothing runs at it yet.
    ///
    /// # Errors
    /// What perf_event_open(2) says: `ENOENT` for a function that is not there, `EADDRNOTAVAIL` if there are several of that
    /// name, `EINVAL` for code that the kernel does not let be hooked, `EILSEQ` where no instruction begins; those of reading
    /// what /sys says of kprobes.
    pub fn kernel_code(code: &KernelCode, cpu: u32) -> io::Result<Self> {
        let mut attr = attr();
        attr.type_ = number(KPROBES, "type")? as u32;
        if code.returns {
            attr.config |= set(KPROBES, "retprobe", 1)?;
        }
        attr.__bindgen_anon_3.kprobe_func = code.function.as_ptr() as u64;
        attr.__bindgen_anon_4.probe_offset = code.offset;
        // The kernel has read the name when the call returns.
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

/// Whether the kernel has events in user code.
///
/// # Errors
/// Those of reading what /sys says of them.
pub fn has_user_code() -> io::Result<()> {
    number(UPROBES, "type").map(drop)
}

/// Whether the kernel has events in its own code.
///
/// # Errors
/// Those of reading what /sys says of them.
pub fn has_kernel_code() -> io::Result<()> {
    number(KPROBES, "type").map(drop)
}

fn number(device: &str, name: &str) -> io::Result<u64> {
    let text = file::read_text(format!("{device}/{name}"), file::SMALL)?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{device}/{name}: {text:?}")))
}

/// `perf_event_attr.config` with a member of it set, whose bits /sys has.
fn set(device: &str, name: &str, value: u64) -> io::Result<u64> {
    let path = format!("{device}/format/{name}");
    let text = file::read_text(&path, file::SMALL).map_err(|error| {
        io::Error::new(error.kind(), format!("this kernel's perf has no `{name}`: {error}"))
    })?;
    let bits =
        bits(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {text:?}")))?;
    placed(value, bits).ok_or_else(|| {
        let message = format!("{name} {value:#x} does not fit into perf's {} bits", bits.1 - bits.0 + 1);
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

/// The first and the last bit of a member of `perf_event_attr.config`: `config:0`, `config:32-63`.
fn bits(text: &str) -> Option<(u32, u32)> {
    let bits = text.trim().strip_prefix("config:")?;
    let (first, last) = bits.split_once('-').unwrap_or((bits, bits));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < 64).then_some((first, last))
}

/// The value at these bits; `None` if it has more.
fn placed(value: u64, (first, last): (u32, u32)) -> Option<u64> {
    let placed = value << first;
    (value <= u64::MAX >> (63 - (last - first)) && placed >> first == value).then_some(placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_as_the_kernel_writes_them() {
        assert_eq!([bits("config:0\n"), bits("config:32-63\n")], [Some((0, 0)), Some((32, 63))]);
        assert_eq!([bits("config1:0"), bits("config:64"), bits(""), bits("config:3-2")], [None; 4]);
    }

    #[test]
    fn a_value_has_no_more_bits_than_there_are() {
        assert_eq!((placed(1, (0, 0)), placed(2, (0, 0))), (Some(1), None));
        assert_eq!(placed(0xffff_fffe, (32, 63)), Some(0xffff_fffe_0000_0000));
        assert_eq!(placed(1 << 32, (32, 63)), None);
        assert_eq!(placed(u64::MAX, (0, 63)), Some(u64::MAX));
    }
}
