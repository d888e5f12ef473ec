//! Which features of newer kernels a recording uses, and which it replaces: decided once, at the start, by trying what
//! the recording is going to use and nothing else (`host::features`).

use profiler_common::task::{TASK_BTF, TASK_PT_REGS, TaskOffsets};
use rustix::io::Errno;

use super::{RecordOptions, UnwindMode};
use crate::host::{
    features::{Fallback, Feature, Reason},
    kernel_stack,
};

/// The decisions made so far.
pub struct Fallbacks<'a> {
    forced: &'a [Feature],
    cpu: u32,
    used: Vec<Fallback>,
    notes: Vec<String>,
}

/// How the eBPF programs reach the current task.
pub struct TaskAccess {
    /// Helpers that they may call.
    pub helpers: u32,
    /// Offsets, with what the helpers that they may not call would give.
    pub offsets: TaskOffsets,
}

impl<'a> Fallbacks<'a> {
    /// None yet. What is tried on a CPU is tried on that one.
    pub fn new(options: &'a RecordOptions, cpu: u32) -> Self {
        Self { forced: &options.force_fallback, cpu, used: Vec::new(), notes: Vec::new() }
    }

    /// Whether the user lets the feature be used.
    pub fn may_use(&self, feature: Feature) -> bool {
        !self.forced.contains(&feature)
    }

    /// Takes down what became of a feature that was tried. Whether it is used.
    pub fn tried(&mut self, feature: Feature, result: Result<(), Errno>) -> bool {
        let reason = match result {
            _ if !self.may_use(feature) => Reason::Forced,
            Ok(()) => return true,
            Err(errno) => Reason::Missing(errno),
        };
        self.used.push(Fallback { feature, reason });
        false
    }

    /// Tries a feature unless it may not be used.
    fn has(&mut self, feature: Feature) -> bool {
        let result = if self.may_use(feature) { feature.detect(self.cpu) } else { Ok(()) };
        self.tried(feature, result)
    }

    /// Decides how the programs reach the current task. Without BTF they do not.
    pub fn task_access(&mut self, options: &RecordOptions) -> TaskAccess {
        let mut access = TaskAccess { helpers: 0, offsets: options.offsets };
        if access.offsets.known == 0 {
            return access;
        }
        if self.has(Feature::TaskBtf) {
            access.helpers |= TASK_BTF;
        }
        // A walk by tables starts from user registers, they tell why a task is blocked, and the kernel side's log tells them.
        let registers = options.unwind != UnwindMode::FramePointer
            || options.waits.is_some()
            || options.call_stacks.is_some()
            || options.log;
        if registers && access.helpers == 0 && self.may_use(Feature::TaskPtRegs) {
            self.used
                .push(Fallback { feature: Feature::TaskPtRegs, reason: Reason::Without(Feature::TaskBtf) });
        } else if registers && self.has(Feature::TaskPtRegs) {
            access.helpers |= TASK_PT_REGS;
        }
        // Whose code it is that runs in the kernel is seen from whose stack it runs on: from its start to these registers.
        let stacks = options.net.as_ref().is_some_and(|facts| facts.owners.is_some());
        if !stacks && (!registers || access.helpers & TASK_PT_REGS != 0) {
            return access;
        }
        match kernel_stack::user_registers_offset(&options.btf) {
            Ok(offset) => access.offsets.user_registers = offset,
            Err(error) => {
                self.notes.push(format!("user registers of tasks in the kernel are not known: {error}"));
            }
        }
        access
    }

    /// What the reader of the recording should know: nothing if the kernel has everything.
    pub fn into_notes(self) -> Vec<String> {
        let mut notes = self.notes;
        if !self.used.is_empty() {
            let used: Vec<String> = self.used.iter().map(Fallback::to_string).collect();
            notes.push(format!("fallbacks for newer kernel features: {}", used.join("; ")));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallbacks(forced: &[Feature]) -> Fallbacks<'_> {
        Fallbacks { forced, cpu: 0, used: Vec::new(), notes: Vec::new() }
    }

    #[test]
    fn what_is_there_is_no_note() {
        let mut fallbacks = fallbacks(&[]);
        assert!(fallbacks.tried(Feature::MmapBuildId, Ok(())));
        assert!(fallbacks.into_notes().is_empty());
    }

    #[test]
    fn what_is_missing_or_forced_is_one_note() {
        let mut fallbacks = fallbacks(&[Feature::TaskBtf]);
        assert!(!fallbacks.has(Feature::TaskBtf));
        assert!(!fallbacks.may_use(Feature::TaskBtf));
        assert!(!fallbacks.tried(Feature::MmapBuildId, Err(Errno::INVAL)));
        let notes = fallbacks.into_notes();
        assert_eq!(
            notes,
            [
                "fallbacks for newer kernel features: task-btf (forced): bpf_probe_read_kernel for each member; \
              mmap-build-id (the kernel lacks it): device and inode; the build id is read from the file"
            ]
        );
    }
}
