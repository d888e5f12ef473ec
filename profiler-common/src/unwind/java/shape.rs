//! What the frame of an interrupted compiled function looks like, by the instructions around.

use core::hint::black_box;

/// How far a compiled function has come in making or leaving its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The stack pointer is at the return address.
    None,
    /// It is at the caller's frame pointer.
    Pushed,
    /// The frame is complete.
    Complete,
    /// It has its size, but the caller's frame pointer is still in its register.
    Sized,
}

/// Bytes of code that [`shape`] looks at, from the instruction on.
pub const CODE_BYTES: usize = 32;

/// The shape of an interrupted frame, by the instructions that come next. `before`: the 8 bytes before them, the nearest
/// one the highest.
///
/// Frames are made by `[push rbp; [mov rbp, rsp]] sub rsp, SIZE`, behind a check of the stack's bound and before a
/// check for the collector, or by `sub rsp, SIZE; mov [rsp + N], rbp`. They are left by `add rsp, SIZE; pop rbp` or
/// `leave`, a poll for safepoints, and `ret`.
#[inline(always)]
pub fn shape(offset: u64, frame_complete: i32, before: u64, code: &[u8; CODE_BYTES]) -> Shape {
    const PUSH: u8 = 0x55;
    const POP: u8 = 0x5d;
    let left = (frame_complete as u32 as u64).wrapping_sub(offset);
    if frame_complete < 0 || offset >= frame_complete as u32 as u64 {
        return if is_return(code, 0) {
            Shape::None
        } else if code[0] == POP && is_return(code, 1) {
            Shape::Pushed
        } else {
            Shape::Complete
        };
    }
    let subs = subs(code);
    let is_move =
        code[0] == 0x48 && (code[1] == 0x8b && code[2] == 0xec || code[1] == 0x89 && code[2] == 0xe5);
    let last = (before >> 56) as u8;
    let last_but_move = before >> 40 == 0xec_8b48 || before >> 40 == 0xe5_8948;
    if subs & 1 != 0 {
        let is_pushed = last == PUSH || (last_but_move && (before >> 32) as u8 == PUSH);
        return if is_pushed { Shape::Pushed } else { Shape::None };
    }
    if is_move && last == PUSH {
        return Shape::Pushed;
    }
    if code[0] == 0x48 && code[1] == 0x89 && (code[2] | 0xc0) == 0xec && code[3] == 0x24 {
        return Shape::Sized;
    }
    // Behind the frame's making there is only the collector's check.
    let is_ahead = left >= SUB_PLACES as u64 || subs & ((1 << (left & 31)) - 1) != 0;
    if is_ahead { Shape::None } else { Shape::Complete }
}

/// Where [`subs`] looks.
const SUB_PLACES: usize = CODE_BYTES - 2;

/// Where in code there can be `sub rsp, SIZE`, a bit for each byte. Without branches, each of which a verifier would
/// follow to both sides (`row::search`).
#[inline(always)]
fn subs(code: &[u8; CODE_BYTES]) -> u64 {
    let mut found = 0;
    for at in 0..SUB_PLACES {
        // The size in one byte, or in four.
        found |= equal(three(code, at) & 0xff_fdff, 0xec_8148) << at;
    }
    found
}

/// Whether the instructions from there on return, but for a poll for safepoints: `cmp rsp, [r15 + N]; ja` since JDK 16,
/// `mov r10, [r15 + N]; test [r10], eax` or `test [rip + N], eax` before. It can be past its first instruction.
#[inline(always)]
fn is_return(code: &[u8; CODE_BYTES], at: usize) -> bool {
    const RET: u8 = 0xc3;
    let tested = at + load_bytes(code, at);
    code[(tested + test_bytes(code, tested)) % CODE_BYTES] == RET
}

/// Length of `cmp rsp, [r15 + N]` or `mov r10, [r15 + N]` there, N in one byte or in four by how far JDKs have the word from
/// the thread's start; 0: it is neither. Without branches, as [`subs`].
#[inline(always)]
fn load_bytes(code: &[u8; CODE_BYTES], at: usize) -> usize {
    let bytes = three(code, at);
    let is_it = equal(bytes & 0x3f_ffff, 0x27_3b49) | equal(bytes & 0x3f_ffff, 0x17_8b4d);
    let mode = bytes >> 22;
    (is_it * (equal(mode, 1) * 4 + equal(mode, 2) * 7)) as usize
}

/// Length of the instruction there that leaves for the safepoint or faults: `ja`, `test [r10], eax`, `test [rip + N], eax`; 0:
/// it is none.
#[inline(always)]
fn test_bytes(code: &[u8; CODE_BYTES], at: usize) -> usize {
    let bytes = three(code, at);
    let is_long = equal(bytes & 0xffff, 0x870f) | equal(bytes & 0xffff, 0x0585);
    (is_long * 6 + equal(bytes, 0x02_8541) * 3) as usize
}

/// Three bytes of code, the first the lowest.
#[inline(always)]
fn three(code: &[u8; CODE_BYTES], at: usize) -> u64 {
    let byte = |i: usize| u64::from(code[(at + i) % CODE_BYTES]);
    byte(0) | byte(1) << 8 | byte(2) << 16
}

