//! Lines, inlined functions and demangled names.

use std::process::Command;

use crate::program::{Resolved, Running, compile, owner, symbolizer_of};

/// `outer` calls `middle` calls `inner`, the latter two inlined; `inner` calls `report`, which prints its return
/// address. Lines are counted in the test.
const INLINED: &str = r#"#include <stdio.h>
#include <unistd.h>
__attribute__((noinline)) void report(void) {
    printf("call %p\n", __builtin_return_address(0));
    __asm__ volatile("");
}
__attribute__((always_inline)) static inline void inner(void) {
    report();
    __asm__ volatile("nop");
}
__attribute__((always_inline)) static inline void middle(void) {
    inner();
    __asm__ volatile("nop");
}
__attribute__((noinline)) void outer(void) {
    middle();
    __asm__ volatile("nop");
}
int main(void) {
    outer();
    printf("ready\n");
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0) {}
    return 0;
}
"#;

/// The frame of a return address, as a caller of something.
fn caller(running: &Running, address: &str) -> Resolved {
    let mut symbolizer = symbolizer_of(running.pid());
    let mut frames = Vec::new();
    symbolizer.user_stack(owner(running.pid()), &[running.address(address); 2], &mut frames);
    // The first is looked up as a sampled instruction, the second as a return address.
    frames.remove(0);
    Resolved::new(symbolizer, frames)
}

#[test]
fn inlined_functions_and_the_lines_of_their_calls() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["-O1", "-g"][..], &["-O1", "-g", "-gz"], &["-O1", "-gdwarf-4"]] {
        let program = compile("cc", dir.path(), "inlined", INLINED, flags);
        let running = Running::start(&mut Command::new(&program));
        let resolved = caller(&running, "call");
        assert_eq!(resolved.chain(0), ["inner", "middle", "outer"]);
        let file = |line| ("inlined.c".to_owned(), line);
        assert_eq!(resolved.places(0), [file(8), file(12), file(16)]);
    }
}

#[test]
fn without_lines_there_is_only_the_physical_function() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "plain", INLINED, &["-O1"]);
    let running = Running::start(&mut Command::new(&program));
    let resolved = caller(&running, "call");
    assert_eq!(resolved.chain(0), ["outer"]);
    assert_eq!(resolved.places(0), [(String::new(), 0)]);
}

/// A call that does not return is the last instruction of its function: the return address is another function's.
#[test]
fn the_caller_of_a_function_that_does_not_return() {
    let source = r#"#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((noinline, noreturn)) void report(void) {
    printf("call %p\nready\n", __builtin_return_address(0));
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0) {}
    exit(0);
}
__attribute__((noinline, noreturn)) void last_words(void) { report(); }
__attribute__((noinline)) void next_function(void) { __asm__ volatile("nop"); }
int main(void) { last_words(); }
"#;
    let dir = tempfile::tempdir().unwrap();
    let flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-falign-functions=1", "-fno-toplevel-reorder"];
    let program = compile("cc", dir.path(), "noreturn", source, &flags);
    let running = Running::start(&mut Command::new(&program));
    let resolved = caller(&running, "call");
    assert_eq!(resolved.name(0), "last_words");
    assert_eq!(resolved.places(0), [("noreturn.c".to_owned(), 11)]);
}

#[test]
fn cpp_names() {
    let source = r#"#include <cstdio>
#include <vector>
#include <unistd.h>
namespace space {
template <typename T> struct Thing { __attribute__((noinline)) static int method(T x, const std::vector<int> &v); };
template <typename T> int Thing<T>::method(T x, const std::vector<int> &v) { __asm__ volatile(""); return x + v.size(); }
}
int main() {
    std::vector<int> v{1};
    printf("method %p\nready\n", (void *)&space::Thing<long>::method);
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0) space::Thing<long>::method(1, v);
}
"#;
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["-O1"][..], &["-O1", "-g"]] {
        let program = compile("g++", dir.path(), "names", source, flags);
        let running = Running::start(&mut Command::new(&program));
        let mut symbolizer = symbolizer_of(running.pid());
        let mut frames = Vec::new();
        symbolizer.user_stack(owner(running.pid()), &[running.address("method")], &mut frames);
        let resolved = Resolved::new(symbolizer, frames);
        let expected = "space::Thing<long>::method(long, std::vector<int, std::allocator<int> > const&)";
        assert_eq!(resolved.name(0), expected);
    }
}

#[test]
fn rust_names() {
    let source = r#"
use std::io::{Read, Write};
pub mod shapes {
    pub trait Area { fn area(&self, n: u64) -> u64; }
    pub struct Square;
    impl Area for Square {
        #[inline(never)]
        fn area(&self, n: u64) -> u64 { std::hint::black_box(n) * 2 }
    }
}
fn main() {
    use shapes::Area;
    let f: fn(&shapes::Square, u64) -> u64 = <shapes::Square as Area>::area;
    println!("area {:p}\nready", f as *const ());
    std::io::stdout().flush().unwrap();
    let mut all = Vec::new();
    std::io::stdin().read_to_end(&mut all).unwrap();
    std::hint::black_box(f(&shapes::Square, 3));
}
"#;
    let dir = tempfile::tempdir().unwrap();
    for mangling in ["legacy", "v0"] {
        let mangling_flag = format!("-Csymbol-mangling-version={mangling}");
        let mut flags = vec!["--edition=2021", "-O", "-g", mangling_flag.as_str()];
        if mangling == "legacy" {
            flags.pop();
        }
        let program = compile("rustc", dir.path(), "shapes_test", source, &flags);
        let running = Running::start(&mut Command::new(&program));
        let mut symbolizer = symbolizer_of(running.pid());
        let mut frames = Vec::new();
        symbolizer.user_stack(owner(running.pid()), &[running.address("area")], &mut frames);
        let resolved = Resolved::new(symbolizer, frames);
        assert_eq!(resolved.name(0), "<shapes_test::shapes::Square as shapes_test::shapes::Area>::area");
    }
}
