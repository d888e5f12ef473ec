//! Compilers: which there are, and whether they can build the eBPF programs.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Rejected, Version, Why, object::OBJECT_TARGET, search};

/// The oldest compiler that will do: `profiler-common` is shared with user space and has its minimum (`rust-version` in
/// Cargo.toml). aya-ebpf 0.2.1 alone would be content with 1.87.
pub const MIN_RUSTC: Version = Version::new(1, 95, 0);

/// Names the one compiler that is to be used, for machines where the search below picks the wrong one.
pub(crate) const RUSTC_VARIABLE: &str = "PROFILER_EBPF_RUSTC";

/// Where the `core` library for the eBPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// It is installed, compiled.
    Prebuilt,
    /// Cargo compiles it from the compiler's sources (`-Z build-std=core`).
    Source,
}

/// A compiler that can build the eBPF programs.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// The program; not a rustup proxy.
    pub rustc: PathBuf,
    /// Its version.
    pub version: Version,
    /// It accepts unstable features by itself. (A stable one is told to by `RUSTC_BOOTSTRAP`: aya-ebpf needs some.)
    pub nightly: bool,
    /// The LLVM it writes bitcode of.
    pub llvm_major: u32,
    /// Its `core`.
    pub core: Core,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = match self.core {
            Core::Prebuilt => "built core",
            Core::Source => "core from rust-src",
        };
        let nightly = if self.nightly { "-nightly" } else { "" };
        let (rustc, version, llvm) = (self.rustc.display(), self.version, self.llvm_major);
        write!(f, "rustc {version}{nightly} (LLVM {llvm}, {core}) at {rustc}")
    }
}

impl Compiler {
    /// Asks the program what it is.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub fn inspect(rustc: &Path) -> Result<Self, Rejected> {
        let rejected = |why| Rejected { program: rustc.to_owned(), why };
        let reject = |why: String| rejected(Why::Other(why));
        let verbose = ask(rustc, &["-vV"]).map_err(reject)?;
        let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"]).map_err(reject)?.trim());
        let (version, nightly, llvm_major) = identify(&verbose).map_err(reject)?;
        let core = find_core(&sysroot).ok_or_else(|| rejected(Why::NoCore))?;
        Ok(Self { rustc: rustc.to_owned(), version, nightly, llvm_major, core })
    }

    /// `true` if a clippy of the same release is beside it. Only rustup's toolchains guarantee the "same".
    pub fn has_clippy(&self) -> bool {
        self.nightly && self.rustc.with_file_name("clippy-driver").is_file()
    }

    /// The cargo that belongs to the compiler, or else the one of the running build, or else the one on PATH.
    ///
    /// Building `core` from source works reliably only with the cargo of the same release.
    pub(crate) fn cargo(&self) -> PathBuf {
        self.rustc
            .parent()
            .map(|dir| dir.join("cargo"))
            .filter(|file| search::is_program(file))
            .or_else(|| env::var_os("CARGO").map(PathBuf::from))
            .or_else(|| search::program("cargo"))
            .unwrap_or_else(|| PathBuf::from("cargo"))
    }
}

fn ask(rustc: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(rustc);
    // A build script's library path leads to the libraries of the outer build's compiler.
    command.args(args).env_remove("LD_LIBRARY_PATH").env_remove("RUSTUP_TOOLCHAIN");
    let output = command.output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`rustc {}`: {}", args.join(" "), stderr.lines().next().unwrap_or("failed")));
    }
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}

/// Reads the answer of `rustc -vV`: version, is it a nightly, LLVM major version.
fn identify(verbose: &str) -> Result<(Version, bool, u32), String> {
    let field = |name: &str| {
        verbose.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    };
    let release = field("release").ok_or("`rustc -vV` names no release")?;
    let version = Version::parse(release).ok_or_else(|| format!("unknown release {release}"))?;
    if version < MIN_RUSTC {
        return Err(format!("rustc {version} is older than {MIN_RUSTC}"));
    }
    let llvm = field("LLVM version").ok_or("`rustc -vV` names no LLVM version")?;
    let llvm_major = Version::parse(llvm).ok_or_else(|| format!("unknown LLVM version {llvm}"))?.major();
    let nightly = release.contains("-nightly") || release.contains("-dev");
    Ok((version, nightly, llvm_major))
}

