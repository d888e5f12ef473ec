//! Where programs are looked for: PATH, cargo's bin directory, rustup's toolchains.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// `true` if `path` is a file that someone may execute.
pub(crate) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The first program of that name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

/// Cargo's bin directory: `$CARGO_HOME/bin`, or `~/.cargo/bin`.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
    Some(home.join("bin"))
}

/// A program of that name on PATH or in cargo's bin directory.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    on_path(name).or_else(|| Some(cargo_bin()?.join(name)).filter(|file| is_program(file)))
}

/// A `rustup` command that never installs a toolchain just because it was named.
pub fn rustup() -> Option<Command> {
    let mut command = Command::new(program("rustup")?);
    command.env("RUSTUP_AUTO_INSTALL", "0").env_remove("RUSTUP_TOOLCHAIN");
    Some(command)
}

/// The real path (not rustup's proxy) of a rustup toolchain's compiler.
pub(crate) fn rustup_rustc(toolchain: &str) -> Option<PathBuf> {
    let output = rustup()?.args(["which", "--toolchain", toolchain, "rustc"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !path.trim().is_empty()).then(|| PathBuf::from(path.trim()))
}
