//! Opening files that other processes mapped, and knowing that it is the right file.
//!
//! Paths come from the target and are hostile: a FIFO would block, a device would do something, a symbolic link would
//! lead out of the target's root. So every path is first opened with `O_PATH`, which has no effect on what it opens,
//! then checked to be a regular file, then re-opened for reading through that handle.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::maps;
use crate::{
    elf::{self, Bytes},
    model::Reason,
    perf::record::FileIdentity,
};

/// What a file was when it was opened. Tells whether a path still leads to the same content later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    /// The fingerprint of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// A process's root directory, as a handle to resolve its paths in.
pub fn process_root(pid: u32) -> io::Result<OwnedFd> {
    Ok(openat(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Whether the directory is this process's own root.
pub fn is_own_root(root: &OwnedFd) -> bool {
    let (Ok(theirs), Ok(ours)) = (rustix::fs::fstat(root), rustix::fs::stat("/")) else { return false };
    (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
}

/// Opens a regular file at a path of this process. Symbolic links are followed.
pub fn regular(path: &Path) -> io::Result<File> {
    readable(openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a regular file at an absolute path below another root, links resolved inside that root (Linux 5.6).
pub fn regular_in(root: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    readable(openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
}

/// A handle, which has no effect, of what has this name in the directory `tmp` of a process's root; a link is that itself. No link
/// leads to the directory.
pub fn in_tmp(root: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    // O_PATH: a FIFO must not block us before it is refused; a link is opened itself.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match openat2(root, format!("tmp/{name}"), flags, Mode::empty(), resolve) {
        Ok(handle) => Ok(handle),
        // Refused by a seccomp filter that does not know it (5.6 and later kernels have it).
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            let tmp = openat(root, "tmp", flags | OFlags::DIRECTORY, Mode::empty())?;
            Ok(openat(tmp.as_fd(), name, flags, Mode::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Turns a handle that was opened with `O_PATH` into a readable file, if it is a regular one.
pub fn readable(handle: OwnedFd) -> io::Result<File> {
    let stat = rustix::fs::fstat(&handle)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd()))
}

/// One executable mapping of a file, as a process event or /proc/PID/maps tells it.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'a> {
    /// The process.
    pub pid: u32,
    /// Its parent, 0 if unknown: of the same mount namespace more often than not, and alive for longer.
    pub parent: u32,
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Path as the process (event) or we (maps) see it.
    pub path: &'a [u8],
    /// Which file it is.
    pub identity: &'a FileIdentity,
}

/// Opens the file behind a mapping, never another one.
///
/// Tried in this order: the mapping itself (`map_files`: works for deleted files and foreign namespaces, needs
/// `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`), the path in the process's root, the path in ours, the path in the
/// parent's root. All are checked against the identity: where a library was mapped, another one can be by now.
pub fn mapped(mapping: Mapped<'_>) -> Result<File, Reason> {
    let Mapped { pid, parent, start, end, .. } = mapping;
    let mut reason = Reason::FileGone;
    match regular(Path::new(&format!("/proc/{pid}/map_files/{start:x}-{end:x}"))) {
        Ok(file) if is_identity(&file, mapping.identity) => return Ok(file),
        Ok(_) => {}
        Err(error) => note(&mut reason, &error),
    }
    let path = Path::new(OsStr::from_bytes(without_deleted(mapping.path)));
    if !path.is_absolute() {
        return Err(reason);
    }
    let in_root = |pid: u32| process_root(pid).and_then(|root| regular_in(root.as_fd(), path));
    let attempts: [&dyn Fn() -> io::Result<File>; 3] = [&|| in_root(pid), &|| regular(path), &|| {
        if parent == 0 { Err(io::ErrorKind::NotFound.into()) } else { in_root(parent) }
    }];
    for attempt in attempts {
        match attempt() {
            Ok(file) if is_identity(&file, mapping.identity) => return Ok(file),
            Ok(_) => reason = Reason::FileChanged,
            Err(error) => note(&mut reason, &error),
        }
    }
    Err(reason)
}

fn note(reason: &mut Reason, error: &io::Error) {
    // "It may not be opened" and "it is no file" say more than "it is gone", "it is another file" more than all.
    if *reason == Reason::FileGone {
        *reason = match error.kind() {
            io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
            // See `readable`: a device, for example.
            io::ErrorKind::InvalidInput => Reason::BadElf,
            _ => Reason::FileGone,
        };
    }
}

/// `d_path` marks unlinked files so.
pub fn without_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

fn is_identity(file: &File, identity: &FileIdentity) -> bool {
    match identity {
        FileIdentity::BuildId(id) => {
            elf::read_headers(Bytes::File(file)).is_ok_and(|headers| headers.build_id.as_deref() == Some(id))
        }
        FileIdentity::Inode { device, inode } => {
            let Ok(meta) = file.metadata() else { return false };
            let stat_device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
            (meta.ino() == *inode && stat_device == *device)
                || mapped_inode(file).is_ok_and(|seen| seen == (*device, *inode))
        }
    }
}

/// Device and inode as the kernel shows them for mappings of the file. On btrfs and overlayfs they differ from what
/// `stat` tells, so the file is mapped for a moment and looked up among our own mappings.
fn mapped_inode(file: &File) -> io::Result<((u32, u32), u64)> {
    const LEN: usize = 4096;
    // SAFETY: a fresh private mapping at an address the kernel chooses; it is never read (so a file that shrinks
    // cannot raise SIGBUS) and unmapped below.
    let address = unsafe { mmap(std::ptr::null_mut(), LEN, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
    let maps = fs::read("/proc/self/maps");
    // SAFETY: exactly the mapping made above, to which no reference exists.
    unsafe { munmap(address, LEN)? };
    maps?
        .split(|&b| b == b'\n')
        .filter_map(maps::parse_line)
        .find(|line| line.start == address as u64)
        .map(|line| (line.device, line.inode))
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(regular(&fifo).is_err(), "and does not block");
        assert!(regular(dir.path()).is_err());
        assert!(regular(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/inside"), "inside").unwrap();
        symlink("/etc/inside", dir.path().join("absolute")).unwrap();
        symlink("../../../../../../etc/passwd", dir.path().join("upwards")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let text = io::read_to_string(regular_in(root.as_fd(), Path::new("/absolute")).unwrap()).unwrap();
        assert_eq!(text, "inside");
        assert!(regular_in(root.as_fd(), Path::new("/upwards")).is_err());
    }

    /// Where it was mapped is another file now, mapped to the same addresses.
    #[test]
    fn a_mapping_that_was_replaced_is_opened_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["before", "now"].map(|name| dir.path().join(name));
        for path in &paths {
            fs::write(path, vec![0; 4096]).unwrap();
        }
        let [before, now] = paths.each_ref().map(|path| File::open(path).unwrap());
        // SAFETY: a fresh private mapping that nothing refers to; it goes with the process.
        let start =
            unsafe { mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::PRIVATE, &now, 0) }.unwrap();
        let (device, inode) = mapped_inode(&before).unwrap();
        let mapping = Mapped {
            pid: std::process::id(),
            parent: 0,
            start: start as u64,
            end: start as u64 + 4096,
            path: paths[0].as_os_str().as_bytes(),
            identity: &FileIdentity::Inode { device, inode },
        };
        let opened = mapped(mapping).unwrap();
        assert_eq!(Fingerprint::of(&opened).unwrap(), Fingerprint::of(&before).unwrap());
        let unlinked = mapped(Mapped { path: b"/nowhere", ..mapping });
        assert!(unlinked.is_err(), "what is mapped there now is never taken for it");
    }

    #[test]
    fn the_inode_of_a_mapping_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1).unwrap();
        let (_, inode) = mapped_inode(&file).unwrap();
        assert_eq!(inode, file.metadata().unwrap().ino());
    }

    #[test]
    fn a_replaced_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lib");
        fs::write(&path, "old").unwrap();
        let old = File::open(&path).unwrap();
        let (device, inode) = mapped_inode(&old).unwrap();
        let identity = FileIdentity::Inode { device, inode };
        assert!(is_identity(&regular(&path).unwrap(), &identity));
        fs::write(dir.path().join("new"), "new").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(!is_identity(&regular(&path).unwrap(), &identity));
        let mapping = Mapped {
            // A process that cannot exist (PID_MAX_LIMIT is 2^22).
            pid: u32::MAX >> 1,
            parent: 0,
            start: 0,
            end: 0x1000,
            path: path.as_os_str().as_bytes(),
            identity: &identity,
        };
        assert_eq!(mapped(mapping).unwrap_err(), Reason::FileChanged);
        fs::remove_file(&path).unwrap();
        assert_eq!(mapped(mapping).unwrap_err(), Reason::FileGone);
    }
}
