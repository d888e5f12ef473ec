//! Static builds, for this machine's architecture or for another one.
//!
//! Another architecture needs two things that this one has by itself: a C compiler to link with and to compile SQLite,
//! together with the C library, and Rust's standard library. [`Target::prepare`] finds or installs both; everything else
//! (cargo, the eBPF toolchain, the crates) is the same.

mod library;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use ebpf_toolchain::on_path;

use crate::{process::Failure, setup::apt::Apt, workspace};
use library::Compiler;

/// An architecture that the profiler supports, under the names that it goes by.
#[derive(Debug)]
struct Machine {
    /// Rust's name, which is also the short name of the target.
    rust: &'static str,
    triple: &'static str,
    /// Debian's name, in packages.
    debian: &'static str,
    /// GNU's name, in programs.
    gnu: &'static str,
    /// A C compiler and the C library, for building on another machine.
    c_packages: [&'static str; 2],
    cxx_package: &'static str,
    /// Its number in ELF files.
    elf: u16,
}

const MACHINES: [Machine; 2] = [
    Machine {
        rust: "x86_64",
        triple: "x86_64-unknown-linux-gnu",
        debian: "amd64",
        gnu: "x86_64-linux-gnu",
        c_packages: ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
        cxx_package: "g++-x86-64-linux-gnu",
        elf: object::elf::EM_X86_64,
    },
    Machine {
        rust: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        debian: "arm64",
        gnu: "aarch64-linux-gnu",
        c_packages: ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        cxx_package: "g++-aarch64-linux-gnu",
        elf: object::elf::EM_AARCH64,
    },
];

/// What is built for, with the means to do it.
#[derive(Debug)]
pub struct Target {
    triple: String,
    machine: &'static Machine,
    compiler: Compiler,
    /// The machine that builds is of another architecture.
    foreign: bool,
}

impl Target {
    /// The target of that name (`x86_64`, `aarch64` or a triple); without one, this machine's. Installs what it lacks.
    ///
    /// # Errors
    /// If it is no architecture of the profiler's; or the missing piece and how to get it.
    pub fn prepare(name: Option<&str>) -> Result<Self, Failure> {
        let host = workspace::host_triple()?;
        let (triple, machine) = resolve(name.unwrap_or(&host))?;
        let foreign = machine.rust != env::consts::ARCH;
        let mut apt = Apt::default();
        let packaged = (foreign && triple == machine.triple).then_some(machine);
        let compiler = library::find_or_install(&triple, packaged, &mut apt)?;
        let target = Self { triple, machine, compiler, foreign };
        if foreign && env::var_os(target.linker_variable()).is_none() {
            target.install(&target.c_compiler(), &machine.c_packages, &mut apt)?;
        }
        Ok(target)
    }

    /// The target's triple.
    pub fn triple(&self) -> &str {
        &self.triple
    }

    /// The architecture, as Rust names it.
    pub fn arch(&self) -> &'static str {
        self.machine.rust
    }

    /// The architecture's number in ELF files.
    pub fn elf_machine(&self) -> u16 {
        self.machine.elf
    }

    /// `true` if this machine cannot run what is built.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Cargo, for a subcommand that builds: static programs of the target, in [`Target::directory`].
    pub fn cargo(&self, subcommand: &str) -> Result<Command, Failure> {
        let mut flags = self.compiler.flags();
        flags.push("-Ctarget-feature=+crt-static".to_owned());
        // Panics name source files: not those of the builder's home.
        flags.push(format!("--remap-path-prefix={}=.", workspace::root().display()));
        if let Some(cargo_home) = ebpf_toolchain::cargo_bin().as_deref().and_then(Path::parent) {
            flags.push(format!("--remap-path-prefix={}=cargo", cargo_home.display()));
        }
        let mut command = workspace::cargo();
        command
            .args([subcommand, "--locked", "--target", &self.triple, "--target-dir"])
            .arg(build_directory()?)
            // With a target named, the flags do not reach build scripts and procedural macros, which cannot be static.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env_remove("RUSTFLAGS")
            .env("PROFILER_EBPF_DIR", workspace::target_directory()?.join("ebpf"));
        if let Some(rustc) = self.compiler.rustc() {
            command.env("RUSTC", rustc);
        }
        if self.foreign && env::var_os(self.linker_variable()).is_none() {
            command.env(self.linker_variable(), self.c_compiler());
        }
        if self.foreign && env::var_os(self.compiler_variable()).is_none() {
            command.env(self.compiler_variable(), self.c_compiler());
        }
        Ok(command)
    }

    /// Where [`Target::cargo`] puts what it builds with a profile (`debug`, `release`, `dist`).
    pub fn directory(&self, profile: &str) -> Result<PathBuf, Failure> {
        Ok(build_directory()?.join(&self.triple).join(profile))
    }

    /// The C compiler's name.
    pub fn c_compiler(&self) -> String {
        self.gnu_program("gcc")
    }

    fn gnu_program(&self, name: &str) -> String {
        if self.foreign { format!("{}-{name}", self.machine.gnu) } else { name.to_owned() }
    }

    /// Cargo's variable for the linker of the target, which the user may have set.
    fn linker_variable(&self) -> String {
        format!("CARGO_TARGET_{}_LINKER", self.triple.to_uppercase().replace('-', "_"))
    }

