//! `cargo xtask dist`: the single static binary, for machines that have nothing but a kernel.
//!
//! glibc's own static linking (`crt-static` on the gnu target) gives a static-pie: no second C library to install, and
//! the same allocator and string functions that the tests ran with.

mod elf;
mod prove;

use std::{fs, path::PathBuf, process::Command};

use crate::{
    cross::Target,
    process::{Failure, capture, run, say},
    workspace,
};

/// Builds, checks that nothing is needed at run time, and puts the binary and its checksum into `<target>/dist`.
pub fn dist(target: Option<&str>, prove: bool) -> Result<(), Failure> {
    let target = Target::prepare(target)?;
    if prove && target.is_foreign() {
        return Err(Failure::usage(format!(
            "--prove runs the binary, and this machine is no {}",
            target.arch()
        )));
    }
    let built = build(&target)?;
    let data = fs::read(&built).map_err(|e| Failure::io(&built, &e))?;
    elf::is_self_contained(&data, target.elf_machine())
        .map_err(|why| Failure::new(format!("{}: {why}", built.display())))?;

    let directory = workspace::target_directory()?.join("dist");
    fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
    let name = format!("profiler-{}-{}", workspace::VERSION, target.arch());
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

/// Builds the binary and returns where it is.
pub fn build(target: &Target) -> Result<PathBuf, Failure> {
    say(format!("building the static binary for {}", target.triple()));
    let mut command = target.cargo("build")?;
    run(command.args(["--package", "profiler", "--bin", "profiler", "--profile", "dist"]))?;
    Ok(target.directory("dist")?.join("profiler"))
}
