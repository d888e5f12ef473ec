//! What a recording accumulates in user space: samples keyed by small numbers, over interned stacks.
//!
//! Raw addresses live only until the end of the window they were drained in: user stacks become module offsets at once
//! (their process may be gone a moment later), kernel stacks are kept as addresses. Memory therefore grows with the
//! number of *distinct* stacks, threads and windows, not with the number of samples.

use std::{collections::HashMap, hash::Hash, ops::AddAssign};

use profiler_common::{
    Comm,
    sample::{CountKey, CountValue, What},
    sched::waker::Woken,
    stack::{EMPTY_STACK, WalkEnd},
};

use crate::{
    bpf::samples::Window,
    symbolize::{FrameId, Owner, Symbolizer},
};

/// Most windows kept apart; beyond it the time resolution is halved.
const MAX_WINDOWS: u64 = 1024;

/// Most entries of the look-up cache of user stacks; it is emptied beyond (only speed is lost).
const MAX_CACHED: usize = 64 * 1024;

/// A thread as the kernel side identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadKey {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// `CountKey::incarnation`.
    pub incarnation: u64,
}

/// What is known of a sampled thread.
#[derive(Clone, Debug)]
pub struct SampledThread {
    /// Who.
    pub key: ThreadKey,
    /// The last name that it was seen with: threads are made under their maker's name and then take one of their own.
    pub comm: Comm,
    /// `CLOCK_MONOTONIC` of the sample that has it, ns.
    pub named_ns: u64,
    /// Name of its process at its first sample, if known.
    pub process: Option<Comm>,
}

/// One side of a captured stack, kept for naming.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeptStack {
    /// Leaf first; empty if there was none.
    pub frames: Box<[FrameId]>,
    /// How the walk ended; `None`: there was a stack, but it could not be kept.
    pub end: Option<WalkEnd>,
}

/// Who ended a wait, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SampledWaker {
    /// Its command name; `None`: an idle CPU, so that it was an interrupt.
    pub comm: Option<Comm>,
    /// Index into [`Collector::stacks`].
    pub kernel: u32,
    /// Index into [`Collector::stacks`].
    pub user: u32,
}

/// What, who, where (kernel and user stack) and when, as indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// Index into [`Collector::threads`].
    pub thread: u32,
    /// Index into [`Collector::stacks`].
    pub kernel: u32,
    /// Index into [`Collector::stacks`].
    pub user: u32,
    /// Of what.
    pub what: What,
    /// Of which kind (`CountKey::detail`).
    pub detail: u32,
    /// One more than an index into [`Collector::wakers`]; 0: none is known.
    pub waker: u32,
    /// Number of the window: its start divided by [`Collector::window_ns`].
    pub window: u32,
}

/// How many samples, and how long they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Their number.
    pub count: u64,
    /// Their time, ns.
    pub ns: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.ns = self.ns.saturating_add(other.ns);
    }
}

/// Numbers distinct values in the order of their first appearance.
#[derive(Debug)]
struct Interner<T> {
    values: Vec<T>,
    index: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash> Interner<T> {
    fn new() -> Self {
        Self { values: Vec::new(), index: HashMap::new() }
    }

    fn intern(&mut self, value: T) -> u32 {
        if let Some(&id) = self.index.get(&value) {
            return id;
        }
        let id = self.values.len() as u32;
        self.values.push(value.clone());
        self.index.insert(value, id);
        id
    }
}

const fn owner(key: &CountKey, value: &CountValue) -> Owner {
    Owner { pid: key.pid, incarnation: key.incarnation, first_ns: value.first_ns }
}

/// The accumulated recording.
#[derive(Debug)]
pub struct Collector {
    threads: Vec<SampledThread>,
    thread_index: HashMap<ThreadKey, u32>,
    stacks: Interner<KeptStack>,
    wakers: Interner<SampledWaker>,
    user_cache: HashMap<(u32, u64, u64), u32>,
    /// `Symbolizer::replacements` that the cache is of.
    replacements: u64,
    kernel_cache: HashMap<u64, u32>,
    /// Those of the present interval.
    samples: HashMap<SampleKey, Sum>,
    /// Those of intervals before.
    earlier: HashMap<SampleKey, Sum>,
    window_ns: u64,
}

impl Collector {
    /// An empty recording whose time resolution is at first `window_ns`.
    pub fn new(window_ns: u64) -> Self {
        Self {
            threads: Vec::new(),
            thread_index: HashMap::new(),
            stacks: Interner::new(),
            wakers: Interner::new(),
            user_cache: HashMap::new(),
            replacements: 0,
            kernel_cache: HashMap::new(),
            samples: HashMap::new(),
            earlier: HashMap::new(),
            window_ns,
        }
    }

