//! Mounted file systems that a profiler uses, from /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::path::PathBuf;

use super::file;

/// One mount, as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is mounted; `/` is all of it.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type: `tracefs`, `cgroup2`, ...
    pub fs_type: String,
    /// Options of the file system, comma-separated (a v1 cgroup's controllers are here).
    pub options: String,
}

/// The mounts of a mountinfo file, in its order; lines that do not follow the format are left out.
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // "36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw": optional fields end at a lone hyphen.
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (unescape(before.next()?), unescape(before.next()?));
    let mut after = after.split(' ');
    let fs_type = after.next()?.to_owned();
    let options = after.nth(1).unwrap_or_default().to_owned();
    Some(Mount { root: root.into(), point: point.into(), fs_type, options })
}

/// Undoes the kernel's escapes of space, tab, newline and backslash: `\040`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) if byte == b'\\' && digits[0] <= b'3' => {
                out.push(digits.iter().fold(0, |value, digit| value << 3 | (digit - b'0')));
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// All mounts of this process; none if /proc is not mounted.
pub fn mounts() -> Vec<Mount> {
    file::read_text("/proc/self/mountinfo", file::LARGE)
        .map(|text| parse_mountinfo(&text))
        .unwrap_or_default()
}

/// Where a file system of that type is mounted whole, the first one listed.
pub fn find<'a>(mounts: &'a [Mount], fs_type: &str) -> Option<&'a Mount> {
    mounts.iter().find(|mount| mount.fs_type == fs_type)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const MOUNTINFO: &str = "\
22 27 0:20 / /proc rw,nosuid - proc proc rw
25 27 0:23 / /sys/kernel/tracing rw shared:9 master:3 - tracefs tracefs rw
36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 27 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
broken line
";

    #[test]
    fn fields_of_a_mountinfo_file() {
        let mounts = parse_mountinfo(MOUNTINFO);
        assert_eq!(mounts.len(), 4);
        assert_eq!(find(&mounts, "tracefs").unwrap().point, Path::new("/sys/kernel/tracing"));
        assert_eq!(mounts[2].root, Path::new("/mnt1"));
        assert_eq!(mounts[2].point, Path::new("/mnt 2"));
        assert_eq!(mounts[3].options, "rw,memory");
        assert_eq!(find(&mounts, "bpf"), None);
    }

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(unescape(r"a\040b\134040"), r"a b\040");
        assert_eq!(unescape(r"\09\777\04"), r"\09\777\04");
    }

    #[test]
    fn proc_itself_is_mounted_here() {
        assert!(find(&mounts(), "proc").is_some());
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[ a-z/\\\\0-9:,\\-\n]{0,200}") {
            parse_mountinfo(&text);
        }
    }
}
