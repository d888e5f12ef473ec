//! What runs in the guests: the root file system with the first process, the tests, the profiler and all that they
//! start.
//!
//! The profiler is the binary that `dist` makes. Only the workloads are linked dynamically, as on a real machine; their
//! libraries come along.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ebpf_toolchain::Action;
use workloads::Compilers;

use super::{cpio, kernels, libraries, machine::Machine};
use crate::{
    cross::Target,
    dist,
    process::{Failure, capture, say},
    workspace,
};

/// The first process, by its name in `tests/Cargo.toml`.
const FIRST: &str = "guest-init";

/// The test programs, by their names in `tests/Cargo.toml`.
const SUITES: [&str; 2] = ["harness", "kernel"];

/// Directories that are mounted over or written into, beside those that the files are in.
const DIRECTORIES: [&str; 15] = [
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tests",
    "/tmp",
    "/usr",
    "/usr/lib",
    "/var",
    "/workloads",
];

/// Names that tests start; each is a link to busybox.
const PROGRAMS: [&str; 5] = ["sh", "true", "touch", "cat", "sleep"];

/// Builds everything for a machine and writes its root file system; returns the file.
pub fn build(machine: &Machine) -> Result<PathBuf, Failure> {
    let target = Target::prepare(Some(machine.arch))?;
    let profiler = dist::build(&target)?;
    let programs = test_programs(&target)?;
    let directory = workspace::target_directory()?.join("vm");
    fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    let workloads = workloads(&target, &directory)?;

    let mut archive = cpio::Archive::default();
    DIRECTORIES.iter().for_each(|path| archive.directory(path));
    // The first process writes to it before it can mount anything.
    archive.device("/dev/console", 5, 1);
    archive.device("/dev/null", 1, 3);
    add(&mut archive, "/profiler", &profiler)?;
    add(&mut archive, "/broken.bpf.o", &broken_object(&target)?)?;
    for (name, path) in &programs {
        let inside =
            if SUITES.contains(&name.as_str()) { format!("/tests/{name}") } else { "/init".to_owned() };
        add(&mut archive, &inside, path)?;
    }
    for workload in &workloads {
        let name = workload.file_name().unwrap_or_default().to_string_lossy();
        add(&mut archive, &format!("/workloads/{name}"), workload)?;
    }
    for (inside, path) in libraries::closure(&workloads, &target.c_compiler())? {
        add(&mut archive, &inside, &path)?;
    }
    add(&mut archive, "/bin/busybox", &kernels::busybox(machine)?.path)?;
    PROGRAMS.iter().for_each(|name| archive.link(&format!("/bin/{name}"), "busybox"));

    let root = directory.join(format!("root-{}.cpio", machine.arch));
    fs::write(&root, archive.finish()).map_err(|e| Failure::io(&root, &e))?;
    Ok(root)
}

fn add(archive: &mut cpio::Archive, inside: &str, path: &Path) -> Result<(), Failure> {
    archive.program(inside, &fs::read(path).map_err(|e| Failure::io(path, &e))?);
    Ok(())
}

/// The deliberately broken programs of `tests/harness`.
fn broken_object(target: &Target) -> Result<PathBuf, Failure> {
    let toolchain = ebpf_toolchain::find().map_err(|e| Failure::new(e.to_string()))?;
    let ebpf = workspace::ebpf_crate_for(target.arch())?;
    ebpf.run(&toolchain, Action::BuildBroken).map_err(|e| Failure::new(e.to_string()))?;
    Ok(ebpf.broken_object())
}

/// The first process and the test programs, statically linked: their names and files.
fn test_programs(target: &Target) -> Result<Vec<(String, PathBuf)>, Failure> {
    say(format!("building the guest's programs for {}", target.triple()));
    let mut command = target.cargo("build")?;
    command.args([
        "--package",
        "profiler-tests",
        "--features",
        "broken",
        "--profile",
        "guest",
        "--bin",
        FIRST,
    ]);
    SUITES.iter().for_each(|suite| {
        command.args(["--test", suite]);
    });
    // What the compiler says is shown; stdout is for the names of what was built.
    command.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let messages = capture(&mut command)?;
    // Cargo builds all programs of a package with its tests.
    let is_wanted = |(name, _): &(String, PathBuf)| name == FIRST || SUITES.contains(&name.as_str());
    let programs: Vec<_> = messages.lines().filter_map(executable).filter(is_wanted).collect();
    if programs.len() == SUITES.len() + 1 {
        return Ok(programs);
    }
    Err(Failure::new(format!("cargo built {programs:?}, and not the first process and {SUITES:?}")))
}

/// Name and file of an executable, from one of cargo's messages.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

fn workloads(target: &Target, directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    target.cxx_compiler()?;
    let rustc: Command = target.rustc();
    let compilers = Compilers {
        prefix: target.c_compiler().trim_end_matches("gcc").to_owned(),
        rustc: rustc.get_program().into(),
        rustc_flags: rustc.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect(),
    };
    let built = workloads::build_all(&compilers, &directory.join("workloads").join(target.arch()));
    built.map_err(Failure::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_of_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel-1"}"#;
        assert_eq!(executable(message), Some(("kernel".to_owned(), PathBuf::from("/t/kernel-1"))));
        for other in [r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#, "", "text"]
        {
            assert_eq!(executable(other), None);
        }
    }

    #[test]
    fn a_directory_stands_behind_the_one_it_is_in() {
        for path in DIRECTORIES {
            let above = &path[..path.rfind('/').unwrap()];
            let place = |wanted: &str| DIRECTORIES.iter().position(|path| *path == wanted);
            assert!(above.is_empty() || place(above) < place(path), "{path}");
        }
    }
}
