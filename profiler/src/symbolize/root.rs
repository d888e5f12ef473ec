//! Is a frame the first of its thread? A user stack is complete if its outermost frame is.
//!
//! The kernel's frame-pointer walk does not say why it stopped. A chain that broke ends somewhere inside the program,
//! one that came through ends at the code that starts threads, which is known:
//! - by name: `_start`, `__libc_start_main`, `start_thread`, `clone3`, `runtime.goexit` ...;
//! - without a name, by the unwind table: `_start` and `clone` say there that they have no caller;
//! - without a name, in glibc: `__libc_start_call_main` (the caller of `main` since glibc 2.34) and `start_thread` are
//!   local functions, nameless in a stripped libc. Each is the only caller-side neighbour of an exported function of
//!   the same source file, `__libc_start_main` (csu/libc-start.c) and `pthread_create` (nptl/pthread_create.c), and
//!   the compiler puts it directly before that. So: the entry of the unwind table that ends where one of these two
//!   begins. Checked on Debian 12's libc 2.36 against its debug symbols;
//! - in a file without any of this: within the first bytes at the ELF entry point.

use super::{elf_symbols, unwind::UnwindTable};
use crate::elf::{Bytes, Headers, Section};

/// Functions that start threads, in glibc, musl, the dynamic loader and Go's runtime.
const ROOTS: &[&str] = &[
    "_start",
    "_start_c",
    "_dl_start_user",
    "_dl_start",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "generic_start_main",
    "libc_start_main_stage2",
    "start_thread",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "__GI___clone",
    "__GI___clone3",
    "__clone_internal",
    "thread_start",
    "ret_from_fork",
    "_rt0_amd64",
    "_rt0_amd64_linux",
    "_rt0_arm64_linux",
    "runtime.rt0_go",
    "runtime.goexit",
    "runtime.mstart",
    "runtime.mcall",
];
/// Exported functions of glibc that have a nameless thread starter right before them.
const STARTER_NEIGHBOURS: &[&[u8]] = &[b"__libc_start_main", b"pthread_create"];
/// Length of the code at an entry point: `_start` has 34 bytes on x86-64 (glibc 2.36), 52 on aarch64.
const ENTRY_LEN: u64 = 64;

/// Whether a function of that raw name starts threads.
pub fn is_root_name(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    // Go marks assembly functions by their calling convention.
    ROOTS.contains(&name.strip_suffix(".abi0").unwrap_or(name))
}

/// Whether a nameless address (ELF virtual) lies in a function that starts threads. `file_name` is the module's.
pub fn is_nameless_root(
    bytes: Bytes<'_>,
    headers: &Headers,
    sections: &[Section],
    unwind: &UnwindTable<'_>,
    file_name: &[u8],
    address: u64,
) -> bool {
    let bounds = unwind.bounds(address);
    if bounds.is_some_and(|bounds| bounds.outermost) {
        return true;
    }
    let is_entry = match bounds {
        Some(bounds) => bounds.start == headers.entry,
        None => address.checked_sub(headers.entry).is_some_and(|offset| offset < ENTRY_LEN),
    };
    if headers.entry != 0 && is_entry {
        return true;
    }
    let is_libc = [&b"libc.so"[..], b"libc-", b"libpthread"].iter().any(|name| file_name.starts_with(name));
    let Some(bounds) = bounds.filter(|_| is_libc) else { return false };
    elf_symbols::exports(bytes, headers, sections, STARTER_NEIGHBOURS)
        .into_iter()
        .any(|export| unwind.neighbour_before(export) == Some(bounds))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, path::Path};

    use super::*;
    use crate::{elf, symbolize::debug_file};

    #[test]
    fn names() {
        for name in ["_start", "clone3", "start_thread", "runtime.goexit.abi0"] {
            assert!(is_root_name(name.as_bytes()), "{name}");
        }
        for name in ["main", "start", "clone_me", "runtime.main", ""] {
            assert!(!is_root_name(name.as_bytes()), "{name}");
        }
    }

    fn with_own_libc(check: impl Fn(&File, &Path, &Headers, &[Section], &UnwindTable<'_>)) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path =
            maps.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.ends_with("/libc.so.6"));
        let path = Path::new(path.expect("the tests are linked with glibc"));
        let file = File::open(path).unwrap();
        let bytes = Bytes::File(&file);
        let headers = elf::read_headers(bytes).unwrap();
        let sections = headers.sections(bytes).unwrap();
        check(&file, path, &headers, &sections, &UnwindTable::new(bytes, &headers, &sections));
    }

    #[test]
    fn the_nameless_starters_of_a_stripped_libc() {
        with_own_libc(|file, _, headers, sections, unwind| {
            let bytes = Bytes::File(file);
            let is_root = |address| is_nameless_root(bytes, headers, sections, unwind, b"libc.so.6", address);
            let export = |name: &[u8]| elf_symbols::exports(bytes, headers, sections, &[name])[0];
            let starter = unwind.neighbour_before(export(b"__libc_start_main")).unwrap();
            assert!(is_root(starter.start) && is_root(starter.end - 1));
            assert!(!is_root(starter.end), "__libc_start_main has a name");
            assert!(!is_root(export(b"qsort")) && !is_root(export(b"memcpy")));
        });
    }

    /// A second source for the same: libc's debug symbols.
    #[test]
    #[ignore = "needs libc's debug symbols (Debian: libc6-dbg)"]
    fn the_starters_are_what_debug_symbols_call_so() {
        with_own_libc(|file, path, headers, sections, unwind| {
            let debug =
                debug_file::find(file, headers, sections, path, None).expect("libc6-dbg is installed");
            let bytes = Bytes::File(&debug);
            let debug_headers = elf::read_headers(bytes).unwrap();
            let debug_sections = debug_headers.sections(bytes).unwrap();
            for (neighbour, name) in
                [(&b"__libc_start_main"[..], "__libc_start_call_main"), (b"pthread_create", "start_thread")]
            {
                let export = elf_symbols::exports(Bytes::File(file), headers, sections, &[neighbour])[0];
                let wanted = [unwind.neighbour_before(export).unwrap().start];
                let found = elf_symbols::find(bytes, &debug_headers, &debug_sections, unwind, &wanted);
                let found = found.unwrap().unwrap().remove(0);
                let elf_symbols::Answer::Symbol(found) = found else { panic!("{name} has no symbol") };
                assert_eq!(String::from_utf8_lossy(&found.name), name);
            }
        });
    }
}
