//! `profiler list`: what `record -e` can be told, the tracepoints of this kernel with their fields, and the markers and
//! functions of a file ([`places`]).

mod java;
mod places;

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{
    error::{Exit, Failure, to_stdout},
    near::near,
};
use crate::{
    host::{
        cpus,
        kernel::Uname,
        tracefs::{Field, Kind, Tracefs, TracefsError},
    },
    model::name::clean,
    probe::{PROBES, tracepoint::PREFIX},
};

/// Tracepoints whose fields are shown at most.
const MOST_FIELDS: usize = 50;

/// A category that has no tracepoints: the formats of the tracer's own records.
const TRACER: &str = "ftrace";

/// Arguments of `list`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  profiler list                                 everything\n  profiler list fork                   \
          what has `fork` in its name\n  profiler list 'block:*'                       the tracepoints of a category\n  \
          profiler list sched:sched_switch --fields     what a filter can compare\n  profiler list \
          usdt:/usr/lib/libfoo.so         the markers of a file\n  profiler list 'uprobe:/usr/bin/app:parse_*'   functions \
          of a file\n  profiler list java -p 4711                    which events that JVM has"
)]
pub struct ListArgs {
    /// Only names that contain this, or that match it as a whole if it has `*` or `?` (with or without what
    /// stands before the tracepoint's category). `usdt:PATH[:PATTERN]`: markers of that file; `uprobe:PATH[:PATTERN]`:
    /// its functions.
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,

    /// PATH is as that process sees it. With `java`: which of the events of a JVM its JVM has.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// Show the fields of the tracepoints too.
    #[arg(long)]
    pub fields: bool,

    /// Print JSON (schema profiler.list/1)
    #[arg(long)]
    pub json: bool,
}

/// Something that can be recorded.
#[derive(Debug, Serialize)]
struct Row {
    /// As `-e` takes it.
    event: String,
    /// `event`: one of the profiler's own; `form`: how others are named; `tracepoint`, `marker`, `function`.
    kind: &'static str,
    /// What it tells; `None` of tracepoints and functions, of which nobody says anything.
    summary: Option<String>,
    sample_types: Vec<SampleType>,
    /// `None`: not asked for.
    fields: Option<Vec<FieldRow>>,
    /// Of markers, and of events that are some of a process's.
    places: Option<Vec<places::PlaceRow>>,
}

impl Row {
    /// Something that is counted as what it is named.
    fn hits(event: String, kind: &'static str) -> Self {
        let sample_types = vec![SampleType { name: event.clone(), unit: crate::model::Unit::Count.name() }];
        Self { event, kind, summary: None, sample_types, fields: None, places: None }
    }
}

#[derive(Debug, Serialize)]
struct SampleType {
    name: String,
    unit: &'static str,
}

#[derive(Debug, Serialize)]
struct FieldRow {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    offset_bytes: u32,
    size_bytes: u32,
    signed: bool,
    /// Whether a filter can compare it.
    comparable: bool,
}