    /// Adds a drained window that started `start_ns` after the recording did.
    pub fn add(&mut self, window: &Window, start_ns: u64, symbolizer: &mut Symbolizer) {
        while start_ns / self.window_ns >= MAX_WINDOWS {
            self.halve_resolution();
        }
        let number = (start_ns / self.window_ns) as u32;
        if std::mem::replace(&mut self.replacements, symbolizer.replacements()) != self.replacements {
            self.user_cache.clear();
        }
        for (key, value) in &window.counts {
            let thread = self.thread(key, value, symbolizer);
            let kernel = self.kernel_stack(key.kernel_stack, value.first_ns, window, symbolizer);
            let woken = window.woken(key.user_stack);
            let waited = woken.map_or(key.user_stack, |woken| woken.waited);
            let user = self.user_stack(owner(key, value), waited, window, symbolizer);
            let waker = woken.map_or(0, |woken| self.waker(woken, value, window, symbolizer) + 1);
            // A number that this version of the kernel side does not write.
            let Some(what) = What::from_u32(key.what) else { continue };
            let detail = key.detail;
            let sample = SampleKey { thread, kernel, user, what, detail, waker, window: number };
            *self.samples.entry(sample).or_default() += Sum { count: value.count, ns: value.ns };
        }
        // Kernel text can change too (modules, BPF programs); it is looked up anew in every window.
        self.kernel_cache.clear();
        if self.user_cache.len() > MAX_CACHED {
            self.user_cache.clear();
        }
    }

    fn thread(&mut self, key: &CountKey, value: &CountValue, symbolizer: &mut Symbolizer) -> u32 {
        let thread = ThreadKey { pid: key.pid, tid: key.tid, incarnation: key.incarnation };
        if let Some(&id) = self.thread_index.get(&thread) {
            let known = &mut self.threads[id as usize];
            if value.first_ns > known.named_ns {
                (known.comm, known.named_ns) = (value.comm, value.first_ns);
            }
            return id;
        }
        let id = self.threads.len() as u32;
        let process = if key.tid == 0 { None } else { symbolizer.process_comm(owner(key, value)) };
        let (comm, named_ns) = (value.comm, value.first_ns);
        self.threads.push(SampledThread { key: thread, comm, named_ns, process });
        self.thread_index.insert(thread, id);
        id
    }

    fn kernel_stack(
        &mut self,
        name: u64,
        first_ns: u64,
        window: &Window,
        symbolizer: &mut Symbolizer,
    ) -> u32 {
        if let Some(&id) = self.kernel_cache.get(&name) {
            return id;
        }
        let Some(stack) = window.stack(name) else { return self.no_stack(window.is_lost(name)) };
        let mut frames = Vec::with_capacity(stack.frames.len());
        symbolizer.kernel_stack(first_ns, &stack.frames, &mut frames);
        let id = self.stacks.intern(KeptStack { frames: frames.into(), end: Some(stack.end) });
        self.kernel_cache.insert(name, id);
        id
    }

