//! Look-ups in the arenas (`profiler_common::unwind::map`).
//!
//! A chunk is looked up once for all that is read in it. Look-ups in arrays of one size are inlined by the verifier,
//! also through a map of maps (`array_map_gen_lookup`, kernel/bpf/arraymap.c).

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps},
    macros::btf_map,
};
use profiler_common::unwind::{
    map::{self, MAPPING_STEPS, Mapping},
    row::{self, Page, Row, SEARCH_STEPS},
    rule::Rule,
};

use super::MMAPABLE;

type Chunks<T, const LEN: usize, const CHUNKS: usize> = ArrayOfMaps<Array<T, LEN, MMAPABLE>, CHUNKS>;

#[btf_map]
static ROWS: Chunks<u64, { map::ROWS.chunk_len() as usize / 2 }, { map::ROWS.chunks as usize }> =
    ArrayOfMaps::new();

#[btf_map]
static RULES: Chunks<u64, { map::RULES.chunk_len() as usize }, { map::RULES.chunks as usize }> =
    ArrayOfMaps::new();

#[btf_map]
static PAGES: Chunks<u64, { map::PAGES.chunk_len() as usize }, { map::PAGES.chunks as usize }> =
    ArrayOfMaps::new();

#[btf_map]
static MAPPINGS: Chunks<Mapping, { map::MAPPINGS.chunk_len() as usize }, { map::MAPPINGS.chunks as usize }> =
    ArrayOfMaps::new();

/// The mapping that covers an address, among the `count` of a process from `first` on.
#[inline(always)]
pub fn mapping(first: u32, count: u32, address: u64) -> Option<&'static Mapping> {
    if count == 0 {
        return None;
    }
    let chunk = MAPPINGS.get(map::MAPPINGS.chunk(first))?;
    let place = map::MAPPINGS.place(first);
    let mapping = |i: u32| chunk.get(map::MAPPINGS.place(place.wrapping_add(i)));
    let at = row::search(count, address, MAPPING_STEPS, |i| Some(mapping(i)?.start))?;
    let mapping = mapping(at)?;
    (mapping.start <= address && address < mapping.end).then_some(mapping)
}

/// A page.
#[inline(always)]
pub fn page(index: u32) -> Option<Page> {
    PAGES.get(map::PAGES.chunk(index))?.get(map::PAGES.place(index)).map(|&page| Page(page))
}

/// The row of a page that holds at an offset.
#[inline(always)]
pub fn row(page: Page, offset: u64) -> Option<Row> {
    let chunk = ROWS.get(map::ROWS.chunk(page.first()))?;
    let place = map::ROWS.place(page.first());
    let row = |i: u32| {
        let at = map::ROWS.place(place.wrapping_add(i));
        let pair = *chunk.get(at >> 1)?;
        Some(Row((pair >> ((at & 1) * 32)) as u32))
    };
    let at = row::search(page.count(), offset, SEARCH_STEPS, |i| Some(u64::from(row(i)?.offset())))?;
    row(at)
}

/// A rule.
#[inline(always)]
pub fn rule(index: u32) -> Option<Rule> {
    RULES.get(map::RULES.chunk(index))?.get(map::RULES.place(index)).map(|&rule| Rule(rule))
}
