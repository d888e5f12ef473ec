//! Code without a file: perf maps, and the vDSO.

use std::{fs, process::Command};

use profiler::model::{FrameKind, ModuleKind, Reason};

use crate::program::{Resolved, Running, compile, look_up, owner, symbolizer_of};

const JIT: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    void *code = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int memory = memfd_create("double mapped", 0);
    ftruncate(memory, 4096);
    void *shared = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, memory, 0);
    printf("code %p\nshared %p\nvdso 0x%lx\nready\n", code, shared, getauxval(AT_SYSINFO_EHDR));
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0) {}
    return 0;
}
"#;

#[test]
fn jit_code_is_named_by_the_perf_map_even_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "jit", JIT, &["-O1"]);
    let mut running = Running::start(&mut Command::new(&program));
    let (pid, code, shared) = (running.pid(), running.address("code"), running.address("shared"));
    let map = format!("/tmp/perf-{pid}.map");

    let resolved = look_up(symbolizer_of(pid), pid, &[code]);
    assert_eq!(resolved.reason(0), Some(Reason::NoPerfMap));
    assert_eq!(resolved.name(0), format!("[jit]+{code:#x} [no perf map]"));

    fs::write(&map, format!("{code:x} 10 _ZN3jit3one17h0123456789abcdefE\n{shared:x} 20 Lpkg/Cls;::m(I)V\n"))
        .unwrap();
    let mut symbolizer = symbolizer_of(pid);
    let mut frames = Vec::new();
    for address in [code, shared, code + 0x800] {
        symbolizer.user_stack(owner(pid), &[address], &mut frames);
    }
    running.end();
    fs::remove_file(&map).unwrap();
    let resolved = Resolved::new(symbolizer, frames);
    assert_eq!(resolved.name(0), "jit::one");
    assert_eq!(resolved.name(1), "Lpkg/Cls;::m(I)V");
    assert_eq!(resolved.reason(2), Some(Reason::NotInPerfMap));
    assert_eq!(resolved.module(0).kind, ModuleKind::Jit);
    assert_eq!(resolved.profile.locations[resolved.location(0).index()].kind, FrameKind::Jit);
}

#[test]
fn the_vdso_has_names() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "jit", JIT, &["-O1"]);
    let image = dir.path().join("vdso.so");
    fs::write(&image, profiler::symbolize::vdso::read_own().unwrap()).unwrap();
    let output = Command::new("nm").arg("-D").arg("--defined-only").arg(&image).output().unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    let symbol = symbols.lines().find(|line| line.contains(" __vdso_clock_gettime")).unwrap();
    let offset = u64::from_str_radix(symbol.split(' ').next().unwrap(), 16).unwrap();
    let running = Running::start(&mut Command::new(&program));
    let pid = running.pid();
    let resolved = look_up(symbolizer_of(pid), pid, &[running.address("vdso") + offset + 3]);
    assert_eq!(resolved.name(0), "__vdso_clock_gettime");
    assert_eq!(resolved.module(0).path, "[vdso]");
    assert_eq!(resolved.module(0).kind, ModuleKind::Vdso);
}
