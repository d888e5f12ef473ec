//! The emulator: the machine's own, else Debian's package; where that cannot be installed without removing another one (a
//! newer `qemu-utils` is there, of another suite), the package unpacked into a directory, with nothing installed.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Machine;
use crate::{
    archive::{self, Archive},
    process::{Failure, say, succeeds},
    setup::apt::Apt,
    workspace,
};

/// An emulator that runs here.
#[derive(Debug, PartialEq, Eq)]
pub enum Qemu {
    /// A program of the machine's, by name.
    Installed(&'static str),
    /// A program below a directory that packages were unpacked into.
    Unpacked {
        /// The directory.
        root: PathBuf,
        /// The program's name.
        program: &'static str,
    },
}

impl Qemu {
    /// The one for a machine, which is installed or unpacked if it is not there.
    ///
    /// # Errors
    /// It can be had in no way.
    pub fn prepare(machine: &Machine) -> Result<Self, Failure> {
        let installed = Self::Installed(machine.qemu);
        if installed.runs() {
            return Ok(installed);
        }
        let refused = match Apt::default().install(&[machine.qemu_package], "virtual machines") {
            Ok(()) => return Ok(installed),
            Err(refused) => refused,
        };
        say(format!("{} cannot be installed: it is unpacked", machine.qemu_package));
        let unpacked = Self::unpack(machine)?;
        // What is missing is said by what installs it.
        if unpacked.runs() { Ok(unpacked) } else { Err(refused) }
    }

    /// The program, to be given its arguments. What it reads beside is found from where it is.
    pub fn command(&self) -> Command {
        match self {
            Self::Installed(program) => Command::new(program),
            Self::Unpacked { root, program } => {
                let mut command = Command::new(root.join("usr/bin").join(program));
                command.env("LD_LIBRARY_PATH", libraries(root));
                command
            }
        }
    }

    fn runs(&self) -> bool {
        succeeds(self.command().arg("--version"))
    }

    fn unpack(machine: &Machine) -> Result<Self, Failure> {
        let directory = workspace::target_directory()?.join("qemu");
        let root = directory.join(machine.qemu_package);
        let unpacked = Self::Unpacked { root: root.clone(), program: machine.qemu };
        if root.exists() {
            return Ok(unpacked);
        }
        let host = Machine::of(env::consts::ARCH);
        let host = host.ok_or_else(|| Failure::new(format!("no packages for {}", env::consts::ARCH)))?;
        let suites = archive::system_suites()?;
        let suites: Vec<&str> = suites.iter().map(String::as_str).collect();
        let archive = Archive::open(host.debian, &suites)?;
        let unfinished = directory.join(format!("unfinished-{}", std::process::id()));
        let packages = needed(&archive, machine.qemu_package)?;
        for (package, version) in &packages {
            let file = archive.download(package, version)?;
            fs::create_dir_all(&unfinished).map_err(|e| Failure::io(&unfinished, &e))?;
            archive::unpack(&file, &unfinished)?;
        }
        fs::rename(&unfinished, &root).map_err(|e| Failure::io(&root, &e))?;
        Ok(unpacked)
    }
}

/// A package and all that it needs and that is not installed, with their versions.
fn needed(archive: &Archive, package: &str) -> Result<Vec<(String, String)>, Failure> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![package.to_owned()]);
    let mut found = Vec::new();
    while let Some(package) = left.pop() {
        if Apt::installed(&package) || !seen.insert(package.clone()) {
            continue;
        }
        // A name that only others provide: one of these is installed, or the program will say what it lacks.
        let Some(version) = archive.candidate(&package)? else { continue };
        left.extend(archive.dependencies(&package)?);
        found.push((package, version));
    }
    Ok(found)
}

/// Where the packages have their libraries: before and since Debian merged `/lib` into `/usr`.
fn libraries(root: &Path) -> String {
    let directory = |below: &str| {
        let directory = root.join(below).join(format!("{}-linux-gnu", env::consts::ARCH));
        directory.display().to_string()
    };
    [directory("usr/lib"), directory("lib")].join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_runs_with_its_own_libraries() {
        let unpacked = Qemu::Unpacked { root: "/q".into(), program: "qemu-x" };
        let command = unpacked.command();
        assert_eq!(command.get_program(), "/q/usr/bin/qemu-x");
        let (_, value) = command.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH").unwrap();
        let value = value.unwrap().to_str().unwrap();
        assert!(value.starts_with("/q/usr/lib/") && value.contains(":/q/lib/"), "{value}");
        assert!(!Qemu::Installed("no-such-program").runs());
    }
}
