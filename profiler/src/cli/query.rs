//! `profiler query`: what the daemon has kept, of any range of time, with the daemon running or not.

mod accounts;
mod list;
#[cfg(test)]
mod tests;

use std::{io::Write, path::PathBuf, time::Duration};

use clap::Args;
use regex::Regex;

use super::{
    error::{Exit, Failure, to_stdout},
    show::{ShowArgs, names, regex},
};
use crate::{
    model::{
        Profile, name,
        when::{self, When},
    },
    render::{
        FORMATS, RenderError, RenderOptions, diff, format_by_name,
        output::{OutputError, Written},
        units,
    },
    store::{Query, Range, Reader, StoreError},
};

/// Where the daemon keeps its history.
pub const STORE: &str = "/var/lib/profiler";

/// Range without one being asked for.
const LAST: Duration = Duration::from_secs(15 * 60);

/// Show what the daemon has kept.
#[derive(Debug, Args)]
#[command(
    after_help = "Times are UTC. Without a range, the last 15 minutes are shown; windows that overlap the range are shown as a \
    whole.\n\nExamples:\n  profiler query --list                              windows, gaps, series\n  profiler query --from 03:10 \
    --to 03:20 -o night.svg    a flamegraph of that time\n  profiler query --last 1h --process '^java$' --event offcpu    where \
    Java waited\n  profiler query --accounts --container web          exact numbers by process\n  profiler query --from 03:10 \
    --to 03:20 --diff 02:10..02:20    what is different from an hour before"
)]
pub struct QueryArgs {
    /// Directory of the daemon's history
    #[arg(long, value_name = "DIR", default_value = STORE)]
    pub store: PathBuf,
    /// From this time on (`2026-01-02T03:04:05Z`, `03:12` of today, `-15m` from now, seconds since 1970)
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true, conflicts_with = "last")]
    pub from: Option<When>,
    /// Before this time; now, if it is not given
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true, conflicts_with = "last")]
    pub to: Option<When>,
    /// The time until now (`30s`, `15m`, `2h`, `1d`)
    #[arg(long, value_name = "TIME", value_parser = when::duration)]
    pub last: Option<Duration>,
    /// Only processes whose command name matches
    #[arg(long, value_name = "REGEX", value_parser = regex)]
    pub process: Option<Regex>,
    /// Only processes whose container id, pod, systemd unit or control group matches
    #[arg(long, value_name = "REGEX", value_parser = regex)]
    pub container: Option<Regex>,
    /// Only this process
    #[arg(short, long, value_name = "PID")]
    pub pid: Option<u32>,
    /// The sample type to show, alone or with the others of its event: `samples`, `cpu`, `offcpu`, `blocks`; with
    /// --accounts, a metric (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub event: Vec<String>,
    /// Show which windows there are, which are missing, and whose samples and numbers they have
    #[arg(long, conflicts_with_all = ["accounts", "diff", "event"])]
    pub list: bool,
    /// Show exact numbers by process
    #[arg(long, conflicts_with = "diff")]
    pub accounts: bool,
    /// Compare with this range: what was before (`03:00..03:15`)
    #[arg(long, value_name = "FROM..TO", value_parser = when::range, allow_hyphen_values = true)]
    pub diff: Option<(When, When)>,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Shows it.
///
/// # Errors
/// One line of cause, and what mends it.
pub fn run(args: &QueryArgs, out: &mut dyn Write) -> Result<(), Failure> {
    run_at(args, when::unix_ns(), out)
}

/// [`run`] at that time, ns since the Unix epoch.
fn run_at(args: &QueryArgs, now_unix_ns: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let query = Query {
        range: range(args, now_unix_ns)?,
        process: args.process.clone(),
        container: args.container.clone(),
        pid: args.pid,
        events: args.event.clone(),
    };
    if args.list || args.accounts {
        let json = is_json(args)?;
        let reader = Reader::open(&args.store).map_err(|error| failure(&error))?;
        let written = if args.list {
            list::write(&reader, &query, json, out)
        } else {
            accounts::write(&reader, &query, json, out)
        };
        return written.or_else(|error| match error {
            Wrong::Store(error) => Err(failure(&error)),
            Wrong::Output(error) => to_stdout(Err(error)),
        });
    }
    let usual = if args.diff.is_some() { "text" } else { "summary" };
    let outputs = args
        .show
        .outputs(format_by_name(usual).unwrap_or(&FORMATS[0]))
        .map_err(|e| Failure::new(Exit::Usage, e))?;
    if args.diff.is_some()
        && let Some(format) = outputs.formats().find(|format| diff::writer(format.name).is_none())
    {
        let message = format!("--diff cannot be written as {}", format.name);
        return Err(Failure::new(Exit::Usage, message).mend("use .folded, .svg, .json or .txt"));
    }
    let reader = Reader::open(&args.store).map_err(|error| failure(&error))?;
    let profile = read(&reader, &query)?;
    let options =
        RenderOptions { value: value(args, &profile), selection: selection(args), ..args.show.options() };
    let Some(other) = args.diff else {
        return written(outputs.write(&profile, &options, out));
    };
    let range = checked(other.0.unix_ns(now_unix_ns), other.1.unix_ns(now_unix_ns), now_unix_ns)?;
    let before = read(&reader, &Query { range, ..query })?;
    if before.sample_types != profile.sample_types {
        let of = |profile: &Profile| names(&profile.sample_types, |sample_type| &sample_type.name);
        let message = format!("the ranges have other sample types: {} and {}", of(&before), of(&profile));
        return Err(Failure::new(Exit::Usage, message).mend("name one that both have: --event"));
    }
    let pair = diff::Pair { before: &before, after: &profile };
    written(outputs.write_by(
        &|format, out| match diff::writer(format.name) {
            Some(write) => write(pair, &options, out),
            None => Err(RenderError::NoSampleType),
        },
        out,
    ))
}

