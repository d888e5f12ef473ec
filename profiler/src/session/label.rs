//! What a wait was about, as the innermost frame of its stack: `[blocked: futex]`. So it is seen, summed up and selected
//! in every report and by every other tool as functions are.

use std::collections::HashMap;

use profiler_common::{
    probe::{between, net_stacks::FAILED, socket_packets, syscall_stacks},
    sample::What,
    sched::{
        cause::Cause,
        wait::{Detail, Queue},
    },
};

use crate::{
    host::{btf::DropReasons, syscalls::Abi},
    model::{
        FrameKind, Function, FunctionId, Line, Location, LocationId, Module, ModuleId, ModuleKind, Profile,
    },
    symbolize::runtime::jvm::wait::Wait,
};

/// A frame that stands for no function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// The module that it is in.
    pub module: &'static str,
    /// Its name, brackets included.
    pub text: String,
}

impl Label {
    /// One about a wait.
    pub const fn of_wait(text: String) -> Self {
        Self { module: "[off-cpu]", text }
    }
}

/// The label of samples of that kind, if they have one. `reasons`: the kernel's names of why packets are dropped; `wait`: what
/// a runtime says that is waited for, where the kernel only knows that it is another thread.
pub fn of(what: What, detail: u32, reasons: &DropReasons, wait: Option<Wait>) -> Option<Label> {
    match what {
        What::Tick | What::Switch => None,
        What::Hook0 | What::Hook1 | What::Hook2 | What::Hook3 => {
            let text = match detail {
                between::UNFINISHED => "[until the end]",
                between::LEFT_OPEN => "[until the thread's end]",
                _ => return None,
            };
            Some(Label { module: "[span]", text: text.to_owned() })
        }
        What::Blocked | What::Queued => Some(Label::of_wait(of_wait(what, Detail(detail), wait))),
        What::Sent | What::Received => {
            let kind = ["[tcp]", "[udp]", "[unix]", "[another protocol]"].get(detail as usize);
            Some(Label { module: "[net]", text: kind.unwrap_or(&"[another protocol]").to_string() })
        }
        What::Connect => {
            let text = if detail == FAILED { "[failed]" } else { "[connected]" };
            Some(Label { module: "[net]", text: text.to_owned() })
        }
        What::SentAgain | What::Dropped => {
            let detail = socket_packets::Detail(detail);
            let why = reasons.name(detail.reason()).map_or_else(String::new, |reason| format!(": {reason}"));
            let words =
                if what == What::SentAgain { "sent again".to_owned() } else { format!("dropped{why}") };
            let whose = if detail.is_elsewhere() { ", outside of its process" } else { "" };
            Some(Label { module: "[net]", text: format!("[{words}{whose}]") })
        }
        What::Call | What::CallTime => {
            Some(Label { module: "[syscalls]", text: of_call(syscall_stacks::Detail(detail)) })
        }
    }
}

fn of_wait(what: What, detail: Detail, wait: Option<Wait>) -> String {
    let mut words = if what == What::Blocked {
        let cause = detail.cause();
        let wait = wait.filter(|_| cause == Cause::Futex);
        format!("blocked: {}", wait.map_or_else(|| cause.name(), Wait::key))
    } else {
        format!("runnable: {}", detail.queue().map_or("unknown", Queue::name))
    };
    if what == What::Blocked && detail.is_uninterruptible() {
        words.push_str(", uninterruptible");
    }
    if detail.is_not_sampled() {
        words.push_str(", stack not sampled");
    }
    if detail.is_short() {
        words.push_str(", below --min-block");
    }
    if detail.is_unfinished() {
        words.push_str(", until the end");
    }
    format!("[{words}]")
}

fn of_call(detail: syscall_stacks::Detail) -> String {
    let (abi, number) = Abi::of(detail.number());
    let (native, _) = Abi::of(0);
    let whose = if abi == native { String::new() } else { format!(", {}", abi.name()) };
    let unfinished = if detail.is_unfinished() { ", until the end" } else { "" };
    format!("[syscall: {}{whose}{unfinished}]", abi.call(number))
}

