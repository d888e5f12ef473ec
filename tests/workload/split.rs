//! Ground truth in Rust: as `split.c`, with a module per caller, so that names are mangled.
//!
//! usage: split MILLISECONDS

use std::{arch::asm, process};

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;

/// Iterations of one call, as in `burn.h`.
const SLICE: u64 = 100_000;

fn cpu_ns() -> u64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: a valid pointer to a timespec.
    unsafe { clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

#[inline(never)]
fn work(iterations: u64) {
    let mut left = iterations;
    while left > 0 {
        // SAFETY: no instruction.
        unsafe { asm!("") };
        left -= 1;
    }
}

/// A module of the caller's name with `link_19`, which main calls, to `link_01`, which calls `work`: `work` is 20 calls
/// below `main`. The comment in the assembler text keeps the compiler from merging the callers, whose code is else the
/// same.
macro_rules! chain {
    ($caller:ident: $($link:ident calls $next:path),*) => {
        mod $caller {
            use std::arch::asm;

            $(#[inline(never)]
            pub fn $link(iterations: u64) {
                $next(iterations);
                // SAFETY: no instruction, only a comment.
                unsafe { asm!(concat!("/* ", stringify!($caller), " */")) };
            })*
        }
    };
    ($($caller:ident),*) => {$(
        chain!($caller: link_19 calls link_18, link_18 calls link_17, link_17 calls link_16, link_16 calls link_15,
            link_15 calls link_14, link_14 calls link_13, link_13 calls link_12, link_12 calls link_11,
            link_11 calls link_10, link_10 calls link_09, link_09 calls link_08, link_08 calls link_07,
            link_07 calls link_06, link_06 calls link_05, link_05 calls link_04, link_04 calls link_03,
            link_03 calls link_02, link_02 calls link_01, link_01 calls crate::work);
    )*};
}

chain!(half, third, fifth);

fn main() {
    let Some(ms) = std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok()) else {
        eprintln!("usage: split MILLISECONDS");
        process::exit(64);
    };
    let end = ms * 1_000_000;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut calls = [0u64; 3];
    while cpu_ns() < end {
        let mut order = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2];
        for i in 1..order.len() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.swap(i, ((random >> 33) % (i as u64 + 1)) as usize);
        }
        for which in order {
            calls[which] += 1;
            match which {
                0 => half::link_19(SLICE),
                1 => third::link_19(SLICE),
                _ => fifth::link_19(SLICE),
            }
        }
    }
    println!("{{\"pid\":{},\"cpu_ns\":{},\"calls\":{calls:?}}}", process::id(), cpu_ns());
}
