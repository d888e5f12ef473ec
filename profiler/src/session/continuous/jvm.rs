//! What JVMs count of themselves, window by window.

use std::collections::{BTreeMap, HashMap};

use crate::{
    model::{java::Counts, window::Number},
    session::java::watch::counts,
    symbolize::runtime::{
        jvm::{
            Counters, Jvm,
            open::{self, OpenError},
        },
        memory::ProcessMemory,
    },
};

/// How often a process is looked at until it is given up: it may be starting.
const MAX_ATTEMPTS: u32 = 8;

enum State {
    /// Not read yet, after so many attempts.
    Starting(u32),
    /// Read, and what it counted then.
    Open(Box<Jvm<ProcessMemory>>, Counters),
    /// It cannot be read.
    Unreadable,
}

/// The JVMs that are known, by process id and start.
#[derive(Default)]
pub struct Jvms {
    known: HashMap<(u32, u64), State>,
}

impl Jvms {
    /// What these processes counted since the last such call, by process id. Of one that is new, what it counts from now on.
    /// Others are forgotten.
    pub fn look(&mut self, pids: &[(u32, u64)]) -> BTreeMap<u32, Vec<Number>> {
        self.known.retain(|key, _| pids.contains(key));
        let mut found = BTreeMap::new();
        for key in pids {
            let state = self.known.remove(key).unwrap_or(State::Starting(0));
            let (state, numbers) = look(key.0, state);
            self.known.insert(*key, state);
            if !numbers.is_empty() {
                found.insert(key.0, numbers);
            }
        }
        found
    }
}

fn look(pid: u32, state: State) -> (State, Vec<Number>) {
    match state {
        State::Unreadable => (State::Unreadable, Vec::new()),
        State::Starting(attempts) => match open::open(pid) {
            Ok(jvm) => match jvm.counters() {
                Ok(counters) => (State::Open(Box::new(jvm), counters), Vec::new()),
                // It keeps none, or is starting.
                Err(_) => (again(attempts), Vec::new()),
            },
            Err(OpenError::NoJvm | OpenError::Fault(_)) => (again(attempts), Vec::new()),
            Err(_) => (State::Unreadable, Vec::new()),
        },
        State::Open(jvm, before) => match jvm.counters() {
            Ok(now) => {
                let numbers = numbers(&counts(&before, &now));
                (State::Open(jvm, now), numbers)
            }
            Err(_) => (State::Open(jvm, before), Vec::new()),
        },
    }
}

const fn again(attempts: u32) -> State {
    if attempts + 1 >= MAX_ATTEMPTS { State::Unreadable } else { State::Starting(attempts + 1) }
}

fn numbers(counts: &Counts) -> Vec<Number> {
    let number = |metric, label: &str, value| Number { metric, label: label.to_owned(), value };
    let mut numbers = Vec::new();
    for collector in &counts.collectors {
        numbers.push(number("gc", &collector.name, collector.ns));
        numbers.push(number("gc_collections", &collector.name, collector.collections));
    }
    let others = [
        ("safepoint", counts.safepoint_ns),
        ("safepoints", counts.safepoints),
        ("jit", counts.compilation_ns),
        ("classes_loaded", counts.classes_loaded),
        ("heap_used", counts.heap_used_bytes),
    ];
    numbers.extend(others.into_iter().filter_map(|(metric, value)| Some(number(metric, "", value?))));
    numbers.retain(|number| number.value != 0);
    numbers
}
