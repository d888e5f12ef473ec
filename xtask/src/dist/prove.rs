//! The proof that the static binary needs nothing: it records in a root directory that holds the binary, /proc, /sys
//! and tracefs, and nothing else: no library, no shell, no /dev, no /tmp.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::process::{Failure, as_root, say};

/// Mounts what the kernel offers below `$1` and runs the rest of the arguments there. The mounts are private to the
/// mount namespace that `unshare` makes, and gone with it. The bind of /sys is not recursive: no cgroups, no bpffs.
const SCRIPT: &str = "\
set -eu
root=$1; shift
mount -t proc proc \"$root/proc\"
mount --bind /sys \"$root/sys\"
mount -t tracefs tracefs \"$root/sys/kernel/tracing\"
exec chroot \"$root\" \"$@\"
";

/// A run in the empty root: the arguments, and what stdout has to start with.
const RUNS: [(&[&str], &str); 3] = [
    (&["--version"], "profiler "),
    (&["doctor", "--json"], "{"),
    // Folded stacks: text that needs symbols resolved.
    (&["record", "-a", "-d", "1", "-F", "999", "-o", "-"], ""),
];

/// Runs `binary` in the empty root; every run has to succeed and to print something.
pub fn in_empty_root(binary: &Path) -> Result<(), Failure> {
    let root = Root::create(binary)?;
    for (args, start) in RUNS {
        let output = root.run(args)?;
        let shown = format!("/profiler {}", args.join(" "));
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(Failure::new(format!(
                "in an empty root, `{shown}` failed ({}):\n{stderr}",
                output.status
            )));
        }
        if output.stdout.is_empty() || !output.stdout.starts_with(start.as_bytes()) {
            let got = String::from_utf8_lossy(&output.stdout[..output.stdout.len().min(200)]).into_owned();
            return Err(Failure::new(format!("in an empty root, `{shown}` printed {got:?}\n{stderr}")));
        }
        say(format!("in an empty root: `{shown}` printed {} bytes", output.stdout.len()));
    }
    Ok(())
}

/// A directory with the binary and two mount points; removed when dropped.
struct Root {
    directory: PathBuf,
}

impl Root {
    fn create(binary: &Path) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("profiler-empty-root-{}", std::process::id()));
        let root = Self { directory };
        let make = |path: &Path| fs::create_dir(path).map_err(|e| Failure::io(path, &e));
        make(&root.directory)?;
        make(&root.directory.join("proc"))?;
        make(&root.directory.join("sys"))?;
        let copy = root.directory.join("profiler");
        fs::copy(binary, &copy).map_err(|e| Failure::io(&copy, &e))?;
        Ok(root)
    }

    fn run(&self, args: &[&str]) -> Result<Output, Failure> {
        let mut command: Command = as_root("unshare")?;
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]).arg(&self.directory);
        command.arg("/profiler").args(args).stdin(Stdio::null());
        command.output().map_err(|e| Failure::new(format!("unshare: {e}")))
    }
}

impl Drop for Root {
    /// Never recursively: should a mount have escaped its namespace, nothing below it is touched. What is left over is
    /// in the directory for temporary files.
    fn drop(&mut self) {
        fs::remove_file(self.directory.join("profiler")).ok();
        for directory in [self.directory.join("proc"), self.directory.join("sys"), self.directory.clone()] {
            fs::remove_dir(directory).ok();
        }
    }
}
