//! An ELF file of any bytes gives an unwind table that is sound, or a reason; every address can be looked up in it.
//!
//! Start from real files of both architectures: docs/testing.md has the commands.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::{elf::Bytes, unwind::eh_frame};

fuzz_target!(|bytes: &[u8]| {
    let Ok((table, stats)) = eh_frame::build(Bytes::Memory(bytes)) else { return };
    assert!(table.is_sound());
    assert_eq!((stats.rows, stats.rules), (table.rows.len() as u64, table.rules.len() as u64));
    for (address, rule) in table.iter() {
        assert_eq!(table.lookup(address), rule);
        table.lookup(address.wrapping_sub(1));
    }
});
