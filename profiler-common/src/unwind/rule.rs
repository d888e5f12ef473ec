//! A rule: how the registers of a frame's caller follow from the frame's own, in 64 bits.
//!
//! Three registers are followed: the stack pointer (always the CFA, DWARF's "canonical frame address"), the frame
//! pointer (rbp, x29) and the return address. Rules that need another register, or a DWARF expression other than the
//! few that compilers and linkers write, are [`Kind::Unsupported`]: the walk stops there and says so.

/// How the CFA is found, or that there is no caller to be found.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No unwind information covers the address.
    None = 0,
    /// CFA = stack pointer + offset.
    Sp = 1,
    /// CFA = frame pointer + offset.
    Fp = 2,
    /// CFA = the word at (frame pointer + offset): a function that realigned its stack.
    AtFp = 3,
    /// CFA = the word at (stack pointer + offset).
    AtSp = 4,
    /// x86-64 procedure linkage table: CFA = stack pointer + 8, and 8 more from the byte `offset` of the 16-byte entry
    /// on, where it has pushed the relocation's index.
    Plt = 5,
    /// The kernel's signal frame: all registers are in the `ucontext` at the stack pointer.
    Signal = 6,
    /// The outermost function of a thread: the return address is undefined.
    End = 7,
    /// CFA = the word at (stack pointer + offset) + 8: hand-written x86-64 code that keeps the address of its return
    /// address on the stack (OpenSSL's ciphers and hashes).
    SavedSp = 8,
    /// A rule that cannot be expressed.
    Unsupported = 9,
}

/// Where the caller's frame pointer is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FpRule {
    /// In the register still.
    Same = 0,
    /// At CFA + offset.
    AtCfa = 1,
    /// At the frame pointer + offset: a function that realigned its stack.
    AtFp = 2,
    /// Nowhere: a caller that needs it cannot be unwound further.
    Undefined = 3,
}

/// Where the return address is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RaRule {
    /// At CFA + offset.
    AtCfa = 0,
    /// In the link register still (arm64, the innermost function).
    Same = 1,
}

/// The parts of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    /// How the CFA is found.
    pub kind: Kind,
    /// The offset that `kind` speaks of, bytes.
    pub cfa_offset: i32,
    /// Where the frame pointer is.
    pub fp: FpRule,
    /// The offset that `fp` speaks of, bytes.
    pub fp_offset: i16,
    /// Where the return address is.
    pub ra: RaRule,
    /// The offset that `ra` speaks of, bytes.
    pub ra_offset: i16,
}

/// A rule as the kernel side reads it: bits 0-3 [`Kind`], 4-5 [`FpRule`], 6-7 [`RaRule`], 8-31 offset of the CFA
/// (signed), 32-47 offset of the frame pointer, 48-63 offset of the return address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule(pub u64);

/// Offsets of the CFA that a rule can hold: 24 bits, signed.
pub const CFA_OFFSET: core::ops::RangeInclusive<i64> = -(1 << 23)..=(1 << 23) - 1;

impl Rule {
    /// No unwind information.
    pub const NONE: Self = Self(Kind::None as u64);
    /// No caller.
    pub const END: Self = Self(Kind::End as u64);
    /// Not expressible.
    pub const UNSUPPORTED: Self = Self(Kind::Unsupported as u64);
    /// A signal frame.
    pub const SIGNAL: Self = Self(Kind::Signal as u64);

    /// Puts the parts together; [`Rule::UNSUPPORTED`] if the offset of the CFA does not fit.
    pub const fn new(parts: Parts) -> Self {
        let offset = parts.cfa_offset as i64;
        if offset < *CFA_OFFSET.start() || offset > *CFA_OFFSET.end() {
            return Self::UNSUPPORTED;
        }
        Self(
            parts.kind as u64
                | (parts.fp as u64) << 4
                | (parts.ra as u64) << 6
                | (parts.cfa_offset as u32 as u64 & 0xff_ffff) << 8
                | (parts.fp_offset as u16 as u64) << 32
                | (parts.ra_offset as u16 as u64) << 48,
        )
    }

    /// [`Kind`] as a number.
    #[inline(always)]
    pub const fn kind(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// [`FpRule`] as a number.
    #[inline(always)]
    pub const fn fp(self) -> u8 {
        (self.0 >> 4 & 3) as u8
    }

    /// [`RaRule`] as a number.
    #[inline(always)]
    pub const fn ra(self) -> u8 {
        (self.0 >> 6 & 3) as u8
    }

    /// The offset of the CFA, sign-extended to a register.
    #[inline(always)]
    pub const fn cfa_offset(self) -> u64 {
        (((self.0 << 32) as i64) >> 40) as u64
    }

    /// The offset of the frame pointer, sign-extended to a register.
    #[inline(always)]
    pub const fn fp_offset(self) -> u64 {
        (((self.0 << 16) as i64) >> 48) as u64
    }

    /// The offset of the return address, sign-extended to a register.
    #[inline(always)]
    pub const fn ra_offset(self) -> u64 {
        ((self.0 as i64) >> 48) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_come_back(
            kind in prop::sample::select(&[Kind::Sp, Kind::Fp, Kind::AtFp, Kind::AtSp, Kind::Plt, Kind::SavedSp][..]),
            cfa_offset in -(1i32 << 23)..1 << 23,
            fp in prop::sample::select(&[FpRule::Same, FpRule::AtCfa, FpRule::AtFp, FpRule::Undefined][..]),
            fp_offset: i16,
            ra in prop::sample::select(&[RaRule::AtCfa, RaRule::Same][..]),
            ra_offset: i16,
        ) {
            let rule = Rule::new(Parts { kind, cfa_offset, fp, fp_offset, ra, ra_offset });
            prop_assert_eq!(rule.kind(), kind as u8);
            prop_assert_eq!(rule.cfa_offset(), cfa_offset as i64 as u64);
            prop_assert_eq!(rule.fp(), fp as u8);
            prop_assert_eq!(rule.fp_offset(), fp_offset as i64 as u64);
            prop_assert_eq!(rule.ra(), ra as u8);
            prop_assert_eq!(rule.ra_offset(), ra_offset as i64 as u64);
        }

        #[test]
        fn an_offset_that_does_not_fit_is_not_cut(cfa_offset in prop::num::i32::ANY) {
            let parts = Parts { kind: Kind::Sp, cfa_offset, fp: FpRule::Same, fp_offset: 0, ra: RaRule::AtCfa, ra_offset: -8 };
            let rule = Rule::new(parts);
            prop_assert!(rule == Rule::UNSUPPORTED || rule.cfa_offset() == cfa_offset as i64 as u64);
        }
    }
}
