//! What is refused, with its reason.

use std::fs;

use rusqlite::Connection;

use super::{ALWAYS, WIDE, windows::*};
use crate::store::{Query, Reader, StoreError, Writer, lock, schema};

#[test]
fn a_second_writer_is_told_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::open(dir.path(), WIDE).unwrap();
    let refused = Writer::open(dir.path(), WIDE).unwrap_err();
    let me = std::process::id();
    assert!(matches!(refused, StoreError::Locked { pid: Some(pid), .. } if pid == me), "{refused}");
    assert!(refused.to_string().ends_with(&format!("being written by process {me}")), "{refused}");
    assert_eq!(lock::holder(dir.path()), Some(me));
    drop(writer);
    assert_eq!(lock::holder(dir.path()), None);
    Writer::open(dir.path(), WIDE).unwrap();
}

#[test]
fn no_store_is_no_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(dir.path()), Err(StoreError::Missing { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a reader makes nothing");
}

#[test]
fn other_databases_and_schemas_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    let run = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    run("CREATE TABLE theirs (x)");
    assert!(matches!(Writer::open(dir.path(), WIDE), Err(StoreError::Foreign { .. })));
    fs::remove_file(&path).unwrap();
    drop(Writer::open(dir.path(), WIDE).unwrap());
    run("PRAGMA user_version = 99");
    let refused = Writer::open(dir.path(), WIDE).unwrap_err();
    assert!(refused.to_string().ends_with("has schema 99, this profiler knows 1"), "{refused}");
    assert!(matches!(Reader::open(dir.path()), Err(StoreError::Newer { .. })));
    run("PRAGMA user_version = 0");
    assert!(matches!(Reader::open(dir.path()), Err(StoreError::Older { found: 0, .. })));
}

#[test]
fn windows_that_contradict_themselves_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let good = simple(1).remove(0);
    writer.append(&good).unwrap();
    let spoil: [fn(&mut crate::model::window::Window); 8] = [
        |window| window.series_of.clear(),
        |window| window.series_of[0] = 99,
        |window| window.accounts.push(window.accounts[0].clone()),
        |window| window.profile.samples[0].values.clear(),
        |window| window.profile.samples[0].stack.0 = 99,
        |window| window.profile.stacks[0].locations[0].0 = 99,
        |window| window.profile.locations[0].lines.clear(),
        |window| window.profile.sample_types[0].name = "x); DROP TABLE windows; --".to_owned(),
    ];
    for (at, spoil) in spoil.into_iter().enumerate() {
        let mut window = simple(1).remove(0);
        spoil(&mut window);
        let error = writer.append(&window).unwrap_err();
        assert!(matches!(error, StoreError::Window(_) | StoreError::SampleType { .. }), "{at}: {error}");
    }
    let profile = Reader::open(dir.path()).unwrap().profile(&Query::all(ALWAYS)).unwrap();
    assert_eq!(samples(&profile), sum_of(&[good]));
}

#[test]
fn names_are_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let name = "'); DROP TABLE samples; --\" %s ; \u{fffd} 関数";
    let did = Did {
        series: series(1, name),
        thread: name.into(),
        function: name.into(),
        samples: 1,
        cpu_ns: 1,
        offcpu_ns: 1,
    };
    let window = window(1, 0, &[did], &[]);
    writer.append(&window).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    assert_eq!(samples(&reader.profile(&Query::all(ALWAYS)).unwrap()), sum_of(&[window]));
    assert_eq!(reader.series(&Query::all(ALWAYS)).unwrap()[0].series, series(1, name));
}

#[test]
fn queries_choose_by_process_place_pid_and_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    simple(4).iter().for_each(|window| writer.append(window).unwrap());
    let reader = Reader::open(dir.path()).unwrap();
    let regex = |text: &str| Some(regex::Regex::new(text).unwrap());
    let all = || Query::all(ALWAYS);
    let totals = |query: &Query| {
        let profile = reader.profile(query).unwrap();
        let total = |at: usize| (profile.sample_types[at].name.clone(), profile.total(at));
        (0..profile.sample_types.len()).map(total).collect::<Vec<_>>()
    };
    let named =
        |totals: &[(&str, i64)]| totals.iter().map(|(n, t)| ((*n).to_owned(), *t)).collect::<Vec<_>>();
    let web = named(&[("samples", 8), ("cpu", 416_000_000), ("offcpu", 0), ("blocks", 0)]);
    assert_eq!(totals(&Query { process: regex("^web$"), ..all() }), web);
    assert_eq!(totals(&Query { container: regex("web.service"), ..all() }), web);
    assert_eq!(totals(&Query { pid: Some(10), ..all() }), web);
    assert_eq!(totals(&Query { pid: Some(99), ..all() })[0].1, 0);
    let events = |name: &str| Query { events: vec![name.to_owned()], ..all() };
    assert_eq!(totals(&events("offcpu")), named(&[("offcpu", 36_000_000_000), ("blocks", 4)]));
    assert_eq!(totals(&events("samples")), named(&[("samples", 8)]));
    let error = reader.profile(&events("x")).unwrap_err();
    assert_eq!(error.to_string(), "no event \"x\"; the store has samples, cpu, offcpu, blocks");
    let series = reader.series(&all()).unwrap();
    assert_eq!(series.iter().map(|info| info.series.comm.as_str()).collect::<Vec<_>>(), ["web", "db"]);
    assert_eq!((series[0].windows, series[0].cpu_ns), (4, 440_000_000));
    assert_eq!(series[1].last_unix_ns, START + 40 * SECOND);
    assert_eq!(reader.accounts(&events("cpu")).unwrap().len(), 1);
    reader.accounts(&events("offcpu")).unwrap_err();
}
