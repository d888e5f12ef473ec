//! Lines about features of newer kernels: one for each that has a fallback, and a list of all for reports of errors.

use rustix::io::Errno;

use super::{
    super::{Check, explain::Op, facts::Facts},
    Degraded, Unavailable, failed, words, works,
};
use crate::host::{
    caps::Cap,
    features::{FEATURES, Feature, FeatureSpec},
};

/// A line for each feature that has a fallback.
pub(super) fn with_fallback(facts: &Facts) -> impl Iterator<Item = Check> {
    FEATURES.iter().map(|spec| with_fallback_line(spec, facts))
}

fn with_fallback_line(spec: &'static FeatureSpec, facts: &Facts) -> Check {
    let check = works(spec.name, spec.what, format!("used for {}", spec.used_for));
    let is_perf_events = spec.feature == Feature::MmapBuildId;
    let (op, caps) = if is_perf_events {
        (Op::PerfEventOpen, &[Cap::PERFMON][..])
    } else {
        (Op::ProgramLoad, &[Cap::BPF, Cap::PERFMON][..])
    };
    match facts.tried.feature(spec.feature) {
        Ok(()) => check,
        Err(errno @ (Errno::PERM | Errno::ACCESS)) if is_perf_events => {
            failed(check, Degraded, op, errno, caps, facts)
        }
        Err(_) if !is_perf_events && facts.tried.perf_program.is_err() => {
            check.not(Unavailable, "no program can be loaded: see line `bpf`")
        }
        Err(errno) => check
            .not(Degraded, format!("not here, {}; fallback: {}", words(errno), spec.instead))
            .now(format!("in Linux {} and later ({})", spec.since, spec.commit)),
    }
}

/// What newer kernels have, found or missing, used or not.
pub(super) fn list(facts: &Facts) -> Check {
    let tried = &facts.tried;
    let features = FEATURES.iter().map(|spec| (spec.name, tried.feature(spec.feature)));
    let all = features.chain(tried.other_features.iter().copied());
    let (mut found, mut missing, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for (name, result) in all {
        let names = match result {
            Ok(()) => &mut found,
            Err(Errno::PERM | Errno::ACCESS) => &mut unknown,
            Err(_) => &mut missing,
        };
        names.push(name);
    }
    let parts: Vec<String> = [("found", found), ("missing", missing), ("not allowed to look for", unknown)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}", names.join(", ")))
        .collect();
    works("kernel-features", "features of newer kernels", parts.join("; "))
}
