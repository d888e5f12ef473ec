//! What is recorded: the user's choice of processes, a cgroup, a command name, a command to start, or everything.
//!
//! A [`Choice`] (as parsed from the command line) resolves into a [`Target`]: the configuration of the in-kernel
//! filter, the processes to enter into its map, and the words for the recording's header. What does not exist is an
//! error before anything is loaded, not an empty recording.

pub mod command;

use std::{collections::BTreeSet, ffi::OsString, io, path::PathBuf};

use profiler_common::{COMM_LEN, filter::FilterConfig};

use crate::{
    host::{
        cgroup::{self, Cgroup, CgroupError},
        namespaces::Namespaces,
        process::{self, Process, ProcessError},
    },
    model::name,
};
use command::StoppedCommand;

/// Process ids given with -p, at most: more is a job for --cgroup.
pub const MAX_PIDS: usize = 1024;

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `-a`, and no choice at all.
    All,
    /// `-p PID[,PID]`.
    Processes {
        /// Process ids.
        pids: Vec<u32>,
        /// Their descendants too: those of now, and those forked while recording.
        children: bool,
    },
    /// `--cgroup PATH`.
    Cgroup(PathBuf),
    /// `--comm NAME`: threads of that name.
    Comm(OsString),
    /// `-- COMMAND ARGS`, with the processes that it starts.
    Command {
        /// The program, looked up in PATH, and its arguments.
        words: Vec<OsString>,
        /// Processes that it forks too.
        children: bool,
    },
}

/// Why nothing can be recorded of that choice.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A process that is not there, has ended or is a thread.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Not a cgroup that can be filtered on.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// `-p` without an id.
    #[error("no process id given")]
    NoPids,
    /// Too many ids.
    #[error(
        "{count} process ids given, at most {MAX_PIDS} can be followed; select them with --cgroup or --comm"
    )]
    TooManyPids {
        /// How many.
        count: usize,
    },
    /// `--comm` with nothing, or with a NUL.
    #[error("a command name is 1 to 15 bytes without NUL")]
    BadComm,
    /// The kernel side sees ids of the initial pid namespace only.
    #[error(
        "process ids of this pid namespace are not the host's, by which the kernel reports; run the profiler on the \
         host or with the host's pid namespace (`docker run --pid=host`), or record with -a, --cgroup or --comm \
         (see `profiler doctor`, line `pid-namespace`)"
    )]
    PidNamespace,
    /// `--` without a command.
    #[error("no command given")]
    NoCommand,
    /// The command's process could not be made.
    #[error("cannot start {command}: {source}")]
    Spawn {
        /// Its cleaned name.
        command: String,
        /// What failed.
        source: io::Error,
    },
}

/// What is recorded, resolved.
#[derive(Debug)]
pub struct Target {
    /// For the kernel side. `exclude_pid` and `mode` are left 0: they are other choices.
    pub filter: FilterConfig,
    /// Processes to enter into the kernel side's map (`FilterConfig::by_process`), ascending.
    pub pids: Vec<u32>,
    /// For the recording's header: `pid 42 and its children`.
    pub words: String,
    /// The command, waiting before its first instruction. Dropped without a release, it never runs.
    pub command: Option<StoppedCommand>,
    roots: Vec<u32>,
    children: bool,
}

