//! Finds the compiler and the linker of the eBPF programs, and builds them.
//!
//! The programs need a `core` library for `bpfel-unknown-none`, which rustup does not ship: a compiler is usable if it
//! has one prebuilt (Debian's `libstd-rust-web-dev-bpf`) or its own sources to build it from (`rust-src`). They are
//! linked by `bpf-linker`, whose LLVM must be able to read the bitcode that the compiler's LLVM writes.
//!
//! `profiler/build.rs` and `cargo xtask setup` decide with the same code, so that "set up" means "builds".

mod compiler;
mod linker;
mod object;
mod search;
mod strip;
mod version;

use std::{fmt, path::PathBuf};

pub use compiler::{Compiler, Core, MIN_RUSTC};
pub use linker::{Linker, MIN_LINKER};
pub use object::{Action, BuildError, Crate, OBJECT_TARGET};
pub use search::{cargo_bin, on_path, rustup};
pub use strip::strip;
pub use version::Version;

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The linker.
    pub linker: Linker,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.compiler, self.linker)
    }
}

/// A program that was looked at and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The program.
    pub program: PathBuf,
    /// Why.
    pub why: Why,
}

/// Why a program cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The compiler would do, but has no `core` for the eBPF target and no sources of it.
    NoCore,
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.program.display())?;
        match &self.why {
            Why::NoCore => write!(f, "has neither rust-src nor a built core for {OBJECT_TARGET}"),
            Why::Other(why) => f.write_str(why),
        }
    }
}

/// Everything that was found on this machine, usable and not.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Usable compilers, best first.
    pub compilers: Vec<Compiler>,
    /// Usable linkers, best first.
    pub linkers: Vec<Linker>,
    /// What was found and cannot be used.
    pub rejected: Vec<Rejected>,
}

impl Survey {
    /// Looks at this machine. Runs the compilers and linkers that it finds to ask for their versions; downloads and
    /// changes nothing.
    pub fn take() -> Self {
        let mut survey = Self::default();
        for found in compiler::candidates() {
            match Compiler::inspect(&found) {
                Ok(compiler) => survey.compilers.push(compiler),
                Err(why) => survey.rejected.push(why),
            }
        }
        for found in linker::candidates() {
            match Linker::inspect(&found) {
                Ok(linker) => survey.linkers.push(linker),
                Err(why) => survey.rejected.push(why),
            }
        }
        survey
    }

    /// The first linker that reads what `compiler` writes.
    pub fn linker_for(&self, compiler: &Compiler) -> Option<&Linker> {
        self.linkers.iter().find(|linker| linker.reads(compiler.llvm_major))
    }

    /// The best compiler that has a linker.
    pub fn toolchain(&self) -> Option<Toolchain> {
        self.compilers.iter().find_map(|compiler| {
            let linker = self.linker_for(compiler)?.clone();
            Some(Toolchain { compiler: compiler.clone(), linker })
        })
    }
}

/// There is no working pair of compiler and linker.
#[derive(Clone, Debug)]
pub struct Missing(
    /// What there is.
    pub Survey,
);

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survey { compilers, linkers, rejected } = &self.0;
        writeln!(f, "the toolchain for the eBPF programs is not complete on this machine")?;
        if compilers.is_empty() {
            writeln!(
                f,
                "  missing: rustc {MIN_RUSTC} or later with rust-src, or with a built core for {OBJECT_TARGET}"
            )?;
        }
        if linkers.is_empty() {
            writeln!(f, "  missing: bpf-linker {MIN_LINKER} or later, on PATH or in cargo's bin directory")?;
        } else if let Some(compiler) = compilers.first() {
            writeln!(f, "  missing: a bpf-linker of LLVM {} or later", compiler.llvm_major)?;
        }
        compilers.iter().try_for_each(|c| writeln!(f, "  found: {c}"))?;
        linkers.iter().try_for_each(|l| writeln!(f, "  found: {l}"))?;
        rejected.iter().try_for_each(|r| writeln!(f, "  not usable: {r}"))?;
        write!(f, "Run `cargo xtask setup`: it installs what is missing, or says what it cannot install.")
    }
}

/// The toolchain that builds the eBPF programs on this machine.
///
/// # Errors
/// [`Missing`], which says what was found and what is not there.
pub fn find() -> Result<Toolchain, Missing> {
    let survey = Survey::take();
    survey.toolchain().ok_or(Missing(survey))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(llvm_major: u32) -> Compiler {
        Compiler {
            rustc: format!("/c{llvm_major}/rustc").into(),
            version: Version::new(1, 96, 0),
            nightly: false,
            llvm_major,
            core: Core::Prebuilt,
        }
    }

    fn linker(llvm_major: Option<u32>) -> Linker {
        Linker { path: "/bin/bpf-linker".into(), version: MIN_LINKER, llvm_major }
    }

    #[test]
    fn the_first_compiler_with_a_fitting_linker_wins() {
        let survey = Survey {
            compilers: vec![compiler(23), compiler(22)],
            linkers: vec![linker(Some(22))],
            rejected: vec![],
        };
        assert_eq!(survey.toolchain().map(|t| t.compiler.llvm_major), Some(22));
    }

    #[test]
    fn a_linker_older_than_every_compiler_is_named_as_the_missing_piece() {
        let survey =
            Survey { compilers: vec![compiler(23)], linkers: vec![linker(Some(22))], rejected: vec![] };
        assert!(survey.toolchain().is_none());
        let text = Missing(survey).to_string();
        assert!(text.contains("missing: a bpf-linker of LLVM 23 or later"), "{text}");
        assert!(!text.contains("missing: rustc"), "{text}");
    }

    #[test]
    fn nothing_at_all_names_both_pieces_and_the_command() {
        let why = Why::Other("rustc 1.63.0 is older than 1.95.0".into());
        let rejected = vec![Rejected { program: "/usr/bin/rustc".into(), why }];
        let text = Missing(Survey { rejected, ..Survey::default() }).to_string();
        for part in ["missing: rustc 1.95.0", "missing: bpf-linker", "1.63.0 is older", "cargo xtask setup"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
