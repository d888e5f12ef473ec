//! Processes, from /proc (proc(5)): whether one exists, its name, threads, descendants, start time and cgroup.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use super::{cgroup, container, file};
use crate::model::{name::clean, window::Place};

/// Rounds of looking for descendants that fork meanwhile.
const MAX_ROUNDS: usize = 8;

/// A process as /proc/PID/stat and status show it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name of its main thread (raw bytes, chosen by the process).
    pub comm: Vec<u8>,
    /// State: `R`, `S`, `D`, `Z` (ended, not yet waited for), ...
    pub state: char,
    /// Its parent.
    pub parent: u32,
    /// Start, in clock ticks since boot (1/100 s): tells processes apart that had the same id.
    pub start_ticks: u64,
}

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No such process.
    #[error("no process {pid}")]
    NotFound {
        /// The id.
        pid: u32,
    },
    /// The id is a thread's, not a process's.
    #[error("{tid} is a thread of process {pid}, not a process; give -p {pid}")]
    Thread {
        /// The id.
        tid: u32,
        /// The process it belongs to.
        pid: u32,
    },
    /// The process has ended and waits for its parent to collect its status.
    #[error(
        "process {pid} ({comm}) has ended (zombie): its parent, {parent}, has not collected its exit status"
    )]
    Zombie {
        /// The id.
        pid: u32,
        /// Its cleaned name.
        comm: String,
        /// Its parent.
        parent: u32,
    },
    /// /proc cannot be read.
    #[error("process {pid}: {source}")]
    Read {
        /// The id.
        pid: u32,
        /// What failed.
        source: io::Error,
    },
}

impl Process {
    /// Reads a running process.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub fn read(pid: u32) -> Result<Self, ProcessError> {
        Self::read_at(Path::new("/proc"), pid)
    }

    fn read_at(proc: &Path, pid: u32) -> Result<Self, ProcessError> {
        let dir = proc.join(pid.to_string());
        let fail = |source: io::Error| match source.raw_os_error() {
            // A process that ends while its file is read: ESRCH.
            Some(libc::ENOENT | libc::ESRCH) => ProcessError::NotFound { pid },
            _ => ProcessError::Read { pid, source },
        };
        let status = file::read_text(dir.join("status"), file::SMALL).map_err(fail)?;
        // /proc/TID exists for every thread, though it is not listed.
        match file::field(&status, "Tgid").and_then(|tgid| tgid.parse().ok()) {
            Some(tgid) if tgid != pid => return Err(ProcessError::Thread { tid: pid, pid: tgid }),
            _ => {}
        }
        let stat = file::read(dir.join("stat"), file::SMALL).map_err(fail)?;
        let process = parse_stat(&stat).ok_or(ProcessError::NotFound { pid })?;
        if matches!(process.state, 'Z' | 'X' | 'x') {
            let comm = crate::model::name::clean(&process.comm);
            return Err(ProcessError::Zombie { pid, comm, parent: process.parent });
        }
        Ok(process)
    }
}

/// Reads a /proc/PID/stat line. The name is in parentheses and may itself hold parentheses, spaces and newlines: it
/// ends at the last one.
pub fn parse_stat(line: &[u8]) -> Option<Process> {
    let open = line.iter().position(|&b| b == b'(')?;
    let close = line.iter().rposition(|&b| b == b')').filter(|&close| close > open)?;
    let pid = std::str::from_utf8(&line[..open]).ok()?.trim().parse().ok()?;
    let mut rest = std::str::from_utf8(&line[close + 1..]).ok()?.split_ascii_whitespace();
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    // Field 22 of proc(5); the parent is field 4.
    let start_ticks = rest.nth(17)?.parse().ok()?;
    Some(Process { pid, comm: line[open + 1..close].to_vec(), state, parent, start_ticks })
}

/// The threads of a process, ascending; none if it has gone.
pub fn threads(pid: u32) -> Vec<u32> {
    numeric_entries(&PathBuf::from(format!("/proc/{pid}/task")))
}

/// All processes, ascending.
pub fn all() -> Vec<u32> {
    numeric_entries(Path::new("/proc"))
}

fn numeric_entries(dir: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut ids: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// The processes that descend from `roots`, the roots left out.
///
/// A snapshot of something that moves: looks until two rounds agree. Who needs all of them attaches the hook that
/// follows forks first and looks then. Descendants of a parent that has ended belong to another tree already.
pub fn descendants(roots: &[u32]) -> BTreeSet<u32> {
    let mut last = look(roots);
    for _ in 0..MAX_ROUNDS {
        let next = look(roots);
        if next == last {
            break;
        }
        last = next;
    }
    last
}

fn look(roots: &[u32]) -> BTreeSet<u32> {
    let from_children_files = |pid: u32| -> Option<Vec<u32>> {
        let mut children = Vec::new();
        for tid in threads(pid) {
            // CONFIG_PROC_CHILDREN. Any thread of a process can be the parent that forked.
            match file::read_text(format!("/proc/{pid}/task/{tid}/children"), file::LARGE) {
                Ok(text) => children.extend(parse_children(&text)),
                // A thread that ended meanwhile is no reason to distrust the files.
                Err(_) if Path::new(&format!("/proc/{pid}/task/{tid}")).exists() => return None,
                Err(_) => {}
            }
        }
        Some(children)
    };
    let mut found = BTreeSet::new();
    let mut queue = roots.to_vec();
    while let Some(pid) = queue.pop() {
        let Some(children) = from_children_files(pid) else { return tree(roots, &parents()) };
        queue.extend(children.into_iter().filter(|child| !roots.contains(child) && found.insert(*child)));
    }
    found
}

fn parse_children(text: &str) -> impl Iterator<Item = u32> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok())
}

