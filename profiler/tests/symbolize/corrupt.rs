//! Damaged ELF files: any answer, but no panic and no endless work.

use std::{fs, io::Write, path::Path};

use profiler::symbolize::native::{self, Target, Wanted};
use proptest::prelude::*;

use crate::program::{PROGRAM, compile};

fn name(image: &[u8]) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    let wanted: Vec<Wanted> =
        (0..0x3000).step_by(0x101).map(|offset| Wanted { offset, outermost: offset % 2 == 0 }).collect();
    let target = Target { file: &file, path: Path::new("/nowhere/libc.so.6"), root: None, lines: true };
    assert_eq!(native::name(target, &wanted).len(), wanted.len());
}

fn small_program() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let program =
        compile("cc", dir.path(), "small", PROGRAM, &["-O1", "-g", "-fno-asynchronous-unwind-tables"]);
    fs::read(program).unwrap()
}

#[test]
fn damaged_files_give_reasons_not_panics() {
    let image = small_program();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        // Failures are shown with their input; nothing is written to the source tree.
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let section_headers = u64::from_le_bytes(image[40..48].try_into().unwrap()) as usize;
    let spot = prop_oneof![
        3 => 0..1024usize,
        3 => section_headers..image.len(),
        2 => 0..image.len(),
    ];
    let damage = prop::collection::vec((spot, any::<u8>()), 1..12);
    runner
        .run(&(damage, prop::option::weighted(0.2, 0..image.len())), |(damage, cut)| {
            let mut image = image.clone();
            for (at, value) in damage {
                image[at] = value;
            }
            image.truncate(cut.unwrap_or(usize::MAX));
            name(&image);
            Ok(())
        })
        .unwrap();
}

#[test]
fn files_that_are_no_elf() {
    name(b"");
    name(b"\x7fELF");
    name(&[0xff; 4096]);
    name(b"#!/bin/sh\necho this is a script, and longer than an ELF header is, so that its length is not the reason\n");
}
