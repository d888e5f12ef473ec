//! Tables of earlier runs, on disk, by build id.
//!
//! A table is a function of the file's content, which the build id stands for. Only what is slow to make is kept. The
//! directory is root's `/var/cache/profiler/unwind`, or a user's `profiler/unwind` below `$XDG_CACHE_HOME` or
//! `~/.cache`; it must belong to us and nobody else may write into it, which is what protects against malice. Against
//! damage there is a checksum, and against both together everything that is read is checked again
//! ([`Table::is_sound`]): at worst a table is made anew.
//!
//! A build id is only a claim of the file. So that nobody's file can lend its table to another user's, tables are kept
//! apart by the file's owner too ([`Key`]).
//!
//! Nothing here may stop a recording: a caller takes an error as "no cache".

mod format;

use std::{
    env,
    fs::{DirBuilder, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use profiler_common::unwind::Arch;
use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, fstat, futimens, mkdirat, openat, renameat, statat, unlinkat,
};

use super::{
    eh_frame::{self, TableError},
    table::Table,
};
use crate::elf::{self, Bytes, ElfError};

/// Most bytes of all tables together. The tables of a busy desktop have some 50 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// Tables with fewer rows are not kept: making one takes less than a millisecond.
const MIN_ROWS: usize = 8192;

/// Why there is no cache, or why a table could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither `$XDG_CACHE_HOME` nor `$HOME` says where.
    #[error("no directory for a cache: neither $XDG_CACHE_HOME nor $HOME is an absolute path")]
    NoPlace,
    /// A directory cannot be made or opened.
    #[error("{path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory is not ours alone.
    #[error("{path}: belongs to user {owner} with mode {mode:o}; must be ours and writable by nobody else")]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Permission bits.
        mode: u32,
    },
    /// A table cannot be written.
    #[error("write: {0}")]
    Write(#[from] io::Error),
}

/// What a table is kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// GNU build id.
    pub build_id: &'a [u8],
    /// User id of the file's owner.
    pub owner: u32,
    /// Architecture.
    pub arch: Arch,
}

impl Key<'_> {
    fn name(&self) -> String {
        let arch = match self.arch {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        };
        format!("{}-{}-{arch}", elf::hex(self.build_id), self.owner)
    }
}

/// The cache's directory.
#[derive(Debug)]
pub struct Cache {
    directory: OwnedFd,
    max_bytes: u64,
    /// Bytes of all files as far as we know; other processes use the cache too.
    bytes: AtomicU64,
    /// Tells temporary files of this process apart.
    written: AtomicU64,
}

impl Cache {
    /// Opens this user's cache; makes its directory if need be.
    ///
    /// # Errors
    /// [`CacheError`]; there is no cache then.
    pub fn open() -> Result<Self, CacheError> {
        Self::open_below(&base().ok_or(CacheError::NoPlace)?, MAX_BYTES)
    }

