//! Builds `bpf-linker` for the LLVM that a compiler has.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ebpf_toolchain::{Compiler, MIN_LINKER, Version, on_path};

use super::apt::Apt;
use crate::{
    process::{Failure, capture, run, say},
    workspace,
};

/// LLVM versions that `bpf-linker` [`MIN_LINKER`] can be built for: its features `llvm-N`.
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 21..=23;

/// What the linker is linked with besides LLVM: the C++ library, and what LLVM's configuration names.
const LIBRARIES: [&str; 5] = ["g++", "libc6-dev", "pkg-config", "zlib1g-dev", "libzstd-dev"];

/// Builds and installs a linker that reads what `compiler` writes, with the LLVM that the machine has or its packages.
pub fn install(compiler: &Compiler, apt: &mut Apt) -> Result<(), Failure> {
    let wanted = compiler.llvm_major;
    let (llvm, bin) = find_or_install_llvm(wanted, apt)
        .map_err(|e| Failure::new(format!("a bpf-linker for LLVM {wanted} ({compiler}): {e}")))?;
    if Apt::available() {
        apt.install(&LIBRARIES, "linking bpf-linker")?;
    }
    let mut command = workspace::cargo();
    // Not in the workspace, whose cargo configuration is not meant for foreign programs.
    command.current_dir("/").env("PATH", path_with(&bin));
    command.args(["install", "bpf-linker", "--version", &MIN_LINKER.to_string(), "--locked", "--force"]);
    command.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET").env_remove("RUSTFLAGS");
    say(format!(
        "building bpf-linker {MIN_LINKER} for LLVM {llvm}, a minute or two (PATH={}:$PATH)",
        bin.display()
    ));
    run(&mut command)
}

/// A development installation of LLVM `wanted` or the next newer one: its version and its directory of programs.
fn find_or_install_llvm(wanted: u32, apt: &mut Apt) -> Result<(u32, PathBuf), Failure> {
    let (first, last) = (wanted.max(*LLVM_VERSIONS.start()), *LLVM_VERSIONS.end());
    if first > last {
        return Err(Failure::new(format!("bpf-linker {MIN_LINKER} knows LLVM up to {last} only")));
    }
    if let Some(found) = (first..=last).find_map(|major| Some((major, installed_llvm(major)?))) {
        return Ok(found);
    }
    if !Apt::available() {
        return Err(Failure::new(format!(
            "no llvm-config of LLVM {first} to {last} was found: install the development files of LLVM, or put a \
             bpf-linker from https://github.com/aya-rs/bpf-linker/releases on PATH"
        )));
    }
    for major in first..=last {
        let package = format!("llvm-{major}-dev");
        if apt.candidate(&package)?.is_some() {
            apt.install(&[&package], "building bpf-linker")?;
            let bin = installed_llvm(major).ok_or_else(|| {
                Failure::new(format!("{package} has no llvm-config where it was looked for"))
            })?;
            return Ok((major, bin));
        }
    }
    Err(Failure::new(format!("there is no package llvm-N-dev with N from {first} to {last}")))
}

/// The directory of the `llvm-config` of that version, if its libraries can be linked with.
fn installed_llvm(major: u32) -> Option<PathBuf> {
    let fixed = [
        PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-config")),
        PathBuf::from(format!("/usr/lib64/llvm{major}/bin/llvm-config")),
    ];
    let tool = fixed.into_iter().chain(on_path("llvm-config")).find(|tool| {
        let version = capture(Command::new(tool).arg("--version")).unwrap_or_default();
        Version::parse(version.trim()).is_some_and(|version| version.major() == major)
    })?;
    let libraries = capture(Command::new(&tool).arg("--libdir")).ok()?;
    has_library(Path::new(libraries.trim())).then(|| tool.parent().map(Path::to_owned))?
}

/// `true` if the directory has an LLVM to link with; the runtime package alone has no name without version.
fn has_library(directory: &Path) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|file| {
        let name = file.file_name();
        name == "libLLVM.so" || name == "libLLVMCore.a"
    })
}

fn path_with(first: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_owned()).chain(env::split_paths(&path));
    env::join_paths(all).unwrap_or(path.clone())
}