/// Reads the samples; a range without windows is told.
fn read(reader: &Reader, query: &Query) -> Result<Profile, Failure> {
    let profile = reader.profile(query).map_err(|error| failure(&error))?;
    if profile.sample_types.is_empty() {
        let Range { from_unix_ns, to_unix_ns } = query.range;
        let message =
            format!("there are no windows from {} to {}", units::utc(from_unix_ns), units::utc(to_unix_ns));
        return Err(Failure::new(Exit::NoTarget, message)
            .mend("`profiler query --list --from 1970-01-01T00:00:00Z` shows what there is"));
    }
    Ok(profile)
}

fn written(written: Written) -> Result<(), Failure> {
    if written.errors.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failure, names(&written.errors, OutputError::to_string)))
}

/// The range that is asked for.
fn range(args: &QueryArgs, now: u64) -> Result<Range, Failure> {
    let ago = |ago: Duration| When::Ago(ago).unix_ns(now);
    if args.list && args.from.is_none() && args.to.is_none() && args.last.is_none() {
        return Ok(Range { from_unix_ns: 0, to_unix_ns: u64::MAX });
    }
    let to = args.to.map_or(now, |to| to.unix_ns(now));
    let from = match (args.from, args.last) {
        (Some(from), _) => from.unix_ns(now),
        (None, Some(last)) => ago(last),
        (None, None) => to.saturating_sub(LAST.as_nanos() as u64),
    };
    checked(from, to, now)
}

fn checked(from_unix_ns: u64, to_unix_ns: u64, now: u64) -> Result<Range, Failure> {
    if from_unix_ns >= to_unix_ns {
        let (from, to) = (units::utc(from_unix_ns), units::utc(to_unix_ns));
        let failure = Failure::new(Exit::Usage, format!("the range from {from} to {to} is empty"));
        return Err(match from_unix_ns >= now {
            true => failure.mend(format!("its start is still to come: it is {} now", units::utc(now))),
            false => failure,
        });
    }
    Ok(Range { from_unix_ns, to_unix_ns })
}

/// The values that are shown: of the sample type that is named first.
fn value(args: &QueryArgs, profile: &Profile) -> Option<usize> {
    args.event.first().and_then(|name| profile.column(name))
}

/// What is chosen, in words.
fn selection(args: &QueryArgs) -> Option<String> {
    let pattern = |name: &str, regex: &Option<Regex>| regex.as_ref().map(|regex| format!("{name} /{regex}/"));
    let words = [
        args.pid.map(|pid| format!("pid {pid}")),
        pattern("process", &args.process),
        pattern("container", &args.container),
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| name::clean(words.join(", ").as_bytes()))
}

/// Whether tables are written as JSON; they have no other format than that and text.
fn is_json(args: &QueryArgs) -> Result<bool, Failure> {
    let format = args.show.format().map(|format| format.name);
    let is_table = args.show.output.iter().all(|path| path.as_os_str() == "-");
    match format {
        None | Some("text" | "summary") if is_table => Ok(false),
        Some("json") if is_table => Ok(true),
        _ => Err(Failure::new(
            Exit::Usage,
            "--list and --accounts are written to standard output, as text or JSON",
        )
        .mend("leave out -o and --format, or use --json")),
    }
}

/// Why there is no table.
enum Wrong {
    Store(StoreError),
    Output(std::io::Error),
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// A store that cannot be read, with what mends it.
fn failure(error: &StoreError) -> Failure {
    let (exit, mend) = match error {
        StoreError::Missing { .. } => {
            (Exit::NoTarget, "start the daemon (`profiler daemon`), or name its directory: --store DIR")
        }
        StoreError::Denied { .. } => {
            (Exit::Unsupported, "the history tells of all users' processes: read it as root")
        }
        StoreError::Damaged { .. } => (
            Exit::Failure,
            "the daemon moves it aside and begins a new one; `sqlite3 FILE .recover` reads what is left",
        ),
        StoreError::Newer { .. } => (Exit::Usage, "use the version of profiler that wrote it"),
        StoreError::Older { .. } => (Exit::Usage, "start the daemon of this version once"),
        StoreError::NoEvent { .. } | StoreError::Foreign { .. } => return Failure::new(Exit::Usage, error),
        _ => return Failure::new(Exit::Failure, error),
    };
    Failure::new(exit, error).mend(mend)
}
