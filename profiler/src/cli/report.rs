//! `profiler report`: shows a recording, whole or in part, in any of the formats. Needs no privileges.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use regex::Regex;

use super::show::{ShowArgs, names, regex};
use crate::{
    model::{Profile, filter::Selection},
    render::{
        FORMATS, RenderOptions, format_by_name,
        output::OutputError,
        pprof::{self, DecodeError},
    },
};

/// Show a recording as report, flamegraph, folded stacks or JSON.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The recording, or any pprof file; `-` is standard input
    #[arg(value_name = "FILE", default_value = "profile.pb.gz")]
    pub file: PathBuf,
    #[command(flatten)]
    pub show: ShowArgs,
    /// Only these processes
    #[arg(short, long, value_delimiter = ',', value_name = "PID")]
    pub pid: Vec<u32>,
    /// Only these threads
    #[arg(long, value_delimiter = ',', value_name = "TID")]
    pub tid: Vec<u32>,
    /// Only processes or threads whose name matches
    #[arg(long, value_parser = regex, value_name = "REGEX")]
    pub comm: Option<Regex>,
    /// Only stacks with a function that matches
    #[arg(long, value_parser = regex, value_name = "REGEX")]
    pub focus: Option<Regex>,
    /// Only stacks without a function that matches
    #[arg(long, value_parser = regex, value_name = "REGEX")]
    pub ignore: Option<Regex>,
    /// Only from this time on, since the start of the recording (`2.5`, `300ms`, `1m`)
    #[arg(long, value_parser = time_ns, value_name = "TIME")]
    pub from: Option<u64>,
    /// Only before this time, since the start of the recording
    #[arg(long, value_parser = time_ns, value_name = "TIME")]
    pub to: Option<u64>,
    /// The sample type to show: `samples` (the default), `cpu` (in ms)
    #[arg(long, value_name = "NAME")]
    pub event: Option<String>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file cannot be read.
    #[error("{}: {cause}; {}", path.display(), mend(cause))]
    Input {
        /// The file as it was given.
        path: PathBuf,
        /// Why.
        cause: DecodeError,
    },
    /// There is no such sample type.
    #[error("{}: no event {name:?}; the recording has {known}", path.display())]
    NoEvent {
        /// The file as it was given.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// An output cannot be written; nothing was.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Some outputs failed; the others are complete. One line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Outputs(Vec<OutputError>),
}

/// Reads the recording and writes what was asked for, to `out` if no output was named. That the reader of `out` has
/// gone is no failure.
///
/// # Errors
/// [`ReportError`], one line of cause each and what mends it.
pub fn run(args: &ReportArgs, out: &mut dyn Write) -> Result<(), ReportError> {
    let outputs = args.show.outputs(format_by_name("text").unwrap_or(&FORMATS[0]))?;
    let mut profile = read(&args.file)?;
    let options = options(args, &profile)?;
    selection(args).apply(&mut profile);
    let written = outputs.write(&profile, &options, out);
    if written.errors.is_empty() { Ok(()) } else { Err(ReportError::Outputs(written.errors)) }
}

/// Reads a recording; `-` is standard input.
///
/// # Errors
/// [`ReportError::Input`].
pub fn read(path: &Path) -> Result<Profile, ReportError> {
    let profile = if path == Path::new("-") {
        pprof::read(io::stdin().lock())
    } else {
        File::open(path).map_err(DecodeError::Read).and_then(pprof::read)
    };
    profile.map_err(|cause| ReportError::Input { path: path.to_owned(), cause })
}

/// What to do about it.
fn mend(cause: &DecodeError) -> &'static str {
    match cause {
        DecodeError::Read(error) if error.kind() == io::ErrorKind::NotFound => {
            "make a recording with `profiler record -o FILE.pb.gz`"
        }
        DecodeError::Read(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "read it as its owner, or change its permissions"
        }
        DecodeError::OtherVersion(_) => "use the version of profiler that recorded it",
        DecodeError::TruncatedGzip => "wait until `record` has ended, or copy or record it again",
        DecodeError::TooLarge { .. } | DecodeError::TooMany { .. } => {
            "record less: shorter, or fewer processes"
        }
        _ => "give a file that `profiler record` or another pprof tool wrote",
    }
}

fn options(args: &ReportArgs, profile: &Profile) -> Result<RenderOptions, ReportError> {
    let value = match &args.event {
        None => None,
        Some(name) => Some(profile.column(name).ok_or_else(|| ReportError::NoEvent {
            path: args.file.clone(),
            name: name.clone(),
            known: names(&profile.sample_types, |t| &t.name),
        })?),
    };
    Ok(RenderOptions { value, selection: selection_words(args), ..args.show.options() })
}

fn selection(args: &ReportArgs) -> Selection {
    Selection {
        pids: args.pid.clone(),
        tids: args.tid.clone(),
        comm: args.comm.clone(),
        focus: args.focus.clone(),
        ignore: args.ignore.clone(),
        from_ns: args.from,
        to_ns: args.to,
    }
}

