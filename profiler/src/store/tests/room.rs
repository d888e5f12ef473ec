//! The store stays within its bytes, and keeps nothing that no window uses.

use super::{ALWAYS, WIDE, maintain, windows::*};
use crate::store::{Limits, Query, Reader, Writer, schema};

/// Windows that share little: each has functions of its own.
fn fat(number: u64) -> crate::model::window::Window {
    let did = |at| Did {
        series: series(10 + at as u32 + 10 * (number % 50) as u32, "web"),
        thread: format!("worker-{number}-{at}"),
        function: format!("a_function_with_a_rather_long_name_{number}_{at}"),
        samples: 1,
        cpu_ns: 52_000_000,
        offcpu_ns: 0,
    };
    let did: Vec<_> = (0..30).map(did).collect();
    window(number, number * 10, &did, &[])
}

fn rows(dir: &std::path::Path, table: &str) -> i64 {
    let connection = schema::open_to_read(&dir.join(schema::FILE)).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn the_oldest_windows_make_room() {
    const MAX_BYTES: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), Limits { max_bytes: MAX_BYTES, ..WIDE }).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let mut evicted = 0;
    for number in 1..=400 {
        writer.append(&fat(number)).unwrap();
        let done = writer.maintain_at(START + number * 10 * SECOND).unwrap();
        evicted += done.evicted;
        assert!(writer.bytes() <= MAX_BYTES, "{} bytes after window {number}", writer.bytes());
    }
    let kept = reader.windows(ALWAYS).unwrap();
    assert_eq!(kept.iter().map(|info| info.merged).sum::<u64>() + evicted, 400);
    assert!(kept.len() > 50, "there is room for more than {} windows", kept.len());
    assert_eq!(kept.last().unwrap().last_number, 400);
    let profile = reader.profile(&Query::all(ALWAYS)).unwrap();
    let merged: u64 = kept.iter().map(|info| info.merged).sum();
    assert_eq!(profile.total(0) as u64, 30 * merged);
}

#[test]
fn what_no_window_uses_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    for number in 1..=200 {
        writer.append(&fat(number)).unwrap();
    }
    let bytes = writer.bytes();
    let late = fat(100_000);
    writer.append(&late).unwrap();
    writer.set_limits(Limits { max_age: std::time::Duration::from_secs(3600), ..WIDE });
    let done = maintain(&mut writer, late.start_unix_ns + 10 * SECOND);
    assert_eq!(done.expired, 200);
    let expected = [
        ("windows", 1),
        ("samples", 30),
        ("stacks", 30),
        ("locations", 31),
        ("functions", 31),
        ("modules", 1),
        ("thread_names", 30),
        ("series", 30),
        ("places", 1),
        ("circumstances", 1),
    ];
    for (table, count) in expected {
        assert_eq!(rows(dir.path(), table), count, "{table}");
    }
    for _ in 0..20 {
        maintain(&mut writer, late.start_unix_ns + 10 * SECOND);
    }
    writer.set_limits(Limits { max_bytes: 200_000, ..WIDE });
    maintain(&mut writer, late.start_unix_ns + 10 * SECOND);
    assert!(writer.bytes() < bytes / 4, "{} of {bytes}", writer.bytes());
    // Ids of what was removed are not taken for those of others.
    writer.append(&fat(200_000)).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let profile = reader.profile(&Query::all(ALWAYS)).unwrap();
    assert_eq!(samples(&profile), sum_of(&[late, fat(200_000)]));
}
