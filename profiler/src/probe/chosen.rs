//! What of the events is recorded, and as which sample types.

use profiler_common::sample::What;

use super::{Amount, Event, between, kprobe, tracepoint, uprobe};
use crate::model::SampleType;

/// An event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Which one.
    pub event: Event,
    /// What of it.
    pub part: Part,
}

/// What of an event is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// System calls of these names, in the order that they were named.
    Calls(Vec<String>),
    /// A tracepoint, and which of its hits.
    Tracepoint(tracepoint::Asked),
    /// A place in user code, or those of a marker.
    Uprobe(uprobe::Asked),
    /// A place in the kernel's code.
    Kprobe(kprobe::Asked),
    /// Times between two places in user code.
    Between(between::Asked),
}

/// A sample type that is recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// As recordings have it.
    pub sample_type: SampleType,
    /// Which of the kernel side's counts.
    pub what: What,
    /// What of them.
    pub amount: Amount,
}

impl Chosen {
    /// All of an event.
    pub const fn whole(event: Event) -> Self {
        Self { event, part: Part::Whole }
    }

    /// Its name, as `-e` has it.
    pub fn name(&self) -> String {
        match &self.part {
            Part::Whole => self.event.spec().name.to_owned(),
            Part::Calls(names) => format!("{}:{}", self.event.spec().name, names.join(",")),
            Part::Tracepoint(asked) => asked.name.clone(),
            Part::Uprobe(asked) => asked.name.clone(),
            Part::Kprobe(asked) => asked.name.clone(),
            Part::Between(asked) => asked.name.clone(),
        }
    }

    /// The sample types that it yields.
    pub fn sample_types(&self) -> Vec<Recorded> {
        let types = self.event.spec().sample_types.iter();
        types
            .map(|spec| Recorded {
                sample_type: match &self.part {
                    Part::Whole | Part::Calls(_) => SampleType::new(spec.name, spec.unit),
                    // Named as what the user named.
                    Part::Tracepoint(_) | Part::Uprobe(_) | Part::Kprobe(_) => {
                        SampleType::new(&self.name(), spec.unit)
                    }
                    Part::Between(asked) if spec.amount == Amount::Count => {
                        SampleType::new(&asked.number, spec.unit)
                    }
                    Part::Between(asked) => SampleType::new(&asked.name, spec.unit),
                },
                what: spec.what,
                amount: spec.amount,
            })
            .collect()
    }
}
