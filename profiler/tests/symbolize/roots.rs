//! Complete or broken: does the outermost frame start the thread?

use std::process::Command;

use profiler::{
    model::StackEnd,
    symbolize::{Names, Symbolizer},
};
use profiler_common::stack::WalkEnd;

use crate::program::{PROGRAM, Resolved, Running, compile, owner, symbolizer_of};

const THREADS: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *thread(void *arg) {
    printf("caller_of_thread %p\nthread %p\n", __builtin_return_address(0), (void *)thread);
    return arg;
}
int main(void) {
    pthread_t t;
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    printf("main %p\ncaller_of_main %p\nready\n", (void *)main, __builtin_return_address(0));
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0) {}
    return 0;
}
"#;

fn end_of(running: &Running, stack: &[u64], walk: WalkEnd) -> (usize, StackEnd) {
    let mut symbolizer: Symbolizer = symbolizer_of(running.pid());
    let mut frames = Vec::new();
    symbolizer.user_stack(owner(running.pid()), stack, &mut frames);
    let resolved = Resolved::new(symbolizer, frames);
    let names: &Names = &resolved.names;
    names.user_end(&resolved.frames, walk)
}

#[test]
fn the_callers_of_main_and_of_thread_functions_are_roots() {
    let dir = tempfile::tempdir().unwrap();
    // Stripped or not: libc's symbols are what matters.
    for flags in [&["-O1", "-pthread"][..], &["-O1", "-pthread", "-s"], &["-O1", "-pthread", "-static"]] {
        let program = compile("cc", dir.path(), "threads", THREADS, flags);
        let running = Running::start(&mut Command::new(&program));
        let stack = |names: &[&str]| -> Vec<u64> { names.iter().map(|name| running.address(name)).collect() };
        let ended = |names: &[&str]| end_of(&running, &stack(names), WalkEnd::Ended);
        assert_eq!(ended(&["main", "caller_of_main"]), (2, StackEnd::Complete), "{flags:?}");
        assert_eq!(ended(&["thread", "caller_of_thread"]), (2, StackEnd::Complete), "{flags:?}");
        assert_eq!(ended(&["thread", "main"]), (2, StackEnd::Broken));
        let mut with_garbage = stack(&["thread", "caller_of_thread"]);
        with_garbage.extend([0x1, 0x7ff0_0000_1234]);
        assert_eq!(end_of(&running, &with_garbage, WalkEnd::Ended), (2, StackEnd::Complete));
        assert_eq!(
            end_of(&running, &stack(&["thread", "main"]), WalkEnd::Truncated),
            (2, StackEnd::Truncated)
        );
    }
}

#[test]
fn the_entry_point_of_a_stripped_program_is_a_root() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["-O1", "-s"][..], &["-O1", "-s", "-static"], &["-O1"]] {
        let program = compile("cc", dir.path(), "entry", PROGRAM, flags);
        let output = Command::new("readelf").arg("-h").arg(&program).output().unwrap();
        let header = String::from_utf8(output.stdout).unwrap();
        let entry = header.lines().find_map(|line| line.trim().strip_prefix("Entry point address:")).unwrap();
        let entry = u64::from_str_radix(entry.trim().trim_start_matches("0x"), 16).unwrap();
        let running = Running::start(&mut Command::new(&program));
        // The program's base from its first mapping, which holds ELF address 0 of a PIE.
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
        let base = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
        let entry = if entry < base { base + entry } else { entry };
        let stack = [running.address("main"), entry + 10];
        assert_eq!(end_of(&running, &stack, WalkEnd::Ended), (2, StackEnd::Complete), "{flags:?}");
    }
}
