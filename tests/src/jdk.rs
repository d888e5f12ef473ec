//! JDKs that tests run with: those of this machine, or the unpacked ones that `PROFILER_JDKS` names (`cargo xtask jdks`),
//! separated by colons. A JVM can be started in a place of its own: another root, other namespaces, another user.

use std::{
    env, fs,
    fs::Permissions,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{other_tables, skip::skip, target::Target};

/// Names root directories of unpacked JDKs, each that of a small system.
const ROOTS_VARIABLE: &str = "PROFILER_JDKS";
/// Names the file that [`Jdk::note`] appends to.
const FINDINGS_VARIABLE: &str = "PROFILER_FINDINGS";
/// Where JDKs are, in any root.
const HOMES: &str = "usr/lib/jvm";
/// What the machine's temporary files are in, which every place shows.
const SHARED: &str = "/tmp";

const SOURCES: [&str; 7] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Crowd.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Deopt.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Events.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Mixed.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Reuse.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Split.java"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/workload/Stacks.java"),
];

/// Shows the machine's directories in a root, and becomes the program there: `ROOT PROGRAM ARGUMENTS`.
const ENTER: &str = r#"set -e
root=$1; shift
for directory in dev proc sys tmp; do mount --rbind "/$directory" "$root/$directory"; done
exec chroot "$root" "$@""#;

/// The same as another user, in a process namespace of its own: `ROOT USER PROGRAM ARGUMENTS`.
const ENTER_APART: &str = r#"set -e
root=$1 user=$2; shift 2
for directory in dev sys tmp; do mount --rbind "/$directory" "$root/$directory"; done
mount -t proc proc "$root/proc"
exec chroot --userspec="$user:$user" "$root" "$@""#;

/// That in a root that is made of this machine, where the JDK has another path: `ROOT HOME USER PROGRAM ARGUMENTS`.
const ENTER_COPY_APART: &str = r#"set -e
root=$1 home=$2 user=$3; shift 3
mount -t tmpfs tmpfs "$root"
for directory in dev sys tmp etc usr bin lib lib64 jdk; do mkdir "$root/$directory"; done
for directory in dev sys tmp etc usr bin lib lib64; do mount --rbind "/$directory" "$root/$directory"; done
mount --bind "$home" "$root/jdk"
mkdir "$root/proc"; mount -t proc proc "$root/proc"
exec chroot --userspec="$user:$user" "$root" "$@""#;

/// A user that no process of this machine's is likely to be of.
const USER: &str = "48271";

/// A JDK, and the workloads compiled by it.
pub struct Jdk {
    /// Major version.
    pub major: u32,
    /// What it says of its build: `17.0.1+2-Debian`.
    pub build: String,
    /// What it is the root of; `None`: this machine's.
    root: Option<PathBuf>,
    /// Its directory, in that root.
    home: PathBuf,
    classes: TempDir,
    /// What it is in, if it was made.
    _made: Option<TempDir>,
}

impl Jdk {
    /// All that tests are to be run with. Those of this machine whose compiler does not work are left out.
    ///
    /// # Panics
    /// If one that `PROFILER_JDKS` names does not work.
    pub fn all() -> Vec<Self> {
        if let Some(roots) = env::var_os(ROOTS_VARIABLE) {
            let named = |root: PathBuf| {
                let found = Self::in_root(&root);
                found.unwrap_or_else(|| panic!("{}: no JDK that works", root.display()))
            };
            return env::split_paths(&roots).map(named).collect();
        }
        let places = homes(Path::new("/")).into_iter().map(|home| home.join("bin/javac"));
        let path = env::var_os("PATH").unwrap_or_default();
        let places = places.chain(env::split_paths(&path).map(|dir| dir.join("javac")));
        let home = |javac: PathBuf| Some(fs::canonicalize(javac).ok()?.parent()?.parent()?.to_path_buf());
        let mut homes: Vec<PathBuf> = places.filter_map(home).collect();
        homes.sort();
        homes.dedup();
        homes.into_iter().filter_map(|home| Self::new(None, home)).collect()
    }

    fn in_root(root: &Path) -> Option<Self> {
        let root = fs::canonicalize(root).ok()?;
        // Other names of it are links.
        let home =
            homes(&root).into_iter().find(|home| !home.is_symlink() && home.join("bin/javac").exists())?;
        let home = Path::new("/").join(home.strip_prefix(&root).ok()?);
        Self::new(Some(root), home)
    }

    fn new(root: Option<PathBuf>, home: PathBuf) -> Option<Self> {
        let classes = tempfile::tempdir_in(SHARED).expect("temporary files can be made");
        // Of any user.
        fs::set_permissions(classes.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let mut jdk = Self { major: 0, build: String::new(), root, home, classes, _made: None };
        let sources = SOURCES.map(|source| {
            let copy = jdk.classes.path().join(Path::new(source).file_name().expect("it is a file"));
            fs::copy(source, &copy).map(|_| copy).unwrap_or_else(|e| panic!("{source}: {e}"))
        });
        let status = jdk.tool("javac").arg("-d").arg(jdk.classes.path()).args(sources).status();
        if !status.is_ok_and(|status| status.success()) {
            return None;
        }
        let output = jdk.tool("java").arg("-version").output().ok()?;
        (jdk.major, jdk.build) = version(&String::from_utf8_lossy(&output.stderr))?;
        Some(jdk)
    }

    /// The same, but that its JVM's tables are of no version that is known.
    ///
    /// # Panics
    /// If there can be none.
    pub fn with_other_tables(&self) -> Self {
        let seen = match &self.root {
            Some(root) => root.join(self.home.strip_prefix("/").expect("its path is absolute")),
            None => self.home.clone(),
        };
        let copy = other_tables::copy(&seen, &self.home, SHARED);
        let made =
            Self::new(self.root.clone(), copy.path().to_path_buf()).expect("it works as the other does");
        Self { _made: Some(copy), ..made }
    }

    /// One of its programs.
    pub fn tool(&self, name: &str) -> Command {
        let program = self.home.join("bin").join(name);
        let Some(root) = &self.root else { return Command::new(program) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER, "sh"]).arg(root).arg(program);
        command
    }

