//! Damaged databases: an error or a new beginning, and nothing is thrown away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::{collection::vec, prelude::*};

use super::{ALWAYS, WIDE, windows::*};
use crate::store::{Note, Query, Reader, StoreError, Writer, schema};

/// A database with thirty windows.
fn whole() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    simple(30).iter().for_each(|window| writer.append(window).unwrap());
    drop(writer);
    let path = dir.path().join(schema::FILE);
    assert!(fs::metadata(path.with_file_name("history.db-wal")).is_err(), "the log is in the database");
    fs::read(path).unwrap()
}

fn moved(notes: &[Note]) -> Option<&PathBuf> {
    notes.iter().find_map(|note| match note {
        Note::MovedAside { to, .. } => Some(to),
        _ => None,
    })
}

/// All questions that a reader has; answers do not matter.
fn ask_everything(dir: &Path) {
    let Ok(reader) = Reader::open(dir) else { return };
    let all = Query::all(ALWAYS);
    let _ = (reader.windows(ALWAYS), reader.series(&all), reader.profile(&all));
    let _ = (reader.accounts(&all), reader.host(ALWAYS));
}

/// Uses a database of these bytes. Whatever they are, the next windows are kept, and the bytes too.
fn use_damaged(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    fs::write(&path, bytes).unwrap();
    ask_everything(dir.path());
    let mut writer = match Writer::open(dir.path(), WIDE) {
        Ok(writer) => writer,
        Err(error) => {
            // Its application or version is another one.
            assert!(matches!(error, StoreError::Foreign { .. } | StoreError::Newer { .. }), "{error}");
            assert!(fs::read(&path).unwrap() == bytes, "what is refused is left alone");
            return;
        }
    };
    let windows = simple(32);
    writer.append(&windows[30]).unwrap();
    writer.maintain_at(START + 90_000 * SECOND).unwrap();
    writer.append(&windows[31]).unwrap();
    ask_everything(dir.path());
    let notes = writer.take_notes();
    if let Some(to) = moved(&notes) {
        assert!(fs::metadata(to).unwrap().len() > 0);
        let reader = Reader::open(dir.path()).unwrap();
        assert_eq!(reader.windows(ALWAYS).unwrap().last().map(|info| info.number), Some(32));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn flipped_bytes(flips in vec((any::<prop::sample::Index>(), 1u8..), 1..30)) {
        let mut bytes = WHOLE.with(Clone::clone);
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        use_damaged(&bytes);
    }

    #[test]
    fn cut_off(at: prop::sample::Index) {
        let bytes = WHOLE.with(Clone::clone);
        use_damaged(&bytes[..at.index(bytes.len())]);
    }
}

thread_local! {
    static WHOLE: Vec<u8> = whole();
}

#[test]
fn a_cut_database_is_moved_aside_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    let bytes = whole();
    let cut = &bytes[..bytes.len() - 4096];
    fs::write(&path, cut).unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let notes = writer.take_notes();
    let to = moved(&notes).unwrap();
    assert_eq!(fs::read(to).unwrap(), cut);
    assert!(
        notes[0].to_string().contains("(") && notes[0].to_string().contains("history.db.damaged-"),
        "{}",
        notes[0]
    );
    assert_eq!(Reader::open(dir.path()).unwrap().windows(ALWAYS).unwrap(), []);
}

#[test]
fn a_database_that_is_cut_while_it_is_used_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    fs::write(&path, whole()).unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    assert_eq!(writer.take_notes(), []);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let windows = simple(32);
    writer.append(&windows[30]).unwrap();
    writer.append(&windows[31]).unwrap();
    assert!(moved(&writer.take_notes()).is_some());
    let kept = Reader::open(dir.path()).unwrap().windows(ALWAYS).unwrap();
    assert_eq!(kept.iter().map(|info| info.number).collect::<Vec<_>>(), [31, 32]);
}

#[test]
fn a_database_that_vanishes_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let windows = simple(3);
    writer.append(&windows[0]).unwrap();
    fs::remove_file(&path).unwrap();
    writer.append(&windows[1]).unwrap();
    writer.append(&windows[2]).unwrap();
    assert_eq!(writer.take_notes(), [Note::Vanished { path }]);
    let profile = Reader::open(dir.path()).unwrap().profile(&Query::all(ALWAYS)).unwrap();
    assert_eq!(samples(&profile), sum_of(&windows[1..]));
}

#[test]
fn the_newest_damaged_databases_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    let mut removed = 0;
    for _ in 0..5 {
        fs::write(&path, b"this is no database, and longer than a header of one would have to be, for all that is known of it").unwrap();
        let mut writer = Writer::open(dir.path(), WIDE).unwrap();
        let notes = writer.take_notes();
        assert!(moved(&notes).is_some());
        removed += notes.iter().filter(|note| matches!(note, Note::Removed { .. })).count();
    }
    let names =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("history.db.damaged-")).count(), 2);
    assert_eq!(removed, 3);
}
