//! Which methods are active at an address of compiled code: the compiled one and those inlined into it.
//!
//! Source: share/code/pcDesc.hpp, share/code/scopeDesc.cpp. A table has the addresses for which the compiler wrote
//! debug information (calls, safepoints, implicit null checks), each with the innermost scope. A scope is a row of
//! compressed numbers: where its caller's is, which method, which bytecode. An address in between gets the next entry
//! at or behind it, so a hot loop without a safepoint shows the safepoint behind it; `-XX:+DebugNonSafepoints` makes
//! HotSpot write more of them. What is behind a loop's safepoint up to its jump back is the loop's too ([`with_loops`]).

use std::collections::HashSet;

use super::{Fault, loops, unsigned5::Stream};

/// Size of a `PcDesc`: four numbers of 32 bits.
const PC_DESC: usize = 16;
/// Most methods inlined into each other. HotSpot stops at 15 levels (MaxInlineLevel), recursive ones included.
const MAX_DEPTH: usize = 256;

/// One method active at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Index of the `Method*` in the table of metadata, from 1.
    pub method: u32,
    /// Index of the bytecode, -1 before the first.
    pub bci: i32,
}

/// The scopes at `offset` from the code's start, innermost first. Empty where there is no debug information.
///
/// `pcs` is the table, `data` the scopes, `base` the least byte of compressed numbers.
///
/// # Errors
/// The scopes make no sense.
pub fn at(pcs: &[u8], data: &[u8], base: u8, offset: u32) -> Result<Vec<Scope>, Fault> {
    let Some(mut at) = decode_offset(pcs, offset) else { return Ok(Vec::new()) };
    let mut scopes = Vec::new();
    // 0 is no scope: the data begins with a byte that belongs to none.
    while at > 0 {
        let (caller, scope) = read(data, base, at)?;
        scopes.push(scope);
        if scopes.len() > MAX_DEPTH {
            return Err(Fault::Torn("a scope"));
        }
        at = caller;
    }
    Ok(scopes)
}

/// The table with an entry more for each loop: its jump back has the scope of its poll. `code` is what the table is of.
pub fn with_loops(pcs: &[u8], code: &[u8]) -> Vec<u8> {
    let (entries, rest) = pcs.as_chunks::<PC_DESC>();
    let mut all: Vec<[u8; PC_DESC]> = entries.to_vec();
    for entry in entries {
        let jump = usize::try_from(number(entry, 0)).ok().and_then(|poll| loops::jump_back(code, poll));
        if let Some(last) = jump.and_then(|last| i32::try_from(last).ok()) {
            let mut added = *entry;
            added[..4].copy_from_slice(&last.to_ne_bytes());
            all.push(added);
        }
    }
    // Those that were there first stay first.
    all.sort_by_key(|entry| number(entry, 0));
    [all.as_flattened(), rest].concat()
}

/// The indices of all methods that any scope of the table names.
///
/// # Errors
/// The scopes make no sense.
pub fn methods(pcs: &[u8], data: &[u8], base: u8) -> Result<HashSet<u32>, Fault> {
    let (entries, _) = pcs.as_chunks::<PC_DESC>();
    let mut methods = HashSet::new();
    let mut seen = HashSet::new();
    for entry in entries {
        let mut at = number(entry, 4);
        // Callers are shared: each scope is read once.
        while at > 0 && seen.insert(at) {
            let (caller, scope) = read(data, base, at)?;
            methods.insert(scope.method);
            at = caller;
        }
    }
    Ok(methods)
}

/// The scope at a place in the data, and where its caller's is.
fn read(data: &[u8], base: u8, at: i32) -> Result<(i32, Scope), Fault> {
    let bytes = usize::try_from(at).ok().and_then(|at| data.get(at..)).ok_or(Fault::Torn("a scope"))?;
    let mut stream = Stream::new(bytes, base);
    let mut number = || stream.number().ok_or(Fault::Torn("a scope"));
    let (caller, method, bci) = (number()?, number()?, number()?);
    let caller = i32::try_from(caller).map_err(|_| Fault::Torn("a scope"))?;
    Ok((caller, Scope { method, bci: (bci as i32).wrapping_sub(1) }))
}

