//! Reading or draining a hash map in few system calls: `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_LOOKUP_AND_DELETE_BATCH`
//! (Linux 5.6), which aya does not wrap.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;

use super::BpfError;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;

/// Entries asked for in one call, at first; doubled when the kernel says that one bucket holds more.
const BATCH: usize = 256;

/// The kernel's limit on buckets that share one hash value in practice; beyond it something else is wrong.
const MAX_BATCH: usize = 1 << 20;

/// `union bpf_attr`, the part for batch commands.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<BatchAttr>() == 56);

/// Takes every entry out of a hash map. The map must be quiet (an old generation): entries that are inserted meanwhile
/// may or may not be seen.
pub fn drain<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    name: &'static str,
    each: impl FnMut(&K, &V),
) -> Result<(), BpfError> {
    walk(map, (BPF_MAP_LOOKUP_AND_DELETE_BATCH, "BPF_MAP_LOOKUP_AND_DELETE_BATCH"), name, each)
}

/// Reads every entry of a hash map and leaves it there. An entry may be changed while it is copied; entries that are
/// inserted or removed meanwhile may or may not be seen.
pub fn read<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    name: &'static str,
    each: impl FnMut(&K, &V),
) -> Result<(), BpfError> {
    walk(map, (BPF_MAP_LOOKUP_BATCH, "BPF_MAP_LOOKUP_BATCH"), name, each)
}

fn walk<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    (command, command_name): (libc::c_long, &'static str),
    name: &'static str,
    mut each: impl FnMut(&K, &V),
) -> Result<(), BpfError> {
    let mut capacity = BATCH;
    let mut keys = buffer::<K>(capacity);
    let mut values = buffer::<V>(capacity);
    // The cursor is opaque: for hash maps a u32 bucket number.
    let (mut cursor, mut next, mut first) = (0u64, 0u64, true);
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { (&raw const cursor) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity as u32,
            map_fd: map.as_raw_fd() as u32,
            ..Default::default()
        };
        // SAFETY: attr is a valid bpf_attr of the given size, and its pointers are to buffers of `count` entries of the
        // map's key and value size (K and V are what the map was made with) that outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<BatchAttr>()) };
        let errno = if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 };
        match errno {
            0 | libc::ENOENT => {}
            // One bucket holds more entries than the buffers: nothing was taken out.
            libc::ENOSPC if capacity < MAX_BATCH => {
                capacity *= 2;
                keys = buffer(capacity);
                values = buffer(capacity);
                continue;
            }
            libc::EINTR => continue,
            _ => {
                let source = io::Error::from_raw_os_error(errno);
                return Err(BpfError::Call { command: command_name, map: name, source });
            }
        }
        let count = (attr.count as usize).min(capacity);
        for i in 0..count {
            // SAFETY: the kernel filled the first `count` entries of both buffers, and every bit pattern of a Pod is
            // valid.
            unsafe { each(keys[i].assume_init_ref(), values[i].assume_init_ref()) };
        }
        if errno == libc::ENOENT {
            return Ok(());
        }
        (cursor, first) = (next, false);
    }
}

fn buffer<T: Pod>(len: usize) -> Vec<MaybeUninit<T>> {
    let mut buffer = Vec::with_capacity(len);
    buffer.resize_with(len, MaybeUninit::uninit);
    buffer
}
