//! /proc/PID/maps: the executable mappings of a process.
//!
//! Source: `show_map_vma` in fs/proc/task_mmu.c. The path is the rest of the line; newlines in it are escaped as
//! `\012` by the kernel.

use std::{fs::File, io, io::Read};

use crate::perf::record::FileIdentity;

/// Most bytes read of one process's maps: 500,000 mappings, far above `vm.max_map_count`'s default of 65,530.
const MAX_BYTES: u64 = 64 << 20;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// `x` is set.
    pub executable: bool,
    /// Offset of the first byte in the file.
    pub file_offset: u64,
    /// Device of the file, (0, 0) without one.
    pub device: (u32, u32),
    /// Inode of the file, 0 without one.
    pub inode: u64,
    /// Path or bracketed name, empty for nameless memory.
    pub path: &'a [u8],
}

impl Line<'_> {
    /// Identity of the file, if the mapping has one.
    pub fn identity(&self) -> Option<FileIdentity> {
        (self.inode != 0).then_some(FileIdentity::Inode { device: self.device, inode: self.inode })
    }
}

/// Parses `START-END PERM OFFSET MAJ:MIN INODE   PATH`.
pub fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut rest = line;
    let start = hex(take(&mut rest, b'-')?)?;
    let end = hex(take(&mut rest, b' ')?)?;
    let permissions = take(&mut rest, b' ')?;
    let file_offset = hex(take(&mut rest, b' ')?)?;
    let major = hex(take(&mut rest, b':')?)?;
    let minor = hex(take(&mut rest, b' ')?)?;
    let inode = rest.split(|&b| b == b' ').next()?;
    let path = rest.get(inode.len()..)?;
    let path = &path[path.iter().position(|&b| b != b' ').unwrap_or(path.len())..];
    (start < end).then_some(Line {
        start,
        end,
        executable: permissions.get(2) == Some(&b'x'),
        file_offset,
        device: (u32::try_from(major).ok()?, u32::try_from(minor).ok()?),
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        path,
    })
}

fn take<'a>(rest: &mut &'a [u8], end: u8) -> Option<&'a [u8]> {
    let at = rest.iter().position(|&b| b == end)?;
    let (head, tail) = rest.split_at(at);
    *rest = &tail[1..];
    Some(head)
}

fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| Some(value << 4 | u64::from((digit as char).to_digit(16)?)))
}

/// Calls `each` for every executable mapping of a process, lowest address first. `buffer` is reused between calls.
/// A process without memory (kernel threads, zombies) has no lines; one that is gone is an error.
pub fn read_executable(pid: u32, buffer: &mut Vec<u8>, mut each: impl FnMut(Line<'_>)) -> io::Result<()> {
    buffer.clear();
    File::open(format!("/proc/{pid}/maps"))?.take(MAX_BYTES).read_to_end(buffer)?;
    if buffer.is_empty() {
        // A kernel thread; or a process whose first thread has ended and took its view of the memory along.
        let other_thread = std::fs::read_dir(format!("/proc/{pid}/task"))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|tid| *tid != *pid.to_string()));
        if let Some(path) = other_thread {
            File::open(path.join("maps"))?.take(MAX_BYTES).read_to_end(buffer)?;
        }
    }
    for line in buffer.split(|&b| b == b'\n') {
        // Most lines are data; their permissions are looked at before anything is parsed.
        let Some(space) = line.iter().position(|&b| b == b' ') else { continue };
        if line.get(space + 3) == Some(&b'x')
            && let Some(line) = parse_line(line)
        {
            each(line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_a_real_process() {
        let line = parse_line(
            b"7f6980514000-7f698066a000 r-xp 00026000 fe:00 326279                     /usr/lib/libc.so.6",
        )
        .unwrap();
        assert_eq!((line.start, line.end, line.file_offset), (0x7f69_8051_4000, 0x7f69_8066_a000, 0x26000));
        assert_eq!((line.device, line.inode, line.path), ((0xfe, 0), 326_279, &b"/usr/lib/libc.so.6"[..]));
        assert!(line.executable);
        let line = parse_line(b"7f8000000000-7f8000001000 rwxp 00000000 00:00 0 ").unwrap();
        assert_eq!((line.inode, line.path, line.identity()), (0, &b""[..], None));
        let line = parse_line(b"55d0-55d1 r-xp 0 fe:00 12    /tmp/a b (deleted)").unwrap();
        assert_eq!(line.path, b"/tmp/a b (deleted)");
        assert!(!parse_line(b"1000-2000 rw-p 0 00:00 0 [heap]").unwrap().executable);
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in ["", "x", "2000-1000 r-xp 0 0:0 0", "1000-2000 r-xp 0 0:0 q", "1000-2000 r-xp 0 0:0 -1"] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn our_own_code_is_mapped() {
        let here = our_own_code_is_mapped as *const () as u64;
        let mut found = false;
        read_executable(std::process::id(), &mut Vec::new(), |line| {
            found |= line.start <= here && here < line.end && line.identity().is_some();
        })
        .unwrap();
        assert!(found);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(start: u32, len in 1u32.., offset: u64, major in 0u32..4096, minor in 0u32..(1 << 20), inode: u64, path in "(/[a-z (]{1,20})?") {
            let (start, end) = (u64::from(start), u64::from(start) + u64::from(len));
            let text = format!("{start:08x}-{end:08x} r-xp {offset:08x} {major:02x}:{minor:02x} {inode} {path}");
            let line = parse_line(text.as_bytes()).unwrap();
            prop_assert_eq!((line.start, line.end, line.file_offset, line.device, line.inode), (start, end, offset, (major, minor), inode));
            prop_assert_eq!(line.path, path.as_bytes());
        }

        #[test]
        fn any_line_is_parsed_without_panic(line: Vec<u8>) {
            parse_line(&line);
        }
    }
}
