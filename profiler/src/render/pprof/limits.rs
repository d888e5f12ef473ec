//! Bounds of what a recording file may hold: far above any real recording, low enough that a hostile file costs
//! seconds and a few times its unpacked size, not the machine.

/// Bytes of a file, packed or not, and of its unpacked data.
pub const MAX_BYTES: u64 = 1 << 30;

/// Unpacked bytes that any file may have, whatever its own size.
pub const UNPACKED_FREE_BYTES: u64 = 64 << 20;

/// Beyond [`UNPACKED_FREE_BYTES`]: unpacked bytes per byte of the file. Recordings pack 5 to 50 times; the format's
/// worst case, made on purpose, is 1032.
pub const MAX_RATIO: u64 = 200;

/// Bytes of one inner message; a sample of 16,000 locations has 160 KB.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Bytes of the metadata.
pub const MAX_META_BYTES: usize = 16 << 20;

/// Sample types.
pub const MAX_SAMPLE_TYPES: usize = 256;

/// Comments.
pub const MAX_COMMENTS: usize = 4096;

/// Entries of the string table.
pub const MAX_STRINGS: usize = 16 << 20;

/// Entries of each of the other tables: modules, functions, locations, samples.
pub const MAX_ENTRIES: usize = 16 << 20;

/// Inlined functions at one location. Compilers stop far below.
pub const MAX_LINES: usize = 256;

/// Locations of one stack.
pub const MAX_STACK: usize = 16 << 10;

/// Frames of all distinct stacks, inlined ones expanded, that any file may have: one walk over all stacks is what every
/// renderer does.
pub const FREE_FRAMES: usize = 4 << 20;

/// Beyond [`FREE_FRAMES`]: frames per byte of unpacked data. A location takes one to three bytes in a stack.
pub const FRAMES_PER_BYTE: usize = 8;

/// Bytes of names taken into the model, beside [`NAME_BYTES_PER_BYTE`]: many entries may share one long string.
pub const NAME_BYTES: usize = 64 << 20;

/// Bytes of names per byte of unpacked data.
pub const NAME_BYTES_PER_BYTE: usize = 4;
