//! The memory of another process, read from outside: bounded, a copy at a time, never written.
//!
//! The process runs on meanwhile. What is read can be gone or half changed, so whoever follows pointers through it
//! must be able to live with any value, and must check at the end that what it began with is still there.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
};

/// Granule of [`Pages`]; no architecture has smaller pages.
const PAGE: u64 = 4096;
/// Most pages held by [`Pages`]: 4 MiB, many times what the tables of a runtime have.
const MAX_PAGES: usize = 1024;

/// Memory that was asked for is not there, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory at {address:#x}")]
pub struct Unmapped {
    /// Where the read began.
    pub address: u64,
}

/// Memory that has absolute addresses.
pub trait Memory {
    /// Fills `buffer` from `address`, all of it or none counts.
    ///
    /// # Errors
    /// A part of the range is not mapped, or the process is gone.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped>;

    /// The `N` bytes at an address.
    ///
    /// # Errors
    /// As `read`.
    fn array<const N: usize>(&self, address: u64) -> Result<[u8; N], Unmapped> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The byte at an address.
    ///
    /// # Errors
    /// As `read`.
    fn u8(&self, address: u64) -> Result<u8, Unmapped> {
        Ok(self.array::<1>(address)?[0])
    }

    /// The number of 32 bits at an address, in this machine's byte order.
    ///
    /// # Errors
    /// As `read`.
    fn u32(&self, address: u64) -> Result<u32, Unmapped> {
        Ok(u32::from_ne_bytes(self.array(address)?))
    }

    /// The number of 64 bits, or the pointer, at an address.
    ///
    /// # Errors
    /// As `read`.
    fn u64(&self, address: u64) -> Result<u64, Unmapped> {
        Ok(u64::from_ne_bytes(self.array(address)?))
    }

    /// `len` bytes. The caller bounds `len`.
    ///
    /// # Errors
    /// As `read`.
    fn bytes(&self, address: u64, len: usize) -> Result<Vec<u8>, Unmapped> {
        let mut bytes = vec![0; len];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes before the first NUL, at most `max`. What is longer is cut.
    ///
    /// # Errors
    /// Memory ends before the string does.
    fn c_string(&self, address: u64, max: usize) -> Result<Vec<u8>, Unmapped> {
        const STEP: u64 = 64;
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < max {
            // Up to the next multiple, so that no read passes the page on which the string may end.
            let len = (STEP - at % STEP) as usize;
            let mut piece = [0; STEP as usize];
            self.read(at, &mut piece[..len])?;
            if let Some(end) = piece[..len].iter().position(|&byte| byte == 0) {
                text.extend_from_slice(&piece[..end]);
                break;
            }
            text.extend_from_slice(&piece[..len]);
            at = at.checked_add(len as u64).ok_or(Unmapped { address })?;
        }
        text.truncate(max);
        Ok(text)
    }
}

/// The memory of a process (/proc/PID/mem; mem_rw in fs/proc/base.c).
///
/// The open file belongs to the program image that was there when it was opened: after an `execve` or the end of the
/// process reads fail, they never show what has the same process id later.
#[derive(Debug)]
pub struct ProcessMemory {
    file: File,
}

impl ProcessMemory {
    /// Opens the memory of a process for reading.
    ///
    /// # Errors
    /// No such process, or no right to trace it (`PTRACE_MODE_ATTACH`).
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/mem"))? })
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        // Offsets from 2^63 up are no file positions; user memory has no such address.
        let is_user = i64::try_from(address).is_ok();
        if !is_user || self.file.read_exact_at(buffer, address).is_err() {
            return Err(Unmapped { address });
        }
        Ok(())
    }
}

/// Memory that does not change while it is looked at, read a page at a time: for tables with many small pieces.
#[derive(Debug)]
pub struct Pages<'a, M> {
    memory: &'a M,
    held: RefCell<HashMap<u64, Box<[u8]>>>,
}

impl<'a, M: Memory> Pages<'a, M> {
    /// Holds nothing yet.
    pub fn new(memory: &'a M) -> Self {
        Self { memory, held: RefCell::default() }
    }
}