impl FieldRow {
    fn of(field: &Field) -> Self {
        Self {
            name: clean(field.name.as_bytes()),
            type_name: clean(field.type_name.as_bytes()),
            offset_bytes: field.offset,
            size_bytes: field.size,
            signed: field.signed,
            comparable: field.kind == Kind::Integer,
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    meta: Meta,
    losses: Empty,
    cost: Empty,
    rows: &'a [Row],
}

#[derive(Serialize)]
struct Meta {
    profiler_version: &'static str,
    host: String,
    kernel: String,
    arch: String,
    cpus: u32,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Empty {}

/// Runs the command.
///
/// # Errors
/// If nothing matches, or the fields that were asked for cannot be read.
pub fn run(args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let pattern = args.pattern.as_deref();
    let (rows, note) = match (pattern.and_then(places::Asked::of), args.pid) {
        (Some(asked), process) => asked.rows(process)?,
        (None, Some(pid)) => match pattern.filter(|pattern| java::is_meant(pattern)) {
            Some(pattern) => java::rows(pattern, pid)?,
            None => {
                let message = "-p is about files and JVMs, and neither is named";
                let mend = "name one: profiler list usdt:PATH -p PID, or profiler list java -p PID";
                return Err(Failure::new(Exit::Usage, message).mend(mend));
            }
        },
        (None, None) => events(args)?,
    };
    let text = if args.json { json(&rows, note) } else { text(&rows, note.as_deref()) };
    to_stdout(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Events and tracepoints, and what there is to say about them.
fn events(args: &ListArgs) -> Result<(Vec<Row>, Option<String>), Failure> {
    let tracefs = Tracefs::open();
    let (tracepoints, note) =
        match tracefs.as_ref().map_err(ToString::to_string).and_then(|t| all(t).map_err(|e| e.to_string())) {
            Ok(tracepoints) => (tracepoints, None),
            Err(error) => (
                Vec::new(),
                Some(format!("tracepoints are not listed: {error}; see `profiler doctor`, line `tracefs`")),
            ),
        };
    let mut rows: Vec<Row> = built_in()
        .chain(tracepoints.iter().map(|name| Row::hits(format!("{PREFIX}{name}"), "tracepoint")))
        .collect();
    if let Some(pattern) = &args.pattern {
        let names: Vec<String> = rows.iter().map(|row| row.event.clone()).collect();
        rows.retain(|row| matches(pattern, &row.event));
        if rows.is_empty() {
            return Err(nothing(pattern, &names, note.as_deref()));
        }
    }
    if args.fields {
        add_fields(&mut rows, tracefs.as_ref().ok())?;
    }
    Ok((rows, note))
}

fn built_in() -> impl Iterator<Item = Row> {
    PROBES.iter().map(|probe| Row {
        event: probe.name.to_owned(),
        kind: if is_form(probe.name) { "form" } else { "event" },
        summary: Some(probe.summary.to_owned()),
        sample_types: probe
            .sample_types
            .iter()
            .map(|spec| SampleType { name: spec.name.to_owned(), unit: spec.unit.name() })
            .collect(),
        fields: None,
        places: None,
    })
}

/// Whether a name stands for many: what is to be written in a part's place is in capitals.
fn is_form(name: &str) -> bool {
    name.contains(|c: char| c.is_ascii_uppercase())
}

/// All tracepoints, as CATEGORY:NAME.
fn all(tracefs: &Tracefs) -> Result<Vec<String>, TracefsError> {
    let mut all = Vec::new();
    for category in tracefs.categories()?.iter().filter(|category| *category != TRACER) {
        all.extend(tracefs.names(category)?.iter().map(|name| format!("{category}:{name}")));
    }
    Ok(all)
}

/// What is told where no event of this kernel matches.
fn nothing(pattern: &str, names: &[String], note: Option<&str>) -> Failure {
    let wanted = pattern.strip_prefix(PREFIX).unwrap_or(pattern);
    let short: Vec<&str> = names.iter().map(|name| name.strip_prefix(PREFIX).unwrap_or(name)).collect();
    // Without a category, names are compared without theirs.
    let compared = |name: &'_ str| -> usize {
        if wanted.contains(':') { 0 } else { name.rfind(':').map_or(0, |at| at + 1) }
    };
    let nearest = near(wanted, short.iter().map(|name| &name[compared(name)..]));
    let whole = |near: &str| short.iter().copied().find(|name| &name[compared(name)..] == near);
    let near: Vec<&str> = nearest.into_iter().filter_map(whole).collect();
    let failure =
        Failure::new(Exit::Usage, format!("nothing matches `{}` on this kernel", clean(pattern.as_bytes())));
    match (near.is_empty(), note) {
        (false, _) => failure.mend(format!("near: {}", near.join(", "))),
        (true, Some(note)) => failure.mend(note),
        (true, None) => failure.mend("`profiler list` shows everything"),
    }
}

fn add_fields(rows: &mut [Row], tracefs: Option<&Tracefs>) -> Result<(), Failure> {
    let number = rows.iter().filter(|row| row.kind == "tracepoint").count();
    if number > MOST_FIELDS {
        let message = format!("--fields: {number} tracepoints match, more than {MOST_FIELDS}");
        return Err(
            Failure::new(Exit::Usage, message).mend("name one: profiler list sched:sched_switch --fields")
        );
    }
    for row in rows {
        let path = row.event.strip_prefix(PREFIX).and_then(|path| path.split_once(':'));
        let (Some(tracefs), Some((category, name)), "tracepoint") = (tracefs, path, row.kind) else {
            continue;
        };
        let found = tracefs.tracepoint(category, name).map_err(|error| {
            Failure::new(Exit::Failure, format!("{}: {error}", row.event))
                .mend("see `profiler doctor`, line `tracefs`")
        })?;
        row.fields = Some(found.fields.iter().map(FieldRow::of).collect());
    }
    Ok(())
}

/// Whether an event's name is meant: all of it, all behind its kind, or its last part alone.
fn matches(pattern: &str, event: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return event.contains(pattern);
    }
    let last = event.rsplit(':').next();
    [Some(event), event.strip_prefix(PREFIX), last]
        .into_iter()
        .flatten()
        .any(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

/// Whether a text is what a pattern with `*` (anything) and `?` (one character) says. Takes time in proportion to the product of
/// their lengths at most.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star is, and how much of the text it stands for.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, until)) = star else { return false };
                star = Some((at, until + 1));
                (p, t) = (at + 1, until + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

fn json(rows: &[Row], note: Option<String>) -> String {
    let uname = Uname::read();
    let document = Document {
        schema: "profiler.list/1",
        meta: Meta {
            profiler_version: env!("CARGO_PKG_VERSION"),
            host: uname.host,
            kernel: uname.release,
            arch: uname.machine,
            cpus: cpus::online().len() as u32,
            notes: note.into_iter().collect(),
        },
        losses: Empty {},
        cost: Empty {},
        rows,
    };
    serde_json::to_string(&document).map_or_else(|error| format!("{error}\n"), |text| text + "\n")
}

fn text(rows: &[Row], note: Option<&str>) -> String {
    let mut out = String::new();
    let width = rows.iter().filter(|row| row.summary.is_some()).map(|row| row.event.len()).max().unwrap_or(0);
    for row in rows {
        match &row.summary {
            Some(summary) => {
                let types: Vec<String> =
                    row.sample_types.iter().map(|t| format!("{} in {}", t.name, t.unit)).collect();
                // Of others that have one, the sample type is the event itself.
                let types = if row.kind == "event" || types.len() > 1 {
                    format!(" [{}]", types.join(", "))
                } else {
                    String::new()
                };
                out += &format!("{:width$}  {summary}{types}\n", row.event);
            }
            None => out += &format!("{}\n", row.event),
        }
        for field in row.fields.iter().flatten() {
            let note = if field.comparable { "" } else { "  (no filter can compare it)" };
            out += &format!("    {:24} {}{note}\n", field.name, field.type_name);
        }
    }
    if let Some(note) = note {
        out += &format!("{note}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_parts_or_wholes() {
        let event = "tracepoint:sched:sched_process_fork";
        for pattern in [
            "fork",
            "sched:sched_p",
            "tracepoint:",
            "sched:*",
            "*fork",
            "tracepoint:*",
            "*:sched_process_f?rk",
            "*",
        ] {
            assert!(matches(pattern, event), "{pattern}");
        }
        for pattern in ["frok", "*exec", "sched:*x", "?"] {
            assert!(!matches(pattern, event), "{pattern}");
        }
        assert!(matches("cpu", "cpu") && !matches("cpu*x", "cpu"));
    }

    #[test]
    fn every_event_is_listed_with_its_units() {
        let rows: Vec<_> = built_in().collect();
        assert_eq!(rows.len(), PROBES.len());
        let text = text(&rows, Some("a note"));
        assert!(
            text.contains("samples in count, cpu in nanoseconds") && text.ends_with("a note\n"),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&json(&rows, None)).unwrap();
        assert_eq!(value["schema"], "profiler.list/1");
        assert_eq!(value["rows"][0]["event"], "cpu");
        let kind = |name: &str| rows.iter().find(|row| row.event == name).map(|row| row.kind);
        assert_eq!(["java:gc", "usdt:PATH:PROVIDER:BEGIN..END"].map(kind), [Some("event"), Some("form")]);
        assert_eq!(value["rows"][0]["sample_types"][1]["unit"], "nanoseconds");
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_with_any_part_replaced_by_a_star(text in "[a-c]{0,12}", a: prop::sample::Index, b: prop::sample::Index) {
            let (a, b) = (a.index(text.len() + 1), b.index(text.len() + 1));
            let pattern = format!("{}*{}", &text[..a.min(b)], &text[a.max(b)..]);
            prop_assert!(glob(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn as_a_simple_recursion_has_it(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn simple(p: &[u8], t: &[u8]) -> bool {
                match p.split_first() {
                    None => t.is_empty(),
                    Some((b'*', rest)) => (0..=t.len()).any(|n| simple(rest, &t[n..])),
                    Some((&c, rest)) => t.split_first().is_some_and(|(&d, t)| (c == b'?' || c == d) && simple(rest, t)),
                }
            }
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), simple(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
