//! Samples counted by stack (`profiler_common::sample`), drained window by window.
//!
//! The kernel side (`profiler-ebpf/src/sample.rs`) writes counts keyed by stack hashes, and each stack once per
//! generation (`kept`: how long user space holds them).

use std::{collections::HashMap, rc::Rc};

use aya::maps::{MapData, ProgramArray};
use profiler_common::{
    loss::Loss,
    sample::{COUNT, CountKey, CountValue, Programs, Seen, WALK},
    sched::waker::Woken,
    stack::{EMPTY_STACK, RawStack},
};

use super::{
    BpfError,
    delayed::Delayed,
    generation::Generations,
    in_calls::InCalls,
    kept::{CapturedStack, KeptStacks, Named},
    load::Kernel,
    open_spans::{OpenSpans, Switch},
    stats::{Counters, map_memory},
    waits::Waits,
};

/// Fewest map entries of a generation: room for a burst even at very low rates.
pub const MIN_ENTRIES: u64 = 256;
/// Most map entries of a generation: 32 MiB of stacks. Beyond it the window is made shorter instead.
pub const MAX_ENTRIES: u64 = 32 * 1024;
/// Shortest window, ns: starting a generation waits for grace periods of the kernel, which take some ms each.
pub const MIN_WINDOW_NS: u64 = 20_000_000;

/// What was drained in one window.
#[derive(Debug, Default)]
pub struct Window {
    /// Counts.
    pub counts: Vec<(CountKey, CountValue)>,
    /// Stacks that were drained with them.
    pub new_stacks: usize,
    stacks: Rc<KeptStacks>,
}

impl Window {
    /// The stack of that name; `None` if it is empty by nature or was lost (see [`Window::is_lost`]).
    pub fn stack(&self, hash: u64) -> Option<&CapturedStack> {
        self.stacks.get(hash)
    }

    /// What a wait was counted with in the place of its user stack, if that is no stack.
    pub fn woken(&self, name: u64) -> Option<&Woken> {
        self.stacks.woken(name)
    }

    /// True if there was a stack of that name, but it is not to be had.
    pub fn is_lost(&self, hash: u64) -> bool {
        hash != EMPTY_STACK && self.stack(hash).is_none()
    }
}

/// How large the maps are, and how often they are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Entries of one generation of counts.
    pub counts: u32,
    /// Entries of one generation of stacks.
    pub stacks: u32,
    /// Length of the first window, ns.
    pub first_window_ns: u64,
    /// Length that no window exceeds, ns.
    pub longest_window_ns: u64,
}

impl Sizing {
    /// Sizes for samples of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            counts: self.counts.saturating_add(other.counts).min(MAX_ENTRIES as u32),
            stacks: self.stacks.saturating_add(other.stacks).min(MAX_ENTRIES as u32),
            first_window_ns: self.first_window_ns.min(other.first_window_ns),
            longest_window_ns: self.longest_window_ns.min(other.longest_window_ns),
        }
    }

    /// A quarter of it, drained as rarely as what comes allows, at most once a second: for recordings that see little and go on
    /// without end.
    pub fn small(self) -> Self {
        let quarter = |entries: u32| (entries / 4).max(MIN_ENTRIES as u32);
        Self {
            counts: quarter(self.counts),
            stacks: quarter(self.stacks),
            longest_window_ns: self.longest_window_ns.max(1_000_000_000),
            ..self
        }
    }

    /// The length of the window after one of `window_ns`: half of it if a generation was more than half full, twice if
    /// it was nearly empty.
    pub fn next_window_ns(&self, window_ns: u64, drained: &Window) -> u64 {
        let share = |used: usize, of: u32| used as f64 / f64::from(of.max(1));
        let full = share(drained.counts.len(), self.counts).max(share(drained.new_stacks, self.stacks));
        let next = match full {
            _ if full > 0.5 => window_ns / 2,
            _ if full < 0.125 => window_ns * 2,
            _ => window_ns,
        };
        next.clamp(MIN_WINDOW_NS.min(self.longest_window_ns), self.longest_window_ns)
    }
}

/// The programs that walk user stacks by tables; they can be called as long as this exists.
pub struct WalkPrograms {
    _calls: ProgramArray<MapData>,
}

impl WalkPrograms {
    /// Loads them.
    pub fn load(kernel: &mut Kernel, programs: &Programs) -> Result<Self, BpfError> {
        let calls = [(WALK, programs.walk), (COUNT, programs.count)];
        Ok(Self { _calls: kernel.tail_calls(programs.calls, &calls)? })
    }
}

/// What is counted only when it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Follow {
    /// Tasks off the CPU.
    pub waits: bool,
    /// System calls, when they return or with a stack that the kernel side remembers.
    pub calls: bool,
    /// Times between two places in user code.
    pub spans: bool,
}

/// The maps that samples are counted in.
pub struct Samples {
    counts: Generations<CountKey, CountValue>,
    stacks: Generations<u64, RawStack>,
    seen: Counters,
    losses: Counters,
    kept: Rc<KeptStacks>,
    delayed: Vec<Box<dyn Delayed>>,
    switch: Option<Switch>,
}

