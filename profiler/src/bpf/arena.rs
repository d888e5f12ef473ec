//! An arena's chunks, user side (`profiler_common::unwind::map`): arrays in the slots of a map of maps, written through
//! `mmap` without a system call.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, ArrayOfMaps, IterableMap as _, MapData},
};
use profiler_common::unwind::map;

use super::{BpfError, inner};

/// `BPF_F_MMAPABLE`, include/uapi/linux/bpf.h (Linux 5.5).
const MMAPABLE: u32 = 1 << 10;

/// The memory of an array map, shared with the kernel side. `T` are the array's values, or equal parts of them.
pub struct Shared<T> {
    start: NonNull<T>,
    len: usize,
    _values: PhantomData<T>,
}

// SAFETY: the mapping is owned by this value alone and not tied to a thread.
unsafe impl<T: Pod> Send for Shared<T> {}

impl<T: Pod> Shared<T> {
    /// Maps the memory of an array that was made with `BPF_F_MMAPABLE` and has room for `len` of `T`.
    pub fn map(array: BorrowedFd<'_>, name: &'static str, len: usize) -> Result<Self, BpfError> {
        // SAFETY: a new shared mapping of an open map; the kernel checks the length against the array's size.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                array.as_raw_fd(),
                0,
            )
        };
        let failed = |source| BpfError::Call { command: "mmap", map: name, source };
        if start == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
        Ok(Self { start, len, _values: PhantomData })
    }

    /// How many values there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes one value.
    ///
    /// # Panics
    /// If it is outside.
    pub fn set(&mut self, at: usize, value: T) {
        assert!(at < self.len, "write past the end of an array");
        // SAFETY: inside the mapping, aligned as its start (a page) is; volatile because programs read it meanwhile.
        unsafe { self.start.as_ptr().add(at).write_volatile(value) };
    }

    /// Reads one value.
    ///
    /// # Panics
    /// If it is outside.
    pub fn get(&self, at: usize) -> T {
        assert!(at < self.len, "read past the end of an array");
        // SAFETY: as in `set`; every bit pattern of a Pod is valid.
        unsafe { self.start.as_ptr().add(at).read_volatile() }
    }

    /// Writes values from `at` on. No program may be reading them.
    ///
    /// # Panics
    /// If they end outside.
    pub fn write(&mut self, at: usize, values: &[T]) {
        assert!(
            at.checked_add(values.len()).is_some_and(|end| end <= self.len),
            "write past the end of an array"
        );
        // SAFETY: inside the mapping; the source is ordinary memory of ours.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), self.start.as_ptr().add(at), values.len()) };
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, with its length.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

/// The chunks of an arena of `T`, in a map whose arrays have values `V`.
pub struct Chunks<V: Pod, T> {
    name: &'static str,
    shape: map::Arena,
    slots: ArrayOfMaps<MapData, Array<MapData, V>>,
    chunks: Vec<(Array<MapData, V>, Shared<T>)>,
}

impl<V: Pod, T: Pod> Chunks<V, T> {
    /// Takes the map of that name out of the object; there are no chunks yet.
    pub fn new(ebpf: &mut Ebpf, name: &'static str, shape: map::Arena) -> Result<Self, BpfError> {
        let slots = ebpf.take_map(name).ok_or(BpfError::Missing(name))?;
        let slots = slots.try_into().map_err(|source| BpfError::Map {
            operation: "open",
            map: name,
            source: Box::new(source),
        })?;
        Ok(Self { name, shape, slots, chunks: Vec::new() })
    }

    /// Bytes of one chunk.
    pub const fn chunk_bytes(&self) -> usize {
        self.shape.chunk_len() as usize * size_of::<T>()
    }

    /// Whether there can be another chunk.
    pub fn has_room(&self) -> bool {
        self.chunks.len() < self.shape.chunks as usize
    }

    /// Adds a chunk. Waits for a grace period of the kernel's, as every change of a map of maps does.
    pub fn grow(&mut self) -> Result<(), BpfError> {
        let values = self.chunk_bytes() / size_of::<V>();
        let array = inner::array::<V>(self.name, values as u32, MMAPABLE)?;
        let shared = Shared::map(array.map().fd().as_fd(), self.name, self.shape.chunk_len() as usize)?;
        self.slots.set(self.chunks.len() as u32, &array, 0).map_err(|source| BpfError::Map {
            operation: "add a chunk to",
            map: self.name,
            source: Box::new(source),
        })?;
        self.chunks.push((array, shared));
        Ok(())
    }

    /// Returns when every program that could have read what was replaced before has ended: setting a slot waits for
    /// them (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c).
    pub fn wait_for_programs(&mut self) -> Result<(), BpfError> {
        let Some((array, _)) = self.chunks.first() else { return Ok(()) };
        self.slots.set(0, array, 0).map_err(|source| BpfError::Map {
            operation: "set a chunk of",
            map: self.name,
            source: Box::new(source),
        })
    }

    /// Writes values from an index of the arena on. They must lie in one chunk, and no program may be reading them.
    pub fn write(&mut self, index: u32, values: &[T]) {
        if let Some((_, shared)) = self.chunks.get_mut(self.shape.chunk(index) as usize) {
            shared.write(self.shape.place(index) as usize, values);
        }
    }

    /// The file descriptors of the chunks, for their memory use.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.chunks.iter().map(|(array, _)| array.map().fd().as_fd())
    }
}
