//! Caches in a directory of the test's own, damaged on purpose.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    thread,
};

use super::*;
use crate::unwind::{rules, table::Pages};

fn table(rows: u32) -> Table {
    let mut pages = Pages::default();
    for row in 0..rows {
        pages.push(row * 16, (row % 2) as u16 + 1);
    }
    let (pages, rows) = pages.finish();
    Table { arch: Arch::X86_64, first_page: 1, pages, rows, rules: vec![0, 8, 1 << 8 | 1] }
}

fn key(build_id: &[u8]) -> Key<'_> {
    Key { build_id, owner: 1000, arch: Arch::X86_64 }
}

fn large() -> Table {
    table(2 * MIN_ROWS as u32)
}

#[test]
fn a_table_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_below(dir.path(), MAX_BYTES).unwrap();
    let table = large();
    assert_eq!(cache.load(&key(b"id")), None);
    cache.store(&key(b"id"), &table).unwrap();
    assert_eq!(cache.load(&key(b"id")).as_ref(), Some(&table));
    let again = Cache::open_below(dir.path(), MAX_BYTES).unwrap();
    assert_eq!(again.load(&key(b"id")), Some(table));
    assert_eq!(again.load(&key(b"other")), None);
    assert_eq!(again.load(&Key { owner: 0, ..key(b"id") }), None, "another owner's file");
    assert_eq!(again.load(&Key { arch: Arch::Aarch64, ..key(b"id") }), None);
    let unwind = dir.path().join("profiler/unwind");
    assert_eq!(fs::metadata(&unwind).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&unwind).unwrap().count(), 1, "no temporary file is left");
}

/// libc's table takes some milliseconds to make.
#[test]
fn the_table_of_a_file_is_made_once() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("libc.so")).expect("this test is linked with libc");
    let libc = File::open(&line[line.find('/').unwrap()..]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_below(dir.path(), MAX_BYTES).unwrap();
    let made = cache.table(&libc).unwrap();
    assert_eq!(made, eh_frame::build(Bytes::File(&libc)).unwrap().0);
    let kept = fs::read_dir(dir.path().join("profiler/unwind")).unwrap().count();
    assert_eq!(kept, 1);
    assert_eq!(cache.table(&libc).unwrap(), made);
}

#[test]
fn small_tables_and_those_without_build_id_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_below(dir.path(), MAX_BYTES).unwrap();
    cache.store(&key(b"id"), &table(100)).unwrap();
    cache.store(&key(b""), &large()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("profiler/unwind")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_others_can_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let profiler = dir.path().join("profiler");
    fs::create_dir(&profiler).unwrap();
    fs::set_permissions(&profiler, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Cache::open_below(dir.path(), MAX_BYTES).unwrap_err();
    assert!(matches!(refused, CacheError::NotOurs { mode: 0o777, .. }), "{refused}");
    fs::remove_dir(&profiler).unwrap();
    symlink("/tmp", &profiler).unwrap();
    let refused = Cache::open_below(dir.path(), MAX_BYTES).unwrap_err();
    assert!(matches!(refused, CacheError::Directory { .. }), "{refused}");
}

#[test]
fn damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_below(dir.path(), MAX_BYTES).unwrap();
    cache.store(&key(b"id"), &large()).unwrap();
    let path = dir.path().join("profiler/unwind").join(key(b"id").name());
    let whole = fs::read(&path).unwrap();
    for at in (0..200).chain(whole.len() - 40..whole.len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(cache.load(&key(b"id")), None, "byte {at}");
    }
    for len in [0, 7, 11, 100, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert_eq!(cache.load(&key(b"id")), None, "{len} bytes");
    }
    fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
    assert_eq!(cache.load(&key(b"id")), None, "one byte more");
    cache.store(&key(b"id"), &large()).unwrap();
    assert!(cache.load(&key(b"id")).is_some(), "written anew");
}

/// A right checksum does not vouch for the content.
#[test]
fn an_unsound_table_is_not_taken() {
    let mut unsound = large();
    unsound.rules.truncate(usize::from(rules::UNSUPPORTED) + 1);
    assert_eq!(format::decode(&key(b"id"), &format::encode(&key(b"id"), &unsound)), None);
}

#[test]
fn what_is_no_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_below(dir.path(), MAX_BYTES).unwrap();
    let path = dir.path().join("profiler/unwind").join(key(b"id").name());
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(cache.load(&key(b"id")), None, "and does not block");
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert_eq!(cache.load(&key(b"id")), None);
}

#[test]
fn the_tables_unused_for_longest_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let table = large();
    let len = format::encode(&key(b"x"), &table).len() as u64;
    let cache = Cache::open_below(dir.path(), 4 * len).unwrap();
    let set_age = |id: &[u8], seconds: u64| {
        let path = dir.path().join("profiler/unwind").join(key(id).name());
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(seconds)).unwrap();
    };
    for (id, age) in [(b"1", 400), (b"2", 300), (b"3", 200), (b"4", 100)] {
        cache.store(&key(id), &table).unwrap();
        set_age(id, age);
    }
    cache.load(&key(b"1")).unwrap();
    cache.store(&key(b"5"), &table).unwrap();
    let kept: Vec<bool> = [b"1", b"2", b"3", b"4", b"5"].map(|id| cache.load(&key(id)).is_some()).to_vec();
    assert_eq!(kept, [true, false, false, true, true]);
}

#[test]
fn several_may_write_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_below(dir.path(), MAX_BYTES).unwrap();
    let table = large();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| cache.store(&key(b"id"), &table).unwrap());
        }
    });
    assert_eq!(cache.load(&key(b"id")), Some(table));
}
