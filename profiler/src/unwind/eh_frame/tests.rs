//! Unwind information written by gimli, one function or two at a time, and the rules that must come of it.

use gimli::{
    LittleEndian,
    write::{CallFrameInstruction as I, DebugFrame, EndianVec, Expression},
};
use profiler_common::unwind::{
    Arch,
    rule::{FpRule, Kind, Parts, RaRule, Rule},
};
use proptest::prelude::*;

use super::{
    Cause, Stats, TableError, build,
    image::{self, Function, Image, RBX, TEXT, TEXT_LEN, cie, eh_frame},
};
use crate::{
    elf::Bytes,
    unwind::table::{MAX_PAGES, Table},
};

const RBP: gimli::Register = gimli::X86_64::RBP;
const RSP: gimli::Register = gimli::X86_64::RSP;
const RA: gimli::Register = gimli::X86_64::RA;

fn made(arch: Arch, image: &Image) -> (Table, Stats) {
    let (table, stats) = build(Bytes::Memory(&image.bytes(arch))).unwrap();
    assert!(table.is_sound());
    assert_eq!(table.arch, arch);
    (table, stats)
}

fn x86(functions: &[Function<'_>]) -> (Table, Stats) {
    made(Arch::X86_64, &Image::new(eh_frame(cie(Arch::X86_64), functions)))
}

/// A rule that finds the return address below the CFA.
fn rule(kind: Kind, cfa_offset: i32, fp: FpRule, fp_offset: i16) -> Rule {
    Rule::new(Parts { kind, cfa_offset, fp, fp_offset, ra: RaRule::AtCfa, ra_offset: -8 })
}

fn sp(offset: i32) -> Rule {
    rule(Kind::Sp, offset, FpRule::Same, 0)
}

fn raw(bytes: &[u8]) -> Expression {
    Expression::raw(bytes.to_vec())
}

#[test]
fn a_function_with_a_frame_pointer() {
    let (table, stats) = x86(&[(
        0x10,
        0x20,
        &[
            (1, I::CfaOffset(16)),
            (1, I::Offset(RBP, -16)),
            (4, I::CfaRegister(RBP)),
            (9, I::RememberState),
            (9, I::Cfa(RSP, 8)),
            (9, I::Restore(RBP)),
            (10, I::RestoreState),
        ],
    )]);
    let framed = rule(Kind::Fp, 16, FpRule::AtCfa, -16);
    let expected = [
        (0x0f, Rule::NONE),
        (0x10, sp(8)),
        (0x11, rule(Kind::Sp, 16, FpRule::AtCfa, -16)),
        (0x14, framed),
        (0x19, sp(8)),
        (0x1a, framed),
        (0x2f, framed),
        (0x30, Rule::NONE),
    ];
    for (offset, rule) in expected {
        assert_eq!(table.lookup(TEXT + offset), rule, "{offset:#x}");
    }
    assert_eq!((stats.functions, stats.skipped, stats.unsupported), (1, 0, [0; 7]));
}

#[test]
fn the_rules_of_x86_64() {
    let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    let cases: &[(&[I], Rule)] = &[
        (&[I::CfaOffset(0x10_0000)], sp(0x10_0000)),
        (&[I::CfaExpression(raw(&plt))], rule(Kind::Plt, 11, FpRule::Same, 0)),
        (
            &[I::CfaExpression(raw(&[0x76, 0x78, 0x06])), I::Expression(RBP, raw(&[0x76, 0]))],
            rule(Kind::AtFp, -8, FpRule::AtFp, 0),
        ),
        (&[I::CfaExpression(raw(&[0x77, 0x10, 0x06]))], rule(Kind::AtSp, 16, FpRule::Same, 0)),
        (&[I::CfaExpression(raw(&[0x77, 0x10, 0x06, 0x23, 8]))], rule(Kind::SavedSp, 16, FpRule::Same, 0)),
        (&[I::Undefined(RBP)], rule(Kind::Sp, 8, FpRule::Undefined, 0)),
        (&[I::SameValue(RBP)], sp(8)),
        (&[I::Register(RBP, RBX)], rule(Kind::Sp, 8, FpRule::Undefined, 0)),
        (&[I::ValOffset(RBP, -16)], rule(Kind::Sp, 8, FpRule::Undefined, 0)),
        (&[I::Offset(RBP, -0x8_0000)], rule(Kind::Sp, 8, FpRule::Undefined, 0)),
        (&[I::Offset(RBX, -24), I::ArgsSize(8)], sp(8)),
        (&[I::Undefined(RA)], Rule::END),
    ];
    for (instructions, expected) in cases {
        let list: Vec<(u32, I)> = instructions.iter().map(|instruction| (0, instruction.clone())).collect();
        let (table, stats) = x86(&[(0, 8, &list)]);
        assert_eq!(table.lookup(TEXT), *expected, "{instructions:?}");
        assert_eq!(stats.unsupported, [0; 7], "{instructions:?}");
    }
}

#[test]
fn what_cannot_be_expressed_is_counted_by_its_cause() {
    let cases: &[(&[I], Cause)] = &[
        (&[I::Cfa(gimli::X86_64::R10, 0)], Cause::CfaRegister),
        (&[I::CfaExpression(raw(&[0x77, 0x10, 0x06, 0x23, 16]))], Cause::CfaExpression),
        (&[I::CfaOffset(1 << 23)], Cause::CfaOffset),
        (&[I::SameValue(RA)], Cause::ReturnAddress),
        (&[I::Expression(RA, raw(&[0x76, 0]))], Cause::ReturnAddress),
        (&[I::Offset(RA, 0x8_0000)], Cause::ReturnAddress),
        (&[I::RestoreState], Cause::Damaged),
        (&[I::CfaExpression(raw(&[0x76, 0x78, 0x06])), I::CfaOffset(8)], Cause::Damaged),
    ];
    for (instructions, cause) in cases {
        let list: Vec<(u32, I)> = instructions.iter().map(|instruction| (4, instruction.clone())).collect();
        let (table, stats) = x86(&[(0, 8, &list)]);
        assert_eq!(table.lookup(TEXT + 3), sp(8));
        assert_eq!(table.lookup(TEXT + 7), Rule::UNSUPPORTED, "{instructions:?}");
        assert_eq!(table.lookup(TEXT + 8), Rule::NONE);
        let mut expected = [0; 7];
        expected[*cause as usize] = 1;
        assert_eq!(stats.unsupported, expected, "{instructions:?}");
    }
}

#[test]
fn the_rules_of_arm64() {
    use gimli::AArch64 as Arm;
    let instructions = [
        (4, I::NegateRaState),
        (8, I::CfaOffset(32)),
        (8, I::Offset(Arm::X29, -32)),
        (8, I::Offset(Arm::X30, -24)),
        (12, I::CfaRegister(Arm::X29)),
        (20, I::Undefined(Arm::X30)),
    ];
    let frames = eh_frame(cie(Arch::Aarch64), &[(0, 24, &instructions)]);
    let (table, stats) = made(Arch::Aarch64, &Image::new(frames));
    let framed = |kind| {
        Rule::new(Parts {
            kind,
            cfa_offset: 32,
            fp: FpRule::AtCfa,
            fp_offset: -32,
            ra: RaRule::AtCfa,
            ra_offset: -24,
        })
    };
    let leaf = Rule::new(Parts {
        kind: Kind::Sp,
        cfa_offset: 0,
        fp: FpRule::Same,
        fp_offset: 0,
        ra: RaRule::Same,
        ra_offset: 0,
    });
    let expected = [(0, leaf), (4, leaf), (8, framed(Kind::Sp)), (12, framed(Kind::Fp)), (20, Rule::END)];
    for (offset, rule) in expected {
        assert_eq!(table.lookup(TEXT + offset), rule, "{offset}");
    }
    assert_eq!(stats.unsupported, [0; 7]);
}

#[test]
fn signal_frames() {
    let mut marked = cie(Arch::X86_64);
    marked.signal_trampoline = true;
    let (table, _) =
        made(Arch::X86_64, &Image::new(eh_frame(marked, &[(0x100, 10, &[(4, I::RestoreState)])])));
    assert_eq!(table.lookup(TEXT + 0x109), Rule::SIGNAL);

    let mut image = Image::new(eh_frame(cie(Arch::Aarch64), &[(0, 8, &[])]));
    image.code.push((0x104, [0xd280_1168u32, 0xd400_0001].map(u32::to_le_bytes).concat()));
    let (table, _) = made(Arch::Aarch64, &image);
    assert_eq!(table.lookup(TEXT + 0x100), Rule::NONE, "too large a segment to be searched");
    let mut bytes = image.bytes(Arch::Aarch64);
    // The second program header's size.
    bytes[64 + 56 + 32..][..8].copy_from_slice(&0x1000u64.to_le_bytes());
    let (table, _) = build(Bytes::Memory(&bytes)).unwrap();
    for (offset, rule) in
        [(0xff, Rule::NONE), (0x100, Rule::SIGNAL), (0x10b, Rule::SIGNAL), (0x10c, Rule::NONE)]
    {
        assert_eq!(table.lookup(TEXT + offset), rule, "{offset:#x}");
    }
}

#[test]
fn the_entry_point_has_no_caller() {
    let frames = eh_frame(cie(Arch::X86_64), &[(0, 8, &[]), (0x80, 8, &[])]);
    let with_entry = |at| Image { entry: Some(at), ..Image::new(frames.clone()) };
    let (table, stats) = made(Arch::X86_64, &with_entry(0x20));
    for (offset, rule) in [
        (0, sp(8)),
        (0x1f, Rule::NONE),
        (0x20, Rule::END),
        (0x5f, Rule::END),
        (0x60, Rule::NONE),
        (0x80, sp(8)),
    ] {
        assert_eq!(table.lookup(TEXT + offset), rule, "{offset:#x}");
    }
    assert_eq!(stats.functions, 2);
    let (table, _) = made(Arch::X86_64, &with_entry(0x80));
    assert_eq!(table.lookup(TEXT + 0x80), sp(8), "its own entry says more");
}

#[test]
fn gaps_and_overlaps() {
    let (table, stats) = x86(&[
        (0x200, 0x40, &[(0, I::CfaOffset(64))]),
        (0x000, 0x11, &[]),
        (0x020, 0x20, &[(0, I::CfaOffset(16))]),
        (0x050, 0x10, &[(0, I::CfaOffset(32))]),
        (0x210, 0x10, &[(0, I::CfaOffset(48))]),
        (0x020, 0x20, &[(0, I::CfaOffset(24))]),
        (TEXT_LEN, 0x20, &[]),
        (TEXT_LEN - 0x10, u32::MAX, &[]),
    ]);
    let expected = [
        (0x00, sp(8)),
        (0x1f, sp(8)),
        (0x20, sp(16)),
        (0x3f, sp(16)),
        (0x40, Rule::NONE),
        (0x50, sp(32)),
        (0x60, Rule::NONE),
        (0x20f, sp(64)),
        (0x210, sp(48)),
        (0x220, Rule::NONE),
        (TEXT_LEN - 1, sp(8)),
        (TEXT_LEN, Rule::NONE),
    ];
    for (offset, rule) in expected {
        assert_eq!(table.lookup(TEXT + offset), rule, "{offset:#x}");
    }
    assert_eq!((stats.functions, stats.skipped), (6, 2));
}

/// The segment says that it has 2^63 bytes, and the function that it has 4 GiB.
#[test]
fn code_without_end_fills_a_table_and_no_more() {
    let mut bytes = Image::new(eh_frame(cie(Arch::X86_64), &[(0, u32::MAX, &[])])).bytes(Arch::X86_64);
    // The second program header's size.
    bytes[64 + 56 + 32..][..8].copy_from_slice(&(1u64 << 63).to_le_bytes());
    let (table, _) = build(Bytes::Memory(&bytes)).unwrap();
    assert!(table.is_sound());
    assert_eq!(table.page_count(), MAX_PAGES);
}

#[test]
fn debug_frame_is_read_where_there_is_no_eh_frame() {
    let mut section = DebugFrame::from(EndianVec::new(LittleEndian));
    image::frames(cie(Arch::X86_64), &[(0, 8, &[])]).write_debug_frame(&mut section).unwrap();
    let image = Image { section: ".debug_frame", ..Image::new(section.slice().to_vec()) };
    assert_eq!(made(Arch::X86_64, &image).0.lookup(TEXT), sp(8));
}

#[test]
fn without_section_headers() {
    let mut frames = eh_frame(cie(Arch::X86_64), &[(0, 8, &[])]);
    frames.extend([0; 4]);
    let header = image::header(image::header_address(frames.len()), &[]);
    let image = Image { header, has_sections: false, ..Image::new(frames) };
    assert_eq!(made(Arch::X86_64, &image).0.lookup(TEXT), sp(8));
}

#[test]
fn the_header_leads_to_entries_that_a_walk_does_not_reach() {
    let first = eh_frame(cie(Arch::X86_64), &[(0, 8, &[])]);
    let mut frames = first.clone();
    frames.extend([0; 4]);
    let second = frames.len();
    frames.extend(eh_frame(cie(Arch::X86_64), &[(0x40, 8, &[(0, I::CfaOffset(16))])]));
    let entry_behind_cie = |at: usize| {
        let len = u32::from_le_bytes(*frames[at..].first_chunk().unwrap());
        (at + 4 + len as usize) as u64
    };
    let entries = [(0, entry_behind_cie(0)), (0x40, entry_behind_cie(second))];
    let at = image::header_address(frames.len());
    for (entries, sane) in [(entries, true), ([entries[1], entries[0]], false)] {
        let image = Image { header: image::header(at, &entries), ..Image::new(frames.clone()) };
        let (table, stats) = made(Arch::X86_64, &image);
        assert_eq!(table.lookup(TEXT), sp(8));
        assert_eq!(table.lookup(TEXT + 0x40), if sane { sp(16) } else { Rule::NONE });
        assert_eq!(stats.skipped, 0);
    }
    // One that says of an entry that it is another's.
    let lying = [(0, entries[1].1), (0x40, entries[1].1)];
    let image = Image { header: image::header(at, &lying), ..Image::new(frames) };
    let (table, stats) = made(Arch::X86_64, &image);
    assert_eq!((table.lookup(TEXT), stats.skipped), (Rule::UNSUPPORTED, 1));
}

/// Ten thousand entries, each of which reaches to the end of the section: read as they say, half a billion bytes.
#[test]
fn entries_that_overlap_are_not_read_again_and_again() {
    const COUNT: u64 = 10_000;
    const LEN: u64 = 24;
    let mut frames = eh_frame(cie(Arch::X86_64), &[(0, 8, &[])]);
    let cie_len = u64::from(u32::from_le_bytes(*frames.first_chunk().unwrap())) + 4;
    frames.truncate(cie_len as usize);
    let mut entries = Vec::new();
    for index in 0..COUNT {
        let at = cie_len + index * LEN;
        entries.push((index * 4, at));
        frames.extend([(COUNT - index) * LEN - 4, at + 4].map(|word| (word as u32).to_le_bytes()).concat());
        frames.extend([TEXT + index * 4, 4].map(u64::to_le_bytes).concat());
    }
    let header = image::header(image::header_address(frames.len()), &entries);
    let (_, stats) = made(Arch::X86_64, &Image { header, ..Image::new(frames) });
    assert!(stats.functions < 10, "{stats:?}");
    assert_eq!(stats.functions + stats.skipped, COUNT);
}

/// As arm64's vDSO has it: no unwind information at all.
#[test]
fn a_trampoline_alone_is_a_table() {
    let mut image = Image::new(Vec::new());
    image.code.push((0x104, [0xd280_1168u32, 0xd400_0001].map(u32::to_le_bytes).concat()));
    let mut bytes = image.bytes(Arch::Aarch64);
    // The second program header's size.
    bytes[64 + 56 + 32..][..8].copy_from_slice(&0x1000u64.to_le_bytes());
    let (table, _) = build(Bytes::Memory(&bytes)).unwrap();
    for (offset, rule) in [(0, Rule::NONE), (0x103, Rule::SIGNAL), (0x10c, Rule::NONE)] {
        assert_eq!(table.lookup(TEXT + offset), rule, "{offset:#x}");
    }
}

#[test]
fn files_without_a_table() {
    let no_frames = Image::new(Vec::new());
    assert!(matches!(build(Bytes::Memory(&no_frames.bytes(Arch::X86_64))), Err(TableError::NoInformation)));
    let mut other = no_frames.bytes(Arch::X86_64);
    other[18] = object::elf::EM_RISCV as u8;
    assert!(matches!(build(Bytes::Memory(&other)), Err(TableError::Machine { machine: 243 })));
    assert!(matches!(build(Bytes::Memory(b"#!/bin/sh")), Err(TableError::Elf(_))));
}

proptest! {
    /// Damaged in a few places, an image gives a sound table or a reason.
    #[test]
    fn mutations_of_unwind_information(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header: bool,
        has_sections: bool,
        is_arm: bool,
    ) {
        let arch = if is_arm { Arch::Aarch64 } else { Arch::X86_64 };
        let registers = super::state::Registers::of(arch);
        let instructions = [
            (0, I::CfaExpression(raw(&[0x76, 0x78, 0x06]))),
            (4, I::RememberState),
            (4, I::Cfa(registers.fp, 16)),
            (8, I::RestoreState),
            (8, I::Offset(registers.fp, -16)),
            (12, I::Restore(registers.fp)),
        ];
        let mut frames = eh_frame(cie(arch), &[(0, 64, &instructions), (0x40, 16, &[]), (0x2_0000, 32, &instructions)]);
        frames.extend([0; 4]);
        let mut header = image::header(image::header_address(frames.len()), &[(0, 0x18), (0x40, 0x50), (0x2_0000, 0x70)]);
        for (index, byte) in damages {
            let target = if in_header { &mut header } else { &mut frames };
            let at = index.index(target.len());
            target[at] = byte;
        }
        let image = Image { header, has_sections, entry: Some(0x100), ..Image::new(frames) };
        if let Ok((table, _)) = build(Bytes::Memory(&image.bytes(arch))) {
            prop_assert!(table.is_sound());
        }
    }
}