impl Samples {
    /// Takes the maps out of the object and makes their generations.
    pub fn new(kernel: &mut Kernel, sizing: &Sizing, follow: Follow) -> Result<Self, BpfError> {
        let mut delayed: Vec<Box<dyn Delayed>> = Vec::new();
        if follow.waits {
            delayed.push(Box::new(Waits::new(kernel)?));
        }
        if follow.calls {
            delayed.push(Box::new(InCalls::new(kernel)?));
        }
        let mut switch = None;
        if follow.spans {
            let new = Switch::new(kernel)?;
            delayed.push(Box::new(OpenSpans::new(kernel, new.off_ns())?));
            switch = Some(new);
        }
        Ok(Self {
            counts: Generations::new(&mut kernel.ebpf, "COUNTS", sizing.counts)?,
            stacks: Generations::new(&mut kernel.ebpf, "STACKS", sizing.stacks)?,
            seen: Counters::new(&kernel.ebpf, "SEEN")?,
            losses: Counters::new(&kernel.ebpf, "LOSSES")?,
            kept: Rc::default(),
            delayed,
            switch,
        })
    }

    /// Times between two places are counted from now on, if they are to be: all hooks are there.
    pub fn begin_spans(&mut self) -> Result<(), BpfError> {
        self.switch.as_mut().map_or(Ok(()), Switch::turn_on)
    }

    /// They are not any more, before the first hook is taken away; those that go on are counted until now, `now_ns`.
    pub fn end_spans(&mut self, now_ns: u64) -> Result<(), BpfError> {
        self.switch.as_mut().map_or(Ok(()), |switch| switch.turn_off(now_ns))
    }

    /// Ends a window while samples are taken.
    pub fn rotate(&mut self) -> Result<Window, BpfError> {
        let mut counts = Vec::new();
        self.counts.rotate(|key, value| counts.push((*key, *value)))?;
        let mut stacks = HashMap::new();
        self.stacks.rotate(|hash, stack| _ = stacks.insert(*hash, Named::of(stack)))?;
        Ok(self.window(counts, stacks))
    }

    /// Waits until every program that runs now has ended.
    pub fn wait_for_programs(&mut self) -> Result<(), BpfError> {
        self.counts.wait_for_programs()
    }

    /// Reads the last window, when no program takes samples any more. Waits that go on are counted until `end_ns`.
    pub fn finish(&mut self, end_ns: u64) -> Result<Window, BpfError> {
        let mut counts = Vec::new();
        self.counts.finish(|key, value| counts.push((*key, *value)))?;
        let mut stacks = HashMap::new();
        self.stacks.finish(|hash, stack| _ = stacks.insert(*hash, Named::of(stack)))?;
        counts.extend(self.unfinished(end_ns)?);
        Ok(self.window(counts, stacks))
    }

    /// What goes on is counted until `now_ns`, and not followed any more. Only when no program writes it, and behind
    /// [`Samples::rotate`], which has its stacks.
    pub fn end_delayed(&mut self, now_ns: u64) -> Result<Window, BpfError> {
        let counts = self.unfinished(now_ns)?;
        Ok(self.window(counts, HashMap::new()))
    }

    fn unfinished(&mut self, until_ns: u64) -> Result<Vec<(CountKey, CountValue)>, BpfError> {
        let mut counts = Vec::new();
        for delayed in &mut self.delayed {
            counts.extend(delayed.unfinished(until_ns)?);
        }
        Ok(counts)
    }

    fn window(&mut self, counts: Vec<(CountKey, CountValue)>, stacks: HashMap<u64, Named>) -> Window {
        let new_stacks = stacks.len();
        let named = || counts.iter().flat_map(|(key, _)| [key.kernel_stack, key.user_stack]).collect();
        let waiting = (!self.delayed.is_empty())
            .then_some(|| self.delayed.iter().flat_map(|delayed| delayed.stacks()).collect());
        // Nobody has the last window any more: nothing is copied.
        Rc::make_mut(&mut self.kept).advance(stacks, named, waiting);
        Window { counts, new_stacks, stacks: Rc::clone(&self.kept) }
    }

    /// Hits by what became of them.
    pub fn seen(&self, what: Seen) -> Result<u64, BpfError> {
        self.seen.sum(what as u32)
    }

    /// The kernel side's loss counters.
    pub fn losses(&self) -> Result<Vec<(Loss, u64)>, BpfError> {
        Loss::SAMPLING.iter().map(|&loss| Ok((loss, self.losses.sum(loss as u32)?))).collect()
    }

    /// One of them.
    pub fn loss(&self, loss: Loss) -> Result<u64, BpfError> {
        self.losses.sum(loss as u32)
    }

    /// Kernel memory of the generations, bytes.
    pub fn map_memory(&self) -> u64 {
        let delayed: u64 = self.delayed.iter().map(|delayed| delayed.memory()).sum();
        self.counts.fds().chain(self.stacks.fds()).map(map_memory).sum::<u64>() + delayed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_fill_of_the_generations() {
        const MS: u64 = 1_000_000;
        let sizing =
            Sizing { counts: 100, stacks: 100, first_window_ns: 50 * MS, longest_window_ns: 250 * MS };
        let (what, detail) = (0, 0);
        let key = CountKey { pid: 1, tid: 1, incarnation: 0, kernel_stack: 0, user_stack: 0, what, detail };
        let drained = |counts: usize| Window {
            counts: vec![(key, CountValue { count: 1, ns: 0, first_ns: 0, comm: [0; 16] }); counts],
            ..Window::default()
        };
        let next = |window_ms: u64, counts| sizing.next_window_ns(window_ms * MS, &drained(counts)) / MS;
        assert_eq!([next(50, 0), next(200, 12), next(250, 0)], [100, 250, 250]);
        assert_eq!([next(50, 13), next(50, 50)], [50, 50]);
        assert_eq!([next(200, 51), next(200, 100), next(30, 100), next(20, 100)], [100, 100, 20, 20]);
    }
}