    fn user_stack(&mut self, owner: Owner, name: u64, window: &Window, symbolizer: &mut Symbolizer) -> u32 {
        if name == EMPTY_STACK {
            return self.no_stack(false);
        }
        let cached = (owner.pid, owner.incarnation, name);
        if let Some(&id) = self.user_cache.get(&cached) {
            return id;
        }
        let Some(stack) = window.stack(name) else { return self.no_stack(true) };
        let mut frames = Vec::with_capacity(stack.frames.len());
        let right = match stack.end {
            // Walked by the kernel, which needs to know nothing.
            WalkEnd::Ended | WalkEnd::UnknownProcess | WalkEnd::NoRegisters | WalkEnd::TailCallFailed => None,
            _ => symbolizer.right_frames(owner, &stack.frames),
        };
        let walked = &stack.frames[..right.unwrap_or(stack.frames.len())];
        let broke = symbolizer.user_stack(owner, walked, &mut frames);
        let end = match stack.end {
            _ if right.is_some() => WalkEnd::NotLoaded,
            WalkEnd::Ended | WalkEnd::Truncated if broke => WalkEnd::Ended,
            // What was mapped when it was walked is not known any more.
            WalkEnd::Complete if broke => WalkEnd::NoMapping,
            end => end,
        };
        let id = self.stacks.intern(KeptStack { frames: frames.into(), end: Some(end) });
        self.user_cache.insert(cached, id);
        id
    }

    /// Who ended the waits of a count: index into [`Collector::wakers`].
    fn waker(
        &mut self,
        woken: &Woken,
        value: &CountValue,
        window: &Window,
        symbolizer: &mut Symbolizer,
    ) -> u32 {
        // The first of the waits was over then at the latest: the waker may not have been there when it began.
        let ended_ns = value.first_ns.saturating_add(value.ns);
        let kernel = self.kernel_stack(woken.kernel_stack, ended_ns, window, symbolizer);
        let owner = Owner { pid: woken.pid, incarnation: woken.incarnation, first_ns: ended_ns };
        let user = self.user_stack(owner, woken.user_stack, window, symbolizer);
        let comm = (woken.pid != 0).then_some(woken.comm);
        self.wakers.intern(SampledWaker { comm, kernel, user })
    }

    fn no_stack(&mut self, lost: bool) -> u32 {
        let end = if lost { None } else { Some(WalkEnd::Ended) };
        self.stacks.intern(KeptStack { frames: Box::default(), end })
    }

    fn halve_resolution(&mut self) {
        self.window_ns *= 2;
        for samples in [&mut self.samples, &mut self.earlier] {
            for (key, sum) in std::mem::take(samples) {
                let merged = SampleKey { window: key.window / 2, ..key };
                *samples.entry(merged).or_default() += sum;
            }
        }
    }

    /// What comes from now on is another interval's.
    pub fn begin_interval(&mut self) {
        for (key, sum) in std::mem::take(&mut self.samples) {
            *self.earlier.entry(key).or_default() += sum;
        }
    }

    /// The threads that were sampled.
    pub fn threads(&self) -> &[SampledThread] {
        &self.threads
    }

    /// The distinct stacks, of both sides.
    pub fn stacks(&self) -> &[KeptStack] {
        &self.stacks.values
    }

    /// Those that ended waits.
    pub fn wakers(&self) -> &[SampledWaker] {
        &self.wakers.values
    }

    /// The samples with their sums, in a fixed order.
    pub fn samples(&self) -> Vec<(SampleKey, Sum)> {
        if self.earlier.is_empty() {
            return self.of_interval();
        }
        let mut all = self.earlier.clone();
        for (&key, &sum) in &self.samples {
            *all.entry(key).or_default() += sum;
        }
        in_order(&all)
    }

    /// Those of the present interval.
    pub fn of_interval(&self) -> Vec<(SampleKey, Sum)> {
        in_order(&self.samples)
    }

    /// Samples so far.
    pub fn total(&self) -> u64 {
        self.samples.values().chain(self.earlier.values()).map(|sum| sum.count).sum()
    }

    /// The time resolution now.
    pub const fn window_ns(&self) -> u64 {
        self.window_ns
    }
}

fn in_order(samples: &HashMap<SampleKey, Sum>) -> Vec<(SampleKey, Sum)> {
    let mut samples: Vec<_> = samples.iter().map(|(key, sum)| (*key, *sum)).collect();
    samples.sort_unstable_by_key(|(key, _)| {
        (key.window, key.thread, key.kernel, key.user, key.what, key.detail, key.waker)
    });
    samples
}
