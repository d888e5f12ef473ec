//! One process writes to a store: a lock on a file beside the database, which the kernel gives back however the process
//! ends. The file holds the pid of the one that has it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::error::StoreError;

/// Name of the file in the store's directory.
const FILE: &str = "lock";

/// The right to write, as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

impl Lock {
    /// Makes the directory, for its owner only, if it is not there, and locks it.
    ///
    /// # Errors
    /// [`StoreError::Locked`], or what keeps the file from being made. A file system without room is no hindrance to the
    /// lock.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let fail = |cause| StoreError::io(dir, cause);
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        }
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|cause| StoreError::io(&path, cause))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { dir: dir.to_owned(), pid: pid(&mut file) });
            }
            Err(errno) => return Err(StoreError::io(&path, errno.into())),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        match written {
            // The pid is for another one's message only.
            Err(cause) if cause.kind() != io::ErrorKind::StorageFull => Err(StoreError::io(&path, cause)),
            _ => Ok(Self(file)),
        }
    }
}

/// The process that wrote the file.
fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that writes to the store, if one does.
pub fn holder(dir: &Path) -> Option<u32> {
    let mut file = fs::File::open(dir.join(FILE)).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => pid(&mut file),
        _ => None,
    }
}