    /// Opens the cache `profiler/unwind` below a directory.
    fn open_below(base: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        let failed = |path: &Path, source: io::Error| CacheError::Directory { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(base).map_err(|error| failed(base, error))?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        // The way to it may lead over links of the user's own making; what is ours may not be one.
        let mut directory =
            openat(CWD, base, flags, Mode::empty()).map_err(|error| failed(base, error.into()))?;
        let mut path = base.to_owned();
        for name in ["profiler", "unwind"] {
            path.push(name);
            match mkdirat(&directory, name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(failed(&path, error.into())),
            }
            directory = openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty())
                .map_err(|error| failed(&path, error.into()))?;
            let stat = fstat(&directory).map_err(|error| failed(&path, error.into()))?;
            let (owner, mode) = (stat.st_uid, stat.st_mode & 0o7777);
            if owner != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
                return Err(CacheError::NotOurs { path, owner, mode });
            }
        }
        let cache = Self { directory, max_bytes, bytes: AtomicU64::new(0), written: AtomicU64::new(0) };
        cache.bytes.store(cache.files().iter().map(|file| file.bytes).sum(), Ordering::Relaxed);
        Ok(cache)
    }

    /// The table of a file: the one that was kept, or a new one, which is kept from now on.
    ///
    /// # Errors
    /// Those of making it; that it cannot be kept is none.
    pub fn table(&self, file: &File) -> Result<Table, TableError> {
        let headers = elf::read_headers(Bytes::File(file))?;
        let arch = eh_frame::arch_of(&headers)?;
        let owner = file.metadata().map_err(ElfError::from)?.uid();
        let key = headers.build_id.as_deref().map(|build_id| Key { build_id, owner, arch });
        if let Some(table) = key.and_then(|key| self.load(&key)) {
            return Ok(table);
        }
        let (table, _) = eh_frame::build(Bytes::File(file))?;
        if let Some(Err(error)) = key.map(|key| self.store(&key, &table)) {
            log::debug!("an unwind table is not kept: {error}");
        }
        Ok(table)
    }

    /// The table that was kept, if there is one and it is whole.
    pub fn load(&self, key: &Key<'_>) -> Option<Table> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.directory, key.name(), flags, Mode::empty()).ok()?);
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.len() > format::MAX_LEN {
            return None;
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        (&file).take(format::MAX_LEN).read_to_end(&mut bytes).ok()?;
        let table = format::decode(key, &bytes)?;
        // Its time tells how long it was not used; that it cannot be set is no reason to go without the table.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let _ = futimens(&file, &rustix::fs::Timestamps { last_access: now, last_modification: now });
        Some(table)
    }

    /// Keeps a table, if making it anew would take long. Removes the tables unused for longest if there are too many.
    ///
    /// # Errors
    /// Those of writing a file; the table is not kept then.
    pub fn store(&self, key: &Key<'_>, table: &Table) -> Result<(), CacheError> {
        if table.rows.len() < MIN_ROWS || key.build_id.is_empty() {
            return Ok(());
        }
        let bytes = format::encode(key, table);
        let temporary = format!("new-{}-{}", process::id(), self.written.fetch_add(1, Ordering::Relaxed));
        let outcome = self
            .write(&temporary, &bytes)
            .and_then(|()| Ok(renameat(&self.directory, &temporary, &self.directory, key.name())?));
        if let Err(error) = outcome {
            // It may not even have been made.
            let _ = unlinkat(&self.directory, &temporary, AtFlags::empty());
            return Err(error.into());
        }
        let len = bytes.len() as u64;
        if self.bytes.fetch_add(len, Ordering::Relaxed) + len > self.max_bytes {
            self.make_room();
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        File::from(openat(&self.directory, name, flags, mode)?).write_all(bytes)
    }

    /// Removes files, those unused for longest first, until a quarter of the room is free.
    fn make_room(&self) {
        let mut files = self.files();
        files.sort_unstable_by_key(|file| file.used);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        for file in &files {
            if bytes <= self.max_bytes / 4 * 3 {
                break;
            }
            if unlinkat(&self.directory, file.name.as_c_str(), AtFlags::empty()).is_ok() {
                bytes -= file.bytes;
            }
        }
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// All regular files; those that vanish meanwhile are left out.
    fn files(&self) -> Vec<Kept> {
        let Ok(entries) = Dir::read_from(self.directory.as_fd()) else { return Vec::new() };
        let kept = |entry: rustix::fs::DirEntry| {
            let stat = statat(&self.directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let is_file =
                rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
            is_file.then(|| Kept {
                name: entry.file_name().to_owned(),
                bytes: stat.st_size as u64,
                used: (stat.st_mtime, stat.st_mtime_nsec as u64),
            })
        };
        entries.filter_map(|entry| kept(entry.ok()?)).collect()
    }
}

/// A file of the cache.
struct Kept {
    name: std::ffi::CString,
    bytes: u64,
    /// When it was last used, seconds and nanoseconds.
    used: (i64, u64),
}

/// The directory of this user's caches.
fn base() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache"));
    }
    // The XDG Base Directory Specification: a relative path is to be ignored.
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
}

#[cfg(test)]
mod tests;
