//! `cargo xtask jdks`: JDKs of other versions than the machine's, for tests, with nothing installed.
//!
//! Debian's packages of several suites ([`archive`]), each unpacked into a directory that is the root of a small system:
//! the JDK, and the C library that it was linked with, which can be a newer one than this machine's. Tests run them by
//! `chroot` (`tests/src/jdk.rs`). What a package would do when it is installed is not done: the JVM starts without a
//! class data archive.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    archive::{self, Archive},
    process::{Failure, say},
    vm::Machine,
    workspace,
};

/// A version, and where it comes from.
#[derive(Debug, PartialEq, Eq)]
pub struct Jdk {
    /// Its major number.
    pub major: u32,
    /// Suites that have it, all of which are looked at: the newest build is taken.
    suites: &'static [&'static str],
}

/// All that are supported for long, and the newest releases.
pub const JDKS: [Jdk; 7] = [
    Jdk { major: 8, suites: &["sid"] },
    Jdk { major: 11, suites: &["bullseye", "bullseye-security"] },
    Jdk { major: 17, suites: &["bookworm", "bookworm-security"] },
    Jdk { major: 21, suites: &["trixie", "trixie-security"] },
    Jdk { major: 25, suites: &["trixie", "trixie-security"] },
    Jdk { major: 26, suites: &["sid"] },
    Jdk { major: 27, suites: &["sid"] },
];

/// What the programs and the libraries of a JDK without a screen are linked with, of the same suites.
const LIBRARIES: [&str; 4] = ["libc6", "libgcc-s1", "libstdc++6", "zlib1g"];
/// Directories that Debian merged into `/usr`; packages of before still have them.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// Directories of the machine's that are shown inside when something runs there.
const SHOWN: [&str; 4] = ["dev", "proc", "sys", "tmp"];

/// What became of a version: the root directory that it is in, or why there is none.
pub type Outcome = (&'static Jdk, Result<PathBuf, Failure>);

/// Fetches and unpacks those of `only` (major numbers, separated by commas), or all. What is there is not fetched again;
/// remove its directory to have a newer build.
///
/// # Errors
/// An unknown number, or a machine that Debian has no such packages for.
pub fn prepare(only: Option<&str>) -> Result<Vec<Outcome>, Failure> {
    let machine = Machine::of(env::consts::ARCH)
        .ok_or_else(|| Failure::new(format!("no JDKs are known for {}", env::consts::ARCH)))?;
    let directory = workspace::target_directory()?.join("jdks");
    let chosen = chosen(only)?;
    Ok(chosen.into_iter().map(|jdk| (jdk, jdk.unpacked(machine.debian, &directory))).collect())
}

/// The task: prepares them, prints their directories, says which ones could not be had and why.
///
/// # Errors
/// None at all could be had.
pub fn jdks(only: Option<&str>) -> Result<(), Failure> {
    let outcomes = prepare(only)?;
    for (jdk, outcome) in &outcomes {
        match outcome {
            Ok(root) => println!("{}", root.display()),
            Err(e) => say(format!("no JDK {}: {e}", jdk.major)),
        }
    }
    if outcomes.iter().all(|(_, outcome)| outcome.is_err()) {
        return Err(Failure::new("no JDK could be had"));
    }
    Ok(())
}

fn chosen(only: Option<&str>) -> Result<Vec<&'static Jdk>, Failure> {
    let Some(only) = only else { return Ok(JDKS.iter().collect()) };
    let find = |text: &str| {
        let found = JDKS.iter().find(|jdk| jdk.major.to_string() == text);
        let known: Vec<String> = JDKS.iter().map(|jdk| jdk.major.to_string()).collect();
        found.ok_or_else(|| Failure::usage(format!("no JDK `{text}`; there are {}", known.join(", "))))
    };
    only.split(',').map(find).collect()
}

impl Jdk {
    fn unpacked(&self, architecture: &str, directory: &Path) -> Result<PathBuf, Failure> {
        let root = directory.join(self.major.to_string());
        if root.exists() {
            return Ok(root);
        }
        let archive = Archive::open(architecture, self.suites)?;
        let jdk = ["jdk", "jre"].map(|part| format!("openjdk-{}-{part}-headless", self.major));
        let unfinished = directory.join(format!("{}.unfinished-{}", self.major, std::process::id()));
        let result = self.unpack(&archive, jdk.iter().map(String::as_str).chain(LIBRARIES), &unfinished);
        // Half a JDK is none.
        let result = result.and_then(|()| fs::rename(&unfinished, &root).map_err(|e| Failure::io(&root, &e)));
        if let Err(failure) = result {
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished).map_err(|e| Failure::io(&unfinished, &e))?;
            }
            return Err(failure);
        }
        Ok(root)
    }

    fn unpack<'a>(
        &self,
        archive: &Archive,
        packages: impl Iterator<Item = &'a str>,
        root: &Path,
    ) -> Result<(), Failure> {
        let io = |e| Failure::io(root, &e);
        for name in MERGED {
            fs::create_dir_all(root.join("usr").join(name)).map_err(io)?;
            symlink(Path::new("usr").join(name), root.join(name)).map_err(io)?;
        }
        for name in SHOWN {
            fs::create_dir_all(root.join(name)).map_err(io)?;
        }
        for package in packages {
            let missing = || Failure::new(format!("{} has no {package}", self.suites.join(" ")));
            let version = archive.candidate(package)?.ok_or_else(missing)?;
            archive::unpack(&archive.download(package, &version)?, root)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_chosen_by_their_numbers() {
        let majors = |only| chosen(only).map(|jdks| jdks.iter().map(|jdk| jdk.major).collect::<Vec<_>>());
        assert_eq!(majors(Some("8,21")), Ok(vec![8, 21]));
        assert_eq!(majors(None).map(|all| all.len()), Ok(JDKS.len()));
        let failure = majors(Some("8,9")).unwrap_err();
        assert_eq!((failure.code(), failure.to_string().starts_with("no JDK `9`")), (2, true));
    }
}
