//! Ends of loops in compiled code (x86-64): what is behind a loop's poll for safepoints up to its jump back.
//!
//! Compilers write debug information for the poll, and none for what is behind it. The next that they wrote is behind the
//! loop, often of another method: the one that a loop was inlined into. Yet a CPU that is interrupted in a short loop stands
//! behind the poll in a sixth of the cases.
//!
//! Only instructions that compilers put there are known; at any other the search ends, and the addresses are named as
//! HotSpot itself does it (`scopes`).

/// Most instructions between a poll and the jump.
const MAX_INSTRUCTIONS: usize = 16;

/// Offset of the last byte of the jump back of the loop whose poll for safepoints is at an offset of the code; `None`: there
/// is no poll, or no such jump was found.
pub fn jump_back(code: &[u8], poll: usize) -> Option<usize> {
    let first = code.get(poll..)?;
    if !is_poll(first) {
        return None;
    }
    let mut at = poll.checked_add(instruction(first)?.bytes)?;
    for _ in 0..MAX_INSTRUCTIONS {
        let found = instruction(code.get(at..)?)?;
        let end = at.checked_add(found.bytes)?;
        if let Some((distance, is_conditional)) = found.jump {
            let target = i64::try_from(end).ok()?.checked_add(i64::from(distance))?;
            if (0..=i64::try_from(poll).ok()?).contains(&target) {
                return end.checked_sub(1);
            }
            if !is_conditional {
                return None;
            }
        }
        at = end;
    }
    None
}

/// `test [...], eax`, from which a loop goes to a safepoint: the page is protected then.
fn is_poll(code: &[u8]) -> bool {
    const TEST: u8 = 0x85;
    let code = match code {
        [0x40..=0x4f, rest @ ..] => rest,
        code => code,
    };
    matches!(code, [TEST, operands, ..] if operands >> 6 != 3 && operands >> 3 & 7 == 0)
}

/// An instruction behind which the next is executed, or a jump.
#[derive(Debug, PartialEq, Eq)]
struct Instruction {
    bytes: usize,
    /// How far it jumps from its end, and whether it may not.
    jump: Option<(i32, bool)>,
}

/// The instruction that code begins with, if it is one of those known.
fn instruction(code: &[u8]) -> Option<Instruction> {
    let is_prefix = |byte: &&u8| matches!(byte, 0x66 | 0xf2 | 0xf3);
    let prefixes = code.iter().take_while(is_prefix).count();
    let is_short = code.get(..prefixes)?.contains(&0x66);
    let rex = code.get(prefixes).copied().filter(|byte| byte & 0xf0 == 0x40);
    let start = prefixes + usize::from(rex.is_some());
    let rest = code.get(start..)?;
    let number = if is_short { 2 } else { 4 };
    let plain = |bytes: usize| Some(Instruction { bytes: start + bytes, jump: None });
    let jump = |bytes: usize, distance: i32, is_conditional: bool| {
        Some(Instruction { bytes: start + bytes, jump: Some((distance, is_conditional)) })
    };
    let (&opcode, behind) = rest.split_first()?;
    let operands = || operands(behind);
    let kind = || behind.first().map(|byte| byte >> 3 & 7);
    match opcode {
        0x0f => of_two_bytes(behind).map(|found| Instruction { bytes: start + 1 + found.bytes, ..found }),
        // Arithmetic with an operand in memory or a register, with al, with eax.
        0x00..=0x3f if opcode & 7 < 4 => plain(1 + operands()?),
        0x00..=0x3f if opcode & 7 == 4 => plain(2),
        0x00..=0x3f if opcode & 7 == 5 => plain(1 + number),
        0x70..=0x7f => jump(2, i32::from(*behind.first()? as i8), true),
        0xeb => jump(2, i32::from(*behind.first()? as i8), false),
        0xe9 => jump(5, i32::from_le_bytes(*behind.first_chunk()?), false),
        0x63 | 0x84..=0x8b | 0x8d | 0xd1 | 0xd3 => plain(1 + operands()?),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => plain(2 + operands()?),
        0x69 | 0x81 | 0xc7 => plain(1 + number + operands()?),
        0x90 | 0x98 | 0x99 => plain(1),
        0xa8 => plain(2),
        0xa9 => plain(1 + number),
        0xb8..=0xbf if rex.is_some_and(|rex| rex & 8 != 0) => plain(9),
        0xb8..=0xbf => plain(1 + number),
        // test, and what takes one operand; inc, dec. Others of this code are calls and jumps.
        0xf6 if kind()? < 2 => plain(2 + operands()?),
        0xf7 if kind()? < 2 => plain(1 + number + operands()?),
        0xf6 | 0xf7 => plain(1 + operands()?),
        0xff if kind()? < 2 => plain(1 + operands()?),
        _ => None,
    }
}

/// One of those whose code begins with 0x0f, from the byte behind that on.
fn of_two_bytes(code: &[u8]) -> Option<Instruction> {
    let (&opcode, behind) = code.split_first()?;
    match opcode {
        0x80..=0x8f => {
            let distance = i32::from_le_bytes(*behind.first_chunk()?);
            Some(Instruction { bytes: 5, jump: Some((distance, true)) })
        }
        // Moves, conversions and arithmetic of vectors; long nops; conditional moves; imul; moves with extension.
        0x10..=0x17
        | 0x1f
        | 0x28..=0x2f
        | 0x40..=0x4f
        | 0x51..=0x6f
        | 0x7e
        | 0x7f
        | 0xaf
        | 0xb6
        | 0xb7
        | 0xbe
        | 0xbf
        | 0xd6
        | 0xef => Some(Instruction { bytes: 1 + operands(behind)?, jump: None }),
        _ => None,
    }
}

