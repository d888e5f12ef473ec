//! One step: from a frame's registers and its rule to its caller's registers.

use super::{
    Arch,
    rule::{FpRule, Kind, RaRule, Rule},
};
use crate::{registers::Registers, stack::WalkEnd};

/// Bits of a user address. arm64's pointer authentication code is in the bits above; x86-64's and arm64's addresses
/// beyond 48 bits are only given to programs that ask for them by a hint (Documentation/arch/{x86,arm64}).
const ADDRESS_BITS: u64 = (1 << 48) - 1;

/// Where the kernel's signal frame keeps registers, bytes from the stack pointer at its return trampoline.
struct SignalFrame {
    pc: u64,
    sp: u64,
    fp: u64,
    lr: u64,
}

impl SignalFrame {
    const fn of(arch: Arch) -> Self {
        match arch {
            // `struct ucontext`: flags, link and stack are 40 bytes; then `struct sigcontext_64` (r8 .. r15, di, si, bp,
            // bx, dx, ax, cx, sp, ip), arch/x86/include/uapi/asm/sigcontext.h.
            Arch::X86_64 => Self { pc: 40 + 16 * 8, sp: 40 + 15 * 8, fp: 40 + 10 * 8, lr: 0 },
            // `struct rt_sigframe`: siginfo is 128 bytes; `struct ucontext` has 168 bytes before its 16-aligned
            // `struct sigcontext` (fault address, x0 .. x30, sp, pc), arch/arm64/include/uapi/asm/{ucontext,sigcontext}.h.
            Arch::Aarch64 => {
                const X0: u64 = 128 + 176 + 8;
                Self { pc: X0 + 32 * 8, sp: X0 + 31 * 8, fp: X0 + 29 * 8, lr: X0 + 30 * 8 }
            }
        }
    }
}

/// A caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its registers.
    pub registers: Registers,
    /// Its `pc` is the instruction that a signal interrupted, not one behind a call.
    pub interrupted: bool,
}

