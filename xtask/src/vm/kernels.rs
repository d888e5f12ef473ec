//! Stock kernels of the distribution: which ones, and how they get here.
//!
//! Packages `linux-image-cloud-*` of several suites. They are kept in the cache directory, outside the checkout; one
//! that is there is not looked for again (remove its directory to have a newer one).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::machine::Machine;
use crate::{
    archive::{self, Archive},
    process::{Failure, say},
    workspace,
};

/// A kernel to test on.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As it is asked for and listed: its version, or `new`.
    pub name: &'static str,
    /// Suites that have it, those whose lists are small first; a later one is looked at if the earlier ones lack it.
    suites: &'static [&'static str],
    /// A run without it fails.
    pub mandatory: bool,
}

/// All kernels. The oldest leaves the mirror when its suite does.
pub const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suites: &["bullseye-security", "bullseye"], mandatory: false },
    Kernel { name: "6.1", suites: &["bookworm-security", "bookworm"], mandatory: true },
    Kernel { name: "6.12", suites: &["trixie-security", "trixie"], mandatory: true },
    Kernel { name: "new", suites: &["trixie-backports"], mandatory: false },
];

/// A shell and the small programs that tests start, static: any suite's will do.
const BUSYBOX: (&str, [&str; 2]) = ("busybox-static", ["bookworm", "trixie"]);

/// A file out of a package, kept in the cache.
pub struct Fetched {
    /// The file.
    pub path: PathBuf,
    /// The package's version.
    pub version: String,
}

impl Kernel {
    /// The kernel of that name.
    pub fn of(name: &str) -> Option<&'static Self> {
        KERNELS.iter().find(|kernel| kernel.name == name)
    }

    /// Its image, from the cache or from the mirror.
    ///
    /// # Errors
    /// Why it is absent.
    pub fn fetch(&self, machine: &Machine) -> Result<Fetched, Failure> {
        let package = format!("linux-image-cloud-{}", machine.debian);
        kept(&format!("kernels/{}/{}", machine.arch, self.name), || {
            let archive_and_version = newest(&package, machine, self.suites)?;
            image(&package, &archive_and_version)
        })
    }
}

/// busybox for a machine.
pub fn busybox(machine: &Machine) -> Result<Fetched, Failure> {
    let (package, suites) = BUSYBOX;
    kept(&format!("kernels/{}/busybox", machine.arch), || {
        let (archive, version) = newest(package, machine, &suites)?;
        let file = archive.download(package, &version)?;
        let found = unpacked(&file, |path| path.ends_with("bin/busybox"))?;
        Ok((found.ok_or_else(|| Failure::new(format!("{package} {version} has no busybox")))?, version))
    })
}

/// The cached file, or what `fetch` gives: the file's bytes and the version.
fn kept(name: &str, fetch: impl FnOnce() -> Result<(Vec<u8>, String), Failure>) -> Result<Fetched, Failure> {
    let directory = workspace::cache_directory()?.join(name);
    let (path, version_file) = (directory.join("file"), directory.join("version"));
    if let Ok(version) = fs::read_to_string(&version_file)
        && path.exists()
    {
        return Ok(Fetched { path, version });
    }
    let (data, version) = fetch()?;
    let io = |e| Failure::io(&directory, &e);
    fs::create_dir_all(&directory).map_err(io)?;
    // The version is written last: a file without it is not whole.
    fs::write(&path, data).map_err(io)?;
    fs::write(&version_file, &version).map_err(io)?;
    Ok(Fetched { path, version })
}

/// The first suite that has the package, and its version there.
fn newest(package: &str, machine: &Machine, suites: &[&str]) -> Result<(Archive, String), Failure> {
    let mut problems = Vec::new();
    for suite in suites {
        match Archive::open(machine.debian, &[suite]) {
            Ok(archive) => match archive.candidate(package)? {
                Some(version) => return Ok((archive, version)),
                None => problems.push(format!("{suite} has no {package}")),
            },
            Err(e) => problems.push(e.to_string()),
        }
    }
    Err(Failure::new(problems.join("; ")))
}

/// The kernel of a package, or of the one that it depends on: the `cloud` package is empty, and since 7.0 so is the next.
fn image(package: &str, from: &(Archive, String)) -> Result<(Vec<u8>, String), Failure> {
    let (archive, version) = from;
    let is_next = |name: &String| name.starts_with("linux-image-") || name.starts_with("linux-binary-");
    if let Some(next) = archive.dependencies(package)?.into_iter().find(is_next) {
        return image(&next, from);
    }
    let file = archive.download(package, version)?;
    let is_kernel =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"));
    let kernel = unpacked(&file, is_kernel)?;
    kernel
        .map(|data| (data, version.clone()))
        .ok_or_else(|| Failure::new(format!("no kernel in {package} {version}")))
}

/// The file of a package that `wanted` is true for.
fn unpacked(package: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Option<Vec<u8>>, Failure> {
    let directory = package.with_extension("unpacked");
    fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    archive::unpack(package, &directory)?;
    let found = find(&directory, &wanted).map_err(|e| Failure::io(&directory, &e));
    let data = found?.map(|path| fs::read(&path).map_err(|e| Failure::io(&path, &e))).transpose();
    if let Err(e) = fs::remove_dir_all(&directory) {
        say(format!("left over: {}: {e}", directory.display()));
    }
    data
}

/// A regular file below a directory.
fn find(directory: &Path, wanted: &impl Fn(&Path) -> bool) -> std::io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = find(&entry.path(), wanted)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && wanted(&entry.path()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
