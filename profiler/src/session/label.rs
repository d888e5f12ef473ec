//! What a wait was about, as the innermost frame of its stack: `[blocked: futex]`. So it is seen, summed up and selected
//! in every report and by every other tool as functions are.

use std::collections::HashMap;

use profiler_common::{
    sample::What,
    sched::wait::{Detail, Queue},
};

use crate::model::{
    FrameKind, Function, FunctionId, Line, Location, LocationId, Module, ModuleId, ModuleKind, Profile,
};

/// The module that labels are in.
const MODULE: &str = "[off-cpu]";

/// The label of samples of that kind, if they have one.
pub fn of(what: What, detail: u32) -> Option<String> {
    let detail = Detail(detail);
    let mut words = match what {
        What::Tick | What::Switch | What::Hook0 | What::Hook1 | What::Hook2 | What::Hook3 => return None,
        What::Blocked => format!("blocked: {}", detail.cause().name()),
        What::Queued => format!("runnable: {}", detail.queue().map_or("unknown", Queue::name)),
    };
    if what == What::Blocked && detail.is_uninterruptible() {
        words.push_str(", uninterruptible");
    }
    if detail.is_short() {
        words.push_str(", below --min-block");
    }
    if detail.is_unfinished() {
        words.push_str(", until the end");
    }
    Some(format!("[{words}]"))
}

/// Whether the label is the whole stack: there is none by intention, or by nature.
pub fn is_whole(what: What, detail: u32) -> bool {
    let detail = Detail(detail);
    match what {
        What::Tick | What::Switch | What::Hook0 | What::Hook1 | What::Hook2 | What::Hook3 => false,
        What::Blocked => detail.is_short(),
        What::Queued => detail.queue() == Some(Queue::New),
    }
}

/// The labels in a profile.
#[derive(Default)]
pub struct Labels {
    module: Option<ModuleId>,
    locations: HashMap<String, LocationId>,
}

impl Labels {
    /// The location of a label.
    pub fn location(&mut self, label: String, profile: &mut Profile) -> LocationId {
        if let Some(&id) = self.locations.get(&label) {
            return id;
        }
        let module = *self.module.get_or_insert_with(|| {
            let module = Module { path: MODULE.to_owned(), build_id: None, kind: ModuleKind::Kernel };
            profile.modules.push(module);
            ModuleId(profile.modules.len() as u32 - 1)
        });
        let function = FunctionId(profile.functions.len() as u32);
        profile.functions.push(Function { name: label.clone(), file: None, unresolved: None });
        let id = LocationId(profile.locations.len() as u32);
        profile.locations.push(Location {
            module,
            // No address: a number, for readers that take equal addresses for the same location.
            address: self.locations.len() as u64,
            lines: vec![Line { function, line: 0 }],
            kind: FrameKind::Kernel,
        });
        self.locations.insert(label, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::sched::cause::Cause;

    use super::*;

    #[test]
    fn waits_have_labels_and_samples_have_none() {
        let blocked = |cause, uninterruptible| Detail::blocked(cause, uninterruptible);
        let text = |what, detail: Detail| of(what, detail.0);
        let label = |words: &str| Some(words.to_owned());
        assert_eq!(text(What::Blocked, blocked(Cause::Futex, false)), label("[blocked: futex]"));
        assert_eq!(
            text(What::Blocked, blocked(Cause::Disk, true).unfinished()),
            label("[blocked: disk, uninterruptible, until the end]")
        );
        assert_eq!(
            text(What::Blocked, blocked(Cause::Pipe, false).short()),
            label("[blocked: pipe, below --min-block]")
        );
        assert_eq!(text(What::Queued, Detail::queued(Queue::Preempted)), label("[runnable: preempted]"));
        assert_eq!([What::Tick, What::Switch].map(|what| of(what, 0)), [None, None]);
    }

    #[test]
    fn a_label_is_one_location() {
        let mut profile = Profile::default();
        let mut labels = Labels::default();
        let mut location = |text: &str| labels.location(text.to_owned(), &mut profile);
        let [a, b, c] = [location("[a]"), location("[b]"), location("[a]")];
        assert!(a == c && a != b);
        assert_eq!((profile.modules.len(), profile.functions.len(), profile.locations.len()), (1, 2, 2));
    }
}
