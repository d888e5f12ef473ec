//! Questions to a recording: how many samples are of this process, in this function, with this stack.

use profiler::model::{Frame, FrameKind, Profile, StackEnd, Thread, Unit};

/// All samples of one thread with one stack.
pub struct Entry<'a> {
    /// Who.
    pub thread: &'a Thread,
    /// Leaf first, inlined functions expanded, kernel frames before user frames.
    pub frames: Vec<Frame<'a>>,
    /// How far the stack reaches.
    pub end: StackEnd,
    /// How many.
    pub samples: u64,
}

impl<'a> Entry<'a> {
    /// Whether a function of that name is in the stack.
    pub fn has(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.function.name == function)
    }

    /// Whether it was taken before its process's mappings and unwind tables were there: its stack may be cut.
    pub fn is_early(&self) -> bool {
        matches!(self.end, StackEnd::FirstSample | StackEnd::NotLoaded)
    }

    /// The frames that are not the kernel's.
    pub fn user_frames(&self) -> impl Iterator<Item = &Frame<'a>> {
        self.frames.iter().filter(|frame| frame.kind != FrameKind::Kernel)
    }

    /// The innermost frame that is not the kernel's.
    pub fn user_leaf(&self) -> Option<&Frame<'a>> {
        self.user_frames().next()
    }

    /// The stack as one line, for messages.
    pub fn line(&self) -> String {
        let frames: Vec<_> =
            self.frames.iter().map(|f| format!("{} ({})", f.function.name, f.module.name())).collect();
        let thread = self.thread;
        format!(
            "{:6} {} {}/{}: {} [{}]",
            self.samples,
            thread.process,
            thread.pid,
            thread.name,
            frames.join(" < "),
            self.end.words()
        )
    }
}

/// A recording to ask.
pub struct View<'a> {
    /// The samples.
    pub entries: Vec<Entry<'a>>,
    /// All of it.
    pub profile: &'a Profile,
}

impl<'a> View<'a> {
    /// A view of a recording, of what is counted first in it.
    pub fn of(profile: &'a Profile) -> Self {
        let count =
            profile.sample_types.iter().position(|t| t.unit == Unit::Count).expect("samples are counted");
        Self::at(profile, count)
    }

    /// A view of one sample type, whose values are taken for numbers of samples.
    pub fn of_type(profile: &'a Profile, name: &str) -> Self {
        let index = profile.sample_types.iter().position(|t| t.name == name);
        Self::at(profile, index.unwrap_or_else(|| panic!("no sample type {name}")))
    }

    fn at(profile: &'a Profile, count: usize) -> Self {
        let entry = |sample: &profiler::model::Sample| Entry {
            thread: &profile.threads[sample.thread.index()],
            frames: profile.frames(sample.stack).collect(),
            end: profile.stacks[sample.stack.index()].end,
            samples: u64::try_from(sample.values[count]).expect("counts are not negative"),
        };
        let entries = profile.samples.iter().map(entry).filter(|entry| entry.samples != 0);
        Self { entries: entries.collect(), profile }
    }

    /// Samples that a condition holds for.
    pub fn count(&self, condition: impl Fn(&Entry<'a>) -> bool) -> u64 {
        self.entries.iter().filter(|entry| condition(entry)).map(|entry| entry.samples).sum()
    }

    /// All samples.
    pub fn total(&self) -> u64 {
        self.count(|_| true)
    }

    /// Samples of one process.
    pub fn of_pid(&self, pid: u64) -> u64 {
        self.count(|entry| u64::from(entry.thread.pid) == pid)
    }

    /// Samples with a function in the stack.
    pub fn with(&self, function: &str) -> u64 {
        self.count(|entry| entry.has(function))
    }

    /// The entries that a condition holds for, most samples first, for messages.
    pub fn list(&self, condition: impl Fn(&Entry<'a>) -> bool) -> String {
        let mut entries: Vec<_> = self.entries.iter().filter(|entry| condition(entry)).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.samples));
        let lines: Vec<_> = entries.iter().take(20).map(|entry| entry.line()).collect();
        format!("\n{}\n({} stacks)", lines.join("\n"), entries.len())
    }
}
