//! Rust's standard library for another target, and the compiler that it belongs to: it must be exactly that one.
//!
//! Least intrusive first: what is there; rustup, which keeps targets of each toolchain; the distribution, which has the
//! library of every architecture that it has a compiler for, and of the same version. That one is not installed, for the
//! system is not of that architecture, but unpacked in the cache, from where the compiler takes it by `--sysroot`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ebpf_toolchain::{MIN_RUSTC, Version, rustup};

use super::Machine;
use crate::{
    archive::{self, Archive},
    process::{Failure, capture, run_within, say},
    setup::apt::Apt,
    workspace,
};

/// Longest download of a target's library (30 MB).
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(120);

/// A distribution's compiler and its library.
struct Packages {
    compiler: &'static str,
    library: &'static str,
}

/// Best first, as for the eBPF programs: Debian's compiler for its browsers is the newer one.
const PACKAGES: [Packages; 2] = [
    Packages { compiler: "rustc-web", library: "libstd-rust-web-dev" },
    Packages { compiler: "rustc", library: "libstd-rust-dev" },
];

/// The program of either package.
const PACKAGED_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that has the target's library.
#[derive(Debug)]
pub enum Compiler {
    /// The one that builds the workspace.
    Active,
    /// The distribution's, with an unpacked library.
    Packaged {
        /// The directory to give as `--sysroot`. It has no library for the machine that builds.
        sysroot: PathBuf,
    },
}

impl Compiler {
    /// The compiler's program, if it is not the active one.
    pub fn rustc(&self) -> Option<&'static Path> {
        match self {
            Self::Active => None,
            Self::Packaged { .. } => Some(Path::new(PACKAGED_RUSTC)),
        }
    }

    /// What the compiler is told for the target alone.
    pub fn flags(&self) -> Vec<String> {
        match self {
            Self::Active => Vec::new(),
            Self::Packaged { sysroot } => vec![format!("--sysroot={}", sysroot.display())],
        }
    }
}

/// The compiler for a target. `machine` is the target's if the distribution has a library for it.
///
/// # Errors
/// One line per way that was tried and did not work.
pub fn find_or_install(triple: &str, machine: Option<&Machine>, apt: &mut Apt) -> Result<Compiler, Failure> {
    if active_has(triple) {
        return Ok(Compiler::Active);
    }
    let mut tried = Vec::new();
    if let Some(machine) = machine {
        match unpacked(machine) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(e) => tried.push(e),
        }
    }
    match add_target(triple) {
        Ok(()) => return Ok(Compiler::Active),
        Err(e) => tried.push(e),
    }
    if let Some(machine) = machine {
        say(format!("that did not work: {}", tried.last().map(ToString::to_string).unwrap_or_default()));
        match install_packages(machine, apt) {
            Ok(found) => return Ok(found),
            Err(e) => tried.push(e),
        }
    }
    let tried: String = tried.iter().map(|problem| format!("\n  tried: {problem}")).collect();
    Err(Failure::new(format!(
        "missing: the standard library for {triple} (rustup target add {triple}){tried}"
    )))
}

/// The active compiler with its workspace-independent environment.
fn active_has(triple: &str) -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    let directory = capture(command.args(["--print", "target-libdir", "--target", triple]));
    directory.is_ok_and(|directory| has_library(Path::new(directory.trim())))
}

fn has_library(directory: &Path) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|file| {
        let name = file.file_name();
        name.to_str().is_some_and(|name| name.starts_with("libstd-") && name.ends_with(".rlib"))
    })
}

fn add_target(triple: &str) -> Result<(), Failure> {
    // Cargo was started through rustup, which says so by a variable that `rustup()` removes.
    let active = env::var_os("RUSTUP_TOOLCHAIN");
    let (Some(mut command), Some(toolchain)) = (rustup(), active) else {
        return Err(Failure::new("the active compiler is not rustup's"));
    };
    say(format!("rustup target add {triple}"));
    command.args(["target", "add", triple, "--toolchain"]).arg(toolchain);
    run_within(&mut command, DOWNLOAD_LIMIT)?;
    if active_has(triple) { Ok(()) } else { Err(Failure::new("rustup added it to another compiler")) }
}