/// Whether the stack is that of an interrupt, from where it enters the kernel on.
pub fn is_of_interrupt(what: What, detail: u32) -> bool {
    what.is_of_packets() && socket_packets::Detail(detail).is_elsewhere()
}

/// Whether the label is the whole stack: there is none by intention, or by nature.
pub fn is_whole(what: What, detail: u32) -> bool {
    let detail = Detail(detail);
    match what {
        What::Blocked => detail.is_short() || detail.is_not_sampled(),
        What::Queued => detail.queue() == Some(Queue::New),
        _ => false,
    }
}

/// The labels in a profile.
#[derive(Default)]
pub struct Labels {
    modules: HashMap<&'static str, ModuleId>,
    locations: HashMap<Label, LocationId>,
}

impl Labels {
    /// The location of a label.
    pub fn location(&mut self, label: Label, profile: &mut Profile) -> LocationId {
        if let Some(&id) = self.locations.get(&label) {
            return id;
        }
        let module = *self.modules.entry(label.module).or_insert_with_key(|name| {
            let module = Module { path: (*name).to_owned(), build_id: None, kind: ModuleKind::Kernel };
            profile.modules.push(module);
            ModuleId(profile.modules.len() as u32 - 1)
        });
        let function = FunctionId(profile.functions.len() as u32);
        profile.functions.push(Function { name: label.text.clone(), file: None, unresolved: None });
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
    use profiler_common::{
        probe::{packets::NO_REASON, syscalls::COMPAT},
        sched::cause::Cause,
    };

    use super::*;

    #[test]
    fn waits_have_labels_and_samples_have_none() {
        let blocked = |cause, uninterruptible| Detail::blocked(cause, uninterruptible);
        let text =
            |what, detail: Detail| of(what, detail.0, &DropReasons::default(), None).map(|label| label.text);
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
        assert_eq!([What::Tick, What::Switch].map(|what| text(what, Detail(0))), [None, None]);
    }

    #[test]
    fn spans_that_did_not_end_say_so() {
        let text = |detail| of(What::Hook3, detail, &DropReasons::default(), None).map(|label| label.text);
        assert_eq!(text(between::ENDED), None);
        assert_eq!(text(between::UNFINISHED).as_deref(), Some("[until the end]"));
        assert_eq!(text(between::LEFT_OPEN).as_deref(), Some("[until the thread's end]"));
    }

    #[test]
    fn calls_have_their_names() {
        let detail = |number: libc::c_long, compat| syscall_stacks::Detail::of(number as u32, compat);
        let none = DropReasons::default();
        let label = of(What::Call, detail(libc::SYS_openat, false).0, &none, None).unwrap();
        assert_eq!((label.module, label.text.as_str()), ("[syscalls]", "[syscall: openat]"));
        let (compat, _) = Abi::of(COMPAT);
        let text = of(What::CallTime, detail(3, true).unfinished().0, &none, None).unwrap().text;
        assert_eq!(text, format!("[syscall: read, {}, until the end]", compat.name()));
    }

    #[test]
    fn packets_say_why_they_are_dropped_and_where() {
        let text = |what, reason, elsewhere| {
            of(what, socket_packets::Detail::of(reason, elsewhere).0, &DropReasons::default(), None)
                .unwrap()
                .text
        };
        assert_eq!(text(What::Dropped, 0x63, false), "[dropped: 0x63]");
        assert_eq!(text(What::Dropped, NO_REASON, true), "[dropped, outside of its process]");
        assert_eq!(text(What::SentAgain, NO_REASON, true), "[sent again, outside of its process]");
    }

    #[test]
    fn a_label_is_one_location() {
        let mut profile = Profile::default();
        let mut labels = Labels::default();
        let mut location = |text: &str| labels.location(Label::of_wait(text.to_owned()), &mut profile);
        let [a, b, c] = [location("[a]"), location("[b]"), location("[a]")];
        assert!(a == c && a != b);
        assert_eq!((profile.modules.len(), profile.functions.len(), profile.locations.len()), (1, 2, 2));
    }
}
