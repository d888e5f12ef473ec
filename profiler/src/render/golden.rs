//! Golden files: what each text format makes of the fixed profile, in tests/golden. A change of a format shows there.
//!
//! `BLESS=1 cargo test -p profiler golden` rewrites them; the difference is then to be read and committed.

use std::{fs, path::PathBuf};

use super::{RenderOptions, Section, fixture, format_by_name, pprof};

fn check(name: &str, format: &str, options: &RenderOptions) {
    let mut bytes = Vec::new();
    (format_by_name(format).unwrap().write)(&fixture::mixed(), options, &mut bytes).unwrap();
    let mut text = String::from_utf8(bytes).unwrap();
    if format == "json" {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        text = serde_json::to_string_pretty(&value).unwrap() + "\n";
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    for (i, (want, got)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(got, want, "{name}:{} (BLESS=1 accepts the change)", i + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{name} (BLESS=1 accepts the change)");
}

fn options() -> RenderOptions {
    RenderOptions::default()
}

#[test]
fn summary() {
    check("summary.txt", "summary", &options());
}

#[test]
fn report() {
    check("report.txt", "text", &options());
}

#[test]
fn report_clipped_and_merged() {
    let sections = ["process", "module-symbol"].map(|name| Section::by_name(name).unwrap()).to_vec();
    let options = RenderOptions {
        clip_percent: 5.0,
        merge_by_name: true,
        sections,
        selection: Some("comm /./".to_owned()),
        value: Some(1),
        ..options()
    };
    check("report-clipped-merged.txt", "text", &options);
}

#[test]
fn json() {
    check("report.json", "json", &options());
}

#[test]
fn folded() {
    check("stacks.folded", "folded", &options());
}

#[test]
fn folded_inverted_per_thread() {
    check(
        "stacks-inverted.folded",
        "folded",
        &RenderOptions { inverted: true, per_thread: true, ..options() },
    );
}

#[test]
fn svg() {
    check("flamegraph.svg", "svg", &options());
}

/// A stored recording stays readable: the file is compared by what it says, not byte by byte, which would tie it to a
/// version of the compressor.
#[test]
fn recording() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/mixed.pb.gz");
    if std::env::var_os("BLESS").is_some() {
        pprof::write(&fixture::mixed(), &options(), &mut fs::File::create(&path).unwrap()).unwrap();
    }
    assert_eq!(pprof::read(fs::File::open(path).unwrap()).unwrap(), fixture::mixed());
}
