//! Known-answer programs, built from `workload/` when a test first asks for one.
//!
//! A built program is kept under `workloads/` of the build directory, in a directory named after the hash of all that
//! it was made from: sources, command line and the compiler's version. Its file name is the recipe's, at most 15 bytes
//! long, so that its command name (`comm`) is the same.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::binary::{build_directory, source_directory};

/// How a workload is built.
struct Recipe {
    name: &'static str,
    source: &'static str,
    compiler: &'static str,
    /// Besides [`C_FLAGS`] for the C family.
    flags: &'static [&'static str],
    /// With frame pointers.
    frames: bool,
}

/// Frame pointers (with `KEEP_FRAME` of `burn.h` also in leaf functions), and every call a call: what the known
/// answers are about.
const C_FLAGS: [&str; 6] = [
    "-O2",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    // A function of one line stays a function, and under its name.
    "-fno-ipa-icf",
    "-Wall",
    "-Werror",
];

const DEBUG_INFO: &str = "-g";

/// For the C family: without frame pointers after all.
const BARE: [&str; 2] = ["-fomit-frame-pointer", "-DNO_FRAMES"];

const fn bare(
    name: &'static str,
    source: &'static str,
    compiler: &'static str,
    flags: &'static [&'static str],
) -> Recipe {
    Recipe { name, source, compiler, flags, frames: false }
}

const fn c(name: &'static str, source: &'static str, flags: &'static [&'static str]) -> Recipe {
    Recipe { name, source, compiler: "gcc", flags, frames: true }
}

/// All workloads. What each does stands at the head of its source.
const RECIPES: &[Recipe] = &[
    c("split-c", "split.c", &[]),
    Recipe { name: "split-cpp", source: "split.cpp", compiler: "g++", flags: &["-std=c++17"], frames: true },
    Recipe {
        name: "split-rust",
        source: "split.rs",
        compiler: "rustc",
        flags: &["--edition=2024", "-O", "-Cforce-frame-pointers=yes"],
        frames: true,
    },
    // The same without frame pointers, in the ways that programs are built and shipped.
    bare("bare-c", "split.c", "gcc", &[]),
    bare("bare-o3", "split.c", "gcc", &["-O3"]),
    bare("bare-static-pie", "split.c", "gcc", &["-static-pie"]),
    bare("bare-stripped", "split.c", "gcc", &["-s"]),
    bare("bare-main", "split_main.c", "gcc", &[]),
    bare("bare-library.so", "split.c", "gcc", &["-shared", "-fPIC", "-s", "-DLIBRARY"]),
    bare("bare-cpp", "split.cpp", "g++", &["-std=c++17"]),
    bare("bare-rust", "split.rs", "rustc", &["--edition=2024", "-O"]),
    bare("switches", "switches.c", "gcc", &[]),
    bare("shapes", "shapes.c", "gcc", &["-pthread"]),
    c("burner", "burner.c", &[]),
    c("burner-static", "burner.c", &["-static"]),
    c("burner-pie", "burner.c", &["-static-pie"]),
    c("burner-debug", "burner.c", &[DEBUG_INFO]),
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
    c("inlined", "inlined.c", &[DEBUG_INFO]),
    c("first", "first.c", &["-static", "-nostdlib", "-fno-stack-protector"]),
    c("throughput", "throughput.c", &[]),
];

/// What `hostile_symbols.c` has in place of control characters, and what is put there: a line break, a terminal's
/// "clear the screen", a tab, a byte that is no UTF-8, another control character.
const CONTROL: (&[u8; 8], &[u8; 8]) = (b"@@@@@@@@", b"\n\x1b[2J\t\xff\x01");

/// The path of a built workload.
///
/// # Panics
/// If there is no such workload, no compiler, or if it does not compile.
pub fn path(name: &str) -> PathBuf {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name).expect("a workload of that name");
    let program = build_directory().join("workloads").join(recipe.hash()).join(recipe.name);
    if !program.exists() {
        recipe.build(&program);
    }
    program
}

/// A private copy of a workload, for tests that delete, replace or rename it.
pub fn copy(name: &str, to: &Path) -> PathBuf {
    let to = if to.is_dir() { to.join(name) } else { to.to_owned() };
    fs::copy(path(name), &to).expect("a workload can be copied");
    to
}

impl Recipe {
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        if self.compiler != "rustc" {
            arguments.extend(C_FLAGS.map(str::to_owned));
            arguments.extend(BARE.iter().filter(|_| !self.frames).map(|&flag| flag.to_owned()));
        }
        arguments.push(source_directory().join("workload").join(self.source).display().to_string());
        arguments.extend(self.flags.iter().map(|&flag| flag.to_owned()));
        arguments
    }

    fn hash(&self) -> String {
        let directory = source_directory().join("workload");
        let mut hasher = DefaultHasher::new();
        for source in [self.source, "burn.h"] {
            fs::read(directory.join(source)).expect("the sources are committed").hash(&mut hasher);
        }
        let version = Command::new(self.compiler).arg("--version").output();
        let version =
            version.unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask setup --tests`", self.compiler));
        version.stdout.hash(&mut hasher);
        (self.arguments(), CONTROL).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    fn build(&self, program: &Path) {
        let directory = program.parent().expect("a file is in a directory");
        fs::create_dir_all(directory).expect("the build directory is writable");
        let unfinished =
            tempfile::Builder::new().prefix("new-").tempfile_in(directory).expect("a temporary file");
        let mut compiler = Command::new(self.compiler);
        let output = compiler.args(self.arguments()).arg("-o").arg(unfinished.path()).output();
        let output =
            output.unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask setup --tests`", self.compiler));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} does not compile:\n{errors}", self.source);
        replace(unfinished.path(), CONTROL.0, CONTROL.1);
        // The compiler may have made a new file of that name: renaming takes whichever it is.
        let unfinished = unfinished.into_temp_path();
        unfinished.persist(program).expect("renaming within a directory");
    }
}

fn replace(file: &Path, from: &[u8; 8], to: &[u8; 8]) {
    let mut bytes = fs::read(file).expect("the compiler's output");
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| window == from)
        .map(|(at, _)| at)
        .collect();
    if places.is_empty() {
        return;
    }
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(file, bytes).expect("the compiler's output is writable");
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
        for entry in fs::read_dir(source_directory().join("workload")).unwrap() {
            let name = entry.unwrap().file_name();
            let name = name.to_str().unwrap();
            assert!(name == "burn.h" || RECIPES.iter().any(|recipe| recipe.source == name), "{name}");
        }
    }
}
