//! An ELF file of any bytes has markers with sound places, or a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::{
    elf::{self, Bytes},
    symbolize::markers,
};

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::Memory(bytes);
    let Ok(headers) = elf::read_headers(bytes) else { return };
    let Ok(sections) = headers.sections(bytes) else { return };
    let Ok(found) = markers::read(bytes, &headers, &sections) else { return };
    for marker in &found.markers {
        assert!(!marker.provider.is_empty() && !marker.name.is_empty());
        assert!(marker.places.is_sorted_by(|a, b| a.address < b.address) && !marker.places.is_empty());
    }
    assert!(found.markers.is_sorted_by(|a, b| (&a.provider, &a.name) < (&b.provider, &b.name)));
});
