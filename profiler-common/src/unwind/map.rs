//! Values of the maps that hold tables and mappings in the kernel.
//!
//! Rows, rules, pages and mappings each live in an *arena*: a map of arrays (chunks) of one size, that user space adds
//! as they are needed and writes through `mmap`. An index into an arena is chunk << shift | place; what belongs together
//! (a page's rows, a module's rules, a process's mappings) never straddles two chunks, so that the chunk is looked up
//! once. Replaced parts are used again only after a grace period (see `profiler::unwind`).
//!
//! Values of arrays take multiples of 8 bytes (`array_map_alloc`, kernel/bpf/arraymap.c), so rows come in pairs.

/// Shape of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arena {
    /// log2 of the elements of a chunk.
    pub shift: u32,
    /// Most chunks.
    pub chunks: u32,
}

impl Arena {
    /// Elements of a chunk.
    pub const fn chunk_len(self) -> u32 {
        1 << self.shift
    }

    /// The chunk of an index.
    #[inline(always)]
    pub const fn chunk(self, index: u32) -> u32 {
        index >> self.shift
    }

    /// The place in its chunk of an index.
    #[inline(always)]
    pub const fn place(self, index: u32) -> u32 {
        index & ((1 << self.shift) - 1)
    }
}

/// Rows, 4 bytes each, two in an array's value: chunks of 2 MiB. A page's rows (at most 2^16) fit.
pub const ROWS: Arena = Arena { shift: 19, chunks: 256 };
/// Rules, 8 bytes each: chunks of 1 MiB. A module's rules (at most 2^16) fit.
pub const RULES: Arena = Arena { shift: 17, chunks: 64 };
/// Pages, 8 bytes each: chunks of 256 KiB. The pages of a module of 2 GiB fit.
pub const PAGES: Arena = Arena { shift: 15, chunks: 64 };
/// Mappings, 32 bytes each: chunks of 256 KiB, the mappings of one process at most.
pub const MAPPINGS: Arena = Arena { shift: 13, chunks: 256 };

/// Steps of a search among the mappings of a process (fewer than 2^13).
pub const MAPPING_STEPS: u32 = MAPPINGS.shift;

const _: () = assert!(super::row::MAX_ROWS <= ROWS.chunk_len());
const _: () = assert!(1 << 16 <= RULES.chunk_len());

/// [`Mapping::module`] of code that a program made itself (JIT): unwound by frame pointers.
pub const NO_MODULE: u32 = u32::MAX;
/// [`Mapping::module`] of a JVM's code heap, unwound as `java` says. No number of a module.
pub const JAVA: u32 = u32::MAX - 1;

/// Most files whose tables are in the kernel at the same time.
pub const MAX_MODULES: usize = 8192;
/// Most processes whose mappings are in the kernel at the same time.
pub const MAX_PROCESSES: usize = 16_384;

/// The table of one file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Index of its first page in the arena of pages.
    pub pages: u32,
    /// Number of pages; 0: the table is not in memory.
    pub page_count: u32,
    /// ELF virtual address of the first page, in pages.
    pub first_page: u32,
    /// Index of its first rule in the arena of rules.
    pub rules: u32,
    /// When it was last used: `CLOCK_MONOTONIC` in units of 2^30 ns, written by the kernel side.
    pub used: u32,
    /// What there is of it, a [`State`] as a number.
    pub state: u32,
}

/// How code of a module is unwound.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet: the table is being made.
    Loading = 0,
    /// By the table.
    Table = 1,
    /// By frame pointers: the file has no table.
    FramePointer = 2,
    /// Not at all: the table cannot be had, or does not fit into the memory budget.
    Unavailable = 3,
    /// The table was in memory and had to make room; user space is asked for it.
    Evicted = 4,
    /// By the table, and by frame pointers what it does not cover: most of the file's code, so that it was compiled to
    /// do without.
    TableOrFramePointer = 5,
}

const _: () = assert!(size_of::<Module>() == 24);

/// An executable mapping of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Address minus ELF virtual address (wrapping).
    pub bias: u64,
    /// Index of the module; [`NO_MODULE`] for code without a file.
    pub module: u32,
    /// Not used.
    pub padding: u32,
}

const _: () = assert!(size_of::<Mapping>() == 32);

/// What is known of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Whose mappings these are (`sample::CountKey::incarnation`); those of another one are of no use.
    pub incarnation: u64,
    /// User space is not asked for mappings before this time, ns of `CLOCK_MONOTONIC`; written by both sides.
    pub ask_after_ns: u64,
    /// Index of its first mapping in the arena of mappings.
    pub first: u32,
    /// Number of mappings; 0: none known.
    pub count: u32,
    /// Another number each time that user space tells something of a process.
    pub version: u64,
}

const _: () = assert!(size_of::<Process>() == 32);

/// Why user space is asked for the mappings of a process.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A program began: what it maps will be needed.
    Executed = 0,
    /// A sample of a process that nothing is known of.
    UnknownProcess = 1,
    /// A sample hit an address in none of the known mappings.
    UnknownAddress = 2,
    /// A sample needs a table that had to make room.
    Evicted = 3,
}

/// A request to user space.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Process id.
    pub pid: u32,
    /// An [`Ask`] as a number.
    pub ask: u32,
    /// Which incarnation of the process.
    pub incarnation: u64,
    /// Index of the module, for [`Ask::Evicted`].
    pub module: u32,
    /// Not used.
    pub padding: u32,
}

const _: () = assert!(size_of::<Request>() == 24);

#[cfg(feature = "user")]
mod pod {
    use super::{Mapping, Module, Process, Request};

    // SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
    unsafe impl aya::Pod for Mapping {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Module {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Process {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Request {}
}