/// 1 if they are the same, else 0; of numbers below 2^63.
#[inline(always)]
fn equal(a: u64, b: u64) -> u64 {
    black_box(a ^ b).wrapping_sub(1) >> 63
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;
    use crate::{registers::Registers, unwind::java::Place};

    fn code(bytes: &[u8]) -> [u8; CODE_BYTES] {
        let mut code = [0x90; CODE_BYTES];
        code[..bytes.len()].copy_from_slice(bytes);
        code
    }

    /// What two compilers make, instruction by instruction, with the shape before each.
    #[test]
    fn frames_are_seen_to_be_made_and_left() {
        use Shape::{Complete, None, Pushed, Sized};
        let poll = [0x49, 0x3b, 0xa7, 0x20, 4, 0, 0, 0x0f, 0x87, 9, 0, 0, 0];
        // Bang, push, sub; barrier; body; add, pop, poll, ret.
        let made: &[(&[u8], Shape)] = &[
            (&[0x89, 0x84, 0x24, 0, 0xc0, 0xfe, 0xff], None),
            (&[0x55], None),
            (&[0x48, 0x83, 0xec, 0x30], Pushed),
            (&[0x41, 0x81, 0x7f, 0x20, 0x62, 0, 0, 0], Complete),
            (&[0x0f, 0x85, 1, 2, 3, 4], Complete),
        ];
        let left: &[(&[u8], Shape)] = &[
            (&[0x41, 0x3b, 0xc8], Complete),
            (&[0x48, 0x83, 0xc4, 0x30], Complete),
            (&[0x5d], Pushed),
            (&poll[..7], None),
            (&poll[7..], None),
            (&[0xc3], None),
        ];
        check(&[made, left], 26);
        // By a frame pointer, as bridges to native methods do.
        let made: &[(&[u8], Shape)] =
            &[(&[0x55], None), (&[0x48, 0x8b, 0xec], Pushed), (&[0x48, 0x81, 0xec, 0x40, 1, 0, 0], Pushed)];
        check(&[made, &[(&[0x48, 0x8b, 0xc8], Complete), (&[0xc9], Complete), (&[0xc3], None)]], 11);
        // In one step, of functions that call nothing.
        let made: &[(&[u8], Shape)] =
            &[(&[0x48, 0x81, 0xec, 0x18, 0, 0, 0], None), (&[0x48, 0x89, 0x6c, 0x24, 0x10], Sized)];
        check(&[made, left], 12);
        // By a poll of every JDK, each from its first instruction on and from the next; N in one byte, or in four.
        let polls: [&[&[u8]]; 5] = [
            &[&[0x49, 0x3b, 0x67, 0x28], &[0x0f, 0x87, 9, 0, 0, 0]],
            &[&[0x49, 0x3b, 0xa7, 0x28, 1, 0, 0], &[0x0f, 0x87, 9, 0, 0, 0]],
            &[&[0x4d, 0x8b, 0x57, 0x70], &[0x41, 0x85, 0x02]],
            &[&[0x4d, 0x8b, 0x97, 0x70, 1, 0, 0], &[0x41, 0x85, 0x02]],
            &[&[0x85, 0x05, 1, 2, 3, 4]],
        ];
        for poll in polls {
            let left: std::vec::Vec<(&[u8], Shape)> =
                [(&[0x5d][..], Pushed)].into_iter().chain(poll.iter().map(|bytes| (*bytes, None))).collect();
            check(&[&left, &[(&[0xc3], None)]], 0);
            // The same is in loops, where nothing is left.
            let stays: std::vec::Vec<_> = poll.iter().map(|bytes| (*bytes, Complete)).collect();
            check(&[&stays, &[(&[0xe9, 1, 2, 3, 4], Complete)]], 0);
        }
        // A comparison with the stack pointer itself is no poll.
        assert_eq!(shape(9, 0, 0, &code(&[0x49, 0x3b, 0xe7, 0x0f, 0x87, 9, 0, 0, 0, 0xc3])), Complete);
        // The instructions before a frame can be many: a check of the class, at another entry.
        assert_eq!(shape(0, 60, 0, &code(&[0x44, 0x8b, 0x56, 8])), None);
    }

    fn check(parts: &[&[(&[u8], Shape)]], complete: i32) {
        let all: std::vec::Vec<u8> =
            parts.iter().flat_map(|part| part.iter()).flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        let mut at = 0;
        for (bytes, expected) in parts.iter().flat_map(|part| part.iter()) {
            let rest = &all[at..];
            let mut before = [0x90; 8];
            let known = at.min(8);
            before[8 - known..].copy_from_slice(&all[at - known..at]);
            let code = code(&rest[..rest.len().min(CODE_BYTES)]);
            let found = shape(at as u64, complete, u64::from_le_bytes(before), &code);
            assert_eq!(found, *expected, "before {bytes:x?}");
            at += bytes.len();
        }
    }

    proptest! {
        #[test]
        fn any_code_has_a_shape(offset: u64, complete: i32, before: u64, code: [u8; CODE_BYTES]) {
            let frame = Registers { pc: 0, sp: 0x7000, fp: 0x7100, lr: 0 };
            let shape = shape(offset, complete, before, &code);
            prop_assert!(Place::of(shape, complete, &frame).sp >= frame.sp);
        }
    }
}
