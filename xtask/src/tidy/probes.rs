//! One probe, one name: its kernel side, its shared types and its user side are files of the same name.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;

/// Where a probe's three parts are.
const SIDES: [&str; 3] = ["profiler-ebpf/src/probe/", "profiler-common/src/probe/", "profiler/src/probe/"];

/// Files that are not on every side, and why.
const EXCEPTIONS: [(&str, &str); 5] = [
    ("mod", "the list of the probes"),
    ("chosen", "what of the probes' events a user asks for"),
    ("event", "which events there are"),
    ("java", "names of events that the probes `uprobe` and `between` record"),
    (
        "process",
        "process events feed the symbolizer and the filter: nobody asks for them by name, nothing is counted",
    ),
];

/// Checks the names of all files.
pub fn check<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<Problem> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for path in paths {
        for side in SIDES {
            // A probe may be a file or a folder.
            let Some(rest) = path.strip_prefix(side) else { continue };
            let name = rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs");
            if !EXCEPTIONS.iter().any(|(exception, _)| *exception == name) {
                found.entry(name).or_default().insert(side);
            }
        }
    }
    let missing = |(name, sides): (&str, BTreeSet<&str>)| {
        let absent: Vec<_> = SIDES.into_iter().filter(|side| !sides.contains(side)).collect();
        let present = sides.first().copied().unwrap_or_default();
        let message = format!("the probe `{name}` has no part in {}", absent.join(" and "));
        (!absent.is_empty()).then(|| Problem::new(&format!("{present}{name}.rs"), 0, message))
    };
    found.into_iter().filter_map(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_on_all_sides_is_right() {
        let paths = [
            "profiler-ebpf/src/probe/cpu.rs",
            "profiler-common/src/probe/cpu.rs",
            "profiler/src/probe/cpu/mod.rs",
        ];
        assert_eq!(check(paths.into_iter()), []);
        assert_eq!(check(["profiler-ebpf/src/probe/mod.rs", "profiler/src/render/svg.rs"].into_iter()), []);
    }

    #[test]
    fn a_probe_that_lacks_a_side_is_refused() {
        let paths = ["profiler-ebpf/src/probe/cpu.rs", "profiler-common/src/probe/cpus.rs"];
        let problems: Vec<_> = check(paths.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "profiler-ebpf/src/probe/cpu.rs: the probe `cpu` has no part in profiler-common/src/probe/ and profiler/src/probe/",
                "profiler-common/src/probe/cpus.rs: the probe `cpus` has no part in profiler-ebpf/src/probe/ and profiler/src/probe/",
            ]
        );
    }
}
