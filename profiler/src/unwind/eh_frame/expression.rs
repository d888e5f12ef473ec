//! The DWARF expressions that compilers and linkers write into unwind information, told by their bytes.

use gimli::{EndianSlice, LittleEndian, Reader, constants as dw};
use profiler_common::unwind::{Arch, rule::Kind};

use super::state::Registers;

/// The CFA that an expression means: how it is found, and the offset that belongs to it.
///
/// GCC writes `breg6 N; deref` in functions that realign their stack; hand-written code that keeps an old stack pointer
/// on its stack has `breg7 N; deref`, with `plus_uconst 8` where the return address was not yet popped (OpenSSL); linkers
/// write the procedure linkage table's.
pub fn cfa(expression: &[u8], registers: &Registers, arch: Arch) -> Option<(Kind, i64)> {
    if matches!(arch, Arch::X86_64)
        && let Some(boundary) = plt(expression)
    {
        return Some((Kind::Plt, boundary));
    }
    let mut reader = EndianSlice::new(expression, LittleEndian);
    let (register, offset) = based(&mut reader)?;
    const DEREF: u8 = dw::DW_OP_deref.0;
    const PLUS: u8 = dw::DW_OP_plus_uconst.0;
    let kind = match *reader.slice() {
        [DEREF] if register == registers.fp.0 => Kind::AtFp,
        [DEREF] if register == registers.sp.0 => Kind::AtSp,
        [DEREF, PLUS, 8] if register == registers.sp.0 => Kind::SavedSp,
        _ => return None,
    };
    Some((kind, offset))
}

/// The offset of an address that is given as frame pointer + offset.
pub fn at_frame_pointer(expression: &[u8], registers: &Registers) -> Option<i64> {
    let mut reader = EndianSlice::new(expression, LittleEndian);
    let (register, offset) = based(&mut reader)?;
    (register == registers.fp.0 && reader.is_empty()).then_some(offset)
}

/// `bregN offset`, or `bregx N offset`.
fn based(reader: &mut EndianSlice<'_, LittleEndian>) -> Option<(u16, i64)> {
    let operation = reader.read_u8().ok()?;
    let register = if operation == dw::DW_OP_bregx.0 {
        u16::try_from(reader.read_uleb128().ok()?).ok()?
    } else {
        let register = operation.checked_sub(dw::DW_OP_breg0.0).filter(|register| *register < 32)?;
        u16::from(register)
    };
    Some((register, reader.read_sleb128().ok()?))
}

/// `breg7 8; breg16 0; lit15; and; litN; ge; lit3; shl; plus`: one word is on the stack, and one more behind byte N of
/// a 16-byte entry. N is 11, or 9 in entries that begin with `endbr64` or `bnd`.
fn plt(expression: &[u8]) -> Option<i64> {
    let [sp, 8, pc, 0, lit15, and, literal, ge, lit3, shl, plus] = *expression else { return None };
    let operations = [sp, pc, lit15, and, ge, lit3, shl, plus];
    let expected = [
        dw::DW_OP_breg7,
        dw::DW_OP_breg16,
        dw::DW_OP_lit15,
        dw::DW_OP_and,
        dw::DW_OP_ge,
        dw::DW_OP_lit3,
        dw::DW_OP_shl,
        dw::DW_OP_plus,
    ];
    if operations != expected.map(|operation| operation.0) {
        return None;
    }
    literal.checked_sub(dw::DW_OP_lit0.0).filter(|literal| *literal < 16).map(i64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_expressions_of_compilers_and_linkers() {
        let x86 = Registers::of(Arch::X86_64);
        let arm = Registers::of(Arch::Aarch64);
        let plt = |literal| [0x77, 8, 0x80, 0, 0x3f, 0x1a, literal, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(cfa(&plt(0x3b), &x86, Arch::X86_64), Some((Kind::Plt, 11)));
        assert_eq!(cfa(&plt(0x39), &x86, Arch::X86_64), Some((Kind::Plt, 9)));
        assert_eq!(cfa(&plt(0x40), &x86, Arch::X86_64), None);
        assert_eq!(cfa(&plt(0x2f), &x86, Arch::X86_64), None);
        assert_eq!(cfa(&plt(0x3b), &arm, Arch::Aarch64), None);
        assert_eq!(cfa(&[0x76, 0x78, 0x06], &x86, Arch::X86_64), Some((Kind::AtFp, -8)));
        assert_eq!(cfa(&[0x92, 0x06, 0x78, 0x06], &x86, Arch::X86_64), Some((Kind::AtFp, -8)));
        assert_eq!(cfa(&[0x77, 0xa0, 0x01, 0x06], &x86, Arch::X86_64), Some((Kind::AtSp, 160)));
        assert_eq!(cfa(&[0x8d, 0x70, 0x06], &arm, Arch::Aarch64), Some((Kind::AtFp, -16)));
        assert_eq!(cfa(&[0x8f, 0x10, 0x06], &arm, Arch::Aarch64), Some((Kind::AtSp, 16)));
        let saved = [0x77, 0xa0, 0x01, 0x06, 0x23, 0x08];
        assert_eq!(cfa(&saved, &x86, Arch::X86_64), Some((Kind::SavedSp, 160)));
        assert_eq!(cfa(&[0x77, 0xa0, 0x01, 0x06, 0x23, 0x10], &x86, Arch::X86_64), None, "and 16 more");
        assert_eq!(cfa(&[0x7a, 0x00, 0x06], &x86, Arch::X86_64), None, "r10");
        assert_eq!(at_frame_pointer(&[0x76, 0x70], &x86), Some(-16));
        assert_eq!(at_frame_pointer(&[0x76, 0x70, 0x06], &x86), None);
        assert_eq!(at_frame_pointer(&[0x77, 0x70], &x86), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            for arch in [Arch::X86_64, Arch::Aarch64] {
                cfa(&bytes, &Registers::of(arch), arch);
                at_frame_pointer(&bytes, &Registers::of(arch));
            }
        }
    }
}
