//! What a JVM tells by its markers, by name: events of the probes `uprobe` and `between` whose places are looked for in the
//! `libjvm.so` of the target.
//!
//! Markers that HotSpot comes to whatever its options are (`src/hotspot/share/runtime/vmOperations`, `safepoint.cpp`,
//! `compiler/compileBroker.cpp`, `oops/instanceKlass.cpp`), and those of monitors (`runtime/objectMonitor.cpp`), which take a flag.

use profiler_common::sample::MAX_HOOKS;

use super::{Event, ProbeSpec, SampleTypeSpec, between, uprobe};

/// What names of events begin with.
pub const PREFIX: &str = "java:";

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Java {
    /// Collections of garbage that stop the program.
    Gc = 0,
    /// Safepoints.
    Safepoint = 1,
    /// Compilations.
    Jit = 2,
    /// Classes that are loaded.
    ClassLoad = 3,
    /// Monitors that are entered while another thread has them.
    Monitor = 4,
}

/// Such an event.
#[derive(Clone, Copy, Debug)]
pub struct JavaSpec {
    /// Which one.
    pub java: Java,
    /// The markers' provider.
    pub provider: &'static str,
    /// The marker that it begins with, or is.
    pub begin: &'static str,
    /// The marker that it ends with; `None`: it takes no time.
    pub end: Option<&'static str>,
    /// The flag without which the JVM does not come to its markers.
    pub flag: Option<&'static str>,
    /// Names of its sample types: time and number, or number alone.
    types: [&'static str; 2],
    summary: &'static str,
}

impl JavaSpec {
    /// As `-e` has it.
    pub const fn name(&self) -> &'static str {
        self.types[0]
    }

    /// What its spans are counted as; of those that take no time, the name.
    pub const fn number(&self) -> &'static str {
        self.types[1]
    }

    /// The same written as an event of a file's markers, behind the file's path.
    pub fn markers(&self) -> String {
        let end = self.end.map_or(String::new(), |end| format!("{}{end}", between::DOTS));
        format!("{}:{}{end}", self.provider, self.begin)
    }
}

/// All of them, in the order of [`Java`].
pub const EVENTS: [JavaSpec; 5] = [
    JavaSpec {
        java: Java::Gc,
        provider: "hotspot",
        begin: "gc__begin",
        end: Some("gc__end"),
        flag: None,
        types: ["java:gc", "java:collections"],
        summary: "time in collections of a JVM's garbage that stop the program (-p PID)",
    },
    JavaSpec {
        java: Java::Safepoint,
        provider: "hs_private",
        begin: "safepoint__begin",
        end: Some("safepoint__end"),
        flag: None,
        types: ["java:safepoint", "java:safepoints"],
        summary: "time in which a JVM stops all threads of the program, whatever for, or waits until they stop (-p PID)",
    },
    JavaSpec {
        java: Java::Jit,
        provider: "hotspot",
        begin: "method__compile__begin",
        end: Some("method__compile__end"),
        flag: None,
        types: ["java:jit", "java:compilations"],
        summary: "time that a JVM's threads compile methods in (-p PID)",
    },
    JavaSpec {
        java: Java::ClassLoad,
        provider: "hotspot",
        begin: "class__loaded",
        end: None,
        flag: None,
        types: ["java:class-load", "java:class-load"],
        summary: "classes that a JVM loads, by the stack that makes it (-p PID)",
    },
    JavaSpec {
        java: Java::Monitor,
        provider: "hotspot",
        begin: "monitor__contended__enter",
        end: Some("monitor__contended__entered"),
        flag: Some("DTraceMonitorProbes"),
        types: ["java:monitor", "java:contended-enters"],
        summary: "time to enter monitors that another thread has, of a JVM with -XX:+DTraceMonitorProbes (-p PID)",
    },
];

const _: () = {
    let mut i = 0;
    while i < EVENTS.len() {
        assert!(EVENTS[i].java as usize == i);
        i += 1;
    }
};

const SPANS: [[[SampleTypeSpec; 2]; MAX_HOOKS]; EVENTS.len()] = {
    let mut all = [[between::types(0, EVENTS[0].types); MAX_HOOKS]; EVENTS.len()];
    let mut i = 0;
    while i < EVENTS.len() {
        let mut place = 0;
        while place < MAX_HOOKS {
            all[i][place] = between::types(place, EVENTS[i].types);
            place += 1;
        }
        i += 1;
    }
    all
};

const LOADS: [[SampleTypeSpec; 1]; MAX_HOOKS] = [loads(0), loads(1), loads(2), loads(3)];

const fn loads(place: usize) -> [SampleTypeSpec; 1] {
    [SampleTypeSpec::hits(place, EVENTS[Java::ClassLoad as usize].types[0], "classes that were loaded")]
}

const fn spec(java: usize, place: usize) -> ProbeSpec {
    let event = &EVENTS[java];
    let (base, sample_types): (_, &[SampleTypeSpec]) = match event.end {
        Some(_) => (between::spec_at(place as u8), &SPANS[java][place]),
        None => (uprobe::marker_at(place as u8), &LOADS[place]),
    };
    ProbeSpec {
        event: Event::Java(event.java, place as u8),
        name: event.types[0],
        summary: event.summary,
        hooked: None,
        sample_types,
        requires: &["perf-events", "bpf", "uprobes"],
        ..*base
    }
}

/// The registry entries, by event and by its place among those that the user names by their hooks.
pub const SPECS: [[ProbeSpec; MAX_HOOKS]; EVENTS.len()] = {
    let mut all = [[spec(0, 0); MAX_HOOKS]; EVENTS.len()];
    let mut java = 0;
    while java < EVENTS.len() {
        let mut place = 0;
        while place < MAX_HOOKS {
            all[java][place] = spec(java, place);
            place += 1;
        }
        java += 1;
    }
    all
};

/// The registry entry of an event at a place.
pub const fn spec_at(java: Java, place: u8) -> &'static ProbeSpec {
    const ALL: &[[ProbeSpec; MAX_HOOKS]; EVENTS.len()] = &SPECS;
    &ALL[java as usize][place as usize % MAX_HOOKS]
}

/// The event of that name.
pub fn find(name: &str) -> Option<&'static JavaSpec> {
    const ALL: &[JavaSpec; EVENTS.len()] = &EVENTS;
    ALL.iter().find(|event| event.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe;

    #[test]
    fn each_is_registered() {
        for event in &EVENTS {
            let spec = probe::find(event.name()).unwrap_or_else(|| panic!("{} is not", event.name()));
            assert_eq!((spec.event, spec.summary), (Event::Java(event.java, 0), event.summary));
        }
    }
}
