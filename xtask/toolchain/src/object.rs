//! Building the eBPF crate: a cargo inside cargo, shielded from the outer one's environment.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use crate::{Core, Toolchain, search};

/// The compilation target of the programs: little-endian eBPF, as every machine that is supported.
pub const OBJECT_TARGET: &str = "bpfel-unknown-none";

/// Where the eBPF crate is and where it is built.
#[derive(Clone, Debug)]
pub struct Crate {
    /// The directory of its Cargo.toml.
    pub directory: PathBuf,
    /// Its own target directory. One per `arch`: the flags differ, and so would everything be built anew.
    pub target_directory: PathBuf,
    /// The machine that the programs will run on, as Rust names it (`x86_64`, `aarch64`): the layout of `pt_regs`.
    pub arch: String,
}

/// What is done with the eBPF crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Builds the object.
    Build,
    /// Builds the object of deliberately broken programs, for the tests' own test.
    BuildBroken,
    /// Checks the code only; a warning is an error.
    Check,
    /// Runs clippy; a warning is an error. Only for a compiler that [has one](crate::Compiler::has_clippy).
    Clippy,
}

/// The eBPF crate was not built.
#[derive(Debug)]
pub enum BuildError {
    /// Cargo did not start.
    Start(PathBuf, io::Error),
    /// Cargo ended with an error, which it has printed.
    Failed(ExitStatus),
}

impl std::error::Error for BuildError {}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(cargo, e) => write!(f, "{}: {e}", cargo.display()),
            Self::Failed(status) => write!(f, "building the eBPF programs failed ({status})"),
        }
    }
}

impl Crate {
    /// The object file that [`Action::Build`] makes.
    pub fn object(&self) -> PathBuf {
        self.target_directory.join(OBJECT_TARGET).join("release/profiler")
    }

    /// The object file that [`Action::BuildBroken`] makes.
    pub fn broken_object(&self) -> PathBuf {
        self.object().with_file_name("broken")
    }

    /// Runs cargo on the crate. Its messages go to this process's stderr.
    ///
    /// # Errors
    /// If cargo cannot be started or fails.
    pub fn run(&self, toolchain: &Toolchain, action: Action) -> Result<(), BuildError> {
        let mut command = self.command(toolchain, action);
        let status =
            command.status().map_err(|e| BuildError::Start(PathBuf::from(command.get_program()), e))?;
        if status.success() { Ok(()) } else { Err(BuildError::Failed(status)) }
    }

