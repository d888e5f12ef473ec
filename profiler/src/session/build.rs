//! From what was collected to a [`Profile`] with names: the end of a recording.

use std::collections::{BTreeMap, HashMap};

use profiler_common::{probe::socket_packets::NO_OWNER, sample::What, stack::WalkEnd};

use super::{
    RecordOptions,
    collect::{Collector, KeptStack, SampleKey, SampledThread, SampledWaker, Sum},
    interrupts,
    label::{self, Labels},
    wakers,
};
use crate::{
    host::btf::DropReasons,
    model::{
        LocationId, Profile, Reason, Sample, SampleType, Stack, StackEnd, StackId, Thread, ThreadId, name,
    },
    probe::{Amount, Chosen, Recorded},
    symbolize::{FrameId, Interval, NameCache, Names, Symbolizer, is_idle},
};

/// Name of the process that stands for idle CPUs.
pub const IDLE: &str = "[idle]";

/// A sample type, and how its values come about. Samples of anything else have 0 of it.
#[derive(Clone, Debug)]
pub struct Column {
    /// The sample type.
    pub sample_type: SampleType,
    /// What it is of.
    pub what: What,
    /// Value of one sample.
    pub per_count: i64,
    /// Value of one nanosecond of its duration.
    pub per_ns: i64,
    /// What of its stacks is the hook's own.
    pub hook: Hook,
}

/// How frames of a kernel stack are known that are the hook's own, the profiler's program among them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hook {
    /// The kernel function that is hooked (`ProbeSpec::hooked`).
    pub hooked: Option<&'static str>,
    /// What the innermost frames begin with, if they are the hook's own (`Event::inside`).
    pub inside: &'static [&'static str],
}

impl Column {
    fn value(&self, what: What, sum: Sum) -> i64 {
        if self.what != what {
            return 0;
        }
        let of = |per: i64, number: u64| per.saturating_mul(i64::try_from(number).unwrap_or(i64::MAX));
        of(self.per_count, sum.count).saturating_add(of(self.per_ns, sum.ns))
    }
}

/// What the caller decides about the profile.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// What a sample's values are.
    pub columns: Vec<Column>,
    /// Keep samples of idle CPUs.
    pub idle: bool,
    /// Blocked times have who ended them.
    pub wakers: bool,
    /// The kernel's names of why packets are dropped.
    pub reasons: DropReasons,
}

impl BuildOptions {
    /// Those of a recording.
    pub fn of(options: &RecordOptions) -> Self {
        Self::at(options, options.frequency_hz)
    }

    /// The same at another sampling rate.
    pub fn at(options: &RecordOptions, frequency_hz: u64) -> Self {
        let period_ns = 1_000_000_000i64.checked_div(frequency_hz as i64).unwrap_or(0);
        let column = |chosen: &Chosen, recorded: Recorded| Column {
            sample_type: recorded.sample_type,
            what: recorded.what,
            per_count: match recorded.amount {
                Amount::Count => 1,
                Amount::Periods => period_ns,
                Amount::Time | Amount::Sum => 0,
            },
            per_ns: i64::from(matches!(recorded.amount, Amount::Time | Amount::Sum)),
            hook: Hook { hooked: chosen.event.spec().hooked, inside: chosen.event.inside() },
        };
        let columns = |chosen: &Chosen| -> Vec<Column> {
            chosen.sample_types().into_iter().map(|recorded| column(chosen, recorded)).collect()
        };
        let columns = options.events.iter().flat_map(columns).collect();
        let drops = options.net.as_ref().and_then(|facts| facts.drops.as_ref());
        let reasons = drops.map(|(_, reasons)| reasons.clone()).unwrap_or_default();
        Self { columns, idle: options.idle, wakers: options.wakers(), reasons }
    }
}

/// Frames that a hook has of its own, at most: its call, a trampoline, a program and those that this one goes on in.
const INSIDE_AT_MOST: usize = 8;

/// The profile, and how many samples hit an idle CPU.
pub struct Built {
    /// Samples and names; meta, losses (but for unresolved frames) and cost are the caller's.
    pub profile: Profile,
    /// Samples of idle CPUs, kept or not.
    pub idle_samples: u64,
}

/// Resolves all names and builds the profile.
pub fn build(collector: &Collector, symbolizer: Symbolizer, options: &BuildOptions) -> Built {
    with_names(collector, &collector.samples(), |profile| symbolizer.resolve(profile), options)
}

/// The profile of the present interval, with the names that are known already ([`Symbolizer::known`]).
pub fn build_interval(collector: &Collector, symbolizer: &Symbolizer, options: &BuildOptions) -> Built {
    with_names(collector, &collector.of_interval(), |profile| symbolizer.known(profile), options)
}

