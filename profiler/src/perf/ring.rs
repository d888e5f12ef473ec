//! The ring buffer that perf_event_open(2) maps (`struct perf_event_mmap_page`, include/uapi/linux/perf_event.h).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use perf_event_open_sys::bindings::perf_event_mmap_page;

/// Bytes of a record header: type u32, misc u16, size u16.
const HEADER: usize = 8;

/// A mapped ring: one control page and a power of two of data pages.
pub struct Ring {
    map: NonNull<u8>,
    map_len: usize,
    data_len: usize,
    page: usize,
}

// SAFETY: the mapping is owned by this value alone and not tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of a perf event with at least `bytes` of data.
    pub fn map(event: &OwnedFd, bytes: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let data_len = bytes.div_ceil(page).next_power_of_two() * page;
        let map_len = page + data_len;
        // SAFETY: a new shared mapping of an open perf event; the kernel checks the length.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { map, map_len, data_len, page })
    }

    fn head(&self) -> &AtomicU64 {
        let control = self.map.as_ptr().cast::<perf_event_mmap_page>();
        // SAFETY: the control page is mapped as long as self, and data_head is an aligned u64 the kernel updates.
        unsafe { AtomicU64::from_ptr(&raw mut (*control).data_head) }
    }

    fn tail(&self) -> &AtomicU64 {
        let control = self.map.as_ptr().cast::<perf_event_mmap_page>();
        // SAFETY: as above; data_tail is ours to write.
        unsafe { AtomicU64::from_ptr(&raw mut (*control).data_tail) }
    }

    /// Hands every record in the ring, header included, to `each`, and frees it.
    pub fn read(&mut self, mut each: impl FnMut(&[u8])) {
        // The kernel writes data before data_head: acquire orders our reads of the data after this load.
        let head = self.head().load(Ordering::Acquire);
        let mut tail = self.tail().load(Ordering::Relaxed);
        let mut record = Vec::new();
        while head.wrapping_sub(tail) >= HEADER as u64 {
            self.copy(tail, HEADER, &mut record);
            let size = usize::from(u16::from_ne_bytes([record[6], record[7]]));
            if size < HEADER || size as u64 > head.wrapping_sub(tail) {
                // Cannot happen with the kernel as the writer; skip what is there rather than loop on it.
                tail = head;
                break;
            }
            self.copy(tail, size, &mut record);
            each(&record);
            tail = tail.wrapping_add(size as u64);
        }
        // Our reads must be over before the kernel may reuse the space.
        self.tail().store(tail, Ordering::Release);
    }

    fn copy(&self, from: u64, len: usize, into: &mut Vec<u8>) {
        into.clear();
        let start = (from % self.data_len as u64) as usize;
        let first = len.min(self.data_len - start);
        // SAFETY: both ranges lie inside the data area of the mapping; the kernel does not write between tail and head.
        unsafe {
            let data = self.map.as_ptr().add(self.page);
            into.extend_from_slice(std::slice::from_raw_parts(data.add(start), first));
            into.extend_from_slice(std::slice::from_raw_parts(data, len - first));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, with its length.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
    }
}
