//! Tables of real files against gimli's own evaluation of their unwind information.

// The files are those that the test itself runs from, and the oracle knows the registers of this architecture.
#![cfg(target_arch = "x86_64")]

mod oracle;

use std::{collections::BTreeSet, fs, path::PathBuf};

use profiler::{elf::Bytes, unwind::eh_frame};

use crate::oracle::Oracle;

/// Files that this test itself runs from: its own executable, libc, libgcc_s, the dynamic loader.
fn own_files() -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let paths: BTreeSet<PathBuf> = maps
        .lines()
        .filter(|line| line.contains(" r-xp "))
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .collect();
    paths.into_iter().collect()
}

/// Every place where some rule begins or ends, and addresses between, give the caller that gimli's rows give.
#[test]
fn every_row_says_what_gimli_says() {
    let files = own_files();
    assert!(files.len() >= 2, "the executable and libc: {files:?}");
    for path in files {
        let bytes = fs::read(&path).expect("a file that we run from can be read");
        let (table, stats) = eh_frame::build(Bytes::Memory(&bytes)).expect("it has .eh_frame");
        let oracle = Oracle::new(&bytes);
        let checked = oracle.compare(&table);
        let name = path.display();
        assert!(checked.rows as u64 >= stats.functions, "{name}: {checked:?}, {stats:?}");
        let share = checked.unsupported as f64 / checked.rows as f64;
        // Behind a signal handler.
        assert!(checked.signal_frames > 0 || !name.to_string().contains("libc.so"), "{name}: {checked:?}");
        assert!(share < 0.01, "{name}: {checked:?}, {stats:?}");
    }
}

/// The vDSO is an image in memory, without a file.
#[test]
fn the_vdso() {
    let image = profiler::symbolize::vdso::read_own().expect("every kernel of this architecture maps one");
    let (table, stats) = eh_frame::build(Bytes::Memory(&image)).expect("it has .eh_frame");
    let checked = Oracle::new(&image).compare(&table);
    assert!(stats.functions > 0 && checked.unsupported == 0, "{checked:?}, {stats:?}");
}

/// The control: the comparison notices one rule that is off by a word.
#[test]
#[should_panic(expected = "differs at")]
fn a_wrong_rule_is_noticed() {
    let path = &own_files()[0];
    let bytes = fs::read(path).expect("a file that we run from can be read");
    let (mut table, _) = eh_frame::build(Bytes::Memory(&bytes)).expect("it has .eh_frame");
    // The last rule to be met is a rare one. Bits 8 to 31 are the offset of the CFA.
    let rule = table.rules.last_mut().expect("there are rules");
    *rule = rule.wrapping_add(8 << 8);
    Oracle::new(&bytes).compare(&table);
}