/// The scope of the first entry at or behind an offset; they are in order.
fn decode_offset(pcs: &[u8], offset: u32) -> Option<i32> {
    let (entries, _) = pcs.as_chunks::<PC_DESC>();
    let first = entries.partition_point(|entry| i64::from(number(entry, 0)) < i64::from(offset));
    entries.get(first).map(|entry| number(entry, 4))
}

fn number(entry: &[u8; PC_DESC], at: usize) -> i32 {
    entry.get(at..).and_then(|part| part.first_chunk()).copied().map_or(0, i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::unsigned5::tests::encode, *};

    /// A table of (offset, scope).
    fn table(entries: &[(i32, i32)]) -> Vec<u8> {
        let words = entries.iter().flat_map(|&(offset, scope)| [offset, scope, 0, 0]);
        words.flat_map(i32::to_ne_bytes).collect()
    }

    fn scope(caller: u32, method: u32, bci: i32, base: u8, data: &mut Vec<u8>) -> i32 {
        let at = data.len() as i32;
        for number in [caller, method, (bci + 1) as u32, 0, 0, 0] {
            encode(number, base, data);
        }
        at
    }

    #[test]
    fn inlined_methods_come_innermost_first() {
        for base in [0, 1] {
            let mut data = vec![base];
            let outer = scope(0, 1, 12, base, &mut data);
            let middle = scope(outer as u32, 300, 1000, base, &mut data);
            let inner = scope(middle as u32, 2, -1, base, &mut data);
            let pcs = table(&[(-1, 0), (0x10, outer), (0x20, inner), (0x30, middle), (i32::MAX, 0)]);
            let scopes = |offset| at(&pcs, &data, base, offset).unwrap();
            let expected = [(2, -1), (300, 1000), (1, 12)].map(|(method, bci)| Scope { method, bci });
            assert_eq!(scopes(0), expected[2..]);
            assert_eq!(scopes(0x10), expected[2..]);
            assert_eq!(scopes(0x11), expected);
            assert_eq!(scopes(0x20), expected);
            assert_eq!(scopes(0x30), expected[1..]);
            assert_eq!(scopes(0x31), [], "behind the last entry");
            assert_eq!(scopes(u32::MAX), []);
        }
    }

    #[test]
    fn the_end_of_a_loop_is_the_loops() {
        let mut data = vec![0];
        let outer = scope(0, 1, 12, 0, &mut data);
        let inner = scope(outer as u32, 2, 3, 0, &mut data);
        // A poll, a test, a jump back to the poll; a return.
        let code = [0x90, 0x90, 0x85, 0x05, 1, 2, 3, 4, 0x48, 0x85, 0xd2, 0x7f, 0xf5, 0x90, 0x90, 0xc3];
        let pcs = table(&[(-1, 0), (2, inner), (15, outer), (i32::MAX, 0)]);
        let depth = |pcs: &[u8], offset| at(pcs, &data, 0, offset).unwrap().len();
        assert_eq!([2, 3, 8, 12, 13].map(|offset| depth(&pcs, offset)), [2, 1, 1, 1, 1]);
        let pcs = with_loops(&pcs, &code);
        assert_eq!([2, 3, 8, 12, 13].map(|offset| depth(&pcs, offset)), [2, 2, 2, 2, 1]);
        assert_eq!(with_loops(&table(&[(1, inner), (15, outer)]), &code), table(&[(1, inner), (15, outer)]));
    }

    #[test]
    fn scopes_that_call_each_other_are_refused() {
        let mut data = vec![0];
        let one = scope(1, 1, 0, 0, &mut data);
        assert_eq!(one, 1);
        assert!(at(&table(&[(0, one)]), &data, 0, 0).is_err());
        assert!(at(&table(&[(0, 1000)]), &data, 0, 0).is_err(), "past the end");
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(pcs: Vec<u8>, data: Vec<u8>, base in 0u8..2, offset: u32) {
            drop(at(&pcs, &data, base, offset));
            prop_assert!(with_loops(&pcs, &data).len() >= pcs.len());
        }
    }
}
