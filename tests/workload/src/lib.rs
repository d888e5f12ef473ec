//! Known-answer programs, built from the sources beside this crate when a test first asks for one, or all at once for
//! a machine that has no compiler (`cargo xtask vm-test`).
//!
//! A built program is kept in a directory named after the hash of all that it was made from: sources, command line and
//! the compiler's version. Its file name is the recipe's, at most 15 bytes long, so that its command name (`comm`) is
//! the same.

mod compile;

use std::{
    env,
    path::{Path, PathBuf},
};

pub use compile::Compilers;

/// The variable that names a directory of built workloads, for machines without a compiler.
pub const DIRECTORY_VARIABLE: &str = "PROFILER_WORKLOADS";

/// The build id of the workloads that are one program in three shapes: `burner-debug`, `burner-stripped` and
/// `burner-dbgfile`.
pub const BURNER_BUILD_ID: &str = "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3";

/// How a workload is built.
struct Recipe {
    name: &'static str,
    source: &'static str,
    language: Language,
    /// Besides those that all workloads of a language have.
    flags: &'static [&'static str],
    /// What is kept of the compiler's output.
    shape: Shape,
    /// With frame pointers.
    frames: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    C,
    Cpp,
    Rust,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Whole,
    /// Without symbols.
    Stripped,
    /// Symbols and debug information only.
    DebugFile,
}

const fn c(name: &'static str, source: &'static str, flags: &'static [&'static str]) -> Recipe {
    Recipe { name, source, language: Language::C, flags, shape: Shape::Whole, frames: true }
}

/// A program of the C family without frame pointers.
const fn bare(
    name: &'static str,
    source: &'static str,
    language: Language,
    flags: &'static [&'static str],
) -> Recipe {
    Recipe { name, source, language, flags, shape: Shape::Whole, frames: false }
}

/// A variant of `reload_library.c`.
const fn variant(name: &'static str, flags: &'static [&'static str]) -> Recipe {
    bare(name, "reload_library.c", Language::C, flags)
}

/// `burner.c` with debug information and [`BURNER_BUILD_ID`].
const fn burner_with_id(name: &'static str, shape: Shape) -> Recipe {
    const FLAGS: [&str; 2] = ["-g", "-Wl,--build-id=0xb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3"];
    Recipe { name, source: "burner.c", language: Language::C, flags: &FLAGS, shape, frames: true }
}

/// All workloads. What each does stands at the head of its source.
const RECIPES: &[Recipe] = &[
    c("split-c", "split.c", &[]),
    Recipe {
        name: "split-cpp",
        source: "split.cpp",
        language: Language::Cpp,
        flags: &["-std=c++17"],
        shape: Shape::Whole,
        frames: true,
    },
    Recipe {
        name: "split-rust",
        source: "split.rs",
        language: Language::Rust,
        flags: &["--edition=2024", "-O", "-Cforce-frame-pointers=yes"],
        shape: Shape::Whole,
        frames: true,
    },
    // The same without frame pointers, in the ways that programs are built and shipped.
    bare("bare-c", "split.c", Language::C, &[]),
    bare("bare-o3", "split.c", Language::C, &["-O3"]),
    bare("bare-static-pie", "split.c", Language::C, &["-static-pie"]),
    Recipe { shape: Shape::Stripped, ..bare("bare-stripped", "split.c", Language::C, &[]) },
    bare("bare-main", "split_main.c", Language::C, &[]),
    Recipe {
        shape: Shape::Stripped,
        ..bare("bare-library.so", "split.c", Language::C, &["-shared", "-fPIC", "-DLIBRARY"])
    },
    bare("bare-cpp", "split.cpp", Language::Cpp, &["-std=c++17"]),
    bare("bare-rust", "split.rs", Language::Rust, &["--edition=2024", "-O"]),
    bare("switches", "switches.c", Language::C, &[]),
    bare("hooks", "hooks.c", Language::C, &[]),
    bare("rare_calls", "rare_calls.c", Language::C, &[]),
    bare("markers", "markers.c", Language::C, &["-ldl"]),
    bare("spans", "spans.c", Language::C, &["-pthread"]),
    bare("markers.so", "markers_library.c", Language::C, &["-shared", "-fPIC"]),
    c("storm", "storm.c", &[]),
    c("call_storm", "call_storm.c", &[]),
    c("pace", "pace.c", &["-pthread"]),
    bare("sched", "sched.c", Language::C, &["-pthread"]),
    c("switches-fp", "switches.c", &[]),
    c("sockets", "sockets.c", &[]),
    c("link", "link.c", &[]),
    c("net_storm", "net_storm.c", &[]),
    bare("calls", "calls.c", Language::C, &["-pthread"]),
    bare("packets", "packets.c", Language::C, &[]),
    c("faults", "faults.c", &["-pthread"]),
    c("columns", "columns.c", &["-pthread"]),
    bare("disk", "disk.c", Language::C, &[]),
    bare("waits", "waits.c", Language::C, &["-pthread"]),
    bare("shapes", "shapes.c", Language::C, &["-pthread"]),
    bare("reload", "reload.c", Language::C, &["-ldl"]),
    variant("reload_a.so", &["-DNAME=a", "-DSHIFT=0", "-DFRAME=64", "-shared", "-fPIC"]),
    variant("reload_b.so", &["-DNAME=b", "-DSHIFT=1", "-DFRAME=512", "-shared", "-fPIC"]),
    variant("reload_c.so", &["-DNAME=c", "-DSHIFT=2", "-DFRAME=1040", "-shared", "-fPIC"]),
    variant("reload_d.so", &["-DNAME=d", "-DSHIFT=3", "-DFRAME=200", "-shared", "-fPIC"]),
    bare("big.so", "big_library.c", Language::C, &["-shared", "-fPIC"]),
    bare("crowd", "crowd.c", Language::C, &[]),
    bare("run_all", "run_all.c", Language::C, &[]),
    c("burner", "burner.c", &[]),
    c("burner-static", "burner.c", &["-static"]),
    c("burner-pie", "burner.c", &["-static-pie"]),
    burner_with_id("burner-debug", Shape::Whole),
    burner_with_id("burner-stripped", Shape::Stripped),
    burner_with_id("burner-dbgfile", Shape::DebugFile),
    c("impostor", "impostor.c", &[]),
    c("short", "short.c", &[]),
    c("short_driver", "short_driver.c", &[]),
    c("exec_chain", "exec_chain.c", &[]),
    c("dl_main", "dl_main.c", &["-ldl"]),
    c("dl_library.so", "dl_library.c", &["-shared", "-fPIC"]),
    c("forker", "forker.c", &[]),
    c("enter", "enter.c", &["-static"]),
    c("threads", "threads.c", &["-pthread"]),
    c("hostile_comm", "hostile_comm.c", &[]),
    c("hostile_symbols", "hostile_symbols.c", &[]),
    c("vdso", "vdso.c", &[]),
    c("kernel", "kernel.c", &[]),
    c("perf_map", "perf_map.c", &[]),
    c("inlined", "inlined.c", &["-g"]),
    c("first", "first.c", &["-static", "-nostdlib", "-fno-stack-protector"]),
    c("throughput", "throughput.c", &[]),
    c("stat", "stat.c", &["-static", "-pthread"]),
];

/// The path of a built workload: in the directory that [`DIRECTORY_VARIABLE`] names, else built for this machine.
///
/// # Panics
/// If there is no such workload, no compiler, or if it does not compile.
pub fn path(name: &str) -> PathBuf {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name).expect("a workload of that name");
    if let Some(directory) = env::var_os(DIRECTORY_VARIABLE) {
        return Path::new(&directory).join(name);
    }
    let directory = build_directory().join("workloads");
    compile::built(recipe, &Compilers::native(), &directory).unwrap_or_else(|e| panic!("{e}"))
}

