//! Windows of the daemon, with a known answer, for tests of its history.

use profiler::model::{
    FrameKind, Function, FunctionId, Line, Location, LocationId, Module, ModuleId, ModuleKind, Profile,
    Sample, SampleType, Stack, StackEnd, StackId, Thread, ThreadId, Unit,
    window::{Account, Number, Place, Rates, Series, Window},
};

/// 2026-01-02 03:00:00 UTC, the start of window 1.
pub const START_UNIX_NS: u64 = 1_767_322_800_000_000_000;

/// A window's duration.
pub const WINDOW_NS: u64 = 10_000_000_000;

/// Processes in each window.
pub const PROCESSES: u32 = 20;

/// CPU time of each process in each window.
pub const CPU_NS: u64 = 104_000_000;

/// The window of that number: [`PROCESSES`] processes, each with one stack of its own for the window, two samples, and
/// [`CPU_NS`] on the CPU.
pub fn window(number: u64) -> Window {
    let mut profile = Profile {
        sample_types: vec![
            SampleType::new("samples", Unit::Count),
            SampleType::new("cpu", Unit::Nanoseconds),
        ],
        modules: vec![Module { path: "/usr/bin/app".to_owned(), build_id: None, kind: ModuleKind::Native }],
        ..Profile::default()
    };
    profile.meta.events = vec!["cpu".to_owned()];
    profile.meta.profiler_version = env!("CARGO_PKG_VERSION").to_owned();
    let mut accounts = Vec::new();
    for process in 0..PROCESSES {
        accounts.push(account(process));
        for name in [format!("work_{number}_{process}"), format!("main_{process}")] {
            let function = FunctionId(profile.functions.len() as u32);
            profile.functions.push(Function { name, file: None, unresolved: None });
            let lines = vec![Line { function, line: 0 }];
            let address = 0x1000 + u64::from(function.0);
            profile.locations.push(Location { module: ModuleId(0), address, lines, kind: FrameKind::Native });
        }
        let locations = vec![LocationId(2 * process), LocationId(2 * process + 1)];
        profile.stacks.push(Stack { locations, end: StackEnd::Complete });
        let name = format!("app-{process}");
        let (pid, incarnation) = (1000 + process, u64::from(process));
        profile.threads.push(Thread { pid, tid: pid, process: name.clone(), name, incarnation });
        let (thread, stack) = (ThreadId(process), StackId(process));
        profile.samples.push(Sample { thread, stack, window_start_ns: 0, values: vec![2, CPU_NS as i64] });
    }
    Window {
        start_unix_ns: START_UNIX_NS + (number - 1) * WINDOW_NS,
        duration_ns: WINDOW_NS,
        number,
        boot_id: "4c9a6d1e-0000-4000-8000-000000000001".to_owned(),
        rates: Rates { frequency_hz: 19, min_block_ns: None, blocked_every: 0, stack_depth: 127 },
        profile,
        series_of: (0..PROCESSES).collect(),
        accounts,
        host: Account {
            numbers: vec![number_of("cpu", "", CPU_NS * u64::from(PROCESSES))],
            ..Account::default()
        },
    }
}

fn account(process: u32) -> Account {
    let place = Place {
        cgroup: "/system.slice/app.service".to_owned(),
        unit: Some("app.service".to_owned()),
        ..Place::default()
    };
    let series =
        Series { pid: Some(1000 + process), start_ns: process.into(), comm: format!("app-{process}"), place };
    let numbers = vec![number_of("cpu", "", CPU_NS), number_of("syscalls", "read", 7)];
    Account { series, numbers, distributions: Vec::new() }
}

fn number_of(metric: &'static str, label: &str, value: u64) -> Number {
    Number { metric, label: label.to_owned(), value }
}