/// The selection as reports show it: `pid 4711, focus /read/`.
fn selection_words(args: &ReportArgs) -> Option<String> {
    let ids =
        |name: &str, ids: &[u32]| (!ids.is_empty()).then(|| format!("{name} {}", names(ids, u32::to_string)));
    let pattern = |name: &str, regex: &Option<Regex>| regex.as_ref().map(|regex| format!("{name} /{regex}/"));
    let time = |name: &str, ns: Option<u64>| ns.map(|ns| format!("{name} {} s", ns as f64 / 1e9));
    let words = [
        ids("pid", &args.pid),
        ids("tid", &args.tid),
        pattern("comm", &args.comm),
        pattern("focus", &args.focus),
        pattern("ignore", &args.ignore),
        time("from", args.from),
        time("to", args.to),
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    let text = words.join(", ");
    (!words.is_empty()).then(|| crate::model::name::clean(text.as_bytes()))
}

/// Seconds, or a number with `ms`, `s`, `m` or `h`, as ns.
fn time_ns(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    let with_unit = UNITS.iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, *ns)));
    let (number, scale) = with_unit.unwrap_or((text, 1e9));
    let ns = number.parse::<f64>().ok().map(|number| number * scale).filter(|ns| (0.0..1.8e19).contains(ns));
    ns.map(|ns| ns.round() as u64).ok_or_else(|| "a time like 2.5, 300ms or 1m is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::render::fixture;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        report: ReportArgs,
    }

    fn parse(args: &[&str]) -> Result<ReportArgs, String> {
        let cli = Cli::try_parse_from(["report"].iter().chain(args));
        cli.map(|cli| cli.report).map_err(|error| error.to_string())
    }

    /// A directory with the fixed recording.
    fn recording() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mixed.pb.gz");
        let mut file = File::create(&path).unwrap();
        pprof::write(&fixture::mixed(), &RenderOptions::default(), &mut file).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    fn report(args: &[&str]) -> Result<String, String> {
        let mut out = Vec::new();
        run(&parse(args).unwrap(), &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn selections_are_applied_and_said() {
        let (_dir, file) = recording();
        let total = |args: &[&str]| {
            let text = report(&[&[file.as_str(), "--section", "process"], args].concat()).unwrap();
            let line =
                |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(|l| l.trim().to_owned());
            (line("TOTAL TICKS").unwrap(), line("Selection").unwrap_or_default())
        };
        assert_eq!(total(&[]), ("1,000 samples".into(), String::new()));
        assert_eq!(total(&["--pid", "100,77"]), ("428 samples".into(), "pid 100, 77".into()));
        assert_eq!(
            total(&["--comm", "^http-worker-1$"]),
            ("170 samples".into(), "comm /^http-worker-1$/".into())
        );
        assert_eq!(total(&["--focus", "HashMap"]), ("300 samples".into(), "focus /HashMap/".into()));
        assert_eq!(total(&["--ignore", "HashMap", "--from", "2"]).0, "195 samples");
        assert_eq!(
            total(&["--to", "1000ms", "--tid", "4713"]),
            ("60 samples".into(), "tid 4713, to 1 s".into())
        );
        assert_eq!(total(&["--event", "cpu"]).0, "10.0 s cpu");
        assert_eq!(total(&["--pid", "1"]).0, "0 samples");
    }

    #[test]
    fn outputs_and_formats_are_chosen() {
        let (dir, file) = recording();
        assert!(report(&[&file]).unwrap().contains("Process_Thread_Module_Symbol"));
        assert!(report(&[&file, "--json"]).unwrap().starts_with("{\"schema\":\"profiler.report/1\""));
        assert!(report(&[&file, "--summary"]).unwrap().starts_with("1,000 samples in 3.00 s"));
        let svg = dir.path().join("a.svg");
        let part = dir.path().join("part.pb.gz");
        let outputs = ["-o", svg.to_str().unwrap(), "-o", part.to_str().unwrap(), "--pid", "77"];
        assert_eq!(report(&[&[file.as_str()], &outputs[..]].concat()).unwrap(), "");
        assert!(fs::read_to_string(svg).unwrap().contains("total_samples=\"15\""));
        assert_eq!(read(&part).unwrap().threads.len(), 1);
    }

    #[test]
    fn errors_are_one_line_with_what_mends_them() {
        let (dir, file) = recording();
        let error = |args: &[&str]| report(args).unwrap_err();
        assert_eq!(
            error(&["/none/x.pb.gz"]),
            "/none/x.pb.gz: No such file or directory (os error 2); make a recording with `profiler record -o FILE.pb.gz`"
        );
        assert!(
            error(&[dir.path().to_str().unwrap()]).contains(": Is a directory (os error 21); give a file")
        );
        let cut = dir.path().join("cut.pb.gz");
        fs::write(&cut, &fs::read(&file).unwrap()[..500]).unwrap();
        assert!(error(&[cut.to_str().unwrap()]).ends_with(
            "cut.pb.gz: truncated gzip stream: the file was cut, or is still being written; wait until `record` has ended, or copy or record it again"
        ));
        assert!(
            error(&["/proc/self/exe"])
                .starts_with("/proc/self/exe: not a pprof file: it is an ELF file; give")
        );
        assert!(error(&[&file, "--event", "x"]).ends_with("no event \"x\"; the recording has samples, cpu"));
        assert!(
            error(&[&file, "-o", "/none/a.svg"]).starts_with("/none/a.svg: cannot be written: No such file")
        );
    }

    #[test]
    fn bad_values_are_usage_errors() {
        let error = |args: &[&str]| parse(args).unwrap_err().lines().next().unwrap().to_owned();
        assert_eq!(
            error(&["--comm", "("]),
            "error: invalid value '(' for '--comm <REGEX>': error: unclosed group"
        );
        for bad in [
            ["--clip", "101"],
            ["--clip", "NaN"],
            ["--from", "-1"],
            ["--to", "1e300"],
            ["--format", "x"],
            ["--section", "x"],
        ] {
            let args = [format!("{}={}", bad[0], bad[1])];
            assert!(error(&[&args[0]]).contains("invalid value"), "{bad:?}");
        }
        assert_eq!(
            parse(&["--clip=0.5%", "--from", "1.5s"]).map(|a| (a.show.clip, a.from)),
            Ok((0.5, Some(1_500_000_000)))
        );
    }
}