    /// The variable for the C compiler of the target that build scripts look at, which the user may have set.
    fn compiler_variable(&self) -> String {
        format!("CC_{}", self.triple.replace('-', "_"))
    }

    fn install(&self, program: &str, packages: &[&str], apt: &mut Apt) -> Result<(), Failure> {
        if on_path(program).is_some() {
            return Ok(());
        }
        apt.install(packages, &format!("building for {}", self.triple))
    }
}

/// The compilers of programs that are not cargo's, for the workloads of the tests.
impl Target {
    /// The C++ compiler's name; it is installed if it is not there.
    pub fn cxx_compiler(&self) -> Result<String, Failure> {
        let program = self.gnu_program("g++");
        self.install(&program, &[self.machine.cxx_package], &mut Apt::default())?;
        Ok(program)
    }

    /// The Rust compiler, with what it has to be told to build for the target; nothing is said about linking statically.
    pub fn rustc(&self) -> Command {
        let program = self.compiler.rustc().map_or_else(
            || env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()),
            |rustc| rustc.as_os_str().to_owned(),
        );
        let mut command = Command::new(program);
        command.args(["--target", &self.triple]).args(self.compiler.flags());
        if self.foreign {
            command.arg(format!("-Clinker={}", self.c_compiler()));
        }
        command
    }
}

/// The triple and the architecture of a name.
fn resolve(name: &str) -> Result<(String, &'static Machine), Failure> {
    let arch = name.split('-').next().unwrap_or(name);
    let machine = MACHINES.iter().find(|machine| machine.rust == arch).ok_or_else(|| {
        let known = MACHINES.map(|machine| machine.rust).join(", ");
        Failure::usage(format!(
            "target `{name}` is of no architecture that is supported: {known}, or a triple of one"
        ))
    })?;
    let triple = if name == machine.rust { machine.triple } else { name };
    Ok((triple.to_owned(), machine))
}

/// A directory of its own, so that the flags of static builds never undo an ordinary build.
fn build_directory() -> Result<PathBuf, Failure> {
    Ok(workspace::target_directory()?.join("dist-build"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target as on a machine of neither architecture.
    fn foreign(name: &str, compiler: Compiler) -> Target {
        let (triple, machine) = resolve(name).unwrap();
        Target { triple, machine, compiler, foreign: true }
    }

    fn variable(command: &Command, name: &str) -> Option<String> {
        let (_, value) = command.get_envs().find(|(key, _)| *key == name)?;
        value.map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn short_names_and_triples() {
        for (name, triple) in [
            ("aarch64", "aarch64-unknown-linux-gnu"),
            ("x86_64", "x86_64-unknown-linux-gnu"),
            ("aarch64-unknown-linux-musl", "aarch64-unknown-linux-musl"),
        ] {
            assert_eq!(resolve(name).unwrap().0, triple);
        }
        for bad in ["", "arm", "riscv64gc-unknown-linux-gnu", "-", "aarch64_be-unknown-linux-gnu"] {
            assert_eq!(resolve(bad).unwrap_err().code(), 2, "{bad}");
        }
    }

    #[test]
    fn cargo_is_told_the_target_the_compiler_and_the_linker() {
        let sysroot = "/cache/usr".into();
        let command = foreign("aarch64", Compiler::Packaged { sysroot }).cargo("build").unwrap();
        let args: Vec<_> = command.get_args().collect();
        assert!(args.windows(2).any(|pair| pair == ["--target", "aarch64-unknown-linux-gnu"]), "{args:?}");
        let linker = variable(&command, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER");
        assert_eq!(linker.as_deref(), Some("aarch64-linux-gnu-gcc"));
        let compiler = variable(&command, "CC_aarch64_unknown_linux_gnu");
        assert_eq!(compiler.as_deref(), Some("aarch64-linux-gnu-gcc"));
        assert_eq!(variable(&command, "RUSTC").as_deref(), Some("/usr/bin/rustc"));
        let flags = variable(&command, "CARGO_ENCODED_RUSTFLAGS").unwrap();
        let flags: Vec<_> = flags.split('\u{1f}').collect();
        for flag in ["--sysroot=/cache/usr", "-Ctarget-feature=+crt-static"] {
            assert!(flags.contains(&flag), "{flag} is not in {flags:?}");
        }
    }

    #[test]
    fn a_build_for_this_machine_keeps_the_users_compiler_and_linker() {
        let target = Target { foreign: false, ..foreign(env::consts::ARCH, Compiler::Active) };
        let command = target.cargo("build").unwrap();
        assert_eq!(variable(&command, "RUSTC"), None);
        assert_eq!(variable(&command, &target.linker_variable()), None);
        assert_eq!(variable(&command, &target.compiler_variable()), None);
        assert_eq!(target.c_compiler(), "gcc");
        assert!(!target.rustc().get_args().any(|arg| arg.to_string_lossy().contains("linker")));
    }

    #[test]
    fn programs_of_another_architecture_have_its_name() {
        let target = foreign("aarch64", Compiler::Active);
        assert_eq!(target.c_compiler(), "aarch64-linux-gnu-gcc");
        let command = target.rustc();
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["--target", "aarch64-unknown-linux-gnu", "-Clinker=aarch64-linux-gnu-gcc"]);
    }
}
