//! Selecting a part of a profile: by process, thread, time or function name.

use regex::Regex;

use super::Profile;

/// Which samples of a profile are kept. Parts that are `None` or empty match everything; all parts must match.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Process ids.
    pub pids: Vec<u32>,
    /// Thread ids.
    pub tids: Vec<u32>,
    /// Process or thread name.
    pub comm: Option<Regex>,
    /// A function somewhere in the stack.
    pub focus: Option<Regex>,
    /// No function of the stack may match.
    pub ignore: Option<Regex>,
    /// Window starts at or after this, ns since the start of the recording.
    pub from_ns: Option<u64>,
    /// Window starts before this, ns since the start of the recording.
    pub to_ns: Option<u64>,
}

impl Selection {
    /// Drops the samples that do not match. Interned tables keep their unused entries.
    pub fn apply(&self, profile: &mut Profile) {
        let functions = |regex: &Option<Regex>| -> Option<Vec<bool>> {
            regex.as_ref().map(|r| profile.functions.iter().map(|f| r.is_match(&f.name)).collect())
        };
        let (focus, ignore) = (functions(&self.focus), functions(&self.ignore));
        let has = |stack: usize, marks: &[bool]| {
            profile.stacks[stack]
                .locations
                .iter()
                .any(|id| profile.locations[id.index()].lines.iter().any(|line| marks[line.function.index()]))
        };
        let stack_ok: Vec<bool> = (0..profile.stacks.len())
            .map(|i| {
                focus.as_ref().is_none_or(|marks| has(i, marks))
                    && !ignore.as_ref().is_some_and(|marks| has(i, marks))
            })
            .collect();
        let thread_ok: Vec<bool> = profile
            .threads
            .iter()
            .map(|t| {
                (self.pids.is_empty() || self.pids.contains(&t.pid))
                    && (self.tids.is_empty() || self.tids.contains(&t.tid))
                    && self.comm.as_ref().is_none_or(|r| r.is_match(&t.process) || r.is_match(&t.name))
            })
            .collect();
        profile.samples.retain(|s| {
            thread_ok[s.thread.index()]
                && stack_ok[s.stack.index()]
                && self.from_ns.is_none_or(|from| s.window_start_ns >= from)
                && self.to_ns.is_none_or(|to| s.window_start_ns < to)
        });
    }
}
