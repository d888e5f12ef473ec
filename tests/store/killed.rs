//! A writer that is killed leaves whole windows: all that it said were kept, and at most the one after them.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use profiler::store::{Reader, Writer};

use super::{ALWAYS, WIDE, kept};

/// How often.
const KILLS: usize = 50;

#[test]
fn a_killed_writer_leaves_whole_windows() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for round in 0..KILLS {
        let mut writer = Command::new(env!("CARGO_BIN_EXE_store-writer"))
            .arg(dir.path())
            .arg((expected + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
        // Each time after another number of windows; where it is in the next one is chance.
        for _ in 0..=round % 7 {
            expected = said.next().expect("the writer goes on").unwrap().parse().unwrap();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        // What it said before it was gone.
        expected = said.map_while(Result::ok).filter_map(|line| line.parse().ok()).last().unwrap_or(expected);
        let reader = Reader::open(dir.path()).unwrap();
        let last = kept(&reader);
        let windows = reader.windows(ALWAYS).unwrap();
        let numbers: Vec<u64> =
            windows.iter().flat_map(|window| window.number..=window.last_number).collect();
        assert!(last == expected || last == expected + 1, "round {round}: {last} after {expected}");
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "round {round}");
        expected = last;
    }
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    assert_eq!(writer.take_notes(), []);
}
