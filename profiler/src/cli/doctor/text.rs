//! The report for people: a line per check, what to do below it.

use std::io::{self, Write};

use super::{Check, Status, can_record};

/// Writes the report. `colour`: with ANSI escapes.
pub fn write(checks: &[Check], colour: bool, out: &mut dyn Write) -> io::Result<()> {
    let width = |text: fn(&Check) -> &str| checks.iter().map(|check| text(check).len()).max().unwrap_or(0);
    let (ids, features) = (width(|check| check.id), width(|check| check.feature));
    let status_width = Status::Unavailable.name().len();
    writeln!(out, "{:ids$}  {:status_width$}  {:features$}  REASON", "LINE", "STATUS", "FEATURE")?;
    let indent = " ".repeat(ids + 2 + status_width + 2);
    for check in checks {
        let (start, end) = if colour { (escape(check.status), "\x1b[0m") } else { ("", "") };
        let (id, feature, reason) = (check.id, check.feature, &check.reason);
        let status = check.status.name();
        writeln!(out, "{id:ids$}  {start}{status:status_width$}{end}  {feature:features$}  {reason}")?;
        if check.status != Status::Works && !check.current.is_empty() {
            writeln!(out, "{indent}now:  {}", check.current)?;
        }
        let same = checks
            .iter()
            .take_while(|c| c.id != check.id)
            .find(|c| !c.mend.is_empty() && c.mend == check.mend);
        if let Some(same) = same {
            writeln!(out, "{indent}mend: as line `{}`", same.id)?;
            continue;
        }
        for command in &check.mend {
            writeln!(out, "{indent}mend: {command}")?;
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let verdict = if can_record(checks) {
        "`profiler record` works here"
    } else {
        "`profiler record` cannot work here"
    };
    let (degraded, unavailable) = (count(Status::Degraded), count(Status::Unavailable));
    writeln!(
        out,
        "\n{verdict}: {} work, {degraded} degraded, {unavailable} unavailable.",
        count(Status::Works)
    )
}

fn escape(status: Status) -> &'static str {
    match status {
        Status::Works => "\x1b[32m",
        Status::Degraded => "\x1b[33m",
        Status::Unavailable => "\x1b[31m",
    }
}
