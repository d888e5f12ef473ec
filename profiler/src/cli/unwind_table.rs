//! `profiler unwind-table`: the unwind table of a file as a recording makes it. Why does a stack through this file
//! break off? What do its tables cost? Needs no privileges but to read the file.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::error::{Exit, Failure, to_stdout};
use crate::{
    elf::Bytes,
    model::name,
    session::peak_rss_bytes,
    unwind::{
        cache::{Cache, CacheError},
        eh_frame::{self, Cause, Stats, TableError},
        table::Table,
    },
};

/// Arguments of `unwind-table`.
#[derive(Args, Debug)]
pub struct UnwindTableArgs {
    /// Programs and shared libraries
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Take tables from the cache of earlier recordings, and keep new ones there. Without it each table is made anew
    #[arg(long)]
    pub cache: bool,
    /// Print JSON (schema profiler.unwind-table/1)
    #[arg(long)]
    pub json: bool,
}

/// One file. What was only known while its table was made is `None` with the cache.
#[derive(Debug, Serialize)]
struct Row {
    file: String,
    /// Why there is no table.
    error: Option<String>,
    from_cache: bool,
    took_ns: u64,
    rows: u64,
    rules: u64,
    pages: u64,
    /// Kernel memory of the table, bytes.
    table_bytes: u64,
    functions: Option<u64>,
    skipped: Option<u64>,
    #[serde(serialize_with = "by_cause")]
    unsupported: Option<[u64; Cause::ALL.len()]>,
}

/// The shape of all table commands, docs/json.md.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    meta: Nothing,
    losses: Nothing,
    cost: Cost,
    rows: &'a [Row],
}

#[derive(Debug, Serialize)]
struct Nothing {}

#[derive(Debug, Serialize)]
struct Cost {
    peak_rss_bytes: u64,
}

/// A table with what can be told of its origin.
struct Made {
    table: Table,
    from_cache: bool,
    stats: Option<Stats>,
}

/// Runs the command.
///
/// # Errors
/// A file without a table (the others are shown), a cache that cannot be used, a failure to write to `out`.
pub fn run(args: &UnwindTableArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let cache = args.cache.then(Cache::open).transpose().map_err(|e| no_cache(&e))?;
    let rows: Vec<Row> = args.files.iter().map(|path| row(path, cache.as_ref())).collect();
    to_stdout(write(&rows, args.json, out))?;
    match rows.iter().find_map(|row| Some((&row.file, row.error.as_ref()?))) {
        None => Ok(()),
        Some((file, error)) => Err(Failure::new(Exit::Usage, format!("{file}: {error}"))),
    }
}

fn no_cache(error: &CacheError) -> Failure {
    Failure::new(Exit::Failure, format!("no cache of unwind tables: {error}"))
        .mend("tables are made anew without --cache")
}

fn row(path: &Path, cache: Option<&Cache>) -> Row {
    let begin = Instant::now();
    let made = make(path, cache);
    let took_ns = begin.elapsed().as_nanos() as u64;
    let file = name::clean(path.as_os_str().as_encoded_bytes());
    match made {
        Ok(Made { table, from_cache, stats }) => Row {
            file,
            error: None,
            from_cache,
            took_ns,
            rows: table.rows.len() as u64,
            rules: table.rules.len() as u64,
            pages: table.page_count() as u64,
            table_bytes: bytes(&table),
            functions: stats.map(|stats| stats.functions),
            skipped: stats.map(|stats| stats.skipped),
            unsupported: stats.map(|stats| stats.unsupported),
        },
        Err(error) => Row {
            file,
            error: Some(error.to_string()),
            from_cache: false,
            took_ns,
            rows: 0,
            rules: 0,
            pages: 0,
            table_bytes: 0,
            functions: None,
            skipped: None,
            unsupported: None,
        },
    }
}