/// What was taken out of a recording that goes on, to be named elsewhere ([`Interval`]).
pub struct Taken {
    /// What was collected.
    pub collector: Collector,
    /// What names its frames.
    pub frames: Interval,
    /// What its samples' values are.
    pub options: BuildOptions,
}

impl Taken {
    /// Names everything. `cache`: the names that were found before.
    pub fn build(self, cache: &mut NameCache) -> Built {
        let Self { collector, frames, options } = self;
        with_names(&collector, &collector.samples(), |profile| frames.resolve(cache, profile), &options)
    }
}

fn with_names(
    collector: &Collector,
    samples: &[(SampleKey, Sum)],
    names: impl FnOnce(&mut Profile) -> Names,
    options: &BuildOptions,
) -> Built {
    let sample_types = options.columns.iter().map(|column| column.sample_type.clone()).collect();
    let mut profile = Profile { sample_types, ..Profile::default() };
    let names = names(&mut profile);
    let mut builder = Builder {
        profile,
        kept: collector.stacks(),
        wakers: collector.wakers(),
        with_wakers: options.wakers,
        names: &names,
        columns: &options.columns,
        reasons: &options.reasons,
        labels: Labels::default(),
        turned: wakers::Turned::default(),
        stacks: HashMap::new(),
        threads: HashMap::new(),
        unresolved: BTreeMap::new(),
        idle_samples: 0,
    };
    for (key, sum) in samples {
        let thread = &collector.threads()[key.thread as usize];
        let window_start_ns = u64::from(key.window) * collector.window_ns();
        builder.sample(thread, key, window_start_ns, *sum, options.idle);
    }
    let mut profile = builder.profile;
    profile.losses.unresolved = builder.unresolved;
    Built { profile, idle_samples: builder.idle_samples }
}

/// What makes a stack of the profile: its sides, and whose hook it is seen from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    kernel: u32,
    user: u32,
    what: What,
    detail: u32,
    waker: u32,
}

struct Builder<'a> {
    profile: Profile,
    kept: &'a [KeptStack],
    wakers: &'a [SampledWaker],
    with_wakers: bool,
    turned: wakers::Turned,
    names: &'a Names,
    columns: &'a [Column],
    reasons: &'a DropReasons,
    labels: Labels,
    stacks: HashMap<Place, StackId>,
    threads: HashMap<Thread, ThreadId>,
    unresolved: BTreeMap<Reason, u64>,
    idle_samples: u64,
}

