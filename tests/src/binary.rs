//! Where things are: the profiler's binary under test, and the directories of the build.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Cargo's directory of this build, the one that holds `debug` and `release`: the test's own binary is in
/// `debug/deps` of it.
pub fn build_directory() -> PathBuf {
    let me = env::current_exe().expect("a process knows its own file");
    me.ancestors().nth(3).expect("a test binary is in target/debug/deps").to_owned()
}

/// The profiler's binary: `PROFILER_BIN`, else the release build beside this one.
pub fn profiler() -> PathBuf {
    let path = env::var_os("PROFILER_BIN")
        .map_or_else(|| build_directory().join("release/profiler"), |path| Path::new(&path).to_owned());
    assert!(
        path.is_file(),
        "there is no profiler at {}: build it with `cargo build --release`, or set PROFILER_BIN",
        path.display()
    );
    path.canonicalize().expect("the file exists")
}

/// The repository's `tests` directory.
pub fn source_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
