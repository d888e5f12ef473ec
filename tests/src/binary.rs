//! Where things are: the profiler's binary under test, and cargo's directory of the build.

use std::{
    env,
    path::{Path, PathBuf},
};

pub use workloads::build_directory;

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