/// Bytes of what says which operands there are: ModRM, SIB, distance.
fn operands(code: &[u8]) -> Option<usize> {
    let first = code.first()?;
    let (mode, register) = (first >> 6, first & 7);
    let has_base = register == 4 && mode != 3;
    let base = if has_base { code.get(1)? & 7 } else { register };
    let distance = match mode {
        0 if base == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some(1 + usize::from(has_base) + distance)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Instructions one after the other: where each begins, and the bytes.
    fn code(parts: &[&[u8]]) -> (Vec<usize>, Vec<u8>) {
        let starts = parts.iter().scan(0, |at, part| {
            let start = *at;
            *at += part.len();
            Some(start)
        });
        (starts.collect(), parts.concat())
    }

    #[test]
    fn a_loop_ends_behind_its_poll_with_the_jump_back() {
        // What C2 of JDK 8 makes of `while (n-- > 0)`: dec, imul, add, poll, test, jg; then the return.
        let parts: [&[u8]; 8] = [
            &[0x48, 0xff, 0xca],
            &[0x49, 0x0f, 0xaf, 0xf3],
            &[0x49, 0x03, 0xf2],
            &[0x85, 0x05, 0xa0, 0x0e, 0x5f, 0x14],
            &[0x48, 0x85, 0xd2],
            &[0x7f, 0xeb],
            &[0x48, 0x83, 0xc4, 0x10],
            &[0x5d],
        ];
        let (at, bytes) = code(&parts);
        assert_eq!(jump_back(&bytes, at[3]), Some(at[6] - 1));
        assert_eq!(jump_back(&bytes, at[2]), None, "it is no poll");
        assert_eq!(jump_back(&bytes, bytes.len()), None);
        assert_eq!(jump_back(&bytes[..at[5] + 1], at[3]), None, "it is cut off");
        // A jump over the loop's start, or none, is no loop of this poll.
        let mut other = bytes.clone();
        other[at[5] + 1] = 0xf8;
        assert_eq!(jump_back(&other, at[3]), None);
        // By a register, as since JDK 10, with a way out before the jump.
        let parts: [&[u8]; 6] = [
            &[0x4d, 0x8b, 0x97, 0x70, 1, 0, 0],
            &[0x41, 0x85, 0x02],
            &[0x3b, 0x4c, 0x24, 0x08],
            &[0x0f, 0x8d, 0x20, 0, 0, 0],
            &[0xff, 0xc1],
            &[0xe9, 0xe5, 0xff, 0xff, 0xff],
        ];
        let (at, bytes) = code(&parts);
        assert_eq!(jump_back(&bytes, at[1]), Some(bytes.len() - 1));
        // Not behind a jump that is always taken, or a call.
        for stop in [&[0xeb, 0x10][..], &[0xe8, 1, 2, 3, 4], &[0xff, 0xd0], &[0xc3]] {
            let mut other = bytes[..at[2]].to_vec();
            other.extend(stop);
            other.extend(&bytes[at[5]..]);
            assert_eq!(jump_back(&other, at[1]), None, "{stop:x?}");
        }
    }

    /// As objdump has them.
    #[test]
    fn instructions_have_their_length() {
        let all: &[&[u8]] = &[
            &[0x4d, 0x8b, 0x97, 0x28, 1, 0, 0],       // mov r10, [r15+0x128]
            &[0x8b, 0x04, 0x25, 1, 2, 3, 4],          // mov eax, [0x4030201]
            &[0x48, 0x8d, 0x44, 0x24, 0x10],          // lea rax, [rsp+0x10]
            &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8],    // movabs rax
            &[0xb8, 1, 2, 3, 4],                      // mov eax
            &[0x66, 0xb8, 1, 2],                      // mov ax
            &[0x66, 0x81, 0xf9, 1, 2],                // cmp cx
            &[0x81, 0x78, 0x08, 1, 2, 3, 4],          // cmp dword [rax+8]
            &[0x83, 0xf9, 0x10],                      // cmp ecx, 0x10
            &[0x3d, 1, 2, 3, 4],                      // cmp eax
            &[0xf7, 0xc1, 1, 2, 3, 4],                // test ecx
            &[0xf7, 0xd9],                            // neg ecx
            &[0xf2, 0x0f, 0x58, 0xc1],                // addsd xmm0, xmm1
            &[0xf2, 0x49, 0x0f, 0x2a, 0xc2],          // cvtsi2sd xmm0, r10
            &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], // nop
            &[0x66, 0x66, 0x66, 0x90],                // nop
            &[0x0f, 0xb6, 0x4c, 0x0a, 0x10],          // movzx ecx, [rdx+rcx+0x10]
            &[0x48, 0x63, 0xd9],                      // movsxd rbx, ecx
            &[0xc7, 0x44, 0x24, 0x08, 1, 2, 3, 4],    // mov dword [rsp+8]
            &[0x48, 0xc1, 0xe8, 0x09],                // shr rax, 9
        ];
        for bytes in all {
            let expected = Some(Instruction { bytes: bytes.len(), jump: None });
            assert_eq!(instruction(bytes), expected, "{bytes:x?}");
            assert!(
                (0..bytes.len() - 1)
                    .all(|cut| instruction(&bytes[..cut]).is_none_or(|i| i.bytes <= bytes.len()))
            );
        }
        assert_eq!(instruction(&[]), None);
        assert_eq!(instruction(&[0xc5, 0xf8, 0x77]), None, "vzeroupper");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(code: Vec<u8>, poll: usize, is_near: bool) {
            let poll = if is_near { poll % 16 } else { poll };
            if let Some(last) = jump_back(&code, poll) {
                prop_assert!(last > poll);
            }
        }
    }
}
