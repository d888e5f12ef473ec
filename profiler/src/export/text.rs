//! Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! Both are lines `name{labels} number`; they differ in the names of families, in escapes, in `# UNIT` and `# EOF`.
//! OpenMetrics' `_created` is left out: what does not know it takes it for another series of each counter.

use std::fmt::Write as _;

use super::{
    family::{Family, FamilyKind, Sample, Value, base_unit},
    histogram::Buckets,
};
use crate::model::Unit;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Prometheus,
    OpenMetrics,
}

/// Prometheus text 0.0.4.
pub fn prometheus(families: &[Family<'_>]) -> String {
    write(families, Dialect::Prometheus)
}

/// OpenMetrics 1.0.
pub fn open_metrics(families: &[Family<'_>]) -> String {
    let mut out = write(families, Dialect::OpenMetrics);
    out.push_str("# EOF\n");
    out
}

fn write(families: &[Family<'_>], dialect: Dialect) -> String {
    let mut out = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        head(&mut out, family, dialect);
        for sample in &family.samples {
            match sample.value {
                Value::Number(number) => {
                    line(&mut out, family, suffix(family.kind), sample, None);
                    amount(&mut out, number, family.unit);
                    out.push('\n');
                }
                Value::Buckets(buckets) => histogram(&mut out, family, sample, buckets),
            }
        }
    }
    out
}

/// What follows a family's name in the names of its samples.
pub fn suffix(kind: FamilyKind) -> &'static str {
    match kind {
        FamilyKind::Counter => "_total",
        FamilyKind::Info => "_info",
        FamilyKind::Gauge | FamilyKind::Histogram => "",
    }
}

fn head(out: &mut String, family: &Family<'_>, dialect: Dialect) {
    let (suffix, kind) = match (dialect, family.kind) {
        (Dialect::Prometheus, FamilyKind::Info) => (suffix(family.kind), "gauge"),
        (Dialect::Prometheus, FamilyKind::Counter) => (suffix(family.kind), "counter"),
        (_, FamilyKind::Counter) => ("", "counter"),
        (_, FamilyKind::Info) => ("", "info"),
        (_, FamilyKind::Gauge) => ("", "gauge"),
        (_, FamilyKind::Histogram) => ("", "histogram"),
    };
    let name = &family.name;
    // Writing to a string does not fail.
    _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
    let unit = base_unit(family.unit);
    if dialect == Dialect::OpenMetrics && !unit.is_empty() {
        _ = writeln!(out, "# UNIT {name} {unit}");
    }
    _ = write!(out, "# HELP {name}{suffix} ");
    escape(out, family.help, dialect == Dialect::OpenMetrics);
    out.push('\n');
}

/// Name and labels; `le`: a bucket's bound.
fn line(out: &mut String, family: &Family<'_>, suffix: &str, sample: &Sample<'_>, le: Option<&str>) {
    out.push_str(&family.name);
    out.push_str(suffix);
    let labels = sample.labels.iter().map(|(name, value)| (*name, value.as_ref()));
    let mut before = '{';
    for (name, value) in labels.chain(le.map(|le| ("le", le))) {
        out.push(before);
        out.push_str(name);
        out.push_str("=\"");
        escape(out, value, true);
        out.push('"');
        before = ',';
    }
    out.push_str(if before == ',' { "} " } else { " " });
}

fn histogram(out: &mut String, family: &Family<'_>, sample: &Sample<'_>, buckets: &Buckets) {
    for (bound, count) in buckets.cumulative() {
        let mut le = String::new();
        amount(&mut le, bound, family.unit);
        if !le.contains('.') {
            le.push_str(".0");
        }
        line(out, family, "_bucket", sample, Some(&le));
        _ = writeln!(out, "{count}");
    }
    line(out, family, "_bucket", sample, Some("+Inf"));
    _ = writeln!(out, "{}", buckets.count);
    line(out, family, "_sum", sample, None);
    amount(out, buckets.sum, family.unit);
    out.push('\n');
    line(out, family, "_count", sample, None);
    _ = writeln!(out, "{}", buckets.count);
}

/// A number in its base unit, exact.
fn amount(out: &mut String, value: u64, unit: Unit) {
    if unit != Unit::Nanoseconds {
        _ = write!(out, "{value}");
        return;
    }
    let (seconds, rest) = (value / 1_000_000_000, value % 1_000_000_000);
    _ = write!(out, "{seconds}");
    if rest > 0 {
        let digits = format!("{rest:09}");
        _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{Format, registry::tests::registry};

    #[test]
    fn seconds_are_exact_decimals() {
        for (ns, text) in
            [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (u64::MAX, "18446744073.709551615")]
        {
            let mut out = String::new();
            amount(&mut out, ns, Unit::Nanoseconds);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn families_of_open_metrics_have_their_units_and_an_end() {
        let page = String::from_utf8(registry("x").page(Format::OpenMetrics).to_vec()).unwrap();
        assert!(page.contains("# TYPE profiler_cpu_seconds counter\n# UNIT profiler_cpu_seconds seconds\n# HELP profiler_cpu_seconds "));
        assert!(
            page.contains("# TYPE profiler_build info\n") && page.contains("\nprofiler_build_info{version=")
        );
        assert!(page.ends_with("\n# EOF\n"));
    }
}