impl<M: Memory> Memory for Pages<'_, M> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        let mut held = self.held.borrow_mut();
        let mut done = 0;
        while done < buffer.len() {
            let at = address.checked_add(done as u64).ok_or(Unmapped { address })?;
            let (page, offset) = (at / PAGE, (at % PAGE) as usize);
            if held.len() >= MAX_PAGES && !held.contains_key(&page) {
                held.clear();
            }
            let bytes = match held.entry(page) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(self.memory.bytes(page * PAGE, PAGE as usize)?.into_boxed_slice())
                }
            };
            let len = (buffer.len() - done).min(bytes.len() - offset);
            buffer[done..done + len].copy_from_slice(&bytes[offset..offset + len]);
            done += len;
        }
        Ok(())
    }
}

/// Memory that may be read only so much of until it is allowed more: what a hostile process leads into costs no more.
#[derive(Debug)]
pub struct Bounded<M> {
    memory: M,
    left: Cell<u64>,
}

impl<M: Memory> Bounded<M> {
    /// What a read costs beside its bytes.
    const READ: u64 = 64;

    /// May be read `bytes` of.
    pub const fn new(memory: M, bytes: u64) -> Self {
        Self { memory, left: Cell::new(bytes) }
    }

    /// The memory itself.
    #[cfg(test)]
    pub const fn inner_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// May be read `bytes` of from now on.
    pub fn allow(&self, bytes: u64) {
        self.left.set(bytes);
    }
}

impl<M: Memory> Memory for Bounded<M> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        let cost = Self::READ + buffer.len() as u64;
        let left = self.left.get().checked_sub(cost).ok_or(Unmapped { address })?;
        self.left.set(left);
        self.memory.read(address, buffer)
    }
}

/// Pieces of memory made by a test, or copied from a process.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// By first address.
    pub pieces: std::collections::BTreeMap<u64, Vec<u8>>,
    /// Cost of what was read until now, as [`Bounded`] counts it.
    pub read: Cell<u64>,
}

#[cfg(test)]
impl Memory for Image {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        self.read.set(self.read.get() + Bounded::<Self>::READ + buffer.len() as u64);
        let (start, piece) = self.pieces.range(..=address).next_back().ok_or(Unmapped { address })?;
        let from = (address - start) as usize;
        let part = from.checked_add(buffer.len()).and_then(|end| piece.get(from..end));
        buffer.copy_from_slice(part.ok_or(Unmapped { address })?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessMemory {
        ProcessMemory::open(std::process::id()).unwrap()
    }

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_an_error() {
        let text = b"some text\0and more";
        let address = text.as_ptr() as u64;
        assert_eq!(own().c_string(address, 100).unwrap(), b"some text");
        assert_eq!(own().c_string(address, 4).unwrap(), b"some");
        assert_eq!(own().bytes(address, 18).unwrap(), text);
        let number = 0x1234_5678_9abc_def0u64;
        assert_eq!(own().u64(&raw const number as u64).unwrap(), number);
        for address in [0, 8, u64::MAX, u64::MAX - 7, 1 << 63, (1 << 47) - 1] {
            assert_eq!(own().u64(address), Err(Unmapped { address }));
        }
    }

    #[test]
    fn no_more_is_read_than_allowed() {
        let data = [7u8; 1000];
        let bounded = Bounded::new(own(), 3 * (64 + 10));
        let read = |len| bounded.bytes(data.as_ptr() as u64, len).is_ok();
        assert_eq!([read(10), read(10), read(11), read(10), read(1)], [true, true, false, true, false]);
        bounded.allow(64 + 1000);
        assert!(read(1000) && !read(0));
    }

    #[test]
    fn pages_show_the_same() {
        let data: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
        let memory = own();
        let pages = Pages::new(&memory);
        let address = data.as_ptr() as u64;
        for (from, len) in [(0, 1), (4000, 9000), (19_999, 1), (3, 8), (0, 20_000)] {
            assert_eq!(pages.bytes(address + from as u64, len).unwrap(), data[from..from + len]);
        }
        assert!(pages.u64(u64::MAX - 3).is_err() && pages.u8(0).is_err());
    }
}
