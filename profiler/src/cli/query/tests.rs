//! Queries of a store that the test makes.

use std::fs;

use clap::Parser;

use super::*;
use crate::store::{
    Limits, Writer,
    tests::windows::{SECOND, START, simple},
};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    query: QueryArgs,
}

/// Windows from 03:00:00 to 03:02:00, those from 03:01:00 to 03:01:20 missing.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_age: Duration::from_secs(86_400 * 365), max_bytes: 1 << 30 };
    let mut writer = Writer::open(dir.path(), limits).unwrap();
    for window in simple(12).into_iter().filter(|window| !(7..=8).contains(&window.number)) {
        writer.append(&window).unwrap();
    }
    dir
}

fn query(dir: &tempfile::TempDir, args: &[&str]) -> Result<String, Failure> {
    let store = dir.path().to_str().unwrap();
    let cli = Cli::try_parse_from(["query", "--store", store].iter().chain(args)).unwrap();
    let mut out = Vec::new();
    run_at(&cli.query, START + 120 * SECOND, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn error(dir: &tempfile::TempDir, args: &[&str]) -> (Exit, String) {
    let failure = query(dir, args).unwrap_err();
    (failure.exit, failure.to_string())
}

#[test]
fn a_summary_is_shown_by_default() {
    let dir = store();
    let text = query(&dir, &[]).unwrap();
    assert!(text.starts_with("20 samples in 100 s, cpu-clock at 19 Hz, all processes, kestrel\n"), "{text}");
    assert!(text.contains("web (10): 20 samples, 100.0 %"), "{text}");
    let text = query(&dir, &["--from", "03:00", "--to", "03:00:30", "--process", "^web$"]).unwrap();
    assert!(text.starts_with("6 samples in 30.0 s"), "{text}");
    assert!(text.contains("only process /^web$/"), "{text}");
    let text = query(&dir, &["--last", "30s", "--event", "offcpu", "--container", "db.service"]).unwrap();
    assert!(text.starts_with("27.0 s offcpu in 30.0 s"), "{text}");
}

#[test]
fn outputs_have_all_formats() {
    let dir = store();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let files = ["a.svg", "a.folded", "a.pb.gz", "a.json", "a.txt"].map(path);
    let args: Vec<_> = files.iter().flat_map(|file| ["-o", file.as_str()]).collect();
    assert_eq!(query(&dir, &args).unwrap(), "");
    let folded = fs::read_to_string(&files[1]).unwrap();
    assert_eq!(folded, "web;main;f0 8\nweb;main;f1 6\nweb;main;f2 6\n");
    assert_eq!(query(&dir, &["-o", "-", "--format", "folded"]).unwrap(), folded);
    let profile = super::super::report::read(files[2].as_ref()).unwrap();
    assert_eq!(profile.total(0), 20);
    let text = fs::read_to_string(&files[4]).unwrap();
    let gap = "no windows: from 2026-01-02 02:47:00.000 UTC to 2026-01-02 03:00:00.000 UTC; from";
    assert!(text.replace("\n            ", " ").contains(gap), "{text}");
    assert!(text.contains("worker") && !text.contains("worker (0)"), "{text}");
}

#[test]
fn windows_gaps_and_series_are_listed() {
    let dir = store();
    let text = query(&dir, &["--list"]).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[1].starts_with(
            "2026-01-02 03:00:00.000 UTC  2026-01-02 03:01:00.000 UTC        6     10.0 s        3  19 Hz"
        ),
        "{text}"
    );
    assert!(
        lines[3].starts_with(
            "no windows from 2026-01-02 03:01:00.000 UTC to 2026-01-02 03:01:20.000 UTC (2 windows)"
        ),
        "{text}"
    );
    assert!(text.contains("    1.10 s         20       0 ns       10       10  web [web.service]"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&query(&dir, &["--list", "--json"]).unwrap()).unwrap();
    assert_eq!(json["windows"].as_array().unwrap().len(), 10);
    assert_eq!(json["rows"][0]["totals"][0]["value"], 20);
    assert_eq!(json["rows"][1]["comm"], "db");
}

#[test]
fn accounts_are_exact() {
    let dir = store();
    let text = query(&dir, &["--accounts"]).unwrap();
    let row = text.lines().nth(1).unwrap();
    assert!(row.trim_start().starts_with("1.10 s") && row.ends_with("      10  web [web.service]"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&query(&dir, &["--accounts", "--json"]).unwrap()).unwrap();
    assert_eq!(json["rows"][0]["numbers"][0]["value"], 1_100_000_000u64);
    assert_eq!(json["host"]["numbers"][0]["value"], 400 * SECOND);
    assert!(query(&dir, &["--accounts", "--event", "syscalls"]).unwrap().starts_with("  SYSCALLS "));
}

#[test]
fn two_ranges_are_compared() {
    let dir = store();
    let compared = ["--from", "03:01:20", "--to", "03:02:00", "--diff", "03:00..03:00:20"];
    let text = query(&dir, &[&compared[..], &["-o", "-", "--format", "folded"]].concat()).unwrap();
    assert_eq!(text, "web;main;f0 0 4\nweb;main;f1 2 2\nweb;main;f2 2 2\n");
    let text = query(&dir, &compared).unwrap();
    assert!(
        text.starts_with(
            "before  4 samples in 20.0 s, from 2026-01-02 03:00:00.000 UTC\nafter   8 samples in 40.0 s"
        ),
        "{text}"
    );
    assert!(text.contains("       0.000        0.100       +0.100       +0.100  f0 "), "{text}");
    let (exit, message) = error(&dir, &[&compared[..], &["-o", "x.pb.gz"]].concat());
    assert_eq!(
        (exit, message.lines().next().unwrap()),
        (Exit::Usage, "profiler: --diff cannot be written as pprof")
    );
}

#[test]
fn errors_have_their_exit_code_and_what_mends_them() {
    let dir = store();
    let empty = tempfile::tempdir().unwrap();
    let (exit, message) = error(&empty, &[]);
    assert_eq!(exit, Exit::NoTarget);
    assert!(
        message.ends_with(
            "there is no store\n  start the daemon (`profiler daemon`), or name its directory: --store DIR"
        ),
        "{message}"
    );
    let (exit, message) = error(&dir, &["--from", "02:00", "--to", "02:10"]);
    assert_eq!(exit, Exit::NoTarget);
    assert!(
        message.starts_with("profiler: there are no windows from 2026-01-02 02:00:00.000 UTC to"),
        "{message}"
    );
    let (exit, message) = error(&dir, &["--from", "04:00"]);
    assert_eq!(exit, Exit::Usage);
    assert!(
        message.contains("its start is still to come: it is 2026-01-02 03:02:00.000 UTC now"),
        "{message}"
    );
    let (exit, message) = error(&dir, &["--event", "x"]);
    assert_eq!(
        (exit, message.as_str()),
        (Exit::Usage, "profiler: no event \"x\"; the store has samples, cpu, offcpu, blocks")
    );
    assert_eq!(error(&dir, &["--list", "-o", "x.svg"]).0, Exit::Usage);
    fs::write(dir.path().join("history.db"), [7; 5000]).unwrap();
    let (exit, message) = error(&dir, &[]);
    assert_eq!(exit, Exit::Failure, "{message}");
    assert!(message.contains("the database is damaged") && message.contains("moves it aside"), "{message}");
    for bad in [["--from", "x"], ["--last", "0s"], ["--diff", "03:00"], ["--process", "("]] {
        let args = ["query"].into_iter().chain(bad);
        assert!(Cli::try_parse_from(args).is_err(), "{bad:?}");
    }
}

#[test]
fn rows_of_json_have_these_fields() {
    let dir = store();
    let first = |args: &[&str], rows: &str| {
        let text = query(&dir, args).unwrap();
        let (_, rest) = text.split_once(rows).unwrap();
        // Up to the next row, or to the list in this one.
        rest.split(",{").next().unwrap().split(":[{").next().unwrap().to_owned()
    };
    assert_eq!(
        first(&["--list", "--json"], "\"windows\":["),
        concat!(
            r#"{"start":"2026-01-02T03:00:00.000Z","start_unix_ns":1767322800000000000,"#,
            r#""end_unix_ns":1767322810000000000,"duration_ns":10000000000,"number":1,"#,
            r#""last_number":1,"merged":1,"run":1,"boot_id":"boot-1","frequency_hz":19,"#,
            r#""min_block_ns":1000000,"blocked_every":1,"stack_depth":127,"lost_samples":1,"#,
            r#""notes":[]}"#
        )
    );
    assert_eq!(
        first(&["--list", "--json"], "\"rows\":["),
        concat!(
            r#"{"pid":10,"start_ns":5000000010,"comm":"web","#,
            r#""cgroup":"/system.slice/web.service","unit":"web.service","runtime":null,"#,
            r#""container":null,"pod":null,"windows":10,"first_unix_ns":1767322800000000000,"#,
            r#""last_unix_ns":1767322920000000000,"cpu_ns":1100000000,"totals""#
        )
    );
    assert_eq!(
        first(&["--accounts", "--json"], "\"rows\":["),
        concat!(
            r#"{"pid":10,"start_ns":5000000010,"comm":"web","#,
            r#""cgroup":"/system.slice/web.service","unit":"web.service","runtime":null,"#,
            r#""container":null,"pod":null,"numbers""#
        )
    );
}
