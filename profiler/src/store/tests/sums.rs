//! Sums are exact: through appending, merging and removing.

use super::{ALWAYS, WIDE, windows::*};
use crate::store::{Query, Reader, Writer};

#[test]
fn what_is_kept_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    let windows = simple(7);
    for window in &windows {
        writer.append(window).unwrap();
    }
    let reader = Reader::open(dir.path()).unwrap();
    let profile = reader.profile(&Query::all(ALWAYS)).unwrap();
    assert_eq!(samples(&profile), sum_of(&windows));
    assert_eq!(numbers(&reader.accounts(&Query::all(ALWAYS)).unwrap()), numbers_in(&windows));
    assert_eq!(reader.host(ALWAYS).unwrap().numbers[0].value, 7 * 40 * SECOND);
    let kept = reader.windows(ALWAYS).unwrap();
    assert_eq!(kept.iter().map(|window| window.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert!(kept.iter().zip(&windows).all(|(kept, window)| kept.start_unix_ns == window.start_unix_ns
        && kept.duration_ns == window.duration_ns
        && kept.boot_id == window.boot_id
        && kept.rates == window.rates
        && kept.merged == 1
        && kept.lost_samples == window.number % 2));
    assert_eq!(profile.meta.duration_ns, 70 * SECOND);
    assert_eq!(profile.meta.ticks, 7 * 760);
    assert_eq!(profile.losses.counters["ring_full"], 4);
    assert_eq!(profile.losses.counters["watched"], 0);
    assert_eq!(profile.losses.lost_samples(), 4);
    assert_eq!(profile.cost.ebpf_runs, 49);
    assert_eq!(profile.meta.notes, [""; 0]);
    assert_eq!(writer.take_notes(), []);
}
