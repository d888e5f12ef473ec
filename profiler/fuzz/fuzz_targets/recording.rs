//! A recording file of any bytes is read or refused; what is read can be shown and stored again.
//!
//! `cargo +nightly fuzz run recording corpus ../../tests/golden/mixed.pb.gz`: start from a real recording.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::render::{FORMATS, RenderOptions, pprof};

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = pprof::read(bytes) else { return };
    for format in FORMATS {
        // An error is an answer; a panic is a find.
        let _ = (format.write)(&profile, &RenderOptions::default(), &mut std::io::sink());
    }
});
