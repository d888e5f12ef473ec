//! The code cache: from an address to the block of code that it lies in, and all blocks there are.
//!
//! Source: share/memory/heap.cpp. A code heap is divided into segments of (mostly) 128 bytes; its segment map has a
//! byte for each: 0xff for a free one, 0 where a block begins, else how many segments back to go on looking.

use super::{
    Fault,
    layout::{Heap as HeapLayout, Heaps, Layout},
};
use crate::symbolize::runtime::memory::Memory;

/// Most code heaps: JDK 9 and later have three, JVMs with a hot code heap four.
const MAX_HEAPS: i64 = 16;
/// Largest code heap: HotSpot itself allows 2 GiB for all.
const MAX_HEAP_BYTES: u64 = 2 << 30;
/// Most steps back to a block's first segment; each but the last of a large block goes 254 segments (32 KB) back.
const MAX_STEPS: usize = 4096;
/// Most blocks listed. A full code cache of 240 MB has some 60,000.
const MAX_BLOCKS: usize = 1 << 20;
/// In the segment map: no block here.
const FREE: u8 = 0xff;

/// One code heap, as it was when it was read: what is in use grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeHeap {
    /// First address.
    pub low: u64,
    /// Address behind what is in use.
    pub high: u64,
    /// Address behind what is reserved; `high` never passes it.
    pub reserved_high: u64,
    /// Address of the segment map.
    pub segmap: u64,
    /// Binary logarithm of the size of a segment, bytes.
    pub log2_segment_size: u32,
}

impl CodeHeap {
    /// Whether an address lies in the part in use.
    pub const fn covers(&self, address: u64) -> bool {
        self.low <= address && address < self.high
    }

    /// The code blob whose block an address lies in.
    ///
    /// # Errors
    /// Free, or the map makes no sense.
    pub fn blob(&self, memory: &impl Memory, layout: &HeapLayout, address: u64) -> Result<u64, Fault> {
        let mut index = (address - self.low) >> self.log2_segment_size;
        for _ in 0..MAX_STEPS {
            match memory.u8(self.segmap.wrapping_add(index))? {
                FREE => return Err(Fault::NoCode),
                0 => {
                    let block = self.low + (index << self.log2_segment_size);
                    return match layout.block_used.get(memory, block)? {
                        0 => Err(Fault::NoCode),
                        _ => Ok(block + layout.block_header),
                    };
                }
                back => {
                    index = index.checked_sub(u64::from(back)).ok_or(Fault::Torn("the segment map"))?;
                }
            }
        }
        Err(Fault::Torn("the segment map"))
    }

    /// All code blobs, lowest address first.
    fn each_blob(&self, memory: &impl Memory, layout: &HeapLayout, out: &mut Vec<u64>) -> Result<(), Fault> {
        let mut block = self.low;
        // From `_next_segment` on memory is in use but was never given out: there lengths are 0.
        while block.saturating_add(layout.block_header) < self.high && out.len() < MAX_BLOCKS {
            let segments = layout.block_length.get(memory, block)? as u64;
            let longest = (self.high - block) >> self.log2_segment_size;
            if segments == 0 || segments > longest {
                break;
            }
            if layout.block_used.get(memory, block)? != 0 {
                out.push(block + layout.block_header);
            }
            block += segments << self.log2_segment_size;
        }
        Ok(())
    }
}

/// Reads the list of code heaps.
///
/// # Errors
/// The JVM has none yet, or they make no sense.
pub fn read_heaps(memory: &impl Memory, layout: &Layout) -> Result<Vec<CodeHeap>, Fault> {
    let pointers = match layout.heaps {
        Heaps::One(address) => vec![memory.u64(address)?],
        Heaps::Several { list, len, data } => {
            let list = memory.u64(list)?;
            if list == 0 {
                return Err(Fault::NoCode);
            }
            let len = len.get(memory, list)?;
            if !(0..=MAX_HEAPS).contains(&len) {
                return Err(Fault::Torn("the number of code heaps"));
            }
            let data = memory.u64(list.wrapping_add(data))?;
            (0..len as u64).map(|i| memory.u64(data.wrapping_add(8 * i))).collect::<Result<_, _>>()?
        }
    };
    pointers.into_iter().map(|pointer| read_heap(memory, &layout.heap, pointer)).collect()
}

fn read_heap(memory: &impl Memory, layout: &HeapLayout, heap: u64) -> Result<CodeHeap, Fault> {
    if heap == 0 {
        return Err(Fault::NoCode);
    }
    let at = |offset: u64| memory.u64(heap.wrapping_add(offset));
    let (low, high, reserved_high) = (at(layout.low)?, at(layout.high)?, at(layout.reserved_high)?);
    let log2 = layout.log2_segment_size.get(memory, heap)?;
    let is_range = low != 0 && low <= high && high <= reserved_high && reserved_high - low <= MAX_HEAP_BYTES;
    // CodeCacheSegmentSize is 64 or 128; the flag allows up to 1024.
    if !is_range || !(4..=16).contains(&log2) {
        return Err(Fault::Torn("a code heap"));
    }
    Ok(CodeHeap { low, high, reserved_high, segmap: at(layout.segmap)?, log2_segment_size: log2 as u32 })
}

/// All code blobs of all heaps. A heap that changes meanwhile can hide some.
///
/// # Errors
/// The memory cannot be read.
pub fn all_blobs(memory: &impl Memory, layout: &Layout, heaps: &[CodeHeap]) -> Result<Vec<u64>, Fault> {
    let mut blobs = Vec::new();
    for heap in heaps {
        heap.each_blob(memory, &layout.heap, &mut blobs)?;
    }
    Ok(blobs)
}