/// The installed compiler of the distribution, if its library was unpacked before.
fn unpacked(machine: &Machine) -> Result<Option<Compiler>, Failure> {
    for packages in &PACKAGES {
        if let Some(version) = installed(packages) {
            let sysroot = directory(packages, &version, machine)?.join("usr");
            if has_library(&sysroot.join("lib/rustlib").join(machine.triple).join("lib")) {
                return Ok(Some(Compiler::Packaged { sysroot }));
            }
        }
    }
    Ok(None)
}

fn install_packages(machine: &Machine, apt: &mut Apt) -> Result<Compiler, Failure> {
    if !Apt::available() {
        return Err(Failure::new("there is no apt-get to install a compiler that has it"));
    }
    let packages = choose(apt)?;
    apt.install(&[packages.compiler], &format!("compiling for {}", machine.triple))?;
    let version = installed(packages)
        .ok_or_else(|| Failure::new(format!("{} is not installed as it should be", packages.compiler)))?;
    unpack(packages, &version, machine)?;
    unpacked(machine)?.ok_or_else(|| {
        Failure::new(format!("{} {version} has no library for {}", packages.library, machine.triple))
    })
}

/// What is installed, or else the best that there is.
fn choose(apt: &mut Apt) -> Result<&'static Packages, Failure> {
    if let Some(found) = PACKAGES.iter().find(|packages| installed(packages).is_some()) {
        return Ok(found);
    }
    for packages in &PACKAGES {
        if apt.candidate(packages.compiler)?.as_deref().is_some_and(is_new_enough) {
            return Ok(packages);
        }
    }
    Err(Failure::new(format!("there is no package of rustc {MIN_RUSTC} or later")))
}

/// The version of the compiler's package, if it will do.
fn installed(packages: &Packages) -> Option<String> {
    Apt::installed_version(packages.compiler).filter(|version| is_new_enough(version))
}

fn is_new_enough(version: &str) -> bool {
    Version::parse(version).is_some_and(|version| version >= MIN_RUSTC)
}

fn directory(packages: &Packages, version: &str, machine: &Machine) -> Result<PathBuf, Failure> {
    let name = format!("{}_{version}_{}", packages.library, machine.debian);
    Ok(workspace::cache_directory()?.join("std").join(name))
}

fn unpack(packages: &Packages, version: &str, machine: &Machine) -> Result<(), Failure> {
    let suites = archive::system_suites()?;
    let suites: Vec<&str> = suites.iter().map(String::as_str).collect();
    let archive = Archive::open(machine.debian, &suites)?;
    let package = archive.download(packages.library, version).map_err(|e| {
        let (compiler, library) = (packages.compiler, packages.library);
        let there = archive.candidate(library).ok().flatten().unwrap_or_else(|| "none".to_owned());
        Failure::new(format!(
            "{e}; {compiler} {version} is installed, and the mirror's {library} is {there}: if it is newer, \
             `apt-get install {compiler}` brings both together"
        ))
    })?;
    let unfinished =
        workspace::cache_directory()?.join("std").join(format!("unfinished-{}", std::process::id()));
    fs::create_dir_all(&unfinished).map_err(|e| Failure::io(&unfinished, &e))?;
    let result = archive::unpack(&package, &unfinished);
    let directory = directory(packages, version, machine)?;
    if result.is_err() || fs::rename(&unfinished, &directory).is_err() {
        fs::remove_dir_all(&unfinished).map_err(|e| Failure::io(&unfinished, &e))?;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_active_compiler_has_its_own_library_and_none_of_a_target_that_is_not() {
        assert!(active_has(&workspace::host_triple().unwrap()));
        assert!(!active_has("pdp11-unknown-linux-gnu"));
    }

    #[test]
    fn versions_of_packages() {
        assert!(is_new_enough("1.96.0+dfsg1-1~deb12u2"));
        assert!(!is_new_enough("1.63.0+dfsg1-2"));
        assert!(!is_new_enough(""));
    }

    #[test]
    fn an_unpacked_library_is_told_to_the_compiler() {
        let compiler = Compiler::Packaged { sysroot: "/cache/usr".into() };
        assert_eq!(compiler.flags(), ["--sysroot=/cache/usr"]);
        assert!(Compiler::Active.flags().is_empty());
    }
}
