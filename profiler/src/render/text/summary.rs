//! The summary on one screen: the top functions of the top processes, by own and by total value.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, Write},
};

use super::cut;
use crate::{
    model::{FunctionId, ModuleId, StackId},
    render::{
        RenderOptions,
        tally::{Cell, Tally, no_stack_label, process_label},
        units,
    },
};

/// Processes with less than this share, in percent, are put together with others of their name.
const APART_PERCENT: f64 = 2.0;

/// Groups of processes shown.
const MAX_GROUPS: usize = 10;

/// Functions shown per group.
const MAX_FUNCTIONS: usize = 8;

/// Functions below this share of the total, in percent, are not shown, but at least one is.
const MIN_PERCENT: f64 = 0.5;

/// Characters of the function and module columns.
const WIDTHS: (usize, usize) = (52, 22);

/// A function and its module; `None`: a sample without a stack.
type Place = Option<(ModuleId, FunctionId)>;

/// Writes the summary.
pub fn write(tally: &Tally<'_>, options: &RenderOptions, out: &mut dyn Write) -> io::Result<()> {
    head(tally, options, out)?;
    if tally.cells.is_empty() {
        return writeln!(out, "no samples");
    }
    let mut groups: Vec<_> = groups(tally, options).into_iter().collect();
    let sum = |cells: &[&Cell]| cells.iter().fold(0i64, |sum, cell| sum.saturating_add(cell.value));
    groups.sort_by_cached_key(|(label, cells)| (std::cmp::Reverse(sum(cells)), label.clone()));
    let width = WIDTHS.0;
    writeln!(out, "{:>17} {:>17}  {:width$} MODULE", "SELF", "TOTAL", "FUNCTION")?;
    let mut known = HashMap::new();
    for (label, cells) in groups.iter().take(MAX_GROUPS) {
        let value = sum(cells);
        let (percent, value) = (units::percent(value, tally.total), units::prose(value, tally.sample_type));
        writeln!(out, "{}: {value}, {percent:.1} %", cut(label, 60))?;
        functions(tally, &rows(tally, cells, &mut known), out)?;
    }
    if let Some(rest) = groups.get(MAX_GROUPS..).filter(|rest| !rest.is_empty()) {
        let value = rest.iter().fold(0i64, |all, (_, cells)| all.saturating_add(sum(cells)));
        let (percent, value) = (units::percent(value, tally.total), units::prose(value, tally.sample_type));
        writeln!(out, "{} more processes or groups: {value}, {percent:.1} %", rest.len())?;
    }
    Ok(())
}

fn head(tally: &Tally<'_>, options: &RenderOptions, out: &mut dyn Write) -> io::Result<()> {
    let meta = &tally.profile.meta;
    let total = units::prose(tally.total, tally.sample_type);
    write!(out, "{total} in {}", units::seconds(meta.duration_ns))?;
    if meta.frequency_hz != 0 {
        write!(out, ", {} at {} Hz", meta.sampler, meta.frequency_hz)?;
    }
    for part in [&meta.target, &meta.host].into_iter().filter(|part| !part.is_empty()) {
        write!(out, ", {part}")?;
    }
    if let Some(selection) = &options.selection {
        write!(out, ", only {selection}")?;
    }
    writeln!(out, "\n")
}

/// Cells by process; small processes of one name together.
fn groups<'a>(tally: &'a Tally<'_>, options: &RenderOptions) -> BTreeMap<String, Vec<&'a Cell>> {
    let mut processes: BTreeMap<String, Vec<&Cell>> = BTreeMap::new();
    for cell in &tally.cells {
        let label = process_label(tally.profile, cell.thread, options.merge_by_name);
        processes.entry(label).or_default().push(cell);
    }
    if options.merge_by_name {
        return processes;
    }
    let mut small: BTreeMap<&str, Vec<(String, Vec<&Cell>)>> = BTreeMap::new();
    let mut groups = BTreeMap::new();
    for (label, cells) in processes {
        let value = cells.iter().fold(0i64, |sum, cell| sum.saturating_add(cell.value));
        if units::percent(value, tally.total) < APART_PERCENT {
            let name = &tally.profile.threads[cells[0].thread.index()].process;
            small.entry(name).or_default().push((label, cells));
        } else {
            groups.insert(label, cells);
        }
    }
    for (name, mut members) in small {
        if members.len() == 1 {
            groups.extend(members.pop());
        } else {
            let label = format!("{name} ({} processes)", members.len());
            groups.insert(label, members.into_iter().flat_map(|(_, cells)| cells).collect());
        }
    }
    groups
}