    fn command(&self, toolchain: &Toolchain, action: Action) -> Command {
        let compiler = &toolchain.compiler;
        let mut command = Command::new(compiler.cargo());
        for (name, _) in env::vars_os() {
            if name.to_str().is_none_or(is_of_outer_build) {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.directory)
            .arg(match action {
                Action::Build | Action::BuildBroken => "build",
                Action::Check => "check",
                Action::Clippy => "clippy",
            })
            .args(["--release", "--target", OBJECT_TARGET, "--target-dir"])
            .arg(self.target_directory(action));
        if self.directory.join("Cargo.lock").exists() {
            command.arg("--locked");
        }
        match action {
            Action::Build => {}
            Action::BuildBroken => _ = command.args(["--features", "broken", "--bin", "broken"]),
            Action::Check | Action::Clippy => _ = command.arg("--all-features"),
        }
        if compiler.core == Core::Source {
            command.args(["-Z", "build-std=core"]);
        }
        command
            .env("RUSTC", &compiler.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(toolchain, action))
            // Empty: also no wrapper of the user's cargo configuration, which is meant for another compiler.
            .env("RUSTC_WRAPPER", "");
        if action == Action::Clippy {
            command.env("PATH", path_with(compiler.rustc.parent()));
        } else {
            command.env("RUSTC_WORKSPACE_WRAPPER", "");
        }
        if !compiler.nightly {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    /// Checks have a directory of their own: their flags differ, and one would undo the other's work.
    fn target_directory(&self, action: Action) -> PathBuf {
        match action {
            Action::Build | Action::BuildBroken => self.target_directory.clone(),
            Action::Check | Action::Clippy => self.target_directory.join("check"),
        }
    }

    fn flags(&self, toolchain: &Toolchain, action: Action) -> OsString {
        let mut flags: Vec<OsString> = vec![
            format!("--cfg=bpf_target_arch=\"{}\"", self.arch).into(),
            // Maps are described by BTF, which bpf-linker makes from debug information.
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            concat("-Clinker=", &toolchain.linker.path, ""),
        ];
        // BTF and DWARF carry the paths of source files: neither the builder's home nor the place of the sources belongs into
        // the object, which is then also the same wherever it is built. The last prefix that matches is used.
        let workspace = self.directory.parent().unwrap_or(&self.directory);
        flags.push(concat("--remap-path-prefix=", workspace, "=."));
        if let Some(home) = search::cargo_bin().as_deref().and_then(Path::parent) {
            flags.push(concat("--remap-path-prefix=", home, "=cargo"));
        }
        if let Some(sysroot) = toolchain.compiler.rustc.ancestors().nth(2) {
            flags.push(concat("--remap-path-prefix=", &sysroot.join("lib/rustlib/src"), "=rustlib"));
        }
        if matches!(action, Action::Check | Action::Clippy) {
            flags.push("-Dwarnings".into());
        }
        flags.join(std::ffi::OsStr::new("\u{1f}"))
    }
}

/// PATH with `first` before the rest: cargo runs the first `cargo-clippy` that it finds there.
fn path_with(first: Option<&Path>) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = first.map(Path::to_owned).into_iter().chain(env::split_paths(&path));
    env::join_paths(all).unwrap_or(path.clone())
}

fn concat(before: &str, path: &Path, after: &str) -> OsString {
    let mut text = OsString::from(before);
    text.push(path);
    text.push(after);
    text
}

/// `true` for a variable that says how the *outer* crate is built. Cargo, clippy and rustup set them for build scripts;
/// inside, they would bring in a foreign compiler, its flags or its wrapper. What says how cargo reaches its registries
/// and how it prints stays, and so does the job server: both builds share the machine.
fn is_of_outer_build(name: &str) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const DROPPED: [&str; 6] =
        ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "CLIPPY_ARGS", "CLIPPY_CONF_DIR", "SYSROOT", "__CARGO"];
    let starts = |prefix: &&str| name.starts_with(*prefix);
    match name {
        "CARGO" => true,
        _ if name.starts_with("CARGO_") => !KEPT.iter().any(starts),
        _ => {
            name.starts_with("RUSTC")
                || name.starts_with("RUSTDOC")
                || name == "RUSTFLAGS"
                || DROPPED.iter().any(starts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compiler, Linker, MIN_LINKER, Version};

    fn toolchain(core: Core, nightly: bool) -> Toolchain {
        let compiler = Compiler {
            rustc: "/opt/rust/bin/rustc".into(),
            version: Version::new(1, 97, 0),
            nightly,
            llvm_major: 22,
            core,
        };
        let linker = Linker { path: "/opt/bpf-linker".into(), version: MIN_LINKER, llvm_major: Some(22) };
        Toolchain { compiler, linker }
    }

    fn krate() -> Crate {
        Crate {
            directory: "/src/profiler-ebpf".into(),
            target_directory: "/out/ebpf".into(),
            arch: "aarch64".into(),
        }
    }

    fn args(command: &Command) -> Vec<String> {
        command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    fn variable(command: &Command, name: &str) -> Option<String> {
        let (_, value) = command.get_envs().find(|(key, _)| *key == name)?;
        value.map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn variables_of_the_outer_build_are_dropped() {
        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_PKG_NAME",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTDOCFLAGS",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
            "CLIPPY_ARGS",
        ] {
            assert!(is_of_outer_build(name), "{name}");
        }
    }

    #[test]
    fn variables_of_the_machine_stay() {
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "CARGO_TERM_COLOR",
            "CARGO_MAKEFLAGS",
            "CARGO_REGISTRIES_CRATES_IO_PROTOCOL",
            "RUSTUP_HOME",
            "https_proxy",
            "RUST_BACKTRACE",
        ] {
            assert!(!is_of_outer_build(name), "{name}");
        }
    }

    #[test]
    fn a_nightly_builds_core_from_source() {
        let command = krate().command(&toolchain(Core::Source, true), Action::Build);
        let args = args(&command);
        assert!(args.windows(2).any(|pair| pair == ["-Z", "build-std=core"]), "{args:?}");
        assert_eq!(variable(&command, "RUSTC_BOOTSTRAP"), None);
        assert_eq!(variable(&command, "RUSTC").as_deref(), Some("/opt/rust/bin/rustc"));
    }

    #[test]
    fn a_stable_compiler_with_a_built_core_uses_it() {
        let command = krate().command(&toolchain(Core::Prebuilt, false), Action::Build);
        assert!(!args(&command).contains(&"-Z".to_owned()));
        assert_eq!(variable(&command, "RUSTC_BOOTSTRAP").as_deref(), Some("1"));
    }

    #[test]
    fn flags_name_the_machine_the_linker_and_btf() {
        let flags = krate().flags(&toolchain(Core::Source, true), Action::Build);
        let flags: Vec<_> = flags.to_str().unwrap().split('\u{1f}').collect();
        for flag in [
            "--cfg=bpf_target_arch=\"aarch64\"",
            "-Clinker=/opt/bpf-linker",
            "-Clink-arg=--btf",
            "-Cdebuginfo=2",
            "--remap-path-prefix=/src=.",
        ] {
            assert!(flags.contains(&flag), "{flag} is not in {flags:?}");
        }
        assert!(!flags.contains(&"-Dwarnings"));
    }

    #[test]
    fn checks_deny_warnings_and_do_not_disturb_the_build() {
        let toolchain = toolchain(Core::Source, true);
        let flags = krate().flags(&toolchain, Action::Check);
        assert!(flags.to_str().unwrap().ends_with("-Dwarnings"));
        let command = krate().command(&toolchain, Action::Check);
        assert!(args(&command).contains(&"/out/ebpf/check".to_owned()));
    }
}
