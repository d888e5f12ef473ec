//! Who ended a wait, on the stack that waited: from the label inwards `[woken by COMM]`, and the waker's stack from its
//! innermost function outwards. So a flamegraph reads from the one that waited to the one that released it.

use std::collections::HashMap;

use profiler_common::{Comm, sample::What, sched::wait::Detail};

use super::{build::Hook, label::Label};
use crate::model::{FrameKind, Line, Location, LocationId, Profile, name};

/// The kernel function that the hook is in (kernel/sched/core.c).
pub const HOOK: Hook = Hook { hooked: Some("try_to_wake_up"), inside: &[] };

/// Whether a sample is of a wait that has ended, and has a stack.
pub fn is_ended(what: What, detail: u32) -> bool {
    let detail = Detail(detail);
    what == What::Blocked && !detail.is_short() && !detail.is_unfinished()
}

/// The label of the waker; `None`: an interrupt.
pub fn label(comm: Option<&Comm>) -> Label {
    Label::of_wait(comm.map_or_else(
        || "[woken by an interrupt]".to_owned(),
        |comm| format!("[woken by {}]", name::clean_c(comm)),
    ))
}

/// The label of a wake-up that nobody saw.
pub fn unseen() -> Label {
    Label::of_wait("[waker not seen]".to_owned())
}

/// Locations whose inlined functions are locations of their own, because they are read the other way round.
#[derive(Default)]
pub struct Turned {
    locations: HashMap<LocationId, Vec<LocationId>>,
}

impl Turned {
    /// What stands for a location, innermost first.
    pub fn location(&mut self, id: LocationId, profile: &mut Profile) -> Vec<LocationId> {
        if profile.locations[id.index()].lines.len() < 2 {
            return vec![id];
        }
        let turned = self.locations.entry(id).or_insert_with(|| {
            let Location { module, address, kind, ref lines } = profile.locations[id.index()];
            let lines: Vec<Line> = lines.clone();
            let physical = lines.len() - 1;
            let first = profile.locations.len() as u32;
            profile.locations.extend(lines.into_iter().enumerate().map(|(depth, line)| Location {
                module,
                address,
                lines: vec![line],
                kind: if depth < physical { FrameKind::Inlined } else { kind },
            }));
            (first..profile.locations.len() as u32).map(LocationId).collect()
        });
        turned.clone()
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::sched::{cause::Cause, wait::Queue};

    use super::*;
    use crate::model::{Function, FunctionId, ModuleId};

    #[test]
    fn waits_that_have_ended_have_wakers() {
        let blocked = Detail::blocked(Cause::Pipe, false);
        assert!(is_ended(What::Blocked, blocked.0));
        assert!(
            !is_ended(What::Blocked, blocked.short().0) && !is_ended(What::Blocked, blocked.unfinished().0)
        );
        assert!(!is_ended(What::Queued, Detail::queued(Queue::Woken).0) && !is_ended(What::Tick, 0));
        assert_eq!(label(Some(b"a;b\n\0\0\0\0\0\0\0\0\0\0\0\0")).text, "[woken by a;b\\n]");
        assert_eq!(label(None).text, "[woken by an interrupt]");
    }

    #[test]
    fn inlined_functions_are_turned_one_by_one() {
        let function = |name: &str| Function { name: name.to_owned(), file: None, unresolved: None };
        let line = |at| Line { function: FunctionId(at), line: at };
        let location = |kind, lines| Location { module: ModuleId(0), address: 7, lines, kind };
        let mut profile = Profile {
            functions: vec![function("inner"), function("outer"), function("asm_sysvec_timer")],
            locations: vec![
                location(FrameKind::Native, vec![line(0), line(1)]),
                location(FrameKind::Kernel, vec![line(2)]),
            ],
            ..Profile::default()
        };
        let mut turned = Turned::default();
        let ids = turned.location(LocationId(0), &mut profile);
        assert_eq!(ids, turned.location(LocationId(0), &mut profile));
        let found: Vec<_> = ids.iter().map(|id| &profile.locations[id.index()]).collect();
        assert_eq!(
            found.iter().map(|l| (l.kind, l.lines[0].line)).collect::<Vec<_>>(),
            [(FrameKind::Inlined, 0), (FrameKind::Native, 1)]
        );
        assert_eq!(turned.location(LocationId(1), &mut profile), [LocationId(1)]);
    }
}
