//! Where the other programs are, and the recording that they are given.

use std::{env, path::PathBuf, process::Command, sync::OnceLock};

use profiler_tests::{
    record::{Record, Recorded},
    workload,
};

/// A program on PATH that works: a version manager's stand-in may have nothing behind it.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let works = |file: &PathBuf| {
        let mut versions = ["--version", "version"].into_iter();
        versions.any(|version| Command::new(file).arg(version).output().is_ok_and(|o| o.status.success()))
    };
    env::split_paths(&path).map(|directory| directory.join(name)).filter(|file| file.is_file()).find(works)
}

/// One recording for all tests: user code, kernel code, inlined functions, several threads and processes.
pub fn recording() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let programs = [
            ("split-cpp", "300"),
            ("inlined", "200"),
            ("kernel", "200"),
            ("threads", "100"),
            ("vdso", "100"),
        ];
        let script: Vec<String> =
            programs.iter().map(|(name, ms)| format!("'{}' {ms}", workload::path(name).display())).collect();
        let recorded = Record::at_999()
            .output("out.folded")
            .output("out.svg")
            .output("out.json")
            .command("/bin/sh".as_ref(), ["-c", &script.join("; ")])
            .run();
        recorded.succeeded();
        recorded
    })
}

/// The output of a command that must succeed.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap_or_else(|e| panic!("{command:?}: {e}"))
}