/// Builds all workloads below `directory` and returns their paths.
///
/// # Errors
/// The compiler that is not there, or its messages.
pub fn build_all(compilers: &Compilers, directory: &Path) -> Result<Vec<PathBuf>, String> {
    RECIPES.iter().map(|recipe| compile::built(recipe, compilers, directory)).collect()
}

/// A private copy of a workload, for tests that delete, replace or rename it.
///
/// # Panics
/// If it cannot be copied.
pub fn copy(name: &str, to: &Path) -> PathBuf {
    let to = if to.is_dir() { to.join(name) } else { to.to_owned() };
    std::fs::copy(path(name), &to).expect("a workload can be copied");
    to
}

/// Cargo's directory of this build, the one that holds `debug` and `release`: the test's own binary is in
/// `debug/deps` of it.
///
/// # Panics
/// If this process is no test.
pub fn build_directory() -> PathBuf {
    let me = env::current_exe().expect("a process knows its own file");
    me.ancestors().nth(3).expect("a test binary is in target/debug/deps").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_command_name() {
        for recipe in RECIPES {
            assert!(recipe.name.len() <= 15, "{}", recipe.name);
        }
    }

    #[test]
    fn every_source_is_used() {
        for entry in std::fs::read_dir(compile::source_directory()).unwrap() {
            let name = entry.unwrap().file_name();
            let name = name.to_str().unwrap();
            let is_source = name.contains('.') && !["burn.h", "marker.h", "Cargo.toml"].contains(&name);
            // Programs in Java are compiled by the tests that run them, with each JDK of the machine.
            let is_source = is_source && !name.ends_with(".java");
            assert!(!is_source || RECIPES.iter().any(|recipe| recipe.source == name), "{name}");
        }
    }

    #[test]
    fn one_program_in_three_shapes_has_one_build_id() {
        let flag = format!("-Wl,--build-id=0x{BURNER_BUILD_ID}");
        let with_id = RECIPES.iter().filter(|recipe| recipe.flags.contains(&flag.as_str()));
        assert_eq!(with_id.count(), 3);
    }
}