impl Target {
    /// Resolves a choice. A command is started, and waits.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn resolve(choice: &Choice) -> Result<Self, TargetError> {
        match choice {
            Choice::All => Ok(Self::filtered(FilterConfig::ALL, "all processes".to_owned())),
            Choice::Processes { pids, children } => Self::processes(pids, *children),
            Choice::Cgroup(path) => Ok(Self::cgroup(&cgroup::resolve(path)?)),
            Choice::Comm(name) => Self::comm(name.as_encoded_bytes()),
            Choice::Command { words, children } => Self::command(words, *children),
        }
    }

    fn filtered(filter: FilterConfig, words: String) -> Self {
        Self { filter, pids: Vec::new(), words, command: None, roots: Vec::new(), children: false }
    }

    fn by_process(roots: Vec<u32>, children: bool, words: String) -> Self {
        let filter =
            FilterConfig { by_process: 1, follow_children: u32::from(children), ..FilterConfig::ALL };
        let mut target = Self { filter, pids: roots.clone(), words, command: None, roots, children };
        target.pids.extend(target.new_descendants());
        target.pids.sort_unstable();
        target
    }

    fn processes(pids: &[u32], children: bool) -> Result<Self, TargetError> {
        let roots: Vec<u32> = pids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        match roots.len() {
            0 => return Err(TargetError::NoPids),
            1..=MAX_PIDS => {}
            count => return Err(TargetError::TooManyPids { count }),
        }
        require_initial_pid_namespace()?;
        for &pid in &roots {
            Process::read(pid)?;
        }
        let words = process_words(&roots, children);
        Ok(Self::by_process(roots, children, words))
    }

    fn cgroup(cgroup: &Cgroup) -> Self {
        let filter = FilterConfig { cgroup_id: cgroup.id, cgroup_level: cgroup.level, ..FilterConfig::ALL };
        let path = name::clean(cgroup.path.as_os_str().as_encoded_bytes());
        Self::filtered(filter, format!("cgroup {path} and those below it"))
    }

    fn comm(name: &[u8]) -> Result<Self, TargetError> {
        if name.is_empty() || name.contains(&0) {
            return Err(TargetError::BadComm);
        }
        // The kernel cuts names (`__set_task_comm`), so a longer one can only mean its start.
        let kept = &name[..name.len().min(COMM_LEN - 1)];
        let mut comm = [0; COMM_LEN];
        comm[..kept.len()].copy_from_slice(kept);
        // The terminating NUL is compared too: `java` is not `javac`.
        let comm_len = u32::try_from(kept.len() + 1).unwrap_or(COMM_LEN as u32);
        let mut words = format!("threads named {}", crate::model::name::clean(kept));
        if kept.len() < name.len() {
            words.push_str(" (the kernel keeps 15 bytes of a name)");
        }
        Ok(Self::filtered(FilterConfig { comm, comm_len, ..FilterConfig::ALL }, words))
    }

    fn command(words: &[OsString], children: bool) -> Result<Self, TargetError> {
        require_initial_pid_namespace()?;
        let (program, arguments) = words.split_first().ok_or(TargetError::NoCommand)?;
        let line = command_line(words);
        let command = StoppedCommand::spawn(program, arguments).map_err(|source| TargetError::Spawn {
            command: name::clean(program.as_encoded_bytes()),
            source,
        })?;
        let pid = command.pid();
        let suffix = if children { " and its children" } else { "" };
        let mut target = Self::by_process(vec![pid], children, format!("command {line} (pid {pid}){suffix}"));
        target.command = Some(command);
        Ok(target)
    }

    /// Descendants of the chosen processes that are not in `pids` yet. Call it once more after the fork hook is
    /// attached: what was forked between resolving and attaching was not seen by the hook.
    pub fn new_descendants(&self) -> Vec<u32> {
        if !self.children {
            return Vec::new();
        }
        process::descendants(&self.roots).into_iter().filter(|pid| !self.pids.contains(pid)).collect()
    }

    /// Whether all chosen processes have gone, so that there is nothing left to wait for. `false` for choices that are
    /// not by process.
    pub fn ended(&self) -> bool {
        self.filter.by_process == 1 && self.pids.iter().all(|&pid| Process::read(pid).is_err())
    }
}

fn require_initial_pid_namespace() -> Result<(), TargetError> {
    // Unknown (no /proc) is not a refusal: reading the process will tell.
    if Namespaces::read().initial_pid == Some(false) { Err(TargetError::PidNamespace) } else { Ok(()) }
}

/// Ids in words, at most a few of them.
fn process_words(pids: &[u32], children: bool) -> String {
    const SHOWN: usize = 8;
    let mut list = pids.iter().take(SHOWN).map(u32::to_string).collect::<Vec<_>>().join(", ");
    if pids.len() > SHOWN {
        list.push_str(&format!(" and {} more", pids.len() - SHOWN));
    }
    match (pids.len(), children) {
        (1, false) => format!("pid {list}"),
        (1, true) => format!("pid {list} and its children"),
        (_, false) => format!("pids {list}"),
        (_, true) => format!("pids {list} and their children"),
    }
}

/// A command in words, cut where it would fill the header.
fn command_line(words: &[OsString]) -> String {
    const SHOWN_BYTES: usize = 200;
    let mut line = Vec::new();
    for word in words {
        if !line.is_empty() {
            line.push(b' ');
        }
        line.extend_from_slice(word.as_encoded_bytes());
        if line.len() > SHOWN_BYTES {
            line.truncate(SHOWN_BYTES);
            return format!("{}...", name::clean(&line));
        }
    }
    name::clean(&line)
}

#[cfg(test)]
mod tests;
