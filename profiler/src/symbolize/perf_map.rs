//! Names of JIT code from `/tmp/perf-PID.map`, the text file that JIT compilers write for perf.
//!
//! Format (tools/perf/Documentation/jit-interface.txt): lines of `START SIZE NAME`, the numbers in hexadecimal, the
//! name to the end of the line. Later lines replace earlier ones.
//!
//! The file lies in a directory where everybody writes, so it is believed only if it is a regular file, not reached
//! through any link, owned by the process's effective user or root, and not older than the process (else it belongs
//! to an earlier process of that id). It is opened while the process lives and read at the end.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

use super::{open, process_file};
use crate::model::Reason;

/// Most bytes read; a large server's map has some 10 MiB.
const MAX_BYTES: u64 = 64 << 20;
/// Longest line; what is longer is not an entry.
const MAX_LINE: u64 = 16 << 10;
/// Start times are in clock ticks of 10 ms and file times in those of the file system; 2 s is FAT's.
const TIME_SLACK: Duration = Duration::from_secs(2);

/// The perf map of one process, or the way to it.
#[derive(Debug)]
pub struct PerfMap {
    /// Root and ids, if the process was alive when its JIT code was first seen.
    place: Option<Place>,
    file: Option<File>,
}

#[derive(Debug)]
struct Place {
    root: OwnedFd,
    ns_pid: u32,
    uid: u32,
    started: SystemTime,
}

impl PerfMap {
    /// Finds the map of a process. It may not exist yet; that is tried again by `names`.
    pub fn of_process(pid: u32) -> Self {
        let place = Place::of_process(pid).ok();
        let file = place.as_ref().and_then(|place| place.open().ok());
        Self { place, file }
    }

    /// Whether there is one that can be believed.
    pub fn is_there(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.open().is_ok())
    }

    /// That of no process.
    pub const fn none() -> Self {
        Self { place: None, file: None }
    }

    /// The same map, to be read now, while this one is read later.
    pub fn again(&self) -> Self {
        let place = self.place.as_ref().and_then(|place| {
            Some(Place { root: place.root.try_clone().ok()?, ns_pid: place.ns_pid, ..*place })
        });
        Self { place, file: self.file.as_ref().and_then(|file| file.try_clone().ok()) }
    }

    /// Names for sorted absolute addresses: raw names, or why there is none.
    pub fn names(self, addresses: &[u64]) -> Vec<Result<Vec<u8>, Reason>> {
        let Some(place) = self.place else { return vec![Err(Reason::ProcessGone); addresses.len()] };
        // A map that is written anew (at exit, by a dump command) replaces the file; the newest counts.
        let Some(file) = place.open().ok().or(self.file) else {
            return vec![Err(Reason::NoPerfMap); addresses.len()];
        };
        let names = read(BufReader::with_capacity(64 << 10, file), addresses);
        names.into_iter().map(|name| name.ok_or(Reason::NotInPerfMap)).collect()
    }
}

impl Place {
    fn of_process(pid: u32) -> io::Result<Self> {
        let status = process_file::read_status(pid)?;
        Ok(Self {
            root: open::process_root(pid)?,
            ns_pid: status.ns_pid,
            uid: status.effective_uid,
            started: started(process_file::start_ns(pid)?),
        })
    }

    fn open(&self) -> io::Result<File> {
        open_map(&self.root, self.ns_pid, self.uid, self.started)
    }
}

/// The name of the map of the process that has this id in its own pid namespace.
pub fn file_name(ns_pid: u32) -> String {
    format!("perf-{ns_pid}.map")
}

fn started(since_boot_ns: u64) -> SystemTime {
    let now = clock_gettime(ClockId::Boottime);
    let up = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    SystemTime::now() - up.saturating_sub(Duration::from_nanos(since_boot_ns))
}

/// Opens the map of process `ns_pid` (in its own pid namespace) below a root, if it can be believed.
fn open_map(root: &OwnedFd, ns_pid: u32, uid: u32, started: SystemTime) -> io::Result<File> {
    let file = open::readable(open::in_tmp(root.as_fd(), &file_name(ns_pid))?)?;
    let meta = file.metadata()?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if meta.uid() != uid && meta.uid() != 0 {
        return refused("owned by another user");
    }
    if meta.modified()? + TIME_SLACK < started {
        return refused("older than the process");
    }
    Ok(file)
}

