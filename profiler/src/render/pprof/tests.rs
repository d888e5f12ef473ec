//! The recording file is lossless, survives any damage, and other tools' files are read with what they have.

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    model::{FrameKind, ModuleKind, Reason, StackEnd, Unit},
    render::{
        RenderOptions, fixture,
        pprof::{
            proto::field,
            wire::{FieldWriter, Fields},
        },
    },
};

fn encoded(profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    write(profile, &RenderOptions::default(), &mut out).unwrap();
    out
}

fn unpacked(profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(&encoded(profile)[..]).read_to_end(&mut out).unwrap();
    out
}

fn packed(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// What a profile says, whatever the ids are.
fn said(profile: &Profile) -> Vec<String> {
    let samples = profile.samples.iter().map(|sample| {
        let frames: Vec<_> = profile
            .frames(sample.stack)
            .map(|f| format!("{:?} {} {:?} {:?} {:#x}", f.function, f.line, f.module, f.kind, f.address))
            .collect();
        let (thread, end) =
            (&profile.threads[sample.thread.index()], profile.stacks[sample.stack.index()].end);
        format!("{thread:?} {frames:?} {end:?} {} {:?}", sample.window_start_ns, sample.values)
    });
    samples.collect()
}

#[test]
fn a_recording_is_read_back() {
    let profile = fixture::mixed();
    assert_eq!(read(&encoded(&profile)[..]).unwrap(), profile);
    assert_eq!(read(&unpacked(&profile)[..]).unwrap(), profile, "without gzip");
    assert_eq!(encoded(&profile), encoded(&profile), "deterministic");
}

#[test]
fn what_no_sample_uses_is_not_stored() {
    let mut profile = fixture::mixed();
    profile.samples.retain(|s| profile.threads[s.thread.index()].process == "crunch");
    let back = read(&encoded(&profile)[..]).unwrap();
    assert_eq!(said(&back), said(&profile));
    assert_eq!(back.threads.len(), 1);
    assert!(back.functions.iter().all(|f| !f.name.contains("java")), "{:?}", back.functions);
}

#[test]
fn any_order_of_samples_is_kept() {
    let mut profile = fixture::mixed();
    profile.samples.reverse();
    assert_eq!(said(&read(&encoded(&profile)[..]).unwrap()), said(&profile));
}

#[test]
fn comments_are_for_people_too() {
    let lines = meta::lines(&fixture::mixed());
    assert_eq!(lines[0], "profiler 0.1.0 on kestrel, Linux 6.18.0 x86_64, 4 CPUs");
    assert_eq!(lines[1], "cpu by cpu-clock at 99 Hz for 3.00 s: all processes");
    assert_eq!(lines[2], "lost samples: 12");
    assert_eq!(lines[3], "loss counters: ring_buffer_full 12, stacks_map_full 2, user_stack_truncated 90");
}

/// A file as another tool writes it: units of its own, absolute addresses, a location without mapping, one without
/// function, no labels on one sample.
fn foreign() -> Vec<u8> {
    let strings = [
        "",
        "alloc",
        "kilobytes",
        "wall",
        "microseconds",
        "/bin/app",
        "f\u{1b}[1m",
        "app.go",
        "pid",
        "thread",
        "w",
        "x",
    ];
    let mut out = FieldWriter::new(Vec::new());
    out.message(field::SAMPLE_TYPE, &proto::ValueType { r#type: 1, unit: 2 }).unwrap();
    out.message(field::SAMPLE_TYPE, &proto::ValueType { r#type: 3, unit: 4 }).unwrap();
    let text = |key, str| proto::Label { key, str, num: 0, num_unit: 0 };
    let labels = vec![proto::Label { key: 8, str: 0, num: 42, num_unit: 0 }, text(9, 10), text(11, 10)];
    out.message(
        field::SAMPLE,
        &proto::Sample { location_id: vec![70, 60, 50], value: vec![2, 3], label: labels },
    )
    .unwrap();
    out.message(field::SAMPLE, &proto::Sample { location_id: vec![], value: vec![0, -1], label: vec![] })
        .unwrap();
    let mapping = proto::Mapping {
        id: 9,
        memory_start: 0x40_0000,
        memory_limit: 0x50_0000,
        file_offset: 0x1000,
        filename: 5,
        ..Default::default()
    };
    out.message(field::MAPPING, &mapping).unwrap();
    let location = |id, mapping_id, address, line| proto::Location { id, mapping_id, address, line };
    out.message(field::LOCATION, &location(50, 9, 0x40_0010, vec![proto::Line { function_id: 7, line: -1 }]))
        .unwrap();
    out.message(field::LOCATION, &location(60, 0, 0x10, vec![proto::Line { function_id: 7, line: 8 }]))
        .unwrap();
    out.message(field::LOCATION, &location(70, 9, 0x40_0020, vec![])).unwrap();
    out.message(field::FUNCTION, &proto::Function { id: 7, name: 6, system_name: 6, filename: 7 }).unwrap();
    out.number(field::DURATION_NANOS, 5).unwrap();
    out.number(field::COMMENT, 10).unwrap();
    out.message(field::PERIOD_TYPE, &proto::ValueType { r#type: 3, unit: 4 }).unwrap();
    out.number(field::PERIOD, 10_000).unwrap();
    strings.iter().for_each(|text| out.string(field::STRING_TABLE, text).unwrap());
    out.into_inner()
}

#[test]
fn other_tools_files_are_read_with_what_they_have() {
    let profile = read(&foreign()[..]).unwrap();
    let types: Vec<_> = profile.sample_types.iter().map(|t| (t.name.as_str(), t.unit)).collect();
    assert_eq!(types, [("alloc", Unit::Bytes), ("wall", Unit::Nanoseconds)]);
    assert_eq!(profile.samples[0].values, [2048, 3000]);
    let thread = &profile.threads[0];
    assert_eq!((thread.pid, &*thread.process, &*thread.name), (42, "app", "w"));
    assert_eq!((&*profile.threads[1].process, &*profile.threads[1].name), ("app", "app"));
    let frames: Vec<_> = profile
        .frames(profile.samples[0].stack)
        .map(|f| (&*f.function.name, f.kind, f.address, f.line))
        .collect();
    assert_eq!(
        frames,
        [
            ("app+0x1020 [no symbols]", FrameKind::Native, 0x1020, 0),
            (r"f\x1b[1m", FrameKind::Native, 0x10, 8),
            (r"f\x1b[1m", FrameKind::Native, 0x1010, 0),
        ]
    );
    assert_eq!(profile.functions[1].unresolved, Some(Reason::NoSymbols));
    assert_eq!(profile.modules[1].kind, ModuleKind::Unknown);
    assert_eq!(profile.stacks[1].end, StackEnd::Complete);
    assert_eq!(
        (profile.meta.frequency_hz, profile.meta.duration_ns, &*profile.meta.sampler),
        (100, 5, "wall")
    );
    assert!(profile.meta.notes[0].contains("another tool"));
    assert_eq!(profile.meta.notes[1], "w", "its comments");
}

/// [`foreign`] with one more field, which must be refused for the reason given.
fn refused(number: u32, message: &impl prost::Message, reason: &str) {
    let mut out = FieldWriter::new(foreign());
    out.message(number, message).unwrap();
    let error = read(&out.into_inner()[..]).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn every_index_is_checked() {
    let sample = proto::Sample { location_id: vec![], value: vec![1, 1], label: vec![] };
    refused(
        field::SAMPLE,
        &proto::Sample { location_id: vec![71], ..sample.clone() },
        "location 71 does not exist",
    );
    refused(
        field::SAMPLE,
        &proto::Sample { value: vec![1], ..sample.clone() },
        "1 values for 2 sample types",
    );
    refused(field::SAMPLE, &proto::Sample { value: vec![1, i64::MAX], ..sample.clone() }, "63 bits");
    refused(
        field::SAMPLE,
        &proto::Sample { location_id: vec![50; 20_000], ..sample.clone() },
        "frames in one stack",
    );
    let label = proto::Label { key: 99, str: 0, num: 0, num_unit: 0 };
    refused(
        field::SAMPLE,
        &proto::Sample { label: vec![label], ..sample.clone() },
        "string 99 of 12 does not exist",
    );
    let label = proto::Label { key: 8, str: 0, num: -5, num_unit: 0 };
    refused(field::SAMPLE, &proto::Sample { label: vec![label], ..sample }, "out of range");
    let function = proto::Function { id: 7, name: 6, system_name: 6, filename: 7 };
    refused(field::FUNCTION, &function, "function id 7 is zero or not unique");
    refused(field::FUNCTION, &proto::Function { id: 0, ..function }, "function id 0");
    refused(field::FUNCTION, &proto::Function { id: 1, name: -1, ..function }, "string -1");
    let location = proto::Location { id: 80, mapping_id: 8, ..Default::default() };
    refused(field::LOCATION, &location, "mapping 8 does not exist");
    let line = proto::Line { function_id: 8, line: 0 };
    refused(
        field::LOCATION,
        &proto::Location { mapping_id: 9, line: vec![line], ..location.clone() },
        "function 8",
    );
    let many = vec![proto::Line { function_id: 7, line: 0 }; 300];
    refused(
        field::LOCATION,
        &proto::Location { mapping_id: 9, line: many, ..location },
        "functions at one address",
    );
    refused(field::MAPPING, &proto::Mapping { id: 9, ..Default::default() }, "mapping id 9");
}

#[test]
fn metadata_of_another_version_is_named() {
    let with_last_string = |text: &str| {
        let mut out = FieldWriter::new(foreign());
        out.string(field::STRING_TABLE, text).unwrap();
        read(&out.into_inner()[..])
    };
    let error = |text| with_last_string(text).unwrap_err().to_string();
    assert_eq!(
        error("profiler.meta/2 {}"),
        "recorded by another version of profiler (metadata version 2, this one reads 1)"
    );
    assert!(error("profiler.meta/1 {").starts_with("damaged metadata: EOF"));
    assert!(
        error("profiler.meta/1 {\"losses\":{\"counters\":{\"x\":-1}}}")
            .starts_with("damaged metadata: invalid value")
    );
    let deep = format!("profiler.meta/1 {}", "[".repeat(100_000));
    assert!(error(&deep).starts_with("damaged metadata: recursion limit"));
    let profile = with_last_string("profiler.meta/1 {\"meta\":{\"host\":\"a\\nb\",\"later\":[1]}}").unwrap();
    assert_eq!(profile.meta.host, r"a\nb", "cleaned");
    let mut out = FieldWriter::new(foreign());
    out.string(field::STRING_TABLE, "profiler.meta/1 {\"meta\":{\"host\":\"faked\"}}").unwrap();
    out.string(field::STRING_TABLE, "a command may be named like metadata").unwrap();
    assert_eq!(read(&out.into_inner()[..]).unwrap().meta.host, "");
}

#[test]
fn one_long_name_is_not_copied_without_bound() {
    // 4 KiB of name for each 12-byte function: 50,000 of them would be 200 MB.
    let mut out = FieldWriter::new(foreign());
    out.string(field::STRING_TABLE, &"x".repeat(5000)).unwrap();
    for id in 100..50_100 {
        out.message(
            field::FUNCTION,
            &proto::Function { id, name: 12, system_name: 0, filename: (id % 12) as i64 },
        )
        .unwrap();
        out.message(
            field::FUNCTION,
            &proto::Function { id: id + 100_000, name: (id % 12) as i64, system_name: 0, filename: 12 },
        )
        .unwrap();
    }
    // Functions of the same name and file are one, so this is small.
    read(&out.into_inner()[..]).unwrap();
    let mut out = FieldWriter::new(foreign());
    out.string(field::STRING_TABLE, &"x".repeat(5000)).unwrap();
    for i in 0..50_000 {
        out.string(field::STRING_TABLE, "").unwrap();
        out.message(
            field::FUNCTION,
            &proto::Function { id: 100 + i, name: 12, system_name: 0, filename: 13 + i as i64 },
        )
        .unwrap();
    }
    assert!(matches!(read(&out.into_inner()[..]), Err(DecodeError::TooMany { what: "bytes of names", .. })));
}

#[test]
fn small_files_cannot_stand_for_endless_stacks() {
    // 256 inlined functions at one location, which 10 stacks of some 10,000 locations use: 26 million frames in 110 KB.
    let mut out = FieldWriter::new(foreign());
    let line = vec![proto::Line { function_id: 7, line: 0 }; 256];
    out.message(field::LOCATION, &proto::Location { id: 80, mapping_id: 9, address: 0, line }).unwrap();
    for n in 0..10 {
        let location_id = vec![80; 10_000 + n];
        out.message(field::SAMPLE, &proto::Sample { location_id, value: vec![1, 1], label: vec![] }).unwrap();
    }
    let result = read(&out.into_inner()[..]);
    assert!(matches!(result, Err(DecodeError::TooMany { what: "frames in all stacks", .. })), "{result:?}");
}

#[test]
fn our_files_have_no_field_that_the_schema_lacks() {
    let data = unpacked(&fixture::mixed());
    let known = [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14];
    assert!(Fields::new(&data).all(|f| known.contains(&f.unwrap().0)));
}

proptest! {
    #[test]
    fn any_profile_is_read_back(profile in fixture::profiles()) {
        prop_assert_eq!(read(&encoded(&profile)[..]).unwrap(), profile);
    }

    #[test]
    fn damage_is_an_error_or_a_profile(edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in option::of(any::<prop::sample::Index>())) {
        let mut data = unpacked(&fixture::mixed());
        for (at, byte) in edits {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Some(cut) = cut {
            data.truncate(cut.index(data.len()));
        }
        // Both must return; a profile's ids are valid, which walking it proves.
        if let Ok(profile) = read(&data[..]) {
            said(&profile);
            prop_assert!(read(&encoded(&profile)[..]).is_ok());
        }
        let _ = read(&packed(&data)[..]);
    }

    #[test]
    fn damaged_gzip_is_an_error_or_a_profile(at: prop::sample::Index, bit in 0u32..8) {
        let mut file = encoded(&fixture::mixed());
        let at = at.index(file.len());
        file[at] ^= 1u8 << bit;
        let _ = read(&file[..]);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_profile(bytes: Vec<u8>) {
        let _ = read(&bytes[..]);
        let _ = read(&[&b"\x0a\x04\x08\x01\x10\x02\x32\x00"[..], &bytes].concat()[..]);
    }
}