    /// Starts a program and waits until it is ready.
    pub fn program(&self, class: &str, options: &[&str], arguments: &[&str]) -> Target {
        let mut command = self.tool("java");
        command.args(self.arguments(class, options, arguments));
        let mut target = Target::of(command);
        target.wait_until("ready");
        target
    }

    /// The same, as a script that does something else for so many seconds, and then executes Java.
    pub fn program_of_script(
        &self,
        seconds: u32,
        class: &str,
        options: &[&str],
        arguments: &[&str],
    ) -> Target {
        let java = self.tool("java");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("sleep {seconds}; exec \"$@\""), "sh"]);
        command.arg(java.get_program()).args(java.get_args());
        command.args(self.arguments(class, options, arguments));
        let mut target = Target::of(command);
        target.wait_until("ready");
        target
    }

    /// As [`Jdk::program`], in a root, a mount and a process namespace of its own, as another user.
    ///
    /// # Panics
    /// If it does not start.
    pub fn program_apart(&self, class: &str, options: &[&str], arguments: &[&str]) -> Apart {
        let own_root = tempfile::tempdir().expect("temporary files can be made");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        match &self.root {
            Some(root) => {
                command.args([ENTER_APART, "sh"]).arg(root).arg(USER).arg(self.home.join("bin/java"))
            }
            None => {
                command.args([ENTER_COPY_APART, "sh"]).arg(own_root.path()).arg(&self.home);
                command.args([USER, "/jdk/bin/java"])
            }
        };
        command.args(self.arguments(class, options, arguments));
        let mut target = Target::of(command);
        target.wait_until("ready");
        // `unshare` has one child: the program, as which the shell goes on.
        let path = format!("/proc/{0}/task/{0}/children", target.pid());
        let children = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let pid = children.trim().parse().unwrap_or_else(|e| panic!("{path}: {children}: {e}"));
        Apart { target, pid, root: own_root }
    }

    fn arguments(&self, class: &str, options: &[&str], arguments: &[&str]) -> Vec<String> {
        let classes = self.classes.path().to_str().expect("its path is text");
        let fixed = ["-Xmx128m", "-Xbatch", "-XX:CompileCommand=quiet", "-cp", classes];
        [&fixed, options, &[class], arguments].concat().into_iter().map(str::to_owned).collect()
    }

    /// Where programs may put files that tests read.
    pub fn directory(&self) -> &Path {
        self.classes.path()
    }

    /// Says what was found with it, and keeps it for `cargo xtask jvm-matrix`.
    ///
    /// # Panics
    /// If it cannot be kept.
    pub fn note(&self, what: &str, part: u64, of: u64) {
        println!("JDK {} ({}): {what}: {part} of {of}", self.major, self.build);
        let Some(path) = env::var_os(FINDINGS_VARIABLE) else { return };
        let line = json!({ "major": self.major, "build": self.build, "what": what, "part": part, "of": of });
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}")).expect("findings can be kept");
    }
}

/// A program in a place of its own.
pub struct Apart {
    /// What started it, with its input and output.
    pub target: Target,
    /// Its own process id, as it is seen from here.
    pub pid: u32,
    root: TempDir,
}

impl Apart {
    /// What started it, and what its root is in.
    pub fn into_parts(self) -> (Target, TempDir) {
        (self.target, self.root)
    }
}

fn homes(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(HOMES)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Reads what `java -version` says: the major version and the build.
fn version(text: &str) -> Option<(u32, String)> {
    let build = text.lines().find_map(|line| line.split_once("Runtime Environment")?.1.split_once("(build "));
    let build = build?.1.trim_end_matches(')').to_owned();
    let numbers = build.strip_prefix("1.").unwrap_or(&build);
    let digits = numbers.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((digits.parse().ok()?, build))
}

/// Calls `test` for each JDK, says so, and skips the test where there is none.
pub fn each_jdk(name: &str, test: impl Fn(&Jdk)) {
    let all = Jdk::all();
    if all.is_empty() {
        return skip(name, "no JDK is installed");
    }
    for jdk in all {
        println!("{name}: JDK {}", jdk.build);
        test(&jdk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_old_and_new_jdks() {
        let old =
            "openjdk version \"1.8.0_504\"\nOpenJDK Runtime Environment (build 1.8.0_504-8u504-ga-1-b01)\n";
        assert_eq!(version(old), Some((8, "1.8.0_504-8u504-ga-1-b01".to_owned())));
        let new = "openjdk version \"25\"\nOpenJDK Runtime Environment Temurin-25+36 (build 25+36-LTS)\n";
        assert_eq!(version(new), Some((25, "25+36-LTS".to_owned())));
        assert_eq!(version("command not found"), None);
    }
}