impl Builder<'_> {
    fn sample(
        &mut self,
        thread: &SampledThread,
        key: &SampleKey,
        window_start_ns: u64,
        sum: Sum,
        keep_idle: bool,
    ) {
        let idle_task = thread.key.tid == 0;
        let SampleKey { kernel, user, what, detail, waker, .. } = *key;
        let place = Place { kernel, user, what, detail, waker };
        let stack = self.stack(place, idle_task);
        // Not what an idle CPU does is recorded of a hook, but what hits it there.
        let idle = idle_task
            && key.what == What::Tick
            && is_idle(&self.profile, &self.profile.stacks[stack.index()].locations);
        if idle {
            self.idle_samples += sum.count;
            if !keep_idle {
                return;
            }
        }
        for frame in self.profile.frames(stack) {
            if let Some(reason) = frame.function.unresolved {
                *self.unresolved.entry(reason).or_default() += sum.count;
            }
        }
        let thread = self.thread(thread, idle);
        let values = self.columns.iter().map(|column| column.value(key.what, sum)).collect();
        self.profile.samples.push(Sample { thread, stack, window_start_ns, values });
    }

    fn stack(&mut self, place: Place, idle_task: bool) -> StackId {
        if let Some(&id) = self.stacks.get(&place) {
            return id;
        }
        let [kernel, user] = [place.kernel, place.user].map(|side| &self.kept[side as usize]);
        let column = self.columns.iter().find(|column| column.what == place.what);
        let hook = column.map(|column| column.hook).unwrap_or_default();
        let (mut locations, mut end) = self.joined(kernel, user, hook, idle_task);
        if label::is_of_interrupt(place.what, place.detail)
            && let Some(at) =
                locations.iter().position(|&id| interrupts::is_soft_interrupt(&self.profile, id))
        {
            // Whom it hit has nothing to do with it.
            locations.truncate(at + 1);
        }
        let wait = self.names.wait(&user.frames);
        if let Some(label) = label::of(place.what, place.detail, self.reasons, wait) {
            locations.insert(0, self.labels.location(label, &mut self.profile));
            if label::is_whole(place.what, place.detail) {
                end = StackEnd::Complete;
            }
        }
        if self.with_wakers && wakers::is_ended(place.what, place.detail) {
            let waker = place.waker.checked_sub(1).map(|at| &self.wakers[at as usize]);
            let (above, whole) = self.waker(waker);
            locations.splice(0..0, above);
            if end == StackEnd::Complete {
                end = whole;
            }
        }
        let id = StackId(self.profile.stacks.len() as u32);
        self.profile.stacks.push(Stack { locations, end });
        self.stacks.insert(place, id);
        id
    }

    /// The kernel part before the user part that entered it, and how far the whole reaches.
    fn joined(
        &self,
        kernel: &KeptStack,
        user: &KeptStack,
        hook: Hook,
        idle_task: bool,
    ) -> (Vec<LocationId>, StackEnd) {
        let user_walk = user.end.unwrap_or(WalkEnd::Ended);
        let (real, user_end) = self.names.user_end(&user.frames, user_walk);
        let frames = self.without_hook(&kernel.frames, hook).iter().chain(&user.frames[..real]);
        let locations = frames.map(|&frame| self.names.location(frame)).collect();
        let end = match (kernel.end, user.end) {
            (None, _) | (_, None) => StackEnd::Lost,
            (Some(WalkEnd::Truncated), _) => StackEnd::Truncated,
            _ if !user.frames.is_empty() => user_end,
            // A kernel thread, or the idle task: no user part by nature.
            _ if idle_task || !kernel.frames.is_empty() => StackEnd::Complete,
            _ => StackEnd::Lost,
        };
        (locations, end)
    }

    /// What stands on the stack of a wait: who ended it, its stack from the outermost function inwards seen from the wait,
    /// and how far that stack reaches.
    fn waker(&mut self, waker: Option<&SampledWaker>) -> (Vec<LocationId>, StackEnd) {
        let Some(waker) = waker else {
            let label = wakers::unseen();
            return (vec![self.labels.location(label, &mut self.profile)], StackEnd::Complete);
        };
        let [kernel, user] = [waker.kernel, waker.user].map(|side| &self.kept[side as usize]);
        let (mut locations, mut end) = self.joined(kernel, user, wakers::HOOK, waker.comm.is_none());
        let at = locations.iter().position(|&id| interrupts::is_interrupt(&self.profile, id));
        if let Some(at) = at {
            (locations, end) = (locations[..=at].to_vec(), StackEnd::Complete);
        }
        let by_interrupt = at.is_some() || waker.comm.is_none();
        let label = wakers::label(if by_interrupt { None } else { waker.comm.as_ref() });
        let mut above: Vec<_> =
            locations.into_iter().flat_map(|id| self.turned.location(id, &mut self.profile)).collect();
        above.insert(0, self.labels.location(label, &mut self.profile));
        above.reverse();
        (above, end)
    }

    /// The frames of a kernel stack from the hooked function on: inside of it are those of the hook, the profiler's own
    /// program among them.
    fn without_hook<'f>(&self, frames: &'f [FrameId], hook: Hook) -> &'f [FrameId] {
        let has = |frame: &FrameId, is: &dyn Fn(&str) -> bool| {
            let location = &self.profile.locations[self.names.location(*frame).index()];
            location.lines.iter().any(|line| is(&self.profile.functions[line.function.index()].name))
        };
        let is_inside = |name: &str| hook.inside.iter().any(|start| name.starts_with(start));
        // The program's own frames are nameless where the kernel does not tell where programs are.
        let inside = frames.iter().take(INSIDE_AT_MOST).rposition(|frame| has(frame, &is_inside));
        let frames = &frames[inside.map_or(0, |at| at + 1)..];
        let Some(hooked) = hook.hooked else { return frames };
        frames.iter().position(|frame| has(frame, &|name| name == hooked)).map_or(frames, |at| &frames[at..])
    }

    fn thread(&mut self, thread: &SampledThread, idle: bool) -> ThreadId {
        let name = name::clean_c(&thread.comm);
        let process = match &thread.process {
            _ if idle => IDLE.to_owned(),
            Some(process) => name::clean_c(process),
            None if thread.key.tid == 0 && thread.comm != NO_OWNER => "swapper".to_owned(),
            None => name.clone(),
        };
        let key = thread.key;
        let thread = Thread { pid: key.pid, tid: key.tid, process, name, incarnation: key.incarnation };
        if let Some(&id) = self.threads.get(&thread) {
            return id;
        }
        let id = ThreadId(self.profile.threads.len() as u32);
        self.profile.threads.push(thread.clone());
        self.threads.insert(thread, id);
        id
    }
}
