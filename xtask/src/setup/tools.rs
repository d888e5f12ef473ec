//! Programs that only the tests need: compilers for the workloads, and other tools that read what the profiler writes.

use std::{fs, path::Path, process::Command};

use super::apt::Apt;
use crate::{
    process::{Failure, run, say, succeeds},
    workspace,
};

/// A program that is asked for its version to see that it works: a name on PATH may have nothing behind it.
struct Tool {
    /// Names that it goes by.
    programs: &'static [&'static str],
    /// The argument that makes it print its version.
    version: &'static str,
    package: &'static str,
    why: &'static str,
}

const COMPILERS: [Tool; 4] = [
    Tool { programs: &["gcc"], version: "--version", package: "gcc", why: "workloads in C" },
    Tool { programs: &["g++"], version: "--version", package: "g++", why: "workloads in C++" },
    Tool { programs: &["ip"], version: "-V", package: "iproute2", why: "hosts that tests make" },
    // OpenJDK 17 on Debian 12.
    Tool {
        programs: &["javac"],
        version: "-version",
        package: "default-jdk-headless",
        why: "workloads in Java",
    },
];

const CONSUMERS: [Tool; 5] = [
    Tool {
        programs: &["chromium", "chromium-browser", "google-chrome"],
        version: "--version",
        package: "chromium",
        why: "flamegraphs in a browser",
    },
    Tool {
        programs: &["go"],
        version: "version",
        package: "golang-go",
        why: "recordings in `go tool pprof`",
    },
    // Prometheus 2.42 on Debian 12; promtool is in the same package.
    Tool {
        programs: &["prometheus"],
        version: "--version",
        package: "prometheus",
        why: "metrics in Prometheus",
    },
    Tool {
        programs: &["victoria-metrics"],
        version: "--version",
        package: "victoria-metrics",
        why: "metrics in VictoriaMetrics",
    },
    Tool {
        programs: &["systemd-analyze"],
        version: "--version",
        package: "systemd",
        why: "checks of the daemon's unit",
    },
];

/// Installs the compilers of the workloads, and what else tests need to make them run.
pub fn compilers(apt: &mut Apt) -> Result<(), Failure> {
    install(&COMPILERS, apt)
}

/// Installs the programs that read the profiler's output.
pub fn consumers(apt: &mut Apt) -> Result<(), Failure> {
    install(&CONSUMERS, apt)?;
    let directory = workspace::build_directory()?.join("consumers");
    speedscope(&directory, apt)?;
    metrics_parser(&directory.join("python"), apt)
}

fn install(tools: &[Tool], apt: &mut Apt) -> Result<(), Failure> {
    for tool in tools {
        let works = |program: &&str| succeeds(Command::new(program).arg(tool.version));
        if !tool.programs.iter().any(works) {
            apt.install(&[tool.package], tool.why)?;
        }
    }
    Ok(())
}

/// The flamegraph viewer, a package of npm's, in the build directory.
fn speedscope(directory: &Path, apt: &mut Apt) -> Result<(), Failure> {
    const PACKAGE: &str = "speedscope@1.25.0";
    if directory.join("node_modules/speedscope/dist/release/index.html").exists() {
        return Ok(());
    }
    const NPM: Tool =
        Tool { programs: &["npm"], version: "--version", package: "npm", why: "installing speedscope" };
    install(&[NPM], apt)?;
    fs::create_dir_all(directory).map_err(|e| Failure::io(directory, &e))?;
    say(format!("installing for recordings in speedscope: npm install {PACKAGE}"));
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
    run(npm.arg(directory).arg(PACKAGE).current_dir(directory))
}

/// Prometheus' own Python library, whose parser of OpenMetrics is strict, in the build directory.
fn metrics_parser(directory: &Path, apt: &mut Apt) -> Result<(), Failure> {
    const PACKAGE: &str = "prometheus-client==0.26.0";
    if directory.join("prometheus_client/openmetrics/parser.py").exists() {
        return Ok(());
    }
    let pip = || {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip"]);
        pip
    };
    if !succeeds(pip().arg("--version")) {
        apt.install(&["python3-pip"], "installing prometheus-client")?;
    }
    say(format!("installing for metrics in OpenMetrics: pip install {PACKAGE}"));
    run(pip()
        .args(["install", "--no-deps", "--disable-pip-version-check", "--target"])
        .arg(directory)
        .arg(PACKAGE))
}
