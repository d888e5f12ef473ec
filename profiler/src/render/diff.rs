//! Two profiles compared: folded stacks with both values, a flamegraph of the change, a table by function.
//!
//! Folded lines are `stack before after`, as differential flamegraph tools read them. Their values are as they are; in the
//! table they are means per second sampled, so that ranges of different length can be compared.

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufWriter, Write},
};

use inferno::flamegraph;
use serde::Serialize;

use super::{
    RenderError, RenderOptions, folded,
    tally::{Tally, no_stack_label},
    text, units,
};
use crate::model::{Profile, Unit, name};

/// Rows of the table.
const MAX_ROWS: usize = 40;

/// Characters of the function's name.
const WIDTH: usize = 60;

/// Two profiles of the same sample types.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// What is compared with.
    pub before: &'a Profile,
    /// What is compared.
    pub after: &'a Profile,
}

/// Writes a comparison in one format.
pub type WriteFn = fn(Pair<'_>, &RenderOptions, &mut dyn Write) -> Result<(), RenderError>;

/// How a comparison is written in the format of that name, if it can be.
pub fn writer(format: &str) -> Option<WriteFn> {
    match format {
        "folded" => Some(folded),
        "svg" => Some(svg),
        "json" => Some(json),
        "text" | "summary" => Some(table),
        _ => None,
    }
}

/// Stacks that one of the two has, with both values, in order.
fn lines(pair: Pair<'_>, options: &RenderOptions) -> Result<Vec<(String, [u64; 2])>, RenderError> {
    let mut sums: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for (side, profile) in [pair.before, pair.after].into_iter().enumerate() {
        for (line, value) in folded::lines(profile, options)? {
            let sum = &mut sums.entry(line).or_default()[side];
            *sum = sum.saturating_add(value);
        }
    }
    let mut lines: Vec<_> = sums.into_iter().collect();
    folded::keep_order(&mut lines);
    lines.sort_unstable();
    Ok(lines)
}

fn folded(pair: Pair<'_>, options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    let mut out = BufWriter::new(out);
    for (line, [before, after]) in lines(pair, options)? {
        writeln!(out, "{line} {before} {after}")?;
    }
    Ok(out.flush()?)
}

/// Widths are those of after; red is more than before, blue is less.
fn svg(pair: Pair<'_>, options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    let lines = lines(pair, &RenderOptions { annotate: false, ..options.clone() })?;
    let total = lines.iter().fold(0u64, |sum, (_, [_, after])| sum.saturating_add(*after));
    if total > super::svg::MAX_TOTAL {
        return Err(RenderError::Overflow { limit: super::svg::MAX_TOTAL });
    }
    let lines: Vec<_> = lines.into_iter().map(|(line, [a, b])| format!("{line} {a} {b}")).collect();
    let mut drawing = flamegraph::Options::default();
    let title = options.title.as_deref().unwrap_or("What changed: red is more, blue is less");
    drawing.title = super::svg::cut(name::clean(title.as_bytes()));
    (drawing.factor, drawing.count_name) = super::svg::scale(pair.after, options);
    if options.inverted {
        drawing.direction = flamegraph::Direction::Inverted;
    }
    drawing.subtitle = options.selection.clone();
    drawing.deterministic = true;
    drawing.font_type = "monospace".to_owned();
    if total == 0 {
        return Ok(super::svg::empty(&drawing.title, "no samples in the second range", out)?);
    }
    Ok(flamegraph::from_lines(&mut drawing, lines.iter().map(String::as_str), out)?)
}

/// A function of one module, before and after.
#[derive(Debug, Serialize)]
struct Row {
    function: String,
    /// `None`: samples without a stack.
    module: Option<String>,
    self_before: i64,
    self_after: i64,
    total_before: i64,
    total_after: i64,
}

/// A function by its name and its module's path.
type Key = (String, Option<String>);

/// Own and total values, before and after.
type Sums = BTreeMap<Key, [[i64; 2]; 2]>;

/// The sums of both, before and after.
fn tallies<'a>(pair: Pair<'a>, options: &RenderOptions) -> Result<[Tally<'a>; 2], RenderError> {
    Ok([Tally::new(pair.before, options)?, Tally::new(pair.after, options)?])
}

