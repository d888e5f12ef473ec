//! `go tool pprof` reads the recording and comes to the same numbers as the profiler's own report.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use profiler_tests::{record::profiler, skip::skip, view::View};
use serde_json::Value;

use crate::tools::{find, output, recording};

fn go(test: &str) -> Option<PathBuf> {
    let go = find("go");
    if go.is_none() {
        skip(test, "no Go: `cargo xtask setup --tests`");
    }
    go
}

fn pprof(go: &std::path::Path, arguments: &[&str]) -> String {
    let mut command = Command::new(go);
    command.args(["tool", "pprof", "-symbolize=none"]).args(arguments);
    // Its files go to where the recording is.
    let recorded = recording();
    command.env("HOME", recorded.path("")).env("PPROF_TMPDIR", recorded.path(""));
    output(command.arg(recorded.path("profile.pb.gz")))
}

/// Self and total samples per function.
type Table = BTreeMap<String, (u64, u64)>;

fn own_table() -> Table {
    let profile = recording().succeeded();
    let mut table = Table::new();
    for entry in View::of(&profile).entries {
        let Some(leaf) = entry.frames.first() else { continue };
        table.entry(leaf.function.name.clone()).or_default().0 += entry.samples;
        let names: BTreeSet<_> = entry.frames.iter().map(|frame| &frame.function.name).collect();
        for name in names {
            table.entry(name.clone()).or_default().1 += entry.samples;
        }
    }
    table
}

#[test]
fn pprof_top_agrees() {
    let Some(go) = go("pprof_top_agrees") else { return };
    let arguments = [
        "-top",
        "-sample_index=samples",
        "-unit=count",
        "-nodecount=0",
        "-nodefraction=0",
        "-edgefraction=0",
    ];
    let text = pprof(&go, &arguments);
    let mut theirs = Table::new();
    let rows = text.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1);
    for row in rows {
        // flat flat% sum% cum cum% name, of which the name has spaces.
        let mut rest = row.trim_start();
        let mut words = Vec::new();
        for _ in 0..5 {
            let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or_else(|| panic!("{row}"));
            words.push(word);
            rest = behind.trim_start();
        }
        let number = |word: &str| {
            word.trim_end_matches("count").parse::<u64>().unwrap_or_else(|e| panic!("{row}: {e}"))
        };
        let name = rest.trim_end_matches(" (inline)").trim_end_matches(" (partial-inline)");
        let entry = theirs.entry(name.to_owned()).or_default();
        *entry = (entry.0 + number(words[0]), entry.1 + number(words[3]));
    }
    assert!(theirs.len() > 20, "{text}");
    assert_eq!(theirs, own_table());
}

#[test]
fn pprof_traces_agree() {
    let Some(go) = go("pprof_traces_agree") else { return };
    let text = pprof(&go, &["-traces", "-sample_index=samples", "-unit=count"]);
    // A block per stack, behind a line of dashes: labels, then the count with the leaf, then its callers.
    let mut theirs: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for block in text.split("-----------+-------------------------------------------------------\n").skip(1) {
        let mut count = None;
        let mut stack = Vec::new();
        for line in block.lines().map(str::trim) {
            let first = line.split_whitespace().next().unwrap_or_default();
            match count {
                None => {
                    let Ok(number) = first.trim_end_matches("count").parse::<u64>() else { continue };
                    count = Some(number);
                    stack.push(line[first.len()..].trim().to_owned());
                }
                Some(_) if !line.is_empty() => stack.push(line.to_owned()),
                Some(_) => {}
            }
        }
        if let Some(count) = count {
            let stack = stack.into_iter().map(|name| name.trim_end_matches(" (inline)").to_owned()).collect();
            *theirs.entry(stack).or_default() += count;
        }
    }
    let profile = recording().succeeded();
    let mut ours: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for entry in View::of(&profile).entries.iter().filter(|entry| !entry.frames.is_empty()) {
        let stack = entry.frames.iter().map(|frame| frame.function.name.clone()).collect();
        *ours.entry(stack).or_default() += entry.samples;
    }
    assert_eq!(theirs, ours);
}

#[test]
fn pprof_raw_has_everything() {
    let Some(go) = go("pprof_raw_has_everything") else { return };
    let text = pprof(&go, &["-raw"]);
    let profile = recording().succeeded();
    let view = View::of(&profile);
    let section = |from: &str, to: &str| {
        let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from:?}: {text}"));
        rest.split_once(to).map_or(rest, |(section, _)| section).to_owned()
    };
    let samples: u64 = section("Samples:\n", "Locations\n")
        .lines()
        .filter_map(|line| line.split_once(':')?.0.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(samples, view.total());
    let mappings = section("Mappings\n", "\u{0}");
    for module in profile.modules.iter().filter(|module| module.path.starts_with('/')) {
        let line = mappings.lines().find(|line| line.contains(&module.path));
        let line = line.unwrap_or_else(|| panic!("{} is not in\n{mappings}", module.path));
        assert!(module.build_id.as_ref().is_none_or(|id| line.contains(id)), "{line}");
    }
    assert!(text.contains("PeriodType: cpu nanoseconds\nPeriod: 1001001\n"), "{text}");
    for label in ["process:[split-cpp]", "thread:[beta]"] {
        assert!(text.contains(label), "no {label}");
    }
}

/// The report's JSON, which is made by other code than the reading of `View`.
#[test]
fn the_report_agrees_with_the_recording() {
    let path = recording().path("profile.pb.gz");
    let output = profiler(["report".as_ref(), path.as_os_str(), "--json".as_ref()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "profiler.report/1");
    assert_eq!(document["losses"]["lost_samples"], 0);
    let mut table = Table::new();
    for row in document["rows"].as_array().unwrap() {
        let number = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("no {key}: {row}"));
        let entry = table.entry(row["function"].as_str().unwrap().to_owned()).or_default();
        *entry = (entry.0 + number("self_samples"), entry.1 + number("total_samples"));
    }
    let ours = own_table();
    let selfs = |table: &Table| -> BTreeMap<String, u64> {
        table.iter().map(|(name, (own, _))| (name.clone(), *own)).filter(|(_, own)| *own > 0).collect()
    };
    assert_eq!(selfs(&table), selfs(&ours));
    for name in ["split::work(unsigned long)", "inline_outer", "thread_delta_work"] {
        assert_eq!(table[name], ours[name], "{name}");
    }
}
