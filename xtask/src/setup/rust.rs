//! Ways to a compiler for the eBPF programs, and the components of the user's own toolchain.

use std::time::Duration;

use ebpf_toolchain::{MIN_RUSTC, Survey, Version, Why, rustup};

use super::apt::Apt;
use crate::{
    process::{Failure, run, run_within, say, succeeds},
    workspace,
};

/// Longest download of rust-src (4 MB).
const SOURCES_LIMIT: Duration = Duration::from_secs(60);
/// Longest download of a nightly (150 MB).
const NIGHTLY_LIMIT: Duration = Duration::from_secs(900);

/// Packages that together are a compiler with `core`, best first: the built core of Debian's compiler for its
/// browsers; its sources; the ordinary compiler and its sources, where that is new enough.
const PACKAGES: [[&str; 2]; 3] =
    [["rustc-web", "libstd-rust-web-dev-bpf"], ["rustc-web", "rust-web-src"], ["rustc", "rust-src"]];

/// `rust-src` for a nightly that rustup has installed without it.
pub fn add_sources(survey: &Survey, _: &mut Apt) -> Result<bool, Failure> {
    let lacks = |r: &ebpf_toolchain::Rejected| {
        r.why == Why::NoCore && r.program.to_string_lossy().contains("/toolchains/nightly-")
    };
    if !survey.rejected.iter().any(lacks) {
        return Ok(false);
    }
    let Some(mut command) = rustup() else { return Ok(false) };
    say("the nightly toolchain lacks rust-src: rustup component add rust-src --toolchain nightly");
    run_within(command.args(["component", "add", "rust-src", "--toolchain", "nightly"]), SOURCES_LIMIT)?;
    Ok(true)
}

/// The distribution's compiler.
pub fn install_packages(_: &Survey, apt: &mut Apt) -> Result<bool, Failure> {
    if !Apt::available() {
        return Ok(false);
    }
    let mut seen = Vec::new();
    for packages in PACKAGES {
        let [compiler, core] = packages;
        let candidate = apt.candidate(compiler)?;
        if candidate.as_deref().and_then(Version::parse).is_some_and(|version| version >= MIN_RUSTC)
            && apt.candidate(core)?.is_some()
        {
            apt.install(&packages, "compiling the eBPF programs")?;
            return Ok(true);
        }
        seen.push(format!("{compiler} {}", candidate.as_deref().unwrap_or("none")));
    }
    seen.dedup();
    let seen = seen.join(", ");
    Err(Failure::new(format!("no package of rustc {MIN_RUSTC} or later with its core library ({seen})")))
}

/// A nightly with `rust-src` by rustup.
pub fn install_nightly(_: &Survey, _: &mut Apt) -> Result<bool, Failure> {
    const BY_HAND: &str = "rustup toolchain install nightly --profile minimal --component rust-src";
    let Some(mut command) = rustup() else {
        return Err(Failure::new(format!("there is no rustup (https://rustup.rs); with it: {BY_HAND}")));
    };
    say(BY_HAND);
    run_within(command.args(BY_HAND.split_whitespace().skip(1)), NIGHTLY_LIMIT)?;
    Ok(true)
}

/// rustfmt and clippy, which the checks of `cargo xtask test` run.
pub fn components() -> Result<(), Failure> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if succeeds(workspace::cargo().args([subcommand, "--version"])) {
            continue;
        }
        // The toolchain that is active in the workspace: cargo was started through rustup, which says so by a variable
        // that `rustup()` removes.
        let mut command = rustup().ok_or_else(|| {
            Failure::new(format!("missing: {component}, and there is no rustup to install it"))
        })?;
        say(format!("installing for the checks: rustup component add {component}"));
        command.args(["component", "add", component]).current_dir(workspace::root());
        if let Some(active) = std::env::var_os("RUSTUP_TOOLCHAIN") {
            command.arg("--toolchain").arg(active);
        }
        run(&mut command)?;
    }
    Ok(())
}