/// The last entry that covers each of the sorted addresses. Lines that are no entries are passed over.
fn read(mut map: impl BufRead, addresses: &[u64]) -> Vec<Option<Vec<u8>>> {
    let mut names: Vec<Option<Vec<u8>>> = vec![None; addresses.len()];
    let mut line = Vec::new();
    let mut left = MAX_BYTES;
    while left > 0 {
        line.clear();
        let Ok(len) = map.by_ref().take(MAX_LINE.min(left)).read_until(b'\n', &mut line) else { break };
        if len == 0 {
            break;
        }
        left -= len as u64;
        if line.last() != Some(&b'\n') && len as u64 == MAX_LINE {
            left = left.saturating_sub(map.skip_until(b'\n').unwrap_or(0) as u64);
            continue;
        }
        let Some((start, end, name)) = parse_line(&line) else { continue };
        let first = addresses.partition_point(|&address| address < start);
        let last = addresses.partition_point(|&address| address < end);
        for slot in names.get_mut(first..last).unwrap_or_default() {
            *slot = Some(name.to_vec());
        }
    }
    names
}

fn parse_line(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let text = line.trim_ascii_end();
    let mut parts = text.splitn(3, |&b| b == b' ');
    let mut number = || {
        let digits = std::str::from_utf8(parts.next()?).ok()?;
        u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
    };
    let (start, size) = (number()?, number()?);
    let name = parts.next()?.trim_ascii();
    let end = start.checked_add(size)?;
    (size > 0 && !name.is_empty()).then_some((start, end, name))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use proptest::prelude::*;
    use rustix::fs::Mode;

    use super::*;

    fn names(map: &str, addresses: &[u64]) -> Vec<Option<String>> {
        let names = read(map.as_bytes(), addresses);
        names.into_iter().map(|name| name.map(|name| String::from_utf8_lossy(&name).into_owned())).collect()
    }

    #[test]
    fn the_later_of_overlapping_entries_wins() {
        let map =
            "1000 100 old name(int)\n1080 10 inner\nnonsense\n3000 zz bad\n2000 10 other\n1000 40 new\n";
        let found = names(map, &[0xfff, 0x1000, 0x103f, 0x1040, 0x1080, 0x1090, 0x1100, 0x200f]);
        let found: Vec<_> = found.iter().map(Option::as_deref).collect();
        let old = Some("old name(int)");
        assert_eq!(found, [None, Some("new"), Some("new"), old, Some("inner"), old, None, Some("other")]);
    }

    #[test]
    fn a_huge_line_costs_itself_only() {
        let map = format!("1000 10 {}\n2000 10 after\n", "x".repeat(1 << 20));
        assert_eq!(names(&map, &[0x1000, 0x2000]), [None, Some("after".to_owned())]);
    }

    #[test]
    fn a_map_that_cannot_be_believed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tmp = dir.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        let root: OwnedFd = File::open(dir.path()).unwrap().into();
        let me = rustix::process::geteuid().as_raw();
        let now = SystemTime::now();
        let open = |pid, started| open_map(&root, pid, me, started);

        fs::write(tmp.join("perf-1.map"), "1000 10 good\n").unwrap();
        assert!(open(1, now).is_ok());
        assert!(open(1, now + Duration::from_secs(60)).is_err(), "of an earlier process");
        assert!(open(9, now).is_err(), "absent");
        symlink("perf-1.map", tmp.join("perf-2.map")).unwrap();
        assert!(open(2, now).is_err(), "a link");
        rustix::fs::mknodat(&root, "tmp/perf-3.map", rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(open(3, now).is_err(), "a FIFO, and it does not block");
        fs::write(tmp.join("perf-4.map"), "").unwrap();
        std::os::unix::fs::chown(tmp.join("perf-4.map"), Some(12_345), None).unwrap();
        assert!(open(4, now).is_err(), "a foreign owner");
        assert!(open_map(&root, 4, 12_345, now).is_ok(), "the owner");
        fs::rename(&tmp, dir.path().join("real")).unwrap();
        symlink("real", &tmp).unwrap();
        assert!(open(1, now).is_err(), "through a linked directory");
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(map: Vec<u8>, mut addresses: Vec<u64>) {
            addresses.sort_unstable();
            prop_assert_eq!(read(&map[..], &addresses).len(), addresses.len());
        }

        #[test]
        fn what_is_written_is_read(start in 1u64..1 << 48, size in 1u64..1 << 20, name in "[a-zA-Z(][a-zA-Z:(), ]{0,30}[a-z)]") {
            let map = format!("{start:x} {size:x} {name}\n");
            let found = read(map.as_bytes(), &[start - 1, start, start + size - 1, start + size]);
            let name = Some(name.into_bytes());
            prop_assert_eq!(found, vec![None, name.clone(), name, None]);
        }
    }
}
