//! Builds the eBPF programs and puts the object where the crate includes it: `$OUT_DIR/profiler.bpf.o`.
//!
//! Every build of the workspace (debug, release, clippy, another profile) shares one directory for it,
//! `<target>/ebpf/<arch>`, and cargo runs this script again only if the programs' sources or their toolchain change.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ebpf_toolchain::{Action, Crate};

/// A directory for the eBPF build that several target directories share; `cargo xtask dist` sets it.
const SHARED_DIRECTORY: &str = "PROFILER_EBPF_DIR";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent().ok_or("the package is not inside the workspace")?;
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err("big-endian machines are not supported".into());
    }

    let toolchain = ebpf_toolchain::find()?;
    let shared =
        env::var_os(SHARED_DIRECTORY).map_or_else(|| target_directory(&out).join("ebpf"), PathBuf::from);
    let ebpf =
        Crate { directory: workspace.join("profiler-ebpf"), target_directory: shared.join(&arch), arch };
    ebpf.run(&toolchain, Action::Build)?;

    let object = fs::read(ebpf.object())?;
    // Loading reads all of it at each start.
    let stripped = ebpf_toolchain::strip(&object).ok_or("the eBPF object cannot be read")?;
    fs::write(out.join("profiler.bpf.o"), stripped)?;
    // Last: a script that fails runs again in any case and need not say when; and only after the build there is a
    // Cargo.lock on every machine, whereas a missing file would count as changed.
    let common = workspace.join("profiler-common");
    for input in ["src", "Cargo.toml", "Cargo.lock"] {
        rerun_if_changed(&ebpf.directory.join(input));
    }
    rerun_if_changed(&common.join("src"));
    rerun_if_changed(&common.join("Cargo.toml"));
    rerun_if_changed(&toolchain.compiler.rustc);
    rerun_if_changed(&toolchain.linker.path);
    for name in ["PROFILER_EBPF_RUSTC", "PROFILER_BPF_LINKER", SHARED_DIRECTORY] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    Ok(())
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|e| format!("{name}: {e}").into())
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// The target directory that `out` is in. Cargo marks it with a tag that keeps it out of backups.
fn target_directory(out: &Path) -> PathBuf {
    out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).unwrap_or(out).to_owned()
}
