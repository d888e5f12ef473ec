//! The table of files: how many are open, which are the same.

use std::{fs, io, path::Path};

use profiler::{
    model::Reason,
    perf::record::FileIdentity,
    symbolize::{
        module::{Module, ModuleKey, Modules},
        open::Mapped,
    },
};

use crate::program::{PROGRAM, compile};

/// No process has this id, so that files are opened by path.
const NOBODY: u32 = 1 << 23;

struct Table(Modules);

impl Table {
    fn file(&mut self, path: &Path, identity: &FileIdentity) -> ModuleKey {
        let path = path.to_str().unwrap().as_bytes();
        self.0.file(Mapped { pid: NOBODY, parent: 0, start: 0x1000, end: 0x2000, path, identity })
    }

    fn take(&mut self, key: ModuleKey) -> Result<fs::File, Reason> {
        match self.0.take(key) {
            Module::File(file) => file.file(),
            other => panic!("{other:?} is no file"),
        }
    }
}

/// What the kernel would report, by `stat` (the same on the file systems that tests run on).
fn inode(path: &Path) -> FileIdentity {
    let stat = rustix::fs::stat(path).unwrap();
    let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    FileIdentity::Inode { device, inode: stat.st_ino }
}

#[test]
fn few_files_are_open_and_the_others_are_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..4).map(|n| dir.path().join(format!("file{n}"))).collect();
    let mut table = Table(Modules::new(2));
    let keys: Vec<ModuleKey> = paths
        .iter()
        .map(|path| {
            fs::write(path, path.to_str().unwrap()).unwrap();
            table.file(path, &inode(path))
        })
        .collect();
    assert_eq!(table.0.open_files(), 2);
    // The last two are open. Of the first two, one changes.
    fs::write(&paths[1], "changed, and of another size").unwrap();
    let text = |file| io::read_to_string(file).unwrap();
    assert_eq!(table.take(keys[0]).map(text), Ok(paths[0].to_str().unwrap().to_owned()));
    assert_eq!(table.take(keys[1]).map(text), Err(Reason::FileChanged));
    assert_eq!(table.take(keys[3]).map(text), Ok(paths[3].to_str().unwrap().to_owned()));
}

#[test]
fn a_closed_file_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let mut table = Table(Modules::new(1));
    fs::write(&first, "1").unwrap();
    fs::write(&second, "2").unwrap();
    let key = table.file(&first, &inode(&first));
    table.file(&second, &inode(&second));
    fs::remove_file(&first).unwrap();
    assert_eq!(table.take(key).map(|_| ()), Err(Reason::FileGone));
}

#[test]
fn one_file_under_two_identities_and_two_paths() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "program", PROGRAM, &["-O1"]);
    let copy = dir.path().join("copy");
    fs::copy(&program, &copy).unwrap();
    let file = fs::File::open(&program).unwrap();
    let headers = profiler::elf::read_headers(profiler::elf::Bytes::File(&file)).unwrap();
    let mut table = Table(Modules::new(10));
    let by_inode = table.file(&program, &inode(&program));
    let by_id = table.file(&program, &FileIdentity::BuildId(headers.build_id.unwrap()));
    let by_copy = table.file(&copy, &inode(&copy));
    assert_eq!((by_id, by_copy), (by_inode, by_inode));
    assert_eq!(table.0.open_files(), 1);
}

#[test]
fn two_files_that_share_an_inode_number() {
    // Seen on btrfs, where mappings show one device for all subvolumes; here the same number is claimed for both.
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    fs::write(&first, "1").unwrap();
    fs::write(&second, "2").unwrap();
    let mut table = Table(Modules::new(10));
    let identity = inode(&first);
    assert_ne!(table.file(&first, &identity), table.file(&second, &identity));
}

#[test]
fn memory_with_a_path_is_jit_code_if_it_is_no_elf_file() {
    let identity = FileIdentity::Inode { device: (0, 1), inode: 7 };
    let mut table = Table(Modules::new(10));
    for path in ["/memfd:doublemapper (deleted)", "/dev/zero (deleted)"] {
        assert_eq!(table.file(Path::new(path), &identity), ModuleKey::ANONYMOUS);
    }
}
