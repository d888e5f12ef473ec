//! The JVM while it is looked at: what it counts of itself, what its threads do, whose monitors they wait for. Read from
//! outside; nothing of it stops the JVM.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::Instant,
};

use crate::{
    model::java::{Collector, Counts, Jvm as Facts},
    symbolize::{
        process_file,
        runtime::{
            jvm::{
                Code, Counters, Fault, JavaThread, Jvm,
                code::Frame,
                open::{self, OpenError},
                wait::Wait,
            },
            memory::ProcessMemory,
        },
    },
};

/// Most threads of which is kept what was seen, ended ones included.
const MAX_SEEN: usize = 1 << 18;
/// Most places and classes of monitors that are kept.
const MAX_MONITORS: usize = 4_096;

/// The JVM at a moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// What it counted until then; `None`: it keeps no counters, or was not there.
    pub counters: Option<Counters>,
    /// Its Java threads by thread id, as we see it.
    pub threads: HashMap<u32, JavaThread>,
    /// What was seen of threads until then, those that ended included.
    pub seen: HashMap<u32, Seen>,
}

/// What was seen of a thread last.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its name as Java has it.
    pub name: Option<String>,
    /// Bytes that it had allocated.
    pub allocated_bytes: Option<u64>,
}

/// Which part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The present interval.
    Interval,
}

/// A JVM that is looked at.
pub struct Watch {
    pid: u32,
    jvm: Option<Jvm<ProcessMemory>>,
    /// As it was when the run began.
    first: Moment,
    /// As it was when the interval began.
    before: Moment,
    /// As it was seen last.
    last: Moment,
    facts: Facts,
    /// How often a class was seen whose monitor was waited for in a method.
    monitors: BTreeMap<(String, String), u64>,
    /// When that was.
    looked: Option<Instant>,
    /// Why there is no JVM.
    problem: Option<OpenError>,
    /// What cannot be told, and why.
    notes: Vec<String>,
}

impl Watch {
    /// Looks at a process. `must_be_one`: it runs already, so that it is an error if there is no JVM.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn start(pid: u32, must_be_one: bool) -> Result<Self, OpenError> {
        let facts = Facts { pid, ..Facts::default() };
        let mut watch = Self {
            pid,
            jvm: None,
            first: Moment::default(),
            before: Moment::default(),
            last: Moment::default(),
            facts,
            monitors: BTreeMap::new(),
            looked: None,
            problem: None,
            notes: Vec::new(),
        };
        if must_be_one {
            watch.open()?;
        }
        Ok(watch)
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let jvm = open::open(self.pid)?;
        self.facts.jdk = jvm.major();
        self.jvm = Some(jvm);
        Ok(())
    }

    /// The run begins with what is there now.
    pub fn begin(&mut self) {
        self.look();
        self.first = self.last.clone();
        self.before = self.last.clone();
    }

    /// An interval begins with what was seen last.
    pub fn begin_interval(&mut self) {
        self.before = self.last.clone();
    }

    /// Looks whose monitors are waited for; opens a JVM that was not there before.
    pub fn poll(&mut self) {
        let Some(jvm) = &mut self.jvm else {
            // It is starting. Its counters begin at 0, so that nothing of it is missed.
            match self.open() {
                Ok(()) => _ = self.look(),
                // Of a process that is gone it is not known what it was.
                Err(OpenError::Process(_)) => {}
                Err(problem) => self.problem = Some(problem),
            }
            return;
        };
        for thread in jvm.contended().unwrap_or_default() {
            let Some(class) = thread.monitor.filter(|class| !class.is_empty()) else { continue };
            let place = thread.innermost.as_deref().and_then(method).unwrap_or_default();
            if self.monitors.len() < MAX_MONITORS {
                *self.monitors.entry((place, class)).or_default() += 1;
            }
        }
    }

    /// Reads it as it is now. False: it is gone, or not there yet.
    pub fn look(&mut self) -> bool {
        let Some(jvm) = &mut self.jvm else { return false };
        let (counters, threads) = (jvm.counters(), jvm.threads());
        // It has no memory any more.
        if let (Err(Fault::Unmapped(_)), Err(Fault::Unmapped(_))) = (&counters, &threads) {
            return false;
        }
        match counters {
            Ok(counters) => self.last.counters = Some(counters),
            Err(fault) => {
                self.note(format!("collections, safepoints and compilations are not known: {fault}"))
            }
        }
        let threads = threads.unwrap_or_else(|fault| {
            self.note(format!("what Java threads do is not known: {fault}"));
            Vec::new()
        });
        let outer = thread_ids(self.pid);
        let id = |thread: &JavaThread| {
            outer.as_ref().map_or(Some(thread.tid), |ids| ids.get(&thread.tid).copied())
        };
        self.last.threads = threads.into_iter().filter_map(|thread| Some((id(&thread)?, thread))).collect();
        for (&tid, thread) in &self.last.threads {
            if self.last.seen.len() >= MAX_SEEN && !self.last.seen.contains_key(&tid) {
                continue;
            }
            let seen = self.last.seen.entry(tid).or_default();
            // It can be just moved.
            seen.name = thread.name.clone().or_else(|| seen.name.take());
            seen.allocated_bytes = thread.allocated_bytes;
        }
        self.looked = Some(Instant::now());
        self.tell_facts();
        true
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn tell_facts(&mut self) {
        let Some(counters) = self.last.counters.as_ref().filter(|_| self.facts.version.is_empty()) else {
            return;
        };
        let text = |name: &str| counters.text(name).unwrap_or_default().to_owned();
        self.facts.version = text("java.property.java.vm.version");
        self.facts.command = text("sun.rt.javaCommand");
        self.facts.collector = text("sun.gc.policy.name");
    }

    /// The run has ended: looks once more.
    pub fn end(&mut self) {
        if self.look() {
            return;
        }
        self.notes.push(match (self.looked, &self.problem) {
            (Some(looked), _) => format!(
                "the JVM ended: what it says of itself and of its threads is as of {} ms before",
                looked.elapsed().as_millis()
            ),
            (None, Some(problem)) => format!("there was no JVM that could be read: {problem}"),
            (None, None) => "there was no JVM".to_owned(),
        });
    }

    /// Which JVM it is.
    pub fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// What cannot be told.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// As it was when the run or the interval began, and as it was seen last.
    pub const fn moments(&self, part: Part) -> (&Moment, &Moment) {
        match part {
            Part::Whole => (&self.first, &self.last),
            Part::Interval => (&self.before, &self.last),
        }
    }

    /// The classes whose monitors were waited for in a method, those seen most often first.
    pub fn classes_at(&self, method: &str) -> Vec<String> {
        let of_it = self.monitors.iter().filter(|((place, _), _)| place == method);
        let mut classes: Vec<_> = of_it.map(|((_, class), &seen)| (std::cmp::Reverse(seen), class)).collect();
        classes.sort();
        classes.into_iter().map(|(_, class)| class.clone()).collect()
    }

    /// What it counted of itself.
    pub fn counts(&self, part: Part) -> Option<Counts> {
        let zero = Counters::default();
        let (before, last) = self.moments(part);
        Some(counts(before.counters.as_ref().unwrap_or(&zero), last.counters.as_ref()?))
    }
}

