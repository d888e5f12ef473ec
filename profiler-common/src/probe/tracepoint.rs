//! The `tracepoint` probe: who hits a tracepoint of the user's choice, and where, if the tracepoint's fields are as asked.
//!
//! What is compared is read from the record that the kernel makes of a hit (`format` files of tracefs): integers of 1, 2, 4
//! or 8 bytes.

use crate::sample::{MAX_HOOKS, Programs};

/// Its programs, by the place of the event among those that the user named by their hooks.
pub const PROGRAMS: [Programs; MAX_HOOKS] =
    [programs("tracepoint_0"), programs("tracepoint_1"), programs("tracepoint_2"), programs("tracepoint_3")];

const fn programs(sample: &'static str) -> Programs {
    Programs { sample, calls: "TRACEPOINT_PROGRAMS", walk: "tracepoint_walk", count: "tracepoint_count" }
}

/// Conditions that a filter can have.
pub const MAX_CONDITIONS: usize = 4;

/// A comparison of a field (left) with a number (right).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal = 1,
    /// `!=`
    NotEqual = 2,
    /// `<`
    Less = 3,
    /// `<=`
    LessOrEqual = 4,
    /// `>`
    Greater = 5,
    /// `>=`
    GreaterOrEqual = 6,
    /// `&`: at least one of the number's bits is set.
    Bits = 7,
}

/// A condition on a field of the record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// An [`Operator`] as a number; 0: no condition.
    pub operator: u32,
    /// 1: the field has a sign.
    pub signed: u32,
    /// Where it is in the record, bytes.
    pub offset: u32,
    /// Its size, bytes.
    pub size: u32,
    /// What it is compared with; negative numbers as their two's complement.
    pub value: u64,
}

const _: () = assert!(size_of::<Condition>() == 24);

/// What a hit must be to be counted: all conditions are met.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookFilter {
    /// The conditions; those without an operator are always met, and none follows them.
    pub conditions: [Condition; MAX_CONDITIONS],
}

/// The filters of all events, by their places.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookFilters {
    /// The filters.
    pub of: [HookFilter; MAX_HOOKS],
}

const _: () = assert!(size_of::<HookFilters>() == 24 * MAX_CONDITIONS * MAX_HOOKS);

impl HookFilters {
    /// Everything is counted.
    pub const NONE: Self = Self {
        of: [HookFilter {
            conditions: [Condition { operator: 0, signed: 0, offset: 0, size: 0, value: 0 }; MAX_CONDITIONS],
        }; MAX_HOOKS],
    };
}

/// The value of a field of `size` bytes that was read into the first bytes of a zeroed word: with its sign, if it has one.
#[inline(always)]
pub const fn field(read: u64, size: u32, signed: u32) -> u64 {
    let unused = 64 - 8 * if size == 0 || size > 8 { 8 } else { size };
    if signed != 0 { (((read << unused) as i64) >> unused) as u64 } else { (read << unused) >> unused }
}

/// Whether a field's value meets a condition; unknown operators never do.
#[inline(always)]
pub const fn meets(operator: u32, signed: u32, field: u64, value: u64) -> bool {
    let less = if signed != 0 { (field as i64) < value as i64 } else { field < value };
    match operator {
        1 => field == value,
        2 => field != value,
        3 => less,
        4 => less || field == value,
        5 => !less && field != value,
        6 => !less,
        7 => field & value != 0,
        _ => false,
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for HookFilters {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Operator; 7] = [
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
        Operator::Bits,
    ];

    fn expected<T: PartialOrd>(a: T, b: T, bits: bool) -> [bool; 7] {
        [a == b, a != b, a < b, a <= b, a > b, a >= b, bits]
    }

    #[test]
    fn the_sign_is_that_of_the_field() {
        assert_eq!(field(0xff, 1, 1), u64::MAX);
        assert_eq!(field(0xff, 1, 0), 0xff);
        assert_eq!(field(0xffff_ff80, 4, 1) as i64, -128);
        assert_eq!(field(u64::MAX, 8, 0), u64::MAX);
        // A size that no field has reads nothing out of bounds.
        assert_eq!(field(5, 0, 0), 5);
        assert_eq!(field(5, 9, 1), 5);
        assert!(!meets(0, 0, 1, 1));
        assert!(!meets(8, 0, 1, 1));
    }

    proptest! {
        #[test]
        fn comparisons_of_4_bytes_are_those_of_the_type(a: i32, b: i32) {
            let (raw, bits) = (u64::from(a as u32), a & b != 0);
            let signed = ALL.map(|op| meets(op as u32, 1, field(raw, 4, 1), i64::from(b) as u64));
            prop_assert_eq!(signed, expected(a, b, bits || (a < 0 && b < 0)));
            let unsigned = ALL.map(|op| meets(op as u32, 0, field(raw, 4, 0), u64::from(b as u32)));
            prop_assert_eq!(unsigned, expected(a as u32, b as u32, bits));
        }

        #[test]
        fn comparisons_of_8_bytes_are_those_of_the_type(a: i64, b: i64) {
            let signed = ALL.map(|op| meets(op as u32, 1, field(a as u64, 8, 1), b as u64));
            prop_assert_eq!(signed, expected(a, b, a & b != 0));
            let unsigned = ALL.map(|op| meets(op as u32, 0, field(a as u64, 8, 0), b as u64));
            prop_assert_eq!(unsigned, expected(a as u64, b as u64, a & b != 0));
        }
    }
}
