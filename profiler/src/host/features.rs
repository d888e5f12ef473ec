//! Features of newer kernels that are used where they are there, and what is used in their place elsewhere.
//!
//! [`FEATURES`] drives the choice at load, `--force-fallback`, `doctor` and the documents. Whether a feature is there is
//! found by trying it, never by the kernel's version: distributions carry features back, and configurations leave them
//! out. A probe asks only for what it uses, one system call each.

use std::{ffi::CStr, fmt};

use rustix::io::Errno;

use super::{
    bpf::{self, Program},
    kernel::Version,
    pmu::{self, Event, Scope},
};

/// A feature with a fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `bpf_get_current_task_btf`.
    TaskBtf,
    /// `bpf_task_pt_regs`. It takes what [`Feature::TaskBtf`] gives, and is not used without.
    TaskPtRegs,
    /// Build ids in perf's mmap2 records.
    MmapBuildId,
}

/// What a feature is.
#[derive(Clone, Copy, Debug)]
pub struct FeatureSpec {
    /// Which.
    pub feature: Feature,
    /// Its name: `doctor`'s line and the word for `--force-fallback`.
    pub name: &'static str,
    /// The first kernel that has it. For people: it is not asked for.
    pub since: Version,
    /// The kernel commit that brought it.
    pub commit: &'static str,
    /// The kernel's name for it.
    pub what: &'static str,
    /// What it is used for.
    pub used_for: &'static str,
    /// What is used without it.
    pub instead: &'static str,
}

/// All features that have a fallback.
pub const FEATURES: &[FeatureSpec] = &[
    FeatureSpec {
        feature: Feature::TaskBtf,
        name: "task-btf",
        since: Version::new(5, 11, 0),
        commit: "3ca1032ab7ab",
        what: "bpf_get_current_task_btf",
        used_for: "reading the current task by plain loads",
        instead: "bpf_probe_read_kernel for each member",
    },
    FeatureSpec {
        feature: Feature::TaskPtRegs,
        name: "task-pt-regs",
        since: Version::new(5, 15, 0),
        commit: "dd6e10fbd9fb",
        what: "bpf_task_pt_regs",
        used_for: "the user registers of a task that is in the kernel",
        instead: "their place on the kernel stack, computed from the kernel's BTF",
    },
    FeatureSpec {
        feature: Feature::MmapBuildId,
        name: "mmap-build-id",
        since: Version::new(5, 12, 0),
        commit: "88a16a130933",
        what: "build ids in perf's mmap2 records",
        used_for: "knowing which file was mapped without opening it",
        instead: "device and inode; the build id is read from the file",
    },
];

impl Feature {
    /// The registry's entry.
    pub fn spec(self) -> &'static FeatureSpec {
        FEATURES.iter().find(|spec| spec.feature == self).unwrap_or(&FEATURES[0])
    }

    /// Tries it, on this CPU if it is one of a CPU.
    ///
    /// # Errors
    /// EINVAL if the kernel does not have it; EPERM or EACCES if this process may not try.
    pub fn detect(self, cpu: u32) -> Result<(), Errno> {
        match self {
            Self::TaskBtf => bpf::load(Program::TaskBtf).map(drop),
            Self::TaskPtRegs => bpf::load(Program::TaskPtRegs).map(drop),
            Self::MmapBuildId => pmu::open(Event::ProcessEventsBuildId, Scope::Cpu(cpu)).map(drop),
        }
    }
}

/// Why a feature is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The user wants it so (`--force-fallback`).
    Forced,
    /// Trying it failed.
    Missing(Errno),
    /// A feature that it rests on is not used.
    Without(Feature),
}

/// A feature that is not used, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Which.
    pub feature: Feature,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FeatureSpec { name, instead, .. } = self.feature.spec();
        match self.reason {
            Reason::Forced => write!(f, "{name} (forced): {instead}"),
            Reason::Missing(Errno::INVAL | Errno::TOOBIG) => {
                write!(f, "{name} (the kernel lacks it): {instead}")
            }
            Reason::Missing(errno) => write!(f, "{name} ({errno}): {instead}"),
            Reason::Without(feature) => write!(f, "{name} (needs {}): {instead}", feature.spec().name),
        }
    }
}

/// The features of that name; all of them for `all`. `None`: no such name.
pub fn named(name: &str) -> Option<Vec<Feature>> {
    let found: Vec<_> =
        FEATURES.iter().filter(|spec| name == "all" || spec.name == name).map(|spec| spec.feature).collect();
    (!found.is_empty()).then_some(found)
}

/// What else newer kernels have.
#[derive(Clone, Copy, Debug)]
pub struct OtherFeature {
    /// The name that `doctor` gives it.
    pub name: &'static str,
    /// Tries it: EPERM or EACCES if this process may not, another error if it is not there.
    pub detect: fn() -> Result<(), Errno>,
}

/// Features that nothing uses yet but reports of errors should tell.
pub const OTHERS: &[OtherFeature] = &[
    // Helpers by their numbers in include/uapi/linux/bpf.h: since 5.15 and 5.17.
    OtherFeature { name: "attach-cookie", detect: || bpf::knows_helper(174) },
    OtherFeature { name: "bpf-loop", detect: || bpf::knows_helper(181) },
    // Since 5.11.
    OtherFeature { name: "module-btf", detect: module_btf },
    // Tracepoints since 5.19 and 6.3.
    OtherFeature { name: "contention_begin", detect: || tracepoint(c"contention_begin") },
    OtherFeature { name: "sock_send_length", detect: || tracepoint(c"sock_send_length") },
];

/// Whether the types of some module are published beside the kernel's own.
fn module_btf() -> Result<(), Errno> {
    let files = std::fs::read_dir("/sys/kernel/btf").into_iter().flatten().flatten();
    if files.map(|file| file.file_name()).any(|name| name != "vmlinux") { Ok(()) } else { Err(Errno::NOENT) }
}

/// Whether there is such a tracepoint: attaches to it for a moment, which needs no tracefs.
fn tracepoint(name: &CStr) -> Result<(), Errno> {
    let program = bpf::load(Program::RawTracepoint)?;
    bpf::attach_raw_tracepoint(&program, name).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_registered_once_under_a_name_of_its_own() {
        for feature in [Feature::TaskBtf, Feature::TaskPtRegs, Feature::MmapBuildId] {
            assert_eq!(FEATURES.iter().filter(|spec| spec.feature == feature).count(), 1);
            assert_eq!(feature.spec().feature, feature);
            assert_eq!(named(feature.spec().name), Some(vec![feature]));
        }
        assert_eq!(named("all").map(|all| all.len()), Some(FEATURES.len()));
        assert_eq!(named("task"), None);
    }

    #[test]
    fn a_fallback_says_why_and_what_instead() {
        let text = |reason| Fallback { feature: Feature::TaskPtRegs, reason }.to_string();
        let place = "their place on the kernel stack, computed from the kernel's BTF";
        assert_eq!(text(Reason::Forced), format!("task-pt-regs (forced): {place}"));
        assert_eq!(
            text(Reason::Without(Feature::TaskBtf)),
            format!("task-pt-regs (needs task-btf): {place}")
        );
        let missing = text(Reason::Missing(Errno::INVAL));
        assert_eq!(missing, format!("task-pt-regs (the kernel lacks it): {place}"));
    }

    #[test]
    fn what_cannot_be_is_not_there() {
        assert!(matches!(tracepoint(c"no_such_tracepoint"), Err(Errno::NOENT | Errno::PERM)));
    }
}