fn rows(tallies: &[Tally<'_>; 2]) -> Vec<Row> {
    let mut sums = Sums::new();
    for (side, tally) in tallies.iter().enumerate() {
        add(tally, side, &mut sums);
    }
    let row = |((function, module), [own, total]): (Key, [[i64; 2]; 2])| Row {
        function,
        module,
        self_before: own[0],
        self_after: own[1],
        total_before: total[0],
        total_after: total[1],
    };
    sums.into_iter().map(row).collect()
}

fn add(tally: &Tally<'_>, side: usize, sums: &mut Sums) {
    let profile = tally.profile;
    for cell in &tally.cells {
        let frames = profile.frames(cell.stack);
        let mut places: Vec<Key> =
            frames.map(|frame| (frame.function.name.clone(), Some(frame.module.path.clone()))).collect();
        if places.is_empty() {
            places.push((no_stack_label(profile.stacks[cell.stack.index()].end).to_owned(), None));
        }
        let mut seen = HashSet::new();
        for (depth, place) in places.iter().enumerate() {
            if !seen.insert(place) {
                continue;
            }
            let [own, total] = sums.entry(place.clone()).or_default();
            total[side] = total[side].saturating_add(cell.value);
            if depth == 0 {
                own[side] = own[side].saturating_add(cell.value);
            }
        }
    }
}

fn json(pair: Pair<'_>, options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    #[derive(Serialize)]
    struct Side {
        start: String,
        start_unix_ns: u64,
        duration_ns: u64,
        total: i64,
    }
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        sample_type: &'a str,
        unit: &'static str,
        selection: Option<&'a str>,
        before: Side,
        after: Side,
        rows: Vec<Row>,
    }
    let tallies = tallies(pair, options)?;
    let side = |tally: &Tally<'_>| Side {
        start: units::rfc3339(tally.profile.meta.start_unix_ns),
        start_unix_ns: tally.profile.meta.start_unix_ns,
        duration_ns: tally.profile.meta.duration_ns,
        total: tally.total,
    };
    let sample_type = tallies[1].sample_type;
    let document = Document {
        schema: "profiler.diff/1",
        sample_type: &sample_type.name,
        unit: sample_type.unit.name(),
        selection: options.selection.as_deref(),
        before: side(&tallies[0]),
        after: side(&tallies[1]),
        rows: rows(&tallies),
    };
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, &document).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn table(pair: Pair<'_>, options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    let mut out = BufWriter::new(out);
    let tallies = tallies(pair, options)?;
    let sample_type = tallies[1].sample_type;
    for (name, tally) in ["before", "after"].into_iter().zip(&tallies) {
        let meta = &tally.profile.meta;
        let (start, sampled) = (units::utc(meta.start_unix_ns), units::seconds(meta.duration_ns));
        writeln!(out, "{name:<7} {} in {sampled}, from {start}", units::prose(tally.total, sample_type))?;
    }
    if let Some(selection) = &options.selection {
        writeln!(out, "only    {selection}")?;
    }
    let per_second = |value: i64, profile: &Profile| match profile.meta.duration_ns {
        0 => 0.0,
        ns => value as f64 / scale(sample_type.unit) / (ns as f64 / 1e9),
    };
    let rows = rows(&tallies);
    let rates = |before: i64, after: i64| (per_second(before, pair.before), per_second(after, pair.after));
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| (rates(row.self_before, row.self_after), rates(row.total_before, row.total_after), row))
        .collect();
    let change = |rates: &(f64, f64)| (rates.1 - rates.0).abs();
    rows.sort_by(|a, b| {
        change(&b.0).total_cmp(&change(&a.0)).then_with(|| change(&b.1).total_cmp(&change(&a.1)))
    });
    writeln!(out, "\n{} of each second sampled\n", unit_words(sample_type.unit, &sample_type.name))?;
    writeln!(
        out,
        "{:>12} {:>12} {:>12} {:>12}  {:WIDTH$} MODULE",
        "SELF BEFORE", "SELF AFTER", "SELF CHANGE", "TOTAL CHANGE", "FUNCTION"
    )?;
    for (own, total, row) in rows.iter().take(MAX_ROWS) {
        let function = text::cut(&row.function, WIDTH);
        let module = row.module.as_deref().unwrap_or("");
        let (before, after, change, all) = (own.0, own.1, own.1 - own.0, total.1 - total.0);
        writeln!(
            out,
            "{before:>12.3} {after:>12.3} {change:>+12.3} {all:>+12.3}  {function:WIDTH$} {module}"
        )?;
    }
    if rows.len() > MAX_ROWS {
        writeln!(out, "{} more functions: --format json has all", rows.len() - MAX_ROWS)?;
    }
    for (name, profile) in [("before", pair.before), ("after", pair.after)] {
        for note in &profile.meta.notes {
            writeln!(out, "note, {name}: {note}")?;
        }
    }
    Ok(out.flush()?)
}

