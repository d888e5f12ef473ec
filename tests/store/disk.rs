//! A file system without room: told, nothing broken, and on it goes when there is room again.

use std::{fs, path::Path};

use profiler::store::{Reader, StoreError, Writer};
use profiler_tests::history::window;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{WIDE, kept};

/// A small file system in memory, until it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes the room that is left but for so many bytes.
    fn fill(&self, left: u64) {
        let free = rustix::fs::statvfs(self.path()).unwrap();
        let bytes = (free.f_bfree * free.f_frsize).saturating_sub(left);
        fs::write(self.path().join("filler"), vec![1; bytes as usize]).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A reader of a failed test may still be there.
        _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let disk = Disk::new("8m");
    let mut writer = Writer::open(disk.path(), WIDE).unwrap();
    let reader = Reader::open(disk.path()).unwrap();
    let (mut expected, mut number) = (0, 0);
    for left in [100_000, 4096, 300_000, 0] {
        disk.fill(left);
        let mut refused = 0;
        while refused < 20 {
            number += 1;
            assert!(number < 10_000, "the disk does not become full");
            match writer.append(&window(number)) {
                Ok(()) => expected += 1,
                Err(StoreError::Full { .. }) => refused += 1,
                Err(other) => panic!("window {number}: {other}"),
            }
            match writer.maintain() {
                Ok(_) | Err(StoreError::Full { .. }) => {}
                Err(other) => panic!("after window {number}: {other}"),
            }
            assert_eq!(kept(&reader), expected);
        }
        disk.free();
        number += 1;
        writer.append(&window(number)).unwrap();
        expected += 1;
        assert_eq!(kept(&reader), expected);
    }
    assert_eq!(writer.take_notes(), []);
    drop(writer);
    assert_eq!(Writer::open(disk.path(), WIDE).unwrap().take_notes(), []);
    assert_eq!(kept(&reader), expected);
}

#[test]
fn a_store_that_is_begun_on_a_full_disk_begins_when_there_is_room() {
    let disk = Disk::new("4m");
    disk.fill(0);
    let refused = Writer::open(disk.path(), WIDE).unwrap_err();
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    disk.free();
    let mut writer = Writer::open(disk.path(), WIDE).unwrap();
    writer.append(&window(1)).unwrap();
    assert_eq!(kept(&Reader::open(disk.path()).unwrap()), 1);
}