fn make(path: &Path, cache: Option<&Cache>) -> Result<Made, TableError> {
    let file = File::open(path).map_err(|error| TableError::Elf(error.into()))?;
    let Some(cache) = cache else {
        let (table, stats) = eh_frame::build(Bytes::File(&file))?;
        return Ok(Made { table, from_cache: false, stats: Some(stats) });
    };
    Ok(match cache.kept(&file)? {
        Some(table) => Made { table, from_cache: true, stats: None },
        None => Made { table: cache.table(&file)?, from_cache: false, stats: None },
    })
}

/// Bytes in the kernel's arenas: rows, rules, and a page's first row with their number.
fn bytes(table: &Table) -> u64 {
    (size_of_val(&*table.rows) + size_of_val(&*table.rules) + 8 * table.page_count()) as u64
}

fn write(rows: &[Row], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        let document = Document {
            schema: "profiler.unwind-table/1",
            meta: Nothing {},
            losses: Nothing {},
            cost: Cost { peak_rss_bytes: peak_rss_bytes() },
            rows,
        };
        serde_json::to_writer(&mut *out, &document)?;
        return writeln!(out);
    }
    rows.iter().filter(|row| row.error.is_none()).try_for_each(|row| write_row(row, out))
}

fn write_row(row: &Row, out: &mut dyn Write) -> io::Result<()> {
    let Row { file, rows, rules, .. } = row;
    let (kib, ms) = (row.table_bytes.div_ceil(1024), row.took_ns as f64 / 1e6);
    let origin = if row.from_cache { "from the cache" } else { "made" };
    writeln!(out, "{file}")?;
    writeln!(out, "  {rows} rows, {rules} rules, {kib} KiB, {origin} in {ms:.1} ms")?;
    if let (Some(functions), Some(skipped)) = (row.functions, row.skipped) {
        writeln!(out, "  {functions} functions, {skipped} entries left out")?;
    }
    for (cause, &count) in Cause::ALL.iter().zip(row.unsupported.iter().flatten()).filter(|(_, n)| **n > 0) {
        writeln!(out, "  {count} rows where stacks end: {}", cause.name())?;
    }
    Ok(())
}

fn by_cause<S: Serializer>(
    counts: &Option<[u64; Cause::ALL.len()]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let Some(counts) = counts else { return serializer.serialize_none() };
    let mut map = serializer.serialize_map(Some(counts.len()))?;
    for (cause, count) in Cause::ALL.iter().zip(counts) {
        map.serialize_entry(cause.name(), count)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(args: &UnwindTableArgs) -> (Result<(), Failure>, String) {
        let mut out = Vec::new();
        let result = run(args, &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    fn args(file: &str, json: bool) -> UnwindTableArgs {
        UnwindTableArgs { files: vec![PathBuf::from(file)], cache: false, json }
    }

    #[test]
    fn a_program_has_rows_and_functions() {
        let (result, text) = output(&args("/proc/self/exe", true));
        result.unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["schema"], "profiler.unwind-table/1");
        let row = &document["rows"][0];
        assert!(row["rows"].as_u64().unwrap() > row["functions"].as_u64().unwrap());
        assert_eq!(row["unsupported"].as_object().unwrap().len(), Cause::ALL.len());
        assert_eq!(row["from_cache"], false);
    }

    #[test]
    fn rows_that_cannot_be_walked_are_told_by_cause() {
        let mut row = row(Path::new("/proc/self/exe"), None);
        row.unsupported = Some(std::array::from_fn(|index| u64::from(index == 1) * 7));
        let mut out = Vec::new();
        write_row(&row, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\n  7 rows where stacks end: CFA expression\n"), "{text}");
        assert_eq!(text.matches("stacks end").count(), 1);
    }

    #[test]
    fn a_file_without_a_table_is_an_error_with_its_name() {
        let (result, text) = output(&args("/etc/passwd", false));
        let failure = result.unwrap_err();
        assert!(failure.message.starts_with("/etc/passwd: "), "{failure}");
        assert_eq!((failure.exit, text.as_str()), (Exit::Usage, ""));
    }
}