/// Takes a step by a rule. `innermost` frames have all their registers, and may have called nothing yet. `read` gives
/// the word at a user address.
///
/// # Errors
/// Why there is no caller: [`WalkEnd::Complete`] if there is none by right, else what is in the way.
#[inline(always)]
pub fn by_rule(
    arch: Arch,
    rule: Rule,
    frame: &Registers,
    innermost: bool,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Result<Caller, WalkEnd> {
    let kind = rule.kind();
    if kind == Kind::End as u8 {
        return Err(WalkEnd::Complete);
    }
    if kind == Kind::None as u8 {
        return Err(WalkEnd::NoRow);
    }
    if kind >= Kind::Unsupported as u8 {
        return Err(WalkEnd::UnsupportedRule);
    }
    if kind == Kind::Signal as u8 {
        return signal(arch, frame, read);
    }
    let by_fp = kind == Kind::Fp as u8 || kind == Kind::AtFp as u8;
    let base = if by_fp { frame.fp } else { frame.sp };
    let cfa = if kind == Kind::Plt as u8 {
        // The entry pushes an index between the two jumps.
        let pushed = u64::from(frame.pc & 15 >= rule.cfa_offset());
        base.wrapping_add(8).wrapping_add(pushed * 8)
    } else if kind == Kind::AtFp as u8 || kind == Kind::AtSp as u8 || kind == Kind::SavedSp as u8 {
        let above = u64::from(kind == Kind::SavedSp as u8) * 8;
        read(base.wrapping_add(rule.cfa_offset())).ok_or(WalkEnd::BadRead)?.wrapping_add(above)
    } else {
        base.wrapping_add(rule.cfa_offset())
    };
    // A caller's frame is further out than its callee's. Only the innermost frame can be empty.
    if cfa < frame.sp || (cfa == frame.sp && !innermost) {
        return Err(WalkEnd::NoProgress);
    }
    let fp = match rule.fp() {
        kind if kind == FpRule::Same as u8 => frame.fp,
        kind if kind == FpRule::AtCfa as u8 => {
            read(cfa.wrapping_add(rule.fp_offset())).ok_or(WalkEnd::BadRead)?
        }
        kind if kind == FpRule::AtFp as u8 => {
            read(frame.fp.wrapping_add(rule.fp_offset())).ok_or(WalkEnd::BadRead)?
        }
        _ => 0,
    };
    let pc = if rule.ra() == RaRule::Same as u8 {
        // Only a function that has called nothing still has its return address in the register.
        if !innermost {
            return Err(WalkEnd::NoProgress);
        }
        frame.lr
    } else {
        read(cfa.wrapping_add(rule.ra_offset())).ok_or(WalkEnd::BadRead)?
    };
    caller(arch, Registers { pc, sp: cfa, fp, lr: 0 })
}

/// Takes a step by the frame pointer, in code that keeps one and has no table.
///
/// # Errors
/// As [`by_rule`].
#[inline(always)]
pub fn by_frame_pointer(
    arch: Arch,
    frame: &Registers,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Result<Caller, WalkEnd> {
    if frame.fp == 0 {
        return Err(WalkEnd::Complete);
    }
    // A frame's record lies on its stack, above what the frame has pushed since.
    if frame.fp < frame.sp || frame.fp & 7 != 0 {
        return Err(WalkEnd::NoProgress);
    }
    let fp = read(frame.fp).ok_or(WalkEnd::BadRead)?;
    let pc = read(frame.fp.wrapping_add(8)).ok_or(WalkEnd::BadRead)?;
    caller(arch, Registers { pc, sp: frame.fp.wrapping_add(16), fp, lr: 0 })
}

/// Takes a step out of code without unwind information, if it is the innermost frame: hand-written functions that call
/// nothing (copy loops, spin hints) mostly keep no frame, so that their return address is where the call has put it. It
/// is believed only if there is a call before it.
///
/// # Errors
/// [`WalkEnd::NoRow`] if there is none, or the code cannot be read.
#[inline(always)]
pub fn by_call(
    arch: Arch,
    frame: &Registers,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Result<Caller, WalkEnd> {
    let (pc, sp) = match arch {
        Arch::X86_64 => (read(frame.sp).ok_or(WalkEnd::NoRow)?, frame.sp.wrapping_add(8)),
        Arch::Aarch64 => (frame.lr & ADDRESS_BITS, frame.sp),
    };
    let before = read(pc.wrapping_sub(8)).ok_or(WalkEnd::NoRow)?;
    if !ends_with_call(arch, before) {
        return Err(WalkEnd::NoRow);
    }
    Ok(Caller { registers: Registers { pc, sp, ..*frame }, interrupted: false })
}

/// Whether the last of 8 bytes of code are a call.
#[inline(always)]
pub(super) const fn ends_with_call(arch: Arch, code: u64) -> bool {
    match arch {
        // `e8` and 4 bytes, or `ff`, a ModRM byte with 2 in bits 3 to 5 and nothing, a SIB byte, 1 or 4 bytes of
        // displacement, or a SIB byte and displacement: 2, 3, 4, 6 or 7 bytes (Intel SDM volume 2, "CALL").
        Arch::X86_64 => {
            let direct = code >> 24 & 0xff == 0xe8;
            let mut indirect = false;
            let mut at = 1;
            while at < 7 {
                indirect |= at != 3 && code >> (at * 8) & 0x38ff == 0x10ff;
                at += 1;
            }
            direct || indirect
        }
        // `bl`, `blr`.
        Arch::Aarch64 => {
            let instruction = (code >> 32) as u32;
            instruction & 0xfc00_0000 == 0x9400_0000 || instruction & 0xffff_fc1f == 0xd63f_0000
        }
    }
}

#[inline(always)]
fn caller(arch: Arch, mut registers: Registers) -> Result<Caller, WalkEnd> {
    if matches!(arch, Arch::Aarch64) {
        registers.pc &= ADDRESS_BITS;
    }
    // The outermost function of threads that no unwind information ends (musl, hand-written starts) returns to 0.
    if registers.pc == 0 {
        return Err(WalkEnd::Complete);
    }
    Ok(Caller { registers, interrupted: false })
}

#[inline(always)]
fn signal(
    arch: Arch,
    frame: &Registers,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Result<Caller, WalkEnd> {
    let places = SignalFrame::of(arch);
    let mut word = |offset: u64| read(frame.sp.wrapping_add(offset)).ok_or(WalkEnd::BadRead);
    let (pc, sp, fp) = (word(places.pc)?, word(places.sp)?, word(places.fp)?);
    let lr = if matches!(arch, Arch::Aarch64) { word(places.lr)? } else { 0 };
    Ok(Caller { registers: Registers { pc, sp, fp, lr }, interrupted: true })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::unwind::rule::Parts;

    const SP: u64 = 0x7ffd_0000_1000;

    fn rule(kind: Kind, cfa_offset: i32, fp: FpRule, fp_offset: i16) -> Rule {
        Rule::new(Parts { kind, cfa_offset, fp, fp_offset, ra: RaRule::AtCfa, ra_offset: -8 })
    }

    fn frame() -> Registers {
        Registers { pc: 0x40_1000, sp: SP, fp: SP + 0x40, lr: 0 }
    }

    fn step(rule: Rule, memory: &[(u64, u64)]) -> Result<Caller, WalkEnd> {
        let memory: HashMap<u64, u64> = memory.iter().copied().collect();
        by_rule(Arch::X86_64, rule, &frame(), true, |address| memory.get(&address).copied())
    }

    fn registers(pc: u64, sp: u64, fp: u64) -> Result<Caller, WalkEnd> {
        Ok(Caller { registers: Registers { pc, sp, fp, lr: 0 }, interrupted: false })
    }

    #[test]
    fn from_the_stack_pointer_with_a_saved_frame_pointer() {
        let found = step(rule(Kind::Sp, 32, FpRule::AtCfa, -16), &[(SP + 24, 0x40_2000), (SP + 16, 0x1234)]);
        assert_eq!(found, registers(0x40_2000, SP + 32, 0x1234));
    }

    #[test]
    fn from_the_frame_pointer() {
        let found = step(rule(Kind::Fp, 16, FpRule::AtCfa, -16), &[(SP + 0x48, 0x40_2000), (SP + 0x40, 7)]);
        assert_eq!(found, registers(0x40_2000, SP + 0x50, 7));
    }

    /// `lea r10,[rsp+8]; and rsp,-32; push [r10-8]; push rbp; mov rbp,rsp; push r10`: the CFA is kept below rbp.
    #[test]
    fn a_realigned_stack() {
        let memory = [(SP + 0x38, SP + 0x80), (SP + 0x40, 9), (SP + 0x78, 0x40_2000)];
        let found = step(rule(Kind::AtFp, -8, FpRule::AtFp, 0), &memory);
        assert_eq!(found, registers(0x40_2000, SP + 0x80, 9));
    }

    /// `mov rax,rsp; ...; mov [rsp+24],rax`: the stack pointer as it was, below the CFA by the return address.
    #[test]
    fn a_stack_pointer_that_was_saved() {
        let memory = [(SP + 24, SP + 0x78), (SP + 0x78, 0x40_2000)];
        let found = step(rule(Kind::SavedSp, 24, FpRule::Same, 0), &memory);
        assert_eq!(found, registers(0x40_2000, SP + 0x80, SP + 0x40));
    }

    #[test]
    fn a_plt_entry_before_and_behind_its_push() {
        let plt = rule(Kind::Plt, 11, FpRule::Same, 0);
        let memory: HashMap<u64, u64> = [(SP, 1), (SP + 8, 2)].into();
        for (low, pc, sp) in [(0, 1, SP + 8), (10, 1, SP + 8), (11, 2, SP + 16), (15, 2, SP + 16)] {
            let frame = Registers { pc: 0x40_1000 + low, ..frame() };
            let found = by_rule(Arch::X86_64, plt, &frame, true, |address| memory.get(&address).copied());
            assert_eq!(found, registers(pc, sp, frame.fp));
        }
    }

    #[test]
    fn a_signal_frame_gives_back_what_was_interrupted() {
        let memory: HashMap<u64, u64> = [(SP + 168, 0x40_3000), (SP + 160, 0x1000), (SP + 120, 5)].into();
        let found =
            by_rule(Arch::X86_64, Rule::SIGNAL, &frame(), false, |address| memory.get(&address).copied());
        let registers = Registers { pc: 0x40_3000, sp: 0x1000, fp: 5, lr: 0 };
        assert_eq!(found, Ok(Caller { registers, interrupted: true }), "an alternate stack may lie anywhere");
    }

    #[test]
    fn ends_say_why() {
        assert_eq!(step(Rule::END, &[]), Err(WalkEnd::Complete));
        assert_eq!(step(Rule::NONE, &[]), Err(WalkEnd::NoRow));
        assert_eq!(step(Rule::UNSUPPORTED, &[]), Err(WalkEnd::UnsupportedRule));
        assert_eq!(step(rule(Kind::Sp, 32, FpRule::Same, 0), &[]), Err(WalkEnd::BadRead));
        assert_eq!(step(rule(Kind::Sp, -8, FpRule::Same, 0), &[]), Err(WalkEnd::NoProgress));
        assert_eq!(step(rule(Kind::Sp, 8, FpRule::Same, 0), &[(SP, 0)]), Err(WalkEnd::Complete));
    }

    /// arm64: a leaf returns by x30, whose upper bits may be signed; only a leaf can.
    #[test]
    fn the_link_register() {
        let leaf = Rule::new(Parts {
            kind: Kind::Sp,
            cfa_offset: 0,
            fp: FpRule::Same,
            fp_offset: 0,
            ra: RaRule::Same,
            ra_offset: 0,
        });
        let frame = Registers { lr: 0x0028_0000_0040_2000 | 1 << 55, ..frame() };
        let found = by_rule(Arch::Aarch64, leaf, &frame, true, |_| None);
        assert_eq!(found, registers(0x40_2000, SP, frame.fp));
        assert_eq!(by_rule(Arch::Aarch64, leaf, &frame, false, |_| None), Err(WalkEnd::NoProgress));
    }

    #[test]
    fn by_frame_pointers() {
        let memory: HashMap<u64, u64> = [(SP + 0x40, SP + 0x80), (SP + 0x48, 0x40_2000)].into();
        let read = |address| memory.get(&address).copied();
        assert_eq!(
            by_frame_pointer(Arch::X86_64, &frame(), read),
            registers(0x40_2000, SP + 0x50, SP + 0x80)
        );
        let below = Registers { fp: SP - 8, ..frame() };
        assert_eq!(by_frame_pointer(Arch::X86_64, &below, read), Err(WalkEnd::NoProgress));
        let outermost = Registers { fp: 0, ..frame() };
        assert_eq!(by_frame_pointer(Arch::X86_64, &outermost, read), Err(WalkEnd::Complete));
    }

    #[test]
    fn a_leaf_without_information_is_left_by_its_call() {
        let bytes = |code: [u8; 8]| u64::from_le_bytes(code);
        let x86 = [
            ([0, 0, 0, 0xe8, 1, 2, 3, 4], true),
            ([0, 0, 0, 0, 0, 0, 0xff, 0xd0], true),
            ([0, 0, 0, 0, 0, 0x41, 0xff, 0xd4], true),
            ([0, 0, 0, 0, 0, 0xff, 0x50, 0x18], true),
            ([0, 0, 0, 0, 0xff, 0x54, 0x24, 0x08], true),
            ([0, 0, 0xff, 0x15, 1, 2, 3, 4], true),
            ([0, 0xff, 0x94, 0x24, 1, 2, 3, 4], true),
            ([0, 0, 0, 0xe9, 1, 2, 3, 4], false),
            ([0, 0, 0xff, 0x25, 1, 2, 3, 4], false),
            ([0; 8], false),
        ];
        for (code, is_call) in x86 {
            let memory: HashMap<u64, u64> = [(SP, 0x40_2000), (0x40_1ff8, bytes(code))].into();
            let found = by_call(Arch::X86_64, &frame(), |address| memory.get(&address).copied());
            let expected =
                if is_call { registers(0x40_2000, SP + 8, SP + 0x40) } else { Err(WalkEnd::NoRow) };
            assert_eq!(found, expected, "{code:x?}");
        }
        assert_eq!(by_call(Arch::X86_64, &frame(), |_| None), Err(WalkEnd::NoRow));
        for (instruction, is_call) in [(0x9400_0010u64, true), (0xd63f_0100, true), (0xd65f_03c0, false)] {
            let frame = Registers { lr: 0x40_2000, ..frame() };
            let found = by_call(Arch::Aarch64, &frame, |_| Some(instruction << 32));
            assert_eq!(found.is_ok(), is_call, "{instruction:#x}");
        }
    }

    proptest! {
        /// Whatever the rule and the memory, the stack pointer moves outwards, but for signal frames.
        #[test]
        fn the_walk_goes_outwards(rule: u64, pc: u64, sp: u64, fp: u64, word: u64, innermost: bool) {
            let frame = Registers { pc, sp, fp, lr: word };
            for arch in [Arch::X86_64, Arch::Aarch64] {
                if let Ok(next) = by_rule(arch, Rule(rule), &frame, innermost, |_| Some(word)) {
                    prop_assert!(next.interrupted || next.registers.sp >= sp);
                    prop_assert!(next.interrupted || innermost || next.registers.sp > sp);
                }
            }
        }
    }
}
