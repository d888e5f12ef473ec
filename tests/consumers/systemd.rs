//! systemd accepts the daemon's unit, and rates it as hardened.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use profiler_tests::skip::skip;
use tempfile::TempDir;

use crate::tools::find;

/// Highest exposure that is accepted, of 10.0: what is left is what a profiler needs (capabilities, the host's processes).
const EXPOSURE: &str = "40";

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/profiler.service")
}

fn analyze(test: &str, arguments: &[&str], unit: &Path) -> Option<String> {
    let Some(program) = find("systemd-analyze") else {
        skip(test, "no systemd: `cargo xtask setup --tests`");
        return None;
    };
    let output = Command::new(program).args(arguments).arg(unit).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{text}", output.status);
    Some(text)
}

#[test]
fn systemd_verifies_the_unit() {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("profiler.service");
    // The program need not be installed: another one stands in for it.
    let text = fs::read_to_string(unit()).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/profiler daemon"));
    fs::write(&copy, text.replace("ExecStart=/usr/bin/profiler ", "ExecStart=/bin/true ")).unwrap();
    if let Some(text) = analyze("systemd_verifies_the_unit", &["verify", "--man=no"], &copy) {
        assert!(!text.contains("profiler.service"), "{text}");
    }
}

#[test]
fn systemd_rates_the_unit_as_hardened() {
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE];
    analyze("systemd_rates_the_unit_as_hardened", &arguments, &unit());
}
