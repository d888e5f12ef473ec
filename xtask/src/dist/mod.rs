//! `cargo xtask dist`: the single static binary, for machines that have nothing but a kernel.
//!
//! glibc's own static linking (`crt-static` on the gnu target) gives a static-pie: no second C library to install, and
//! the same allocator and string functions that the tests ran with.

mod elf;
mod prove;

use std::{fs, path::PathBuf, process::Command};

use crate::{
    process::{Failure, capture, run, say},
    workspace,
};

/// Builds, checks that nothing is needed at run time, and puts the binary and its checksum into `<target>/dist`.
pub fn dist(target: Option<&str>, prove: bool) -> Result<(), Failure> {
    let host = workspace::host_triple()?;
    let triple = target.unwrap_or(&host);
    let built = build(triple)?;
    let data = fs::read(&built).map_err(|e| Failure::io(&built, &e))?;
    elf::is_self_contained(&data).map_err(|why| Failure::new(format!("{}: {why}", built.display())))?;

    let directory = workspace::target_directory()?.join("dist");
    fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    let arch = triple.split('-').next().unwrap_or(triple);
    let name = format!("profiler-{}-{arch}", workspace::VERSION);
    let binary = directory.join(&name);
    fs::copy(&built, &binary).map_err(|e| Failure::io(&binary, &e))?;
    let checksum = capture(Command::new("sha256sum").arg(&name).current_dir(&directory))?;
    let checksum_file = directory.join(format!("{name}.sha256"));
    fs::write(&checksum_file, &checksum).map_err(|e| Failure::io(&checksum_file, &e))?;
    println!("{} ({:.1} MiB)", binary.display(), data.len() as f64 / f64::from(1 << 20));
    print!("{checksum}");
    if prove {
        prove::in_empty_root(&binary)?;
    }
    Ok(())
}

/// Builds the static binary in a directory of its own, so that its flags never undo an ordinary build.
fn build(triple: &str) -> Result<PathBuf, Failure> {
    let target = workspace::target_directory()?;
    let own = target.join("dist-build");
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    // Panics name source files: not those of the builder's home.
    flags.push(format!("--remap-path-prefix={}=.", workspace::root().display()));
    if let Some(cargo_home) = ebpf_toolchain::cargo_bin().as_deref().and_then(std::path::Path::parent) {
        flags.push(format!("--remap-path-prefix={}=cargo", cargo_home.display()));
    }
    say(format!("building the static binary for {triple}"));
    let mut command = workspace::cargo();
    command
        .args(["build", "--package", "profiler", "--bin", "profiler", "--profile", "dist", "--locked"])
        .args(["--target", triple, "--target-dir"])
        .arg(&own)
        // With a target named, the flags do not reach build scripts and procedural macros, which cannot be static.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env("PROFILER_EBPF_DIR", target.join("ebpf"));
    run(&mut command)?;
    Ok(own.join(triple).join("dist/profiler"))
}
