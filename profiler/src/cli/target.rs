//! Which tasks a command line is about: what the commands that attach to tasks have in common.

use std::{ffi::OsString, path::Path};

use profiler_common::filter::FilterConfig;

use super::{error::Failure, explain};
use crate::target::{Choice, Target};

/// What such a command line says.
pub struct Selection<'a> {
    /// `--all`.
    pub all: bool,
    /// `--pid`.
    pub pids: &'a [u32],
    /// No `--no-children`.
    pub children: bool,
    /// `--cgroup`.
    pub cgroup: Option<&'a Path>,
    /// `--comm`.
    pub comm: Option<&'a str>,
    /// The command.
    pub command: &'a [OsString],
}

impl Selection<'_> {
    /// The target that is meant; its filter has no mode yet.
    ///
    /// # Errors
    /// A target that is not there or cannot be told, as [`explain::target`] has it.
    pub fn resolve(&self) -> Result<Target, Failure> {
        let children = self.children;
        let mut target = resolve(&if !self.pids.is_empty() {
            Choice::Processes { pids: self.pids.to_vec(), children }
        } else if !self.command.is_empty() {
            Choice::Command { words: self.command.to_vec(), children }
        } else {
            Choice::All
        })?;
        if self.all && target.command.is_some() {
            // The command only sets the duration.
            target.filter = FilterConfig::ALL;
            target.pids.clear();
            target.words = format!("all processes, while {} runs", target.words);
        }
        self.narrow(&mut target)?;
        Ok(target)
    }

    /// `--cgroup` and `--comm` narrow whatever else is chosen.
    fn narrow(&self, target: &mut Target) -> Result<(), Failure> {
        let everything = target.filter.by_process == 0 && target.command.is_none();
        let mut parts = if everything { Vec::new() } else { vec![target.words.clone()] };
        if let Some(path) = self.cgroup {
            let cgroup = resolve(&Choice::Cgroup(path.to_owned()))?;
            (target.filter.cgroup_id, target.filter.cgroup_level) =
                (cgroup.filter.cgroup_id, cgroup.filter.cgroup_level);
            parts.push(cgroup.words);
        }
        if let Some(comm) = self.comm {
            let comm = resolve(&Choice::Comm(comm.into()))?;
            (target.filter.comm, target.filter.comm_len) = (comm.filter.comm, comm.filter.comm_len);
            parts.push(comm.words);
        }
        if !parts.is_empty() {
            target.words = parts.join(", ");
        }
        Ok(())
    }
}

fn resolve(choice: &Choice) -> Result<Target, Failure> {
    Target::resolve(choice).map_err(|error| explain::target(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(all: bool, pids: &[u32], comm: Option<&str>, command: &[OsString]) -> String {
        Selection { all, pids, children: true, cgroup: None, comm, command }.resolve().unwrap().words
    }

    #[test]
    fn a_target_is_told_in_words() {
        let own = [std::process::id()];
        let command = ["true".into()];
        assert_eq!(words(false, &[], None, &[]), "all processes");
        assert_eq!(words(true, &[], None, &[]), "all processes");
        assert_eq!(words(false, &own, None, &[]), format!("pid {} and its children", own[0]));
        assert!(words(true, &[], None, &command).starts_with("all processes, while command true"));
        assert!(!words(false, &[], Some("a"), &[]).contains("all processes"));
    }

    #[test]
    fn with_all_a_command_filters_nothing() {
        let command = ["true".into()];
        let selection =
            Selection { all: true, pids: &[], children: true, cgroup: None, comm: None, command: &command };
        let target = selection.resolve().unwrap();
        assert_eq!((target.filter.by_process, target.pids.len()), (0, 0));
        assert!(target.command.is_some());
    }
}