const fn scale(unit: Unit) -> f64 {
    match unit {
        Unit::Count => 1.0,
        Unit::Nanoseconds => 1e6,
        Unit::Bytes => 1024.0,
    }
}

fn unit_words(unit: Unit, name: &str) -> String {
    match unit {
        Unit::Count => name.to_owned(),
        Unit::Nanoseconds => format!("ms {name}"),
        Unit::Bytes => format!("KiB {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    fn written(format: &str, before: &Profile, after: &Profile, options: &RenderOptions) -> String {
        let mut out = Vec::new();
        writer(format).unwrap()(Pair { before, after }, options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The fixed profile, and it with each sample of one process twice and those of another one left out.
    fn two() -> (Profile, Profile) {
        let before = fixture::mixed();
        let mut after = before.clone();
        let pid = |sample: &crate::model::Sample| before.threads[sample.thread.index()].pid;
        after.samples.retain(|sample| pid(sample) != 77);
        let doubled = after.samples.iter_mut().filter(|sample| pid(sample) == 100);
        doubled.for_each(|sample| sample.values.iter_mut().for_each(|value| *value *= 2));
        (before, after)
    }

    #[test]
    fn folded_lines_have_both_values() {
        let (before, after) = two();
        let text = written("folded", &before, &after, &RenderOptions::default());
        let sums = text.lines().fold([0u64; 2], |sums, line| {
            let mut words = line.rsplit(' ');
            let (after, before) = (words.next().unwrap(), words.next().unwrap());
            [sums[0] + before.parse::<u64>().unwrap(), sums[1] + after.parse::<u64>().unwrap()]
        });
        assert_eq!(sums, [before.total(0) as u64, after.total(0) as u64]);
        assert!(
            text.lines().any(|line| line.starts_with("kworker/u8:3;") && line.ends_with(" 15 0")),
            "{text}"
        );
        assert!(text.lines().any(|line| line.starts_with("crunch;") && line.ends_with(" 300 600")), "{text}");
    }

    #[test]
    fn the_greatest_change_is_first() {
        let (before, after) = two();
        let text = written("text", &before, &after, &RenderOptions::default());
        let first = text.lines().skip_while(|line| !line.contains("SELF BEFORE")).nth(1).unwrap();
        assert!(first.contains("core::slice::sort::insert_head") && first.contains("+99.99"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&written("json", &before, &after, &RenderOptions::default())).unwrap();
        assert_eq!(json["after"]["total"], after.total(0));
        let own: i64 =
            json["rows"].as_array().unwrap().iter().map(|row| row["self_after"].as_i64().unwrap()).sum();
        assert_eq!(own, after.total(0));
    }

    #[test]
    fn a_flamegraph_is_drawn_by_the_same_lines() {
        let (before, after) = two();
        let svg = written("svg", &before, &after, &RenderOptions::default());
        assert!(svg.contains("crunch") && svg.contains("</svg>"));
        let none = Profile { samples: Vec::new(), ..after };
        assert!(written("svg", &before, &none, &RenderOptions::default()).contains("no samples"));
        assert!(writer("pprof").is_none());
    }
}
