//! `bpf-linker`: which there are, and of which LLVM.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Rejected, Version, Why, search};

/// The oldest `bpf-linker` that will do: the first that this project was tested with, and the one that set-up installs.
pub const MIN_LINKER: Version = Version::new(0, 13, 0);

/// Names the one linker that is to be used.
pub(crate) const LINKER_VARIABLE: &str = "PROFILER_BPF_LINKER";

/// A linker for eBPF programs.
#[derive(Clone, Debug)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// Its own version.
    pub version: Version,
    /// The LLVM it is linked with. `None` if that is inside the program: then nothing short of linking tells.
    pub llvm_major: Option<u32>,
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let llvm =
            self.llvm_major.map_or_else(|| "LLVM built in".to_owned(), |major| format!("LLVM {major}"));
        write!(f, "bpf-linker {} ({llvm}) at {}", self.version, self.path.display())
    }
}

impl Linker {
    /// Asks the program what it is.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub fn inspect(path: &Path) -> Result<Self, Rejected> {
        let reject = |why: String| Rejected { program: path.to_owned(), why: Why::Other(why) };
        let output = Command::new(path)
            .arg("--version")
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .map_err(|e| reject(e.to_string()))?;
        if !output.status.success() {
            // Typically the dynamic linker's message that its libLLVM is gone after an upgrade.
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(reject(stderr.lines().next().unwrap_or("does not run").to_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .trim()
            .strip_prefix("bpf-linker ")
            .and_then(Version::parse)
            .ok_or_else(|| reject(format!("unknown version {}", text.trim())))?;
        if version < MIN_LINKER {
            return Err(reject(format!("bpf-linker {version} is older than {MIN_LINKER}")));
        }
        let program = fs::read(path).map_err(|e| reject(e.to_string()))?;
        Ok(Self { path: path.to_owned(), version, llvm_major: shared_llvm(&program) })
    }

    /// `true` if it can read the bitcode of that LLVM: of its own or an older one.
    pub fn reads(&self, llvm_major: u32) -> bool {
        self.llvm_major.is_none_or(|own| own >= llvm_major)
    }
}

/// The major version in the name of the LLVM library that a program is linked with (`libLLVM.so.22.1`, before LLVM 18
/// `libLLVM-17.so.1`); a name in its dynamic string table, found by its text alone.
fn shared_llvm(program: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"libLLVM";
    program.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &program[at + NAME.len()..];
        let rest = rest.strip_prefix(b".so.").or_else(|| rest.strip_prefix(b"-"))?;
        let digits = rest.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
        str::from_utf8(&rest[..digits]).ok()?.parse().ok()
    })
}

/// Linkers to look at: what the user names, else the first on PATH and the one that `cargo install` made.
pub(crate) fn candidates() -> Vec<PathBuf> {
    const NAME: &str = "bpf-linker";
    if let Some(named) = env::var_os(LINKER_VARIABLE) {
        return vec![named.into()];
    }
    let installed = search::cargo_bin().map(|bin| bin.join(NAME)).filter(|file| search::is_program(file));
    let mut found: Vec<PathBuf> = search::on_path(NAME).into_iter().chain(installed).collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_is_read_from_the_library_name() {
        assert_eq!(shared_llvm(b"\0libc.so.6\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(shared_llvm(b"\0libLLVM-17.so.1\0"), Some(17));
        assert_eq!(
            shared_llvm(b"needs libLLVM to run\0libLLVM.so.23.1\0"),
            Some(23),
            "the first is only prose"
        );
        assert_eq!(shared_llvm(b"statically linked"), None);
        assert_eq!(shared_llvm(b"libLLVM.so."), None);
        assert_eq!(shared_llvm(b""), None);
    }

    #[test]
    fn a_linker_reads_its_own_and_older_bitcode() {
        let mut linker = Linker { path: PathBuf::new(), version: MIN_LINKER, llvm_major: Some(22) };
        assert!(linker.reads(21) && linker.reads(22) && !linker.reads(23));
        linker.llvm_major = None;
        assert!(linker.reads(23));
    }
}