fn find_core(sysroot: &Path) -> Option<Core> {
    let rustlib = sysroot.join("lib/rustlib");
    let built =
        fs::read_dir(rustlib.join(OBJECT_TARGET).join("lib")).into_iter().flatten().flatten().any(|f| {
            let name = f.file_name();
            name.to_str().is_some_and(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
        });
    if built {
        return Some(Core::Prebuilt);
    }
    rustlib.join("src/rust/library/core/Cargo.toml").is_file().then_some(Core::Source)
}

/// Compilers to look at, best first: what the user names, rustup's nightly, the distribution's, rustup's stable.
pub(crate) fn candidates() -> Vec<PathBuf> {
    if let Some(named) = env::var_os(RUSTC_VARIABLE) {
        return vec![named.into()];
    }
    let mut found = Vec::new();
    found.extend(search::rustup_rustc("nightly"));
    found.extend(system_compilers(Path::new("/usr/bin")));
    found.extend(search::rustup_rustc("stable"));
    // Without rustup, `rustc` on PATH is the compiler itself, wherever it was installed.
    if search::rustup().is_none() {
        found.extend(search::on_path("rustc"));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    found
}

/// The distribution's compilers: `rustc`, then versioned ones (Ubuntu has `rustc-1.NN`), newest first.
fn system_compilers(bin: &Path) -> Vec<PathBuf> {
    let mut versioned: Vec<(Version, PathBuf)> = fs::read_dir(bin)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = Version::parse(name.to_str()?.strip_prefix("rustc-")?)?;
            Some((version, entry.path()))
        })
        .collect();
    versioned.sort_unstable_by(|a, b| b.cmp(a));
    let plain = bin.join("rustc");
    let plain = search::is_program(&plain).then_some(plain);
    plain.into_iter().chain(versioned.into_iter().map(|(_, path)| path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
        release: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn a_nightly_is_known_by_its_release() {
        assert_eq!(identify(NIGHTLY), Ok((Version::new(1, 97, 0), true, 22)));
    }

    #[test]
    fn an_old_compiler_is_refused_with_both_versions() {
        let old = "binary: rustc\nrelease: 1.63.0\nLLVM version: 14.0.6\n";
        assert_eq!(identify(old), Err("rustc 1.63.0 is older than 1.95.0".into()));
    }

    #[test]
    fn an_answer_without_the_fields_is_refused() {
        assert!(identify("rustc 1.96.0\n").is_err());
        assert!(identify("release: 1.96.0\n").is_err());
    }

    #[test]
    fn core_is_found_built_before_source_and_else_not_at_all() {
        let root = tests_directory("core");
        assert_eq!(find_core(&root), None);
        let source = root.join("lib/rustlib/src/rust/library/core");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("Cargo.toml"), "").unwrap();
        assert_eq!(find_core(&root), Some(Core::Source));
        let built = root.join("lib/rustlib").join(OBJECT_TARGET).join("lib");
        fs::create_dir_all(&built).unwrap();
        fs::write(built.join("liballoc-1.rlib"), "").unwrap();
        assert_eq!(find_core(&root), Some(Core::Source), "alloc alone is not core");
        fs::write(built.join("libcore-1.rlib"), "").unwrap();
        assert_eq!(find_core(&root), Some(Core::Prebuilt));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn system_compilers_come_newest_first() {
        use std::os::unix::fs::PermissionsExt as _;
        let bin = tests_directory("bin");
        fs::create_dir_all(&bin).unwrap();
        for name in ["rustc-1.9", "rustc-1.91", "rustc", "rustc-doc"] {
            fs::write(bin.join(name), "").unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let names: Vec<_> =
            system_compilers(&bin).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["rustc", "rustc-1.91", "rustc-1.9"]);
        fs::remove_dir_all(bin).unwrap();
    }

    #[test]
    fn the_minimum_is_that_of_the_workspace() {
        let manifest = include_str!("../../../Cargo.toml");
        let line = manifest.lines().find(|line| line.starts_with("rust-version")).unwrap();
        let text = line.split('"').nth(1).unwrap();
        assert_eq!(Version::parse(text), Some(MIN_RUSTC));
    }

    fn tests_directory(name: &str) -> PathBuf {
        env::temp_dir().join(format!("ebpf-toolchain-{name}-{}", std::process::id()))
    }
}
