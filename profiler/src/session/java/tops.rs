//! What the samples and the waits of a JVM show: methods, and the places at which threads waited for monitors.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use crate::{
    model::{
        Frame, FrameKind, Profile, StackId,
        java::{Method, Monitor},
    },
    session::stat::cause,
    symbolize::runtime::jvm::wait::Wait,
};

/// Sums of samples and waits.
#[derive(Debug, Default)]
pub struct Tops {
    samples: u64,
    methods: HashMap<String, Sums>,
    /// By thread.
    waits: HashMap<u32, Vec<(Wait, u64)>>,
    monitors: BTreeMap<(String, u32), Waits>,
}

/// Samples of a method.
#[derive(Debug, Default)]
struct Sums {
    own: u64,
    native: u64,
    total: u64,
    kinds: BTreeMap<&'static str, u64>,
}

/// Waits at a place.
#[derive(Debug, Default)]
struct Waits {
    count: u64,
    ns: u64,
    threads: BTreeSet<u32>,
}

impl Tops {
    /// Those of a profile of `cpu` and `offcpu`.
    pub fn of(profile: &Profile) -> Self {
        let mut tops = Self::default();
        let columns = ["samples", "offcpu", "blocks"].map(|name| profile.column(name));
        let mut of_stack: HashMap<StackId, u64> = HashMap::new();
        for sample in &profile.samples {
            let [samples, ns, blocks] = columns.map(|column| sample.amount(column));
            if samples != 0 {
                *of_stack.entry(sample.stack).or_default() += samples;
            }
            if ns != 0 || blocks != 0 {
                tops.add_wait(
                    profile,
                    sample.stack,
                    profile.threads[sample.thread.index()].tid,
                    (ns, blocks),
                );
            }
        }
        for (stack, samples) in of_stack {
            tops.add_samples(profile, stack, samples);
        }
        tops
    }

    fn add_samples(&mut self, profile: &Profile, stack: StackId, samples: u64) {
        self.samples += samples;
        let mut seen = BTreeSet::new();
        let methods = profile.frames(stack).enumerate().filter(|(_, frame)| is_method(frame));
        for (nth, (depth, frame)) in methods.enumerate() {
            let name = frame.function.name.as_str();
            let is_new = seen.insert(name);
            let sums = self.methods.entry(name.to_owned()).or_default();
            if nth == 0 {
                let of_it = if depth == 0 { &mut sums.own } else { &mut sums.native };
                *of_it += samples;
                *sums.kinds.entry(frame.kind.key()).or_default() += samples;
            }
            sums.total += if is_new { samples } else { 0 };
        }
    }

    fn add_wait(&mut self, profile: &Profile, stack: StackId, tid: u32, (ns, blocks): (u64, u64)) {
        let label = profile.frames(stack).next();
        let cause = label.and_then(|label| cause(&label.function.name));
        let Some(wait) = cause.and_then(|cause| Wait::ALL.into_iter().find(|wait| wait.key() == cause))
        else {
            return;
        };
        let waits = self.waits.entry(tid).or_default();
        match waits.iter_mut().find(|(other, _)| *other == wait) {
            Some((_, sum)) => *sum += ns,
            None => waits.push((wait, ns)),
        }
        if wait == Wait::Monitor
            && let Some(place) = profile.frames(stack).find(is_method)
        {
            let waits = self.monitors.entry((place.function.name.clone(), place.line)).or_default();
            waits.count += blocks;
            waits.ns += ns;
            waits.threads.insert(tid);
        }
    }

    /// Samples of a CPU.
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// What a thread waited for in Java, ns.
    pub fn waits_of(&self, tid: u32) -> &[(Wait, u64)] {
        self.waits.get(&tid).map_or(&[], Vec::as_slice)
    }

    /// All methods, those with most samples as the innermost one first.
    pub fn methods(&self) -> Vec<Method> {
        let method = |(name, sums): (&String, &Sums)| Method {
            method: name.clone(),
            own: sums.own,
            native: sums.native,
            total: sums.total,
            kinds: sums.kinds.iter().map(|(&kind, &samples)| (kind, samples)).collect(),
        };
        let mut methods: Vec<Method> = self.methods.iter().map(method).collect();
        methods.sort_by(|a, b| {
            let key = |method: &Method| (Reverse(method.own + method.native), Reverse(method.total));
            key(a).cmp(&key(b)).then_with(|| a.method.cmp(&b.method))
        });
        methods
    }

    /// Places at which monitors were waited for, those with most time first; without classes.
    pub fn monitors(&self) -> Vec<Monitor> {
        let monitor = |((method, line), waits): (&(String, u32), &Waits)| Monitor {
            classes: Vec::new(),
            method: method.clone(),
            line: *line,
            waits: waits.count,
            wait_ns: waits.ns,
            avg_ns: waits.ns.checked_div(waits.count).unwrap_or(0),
            threads: waits.threads.len() as u64,
        };
        let mut monitors: Vec<Monitor> = self.monitors.iter().map(monitor).collect();
        monitors.sort_by_key(|monitor| Reverse(monitor.wait_ns));
        monitors
    }
}

/// Whether a frame is that of a Java method, bridges to native ones included. Names of what the JVM makes for itself have no
/// class.
fn is_method(frame: &Frame<'_>) -> bool {
    frame.module.path == "[jit]"
        && frame.function.unresolved.is_none()
        && (frame.kind != FrameKind::Stub || frame.function.name.contains('.'))
}
