//! The profilers that are compared, each as its users start it: whole machine, stacks, 99 Hz.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ebpf_toolchain::on_path;

use crate::{
    process::{Failure, succeeds},
    workspace,
};

/// A profiler on this machine.
pub struct Tool {
    /// Name in tables.
    pub name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
    /// Sampling events that it opens for each CPU before it samples.
    events_per_cpu: usize,
    /// What must be run behind it to see names, in its directory.
    pub report: &'static [&'static str],
}

const OURS: &str = "profiler";

/// How each is started: name, program, arguments, events per CPU, report.
type Spec = (&'static str, &'static str, &'static [&'static str], usize, &'static [&'static str]);

const OTHERS: [Spec; 3] = [
    (
        "perf record -g",
        "perf",
        &["record", "-q", "-F", "99", "-a", "-g", "-o", "perf.data"],
        1,
        &["perf", "report", "--stdio", "-i", "perf.data"],
    ),
    ("bcc profile", "profile-bpfcc", &["-F", "99", "-f"], 1, &[]),
    ("bpftrace", "bpftrace", &["-e", "profile:hz:99 { @[kstack, ustack, comm] = count(); }"], 1, &[]),
];

/// This profiler and those of the others that are installed; and the names of those that are not.
pub fn all() -> Result<(Vec<Tool>, Vec<&'static str>), Failure> {
    // The side band has an event for each CPU too.
    let events_per_cpu = 2;
    let program = workspace::release_binary()?;
    let arguments = &["record", "-F", "99", "-a"];
    let mut tools = vec![Tool { name: OURS, program, arguments, events_per_cpu, report: &[] }];
    let mut missing = Vec::new();
    for (name, program, arguments, events_per_cpu, report) in OTHERS {
        match on_path(program) {
            Some(program) if succeeds(Command::new(&program).arg("--help")) => {
                tools.push(Tool { name, program, arguments, events_per_cpu, report });
            }
            _ => missing.push(name),
        }
    }
    Ok((tools, missing))
}

impl Tool {
    /// Its command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments);
        command
    }

    /// Sampling events that it has when it samples.
    pub const fn events(&self, cpus: usize) -> usize {
        self.events_per_cpu * cpus
    }

    /// The recording that it leaves in its directory and that says what its eBPF programs took.
    pub fn recording(&self) -> Option<&'static str> {
        (self.name == OURS).then_some("profile.pb.gz")
    }

    /// Its name in tables; that of this workspace's is bold.
    pub fn title(&self) -> String {
        if self.name == OURS { format!("**{OURS}**") } else { self.name.to_owned() }
    }

    /// Shows what was recorded in a directory.
    pub fn show(&self, directory: &Path) -> Option<Command> {
        let (program, arguments) = self.report.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory);
        Some(command)
    }
}