/// What a thread waits for by its innermost Java code.
pub fn wait(thread: &JavaThread) -> Option<Wait> {
    thread.innermost.as_deref().and_then(Code::wait)
}

/// The innermost method of a piece of code.
pub fn method(code: &Code) -> Option<String> {
    code.frames.iter().find_map(|frame| match frame {
        Frame::Java(method, _) => Some(method.qualified()),
        Frame::Made(_) => None,
    })
}

/// Thread ids as we see them by those of the process's own pid namespace; `None`: they are the same.
fn thread_ids(pid: u32) -> Option<HashMap<u32, u32>> {
    if process_file::read_status(pid).ok()?.ns_pid == pid {
        return None;
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let ids = threads.flatten().filter_map(|entry| {
        let tid = entry.file_name().to_str()?.parse().ok()?;
        // A thread has a status of its own in /proc, though it is not listed there.
        Some((process_file::read_status(tid).ok()?.ns_pid, tid))
    });
    Some(ids.collect())
}

/// The difference of two moments.
pub fn counts(before: &Counters, now: &Counters) -> Counts {
    let since = |name: &str| Some(now.number(name)?.saturating_sub(before.number(name).unwrap_or(0)));
    let ns_since = |name: &str| Some(now.ns(name)?.saturating_sub(before.ns(name).unwrap_or(0)));
    let sum = |names: &[&str]| {
        let found: Vec<u64> = names.iter().filter_map(|name| since(name)).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    };
    let collector = |number: usize| {
        let of = |what: &str| format!("sun.gc.collector.{number}.{what}");
        Some(Collector {
            name: now.text(&of("name"))?.to_owned(),
            collections: since(&of("invocations"))?,
            ns: ns_since(&of("time"))?,
        })
    };
    let collectors: Vec<Collector> = (0..).map_while(collector).collect();
    let collected = collectors.iter().any(|collector| collector.collections != 0);
    let heap = |what: &str| {
        let of = |generation: usize, space: usize| {
            now.number(&format!("sun.gc.generation.{generation}.space.{space}.{what}"))
        };
        let spaces =
            |generation: usize| (0..).map_while(move |space| of(generation, space)).collect::<Vec<_>>();
        let all: Vec<u64> = (0..).map(spaces).take_while(|spaces| !spaces.is_empty()).flatten().collect();
        (!all.is_empty()).then(|| all.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)))
    };
    Counts {
        last_gc_cause: now.text("sun.gc.lastCause").filter(|_| collected).map(str::to_owned),
        collectors,
        safepoints: since("sun.rt.safepoints"),
        safepoint_ns: ns_since("sun.rt.safepointTime"),
        safepoint_sync_ns: ns_since("sun.rt.safepointSyncTime"),
        compilations: since("sun.ci.totalCompiles"),
        compilation_ns: ns_since("java.ci.totalTime"),
        classes_loaded: sum(&["java.cls.loadedClasses", "java.cls.sharedLoadedClasses"]),
        classes_unloaded: sum(&["java.cls.unloadedClasses", "java.cls.sharedUnloadedClasses"]),
        heap_used_bytes: heap("used"),
        heap_capacity_bytes: heap("capacity"),
        metaspace_used_bytes: now.number("sun.gc.metaspace.used"),
    }
}