/// The places of a stack, each once, the leaf first.
fn places(tally: &Tally<'_>, stack: StackId) -> Vec<Place> {
    let mut seen = HashSet::new();
    let all = tally.profile.frames(stack).map(|frame| Some((frame.module_id, frame.function_id)));
    let mut places: Vec<_> = all.filter(|place| seen.insert(*place)).collect();
    if places.is_empty() {
        places.push(None);
    }
    places
}

/// A function's own and total value, its name and its module's.
type Row<'a> = ((i64, i64), (&'a str, &'a str));

/// The functions with a value of their own, largest first.
fn rows<'a>(tally: &'a Tally<'_>, cells: &[&Cell], known: &mut HashMap<StackId, Vec<Place>>) -> Vec<Row<'a>> {
    let mut sums: HashMap<Place, (i64, i64)> = HashMap::new();
    for cell in cells {
        let places = known.entry(cell.stack).or_insert_with(|| places(tally, cell.stack));
        for (i, &place) in places.iter().enumerate() {
            let (own, total) = sums.entry(place).or_default();
            *total = total.saturating_add(cell.value);
            if i == 0 {
                *own = own.saturating_add(cell.value);
            }
        }
    }
    let names = |place: Place| match place {
        Some((module, function)) => {
            (&*tally.profile.functions[function.index()].name, tally.profile.modules[module.index()].name())
        }
        None => (no_stack_label(crate::model::StackEnd::Complete), ""),
    };
    let mut rows: Vec<_> = sums.into_iter().map(|(place, sums)| (sums, names(place))).collect();
    rows.retain(|((own, _), _)| *own != 0);
    rows.sort_unstable_by(|(a, a_names), (b, b_names)| b.cmp(a).then_with(|| a_names.cmp(b_names)));
    rows
}

fn functions(tally: &Tally<'_>, rows: &[Row<'_>], out: &mut dyn Write) -> io::Result<()> {
    let is_large = |own: i64| units::percent(own, tally.total) >= MIN_PERCENT;
    let shown = rows.iter().take(MAX_FUNCTIONS).take_while(|((own, _), _)| is_large(*own)).count().max(1);
    let (width, unit) = (WIDTHS.0, tally.sample_type.unit);
    for ((own, total), (function, module)) in rows.iter().take(shown) {
        writeln!(
            out,
            "{:>10} {:>5.1}% {:>10} {:>5.1}%  {:width$} {}",
            units::value(*own, unit),
            units::percent(*own, tally.total),
            units::value(*total, unit),
            units::percent(*total, tally.total),
            cut(function, width),
            cut(module, WIDTHS.1)
        )?;
    }
    if let Some(rest) = rows.get(shown..).filter(|rest| !rest.is_empty()) {
        let own = rest.iter().fold(0i64, |sum, ((own, _), _)| sum.saturating_add(*own));
        let percent = units::percent(own, tally.total);
        let count = rest.len();
        writeln!(
            out,
            "{:>10} {percent:>5.1}% {:>18} in {count} more functions",
            units::value(own, unit),
            ""
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Profile, render::fixture};

    fn summary(profile: &Profile, options: &RenderOptions) -> String {
        let mut out = Vec::new();
        write(&Tally::new(profile, options).unwrap(), options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// 300 processes of one name with one sample each, beside a large one.
    fn many_small() -> Profile {
        let mut builder = fixture::Builder::default();
        builder.0.sample_types = fixture::mixed().sample_types;
        let sh = fixture::module("/bin/sh", crate::model::ModuleKind::Native);
        let mut add = |pid, name: &str, function: &str, count: i64| {
            let frames = [fixture::at(&sh, 1, function)];
            let end = crate::model::StackEnd::Complete;
            builder.sample(fixture::thread(pid, pid, name, name), &frames, end, 0, vec![count, count]);
        };
        add(1, "big", "spin", 700);
        for pid in 100..400 {
            add(pid, "sh", &format!("f{}", pid % 20), 1);
        }
        builder.0
    }

    #[test]
    fn small_processes_of_a_name_are_one_line() {
        let text = summary(&many_small(), &RenderOptions::default());
        assert!(text.contains("\nbig (1): 700 samples, 70.0 %\n"), "{text}");
        assert!(text.contains("\nsh (300 processes): 300 samples, 30.0 %\n"), "{text}");
        assert!(text.contains("        15   1.5%         15   1.5%  f0 "), "{text}");
        assert!(text.contains("       180  18.0%                    in 12 more functions"), "{text}");
    }

    #[test]
    fn no_samples_is_said() {
        let profile = Profile { samples: Vec::new(), ..fixture::mixed() };
        assert!(summary(&profile, &RenderOptions::default()).ends_with("\n\nno samples\n"));
    }
}
