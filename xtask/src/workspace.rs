//! Where things are in the workspace, and the cargo that builds them.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use ebpf_toolchain::Crate;

use crate::process::{Failure, capture};

/// The workspace's directory: of the package that cargo runs. What was compiled in is the fallback only: clones that
/// share a target directory also share this program.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&package).parent().map_or_else(|| PathBuf::from(&package), Path::to_owned)
    })
}

/// The workspace's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The directory that holds `debug` and `release`: two above this program.
pub fn build_directory() -> Result<PathBuf, Failure> {
    let me = env::current_exe().map_err(|e| Failure::new(format!("the path of xtask: {e}")))?;
    let directory =
        me.ancestors().nth(2).ok_or_else(|| Failure::new("xtask is not in a target directory"))?;
    Ok(directory.to_owned())
}

/// Cargo's target directory; cargo marks it with a tag that keeps it out of backups. [`build_directory`] is inside it
/// if a target is configured.
pub fn target_directory() -> Result<PathBuf, Failure> {
    let build = build_directory()?;
    let tagged = build.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    Ok(tagged.unwrap_or(&build).to_owned())
}

/// Where downloads are kept that several checkouts share: `$XDG_CACHE_HOME/profiler`, or `~/.cache/profiler`.
pub fn cache_directory() -> Result<PathBuf, Failure> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let missing = || Failure::new("neither XDG_CACHE_HOME nor HOME names a directory for downloads");
    Ok(cache.ok_or_else(missing)?.join("profiler"))
}

/// The profiler's binary of a release build.
pub fn release_binary() -> Result<PathBuf, Failure> {
    Ok(build_directory()?.join("release/profiler"))
}

/// The eBPF crate as profiler's build script builds it for this machine.
pub fn ebpf_crate() -> Result<Crate, Failure> {
    ebpf_crate_for(env::consts::ARCH)
}

/// The eBPF crate as profiler's build script builds it for an architecture.
pub fn ebpf_crate_for(arch: &str) -> Result<Crate, Failure> {
    let target_directory = target_directory()?.join("ebpf").join(arch);
    Ok(Crate { directory: root().join("profiler-ebpf"), target_directory, arch: arch.to_owned() })
}

/// Cargo, in the workspace, as the user would call it: without what `cargo run` adds to the environment of xtask.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name == "CARGO_MANIFEST_DIR" || name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    command.env_remove("CARGO_MANIFEST_PATH").env_remove("OUT_DIR");
    match own_library_path() {
        Some(path) => command.env("LD_LIBRARY_PATH", path),
        None => command.env_remove("LD_LIBRARY_PATH"),
    };
    command
}

/// LD_LIBRARY_PATH without the directories that `cargo run` prepends: the build's and the compiler's own.
pub fn own_library_path() -> Option<OsString> {
    let path = env::var_os("LD_LIBRARY_PATH")?;
    let build = build_directory().unwrap_or_default();
    let own: Vec<PathBuf> = env::split_paths(&path)
        .filter(|dir| !dir.starts_with(&build) && !dir.to_string_lossy().contains("/toolchains/"))
        .collect();
    if own.is_empty() { None } else { env::join_paths(own).ok() }
}

/// The triple of the machine that builds.
pub fn host_triple() -> Result<String, Failure> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let answer = capture(Command::new(rustc).arg("-vV"))?;
    let host = answer.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new("`rustc -vV` names no host"))
}