/// `(process, parent)` of all processes: slower than the children files, but always there.
fn parents() -> Vec<(u32, u32)> {
    let stat = |pid| parse_stat(&file::read(format!("/proc/{pid}/stat"), file::SMALL).ok()?);
    all().into_iter().filter_map(stat).map(|process| (process.pid, process.parent)).collect()
}

fn tree(roots: &[u32], parents: &[(u32, u32)]) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    // Ids wrap around, so a child's can be smaller than its parent's: repeat until nothing is added.
    loop {
        let before = found.len();
        for &(pid, parent) in parents {
            if !roots.contains(&pid) && (roots.contains(&parent) || found.contains(&parent)) {
                found.insert(pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The process's path in the unified cgroup hierarchy, as seen from this process's cgroup namespace.
pub fn cgroup_path(pid: u32) -> Option<PathBuf> {
    let text = file::read_text(format!("/proc/{pid}/cgroup"), file::SMALL).ok()?;
    cgroup::unified_path(&text).map(PathBuf::from)
}

/// The process's control group for people, cleaned: its path in the unified hierarchy, else in that of `systemd`, else in the
/// first that tells it from others. `/` says nothing and is left out.
pub fn cgroup_label(pid: u32) -> Option<String> {
    let text = file::read_text(format!("/proc/{pid}/cgroup"), file::SMALL).ok()?;
    cgroup::label(&text).map(|path| clean(path.as_bytes()))
}

/// Where a process belongs, by its control group; `None`: there is no such process.
pub fn place(pid: u32) -> Option<Place> {
    let text = file::read_text(format!("/proc/{pid}/cgroup"), file::SMALL).ok()?;
    Some(container::place(cgroup::label(&text).unwrap_or("/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &[u8] =
        b"4711 (a) b (c\n)) S 42 4711 4711 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 1 0 987654 1 2 3";

    #[test]
    fn a_name_may_look_like_the_end_of_the_name() {
        let process = parse_stat(STAT).unwrap();
        assert_eq!(process.comm, b"a) b (c\n)");
        assert_eq!(
            (process.pid, process.state, process.parent, process.start_ticks),
            (4711, 'S', 42, 987_654)
        );
    }

    #[test]
    fn malformed_stat_lines_are_nothing() {
        for bad in [&b""[..], b"1 (x", b"1 x) S 2", b")(", b"1 (x) S", b"x (x) S 1 2 3"] {
            assert_eq!(parse_stat(bad), None);
        }
    }

    #[test]
    fn this_process_exists() {
        let me = Process::read(std::process::id()).unwrap();
        assert_eq!(me.parent, std::os::unix::process::parent_id());
        assert!(threads(me.pid).contains(&me.pid));
        assert!(all().contains(&me.pid));
    }

    #[test]
    fn a_thread_is_told_from_a_process() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let (tid_out, tid_in) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tid_out.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).unwrap();
            let _ = receive.recv();
        });
        let tid = tid_in.recv().unwrap();
        let error = Process::read(tid).unwrap_err();
        assert!(matches!(error, ProcessError::Thread { pid, .. } if pid == std::process::id()), "{error}");
        drop(send);
        thread.join().unwrap();
    }

    #[test]
    fn unknown_and_ended_processes() {
        // Beyond the largest pid_max (2^22).
        let error = Process::read(1 << 23).unwrap_err();
        assert_eq!(error.to_string(), "no process 8388608");

        let mut child = std::process::Command::new("true").spawn().unwrap();
        // Waits for the end without collecting the status, so that a zombie stays.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(
            rustix::process::WaitId::Pid(pid),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        let error = Process::read(child.id()).unwrap_err();
        assert!(matches!(error, ProcessError::Zombie { ref comm, .. } if comm == "true"), "{error}");
        child.wait().unwrap();
        assert!(matches!(Process::read(child.id()), Err(ProcessError::NotFound { .. })));
    }

    #[test]
    fn a_tree_has_all_generations_and_no_strangers() {
        let parents = [(10, 1), (5, 10), (7, 5), (11, 10), (20, 1), (21, 20)];
        assert_eq!(tree(&[10], &parents), BTreeSet::from([5, 7, 11]));
        assert_eq!(tree(&[10, 20], &parents), BTreeSet::from([5, 7, 11, 21]));
        assert_eq!(tree(&[99], &parents), BTreeSet::new());
    }

    #[test]
    fn both_ways_find_a_grandchild() {
        use std::io::{BufRead, BufReader};
        // The shell prints the id of a grandchild that lives until the shell's input ends (which a job in the
        // background gets through a descriptor of its own only: its standard input is /dev/null).
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exec 3<&0; (cat <&3 >/dev/null & echo $!; wait) & wait"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        assert!(descendants(&[child.id()]).contains(&grandchild));
        assert!(tree(&[child.id()], &parents()).contains(&grandchild));
        assert!(!descendants(&[grandchild]).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(line: Vec<u8>) {
            let _ = parse_stat(&line);
        }

        #[test]
        fn every_name_is_read_back(comm in prop::collection::vec(1u8.., 0..16)) {
            let mut line = b"1 (".to_vec();
            line.extend(&comm);
            line.extend(b") R 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 33 0");
            prop_assert_eq!(parse_stat(&line).unwrap().comm, comm);
        }
    }
}
