//! What making unwind tables takes: those of a Java process, and that of the largest library of a browser.
//!
//! Cold: made anew, the file read from disk. From the cache: as the next recording has it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{load, page, stats};
use crate::{
    process::{Failure, capture, say},
    workspace,
};

/// Where Firefox's library is. Chromium has no unwind tables of its own code on Debian.
const BROWSERS: [&str; 4] = [
    "/usr/lib/firefox-esr/libxul.so",
    "/usr/lib/firefox/libxul.so",
    "/usr/lib64/firefox/libxul.so",
    "/opt/firefox/libxul.so",
];
/// Where Java machines are, each in a directory.
const JAVA: &str = "/usr/lib/jvm";

/// One or more files whose tables are made one after the other.
pub struct Subject {
    files: Vec<PathBuf>,
    /// Of all files, s, a value per round.
    cold_s: Vec<f64>,
    cached_s: Vec<f64>,
    peak_rss_mib: Vec<f64>,
    /// As the last run said.
    rows: Vec<Value>,
}

/// What was measured.
pub struct Loading {
    /// libjvm and libc; `None` without a Java machine.
    pub java: Option<Subject>,
    /// A browser's library; `None` without a browser that has tables.
    pub browser: Option<Subject>,
    rounds: usize,
}

/// Measures what there is.
pub fn measure(rounds: usize) -> Result<Loading, Failure> {
    let libc = capture(Command::new("gcc").arg("-print-file-name=libc.so.6"))?;
    let java = libjvm().map(|libjvm| {
        Subject::new(vec![libjvm, fs::canonicalize(libc.trim()).unwrap_or_else(|_| libc.trim().into())])
    });
    let browser = BROWSERS.into_iter().map(PathBuf::from).find(|path| path.exists());
    let mut loading = Loading { java, browser: browser.map(|path| Subject::new(vec![path])), rounds };
    for round in 1..=rounds {
        say(format!("unwind tables, round {round} of {rounds}"));
        [&mut loading.java, &mut loading.browser].into_iter().flatten().try_for_each(Subject::round)?;
    }
    Ok(loading)
}

fn libjvm() -> Option<PathBuf> {
    let machines = fs::read_dir(JAVA).ok()?.flatten().map(|entry| entry.path().join("lib/server/libjvm.so"));
    machines.filter(|path| path.exists()).max()
}

impl Subject {
    fn new(files: Vec<PathBuf>) -> Self {
        Self { files, cold_s: vec![], cached_s: vec![], peak_rss_mib: vec![], rows: vec![] }
    }

    fn round(&mut self) -> Result<(), Failure> {
        load::drop_caches()?;
        let cold = self.make(&[])?;
        self.make(&["--cache"])?;
        let cached = self.make(&["--cache"])?;
        let rows = |document: &Value| document["rows"].as_array().cloned().unwrap_or_default();
        if !rows(&cached).iter().all(|row| row["from_cache"] == true) {
            return Err(Failure::new("an unwind table was not kept"));
        }
        self.cold_s.push(seconds(&cold));
        self.cached_s.push(seconds(&cached));
        self.peak_rss_mib
            .push(cold["cost"]["peak_rss_bytes"].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20));
        self.rows = rows(&cold);
        Ok(())
    }

    fn make(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let mut command = Command::new(workspace::release_binary()?);
        command.args(["unwind-table", "--json"]).args(arguments).args(&self.files);
        let text = capture(&mut command)?;
        serde_json::from_str(&text)
            .map_err(|e| Failure::new(format!("what `profiler unwind-table --json` wrote: {e}")))
    }

    /// Median of making them all anew, s.
    pub fn cold_s(&self) -> Option<f64> {
        stats::median(&self.cold_s)
    }

    /// Median of reading them all from the cache, s.
    pub fn cached_s(&self) -> Option<f64> {
        stats::median(&self.cached_s)
    }

    /// Largest resident set while they are made, MiB.
    pub fn peak_rss_mib(&self) -> Option<f64> {
        stats::largest(&self.peak_rss_mib)
    }

    fn cells(&self) -> Vec<String> {
        let sum = |key: &str| self.rows.iter().filter_map(|row| row[key].as_f64()).sum::<f64>();
        let bytes: u64 = self.files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
        vec![
            self.files.iter().map(|file| name(file)).collect::<Vec<_>>().join(", "),
            page::number(Some(bytes as f64 / 1e6), 0),
            page::number(Some(sum("rows")), 0),
            page::number(Some(sum("rules")), 0),
            page::number(Some(sum("table_bytes") / f64::from(1 << 20)), 1),
            page::number(self.cold_s().map(|s| 1e3 * s), 0),
            page::number(self.cached_s().map(|s| 1e3 * s), 1),
            page::number(self.peak_rss_mib(), 0),
        ]
    }
}

fn name(file: &Path) -> String {
    format!("`{}`", file.display())
}

fn seconds(document: &Value) -> f64 {
    let rows = document["rows"].as_array().into_iter().flatten();
    rows.filter_map(|row| row["took_ns"].as_f64()).sum::<f64>() / 1e9
}

impl Loading {
    /// The table and what is to be known of it.
    pub fn table(&self) -> String {
        let rows: Vec<_> = [&self.java, &self.browser].into_iter().flatten().map(Subject::cells).collect();
        let head =
            ["files", "MB", "rows", "rules", "kernel MiB", "cold ms", "from the cache ms", "peak RSS MiB"];
        let mut text = format!(
            "\nUnwind tables: medians of {} runs of `profiler unwind-table`; cold is with an empty page cache.\n\n{}",
            self.rounds,
            page::table(&head, &rows)
        );
        for (subject, what) in
            [(&self.java, "libjvm: there is no Java machine"), (&self.browser, "libxul: there is no Firefox")]
        {
            if subject.is_none() {
                text.push_str(&format!("\nNot measured: {what}.\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_takes_the_time_of_all_its_files() {
        let document = serde_json::json!({"rows": [{"took_ns": 1_500_000_000u64}, {"took_ns": 500_000_000}]});
        assert_eq!(seconds(&document), 2.0);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let table = Loading { java: None, browser: None, rounds: 3 }.table();
        assert!(table.contains("Not measured: libjvm"));
        assert!(table.contains("Not measured: libxul"));
    }
}
