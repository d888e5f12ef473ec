//! The recording loop: windows, process events, and the reasons to stop.

use std::{
    os::fd::{AsRawFd, RawFd},
    path::PathBuf,
    time::Duration,
};

use profiler_common::loss::Loss;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

use super::{
    Outcome, RecordOptions, SessionError,
    build::{BuildOptions, build},
    collect::Collector,
    cost::{cpu_ns, peak_rss_bytes},
    facts::{Facts, left_out, meta, unix_ns},
    fallbacks::Fallbacks,
    load::{Loaded, load},
    pace::Pace,
    unwinding::Unwinding,
};
use crate::{
    bpf::{
        load::Kernel,
        samples::{Samples, Sizing, WalkPrograms, Window},
        stats::RunTime,
        targets::Targets,
    },
    host::{cpus, features::Feature},
    model::{Cost, Losses},
    perf::{clock::monotonic_ns, record::ProcessEvent, sideband::Sideband},
    probe::{Probe, Setup},
    symbolize::{Symbolizer, Watch},
    unwind::builder::Built,
};

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The duration was over.
    Duration,
    /// Ctrl-C or SIGTERM.
    Signal,
    /// The command ended.
    CommandEnded,
    /// All target processes ended.
    TargetsGone,
}

/// What the user may be told while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Time since the start.
    pub elapsed: Duration,
    /// Samples so far.
    pub samples: u64,
}

/// A recording in progress.
pub struct Recording<'a> {
    options: &'a RecordOptions,
    kernel: Kernel,
    targets: Targets,
    samples: Samples,
    probes: Vec<Probe>,
    _walk: Option<Vec<WalkPrograms>>,
    sideband: AsyncFd<SidebandFd>,
    unwinding: Option<Unwinding>,
    symbolizer: Symbolizer,
    collector: Collector,
    run_time: RunTime,
    sizing: Sizing,
    cpus: Vec<u32>,
    start_unix_ns: u64,
    start_ns: u64,
    window_ns: u64,
    window_start_ns: u64,
    lost_events: u64,
    notes: Vec<String>,
    cost: Cost,
    cpu_at_start: (u64, u64),
}

/// Lets tokio wait on the side band's readiness.
struct SidebandFd(Sideband);

impl AsRawFd for SidebandFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ready().as_raw_fd()
    }
}

impl<'a> Recording<'a> {
    /// Attaches everything and starts sampling. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    pub fn start(options: &'a RecordOptions, cpus: &[u32], begun_ns: u64) -> Result<Self, SessionError> {
        let mut fallbacks = Fallbacks::new(options, cpus.first().copied().unwrap_or(0));
        let access = fallbacks.task_access(options);
        // Before the programs: it tells their names too, which samples can hit.
        let sideband =
            Sideband::open(cpus, fallbacks.may_use(Feature::MmapBuildId)).map_err(SessionError::Sideband)?;
        fallbacks.tried(Feature::MmapBuildId, sideband.build_ids());
        let Loaded { mut kernel, walk, note: unwind_note } = load(options, &access)?;
        let (unwinding, walk) = walk.unzip();
        let (run_time, note) = RunTime::enable();
        let mut targets = kernel.targets()?;
        if options.filter.follow_children != 0 {
            kernel.follow_children()?;
        }
        let sizes = options.events.iter().map(|chosen| chosen.event.sizing(options.frequency_hz, cpus.len()));
        let sizing = sizes.reduce(Sizing::and).ok_or(SessionError::NoEvent)?;
        let samples = Samples::new(&mut kernel, &sizing, options.waits.is_some(), options.timed_calls())?;
        let setup = Setup {
            cpus,
            timer: options.timer(),
            wakers: options.wakers(),
            timed_calls: options.timed_calls(),
        };
        let mut probes = Probe::open_all(&options.events, &mut kernel, &setup)?;
        for &pid in &options.targets {
            targets.add(pid)?;
        }
        for probe in &mut probes {
            probe.enable(&mut kernel)?;
        }
        let start_ns = monotonic_ns();
        // A filter by process names who is looked at; the others can match any process, also one that starts later.
        // Who wakes a task can be any as well.
        let watch =
            if options.filter.by_process != 0 && !options.wakers() { Watch::Known } else { Watch::All };
        let cost = Cost { start_ns: start_ns.saturating_sub(begun_ns), ..Cost::default() };
        Ok(Self {
            options,
            kernel,
            targets,
            samples,
            probes,
            _walk: walk,
            sideband: watch_events(sideband)?,
            unwinding,
            symbolizer: Symbolizer::new(watch),
            collector: Collector::new(sizing.longest_window_ns),
            run_time,
            sizing,
            cpus: cpus.to_vec(),
            start_unix_ns: unix_ns(),
            start_ns,
            window_ns: sizing.first_window_ns,
            window_start_ns: 0,
            lost_events: 0,
            notes: note.into_iter().chain(unwind_note).chain(fallbacks.into_notes()).collect(),
            cost,
            cpu_at_start: cpu_ns(),
        })
    }

    /// Adds processes that became targets between choosing and attaching (children of the first ones).
    pub fn add_targets(&mut self, pids: &[u32]) -> Result<(), SessionError> {
        for &pid in pids {
            self.targets.add(pid)?;
        }
        Ok(())
    }

    /// Reads the mappings of the processes that exist already and may be sampled.
    pub fn scan_existing(&mut self, wanted: impl Fn(u32) -> bool) -> Result<(), SessionError> {
        self.symbolizer
            .scan_existing(wanted)
            .map_err(|source| SessionError::Host { path: PathBuf::from("/proc"), source })?;
        if let Some(unwinding) = &mut self.unwinding {
            for &pid in &self.options.targets {
                unwinding.prepare(pid, &mut self.symbolizer);
            }
        }
        // Reading what was there before is a cost of the start, however long the recording goes on.
        self.cpu_at_start = cpu_ns();
        Ok(())
    }

    /// Records until something ends it: the duration, `ended` (a signal, the command's end), or the targets' end.
    pub async fn run(
        &mut self,
        ended: impl Future<Output = Stop>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Stop, SessionError> {
        let mut window_end = Instant::now() + Duration::from_nanos(self.window_ns);
        let deadline = self.options.duration.map(|duration| Instant::now() + duration);
        tokio::pin!(ended);
        let mut pace = Pace::new();
        loop {
            let more_events = pace.is_more_expected(self.symbolizer.replacements());
            let events = async {
                sleep_until(pace.next()).await;
                if more_events {
                    return Ok(());
                }
                self.sideband.readable().await.map(|mut guard| guard.clear_ready())
            };
            tokio::select! {
                stop = &mut ended => return Ok(stop),
                () = at(deadline) => return Ok(Stop::Duration),
                ready = events => {
                    ready.map_err(SessionError::Sideband)?;
                    pace.read(self.read_events());
                    self.tell_changes()?;
                }
                next = next_of(&mut self.unwinding) => match next? {
                    Some(table) => {
                        if let Some(unwinding) = &mut self.unwinding {
                            unwinding.add_table(table)?;
                        }
                    }
                    None => self.answer_requests()?,
                },
                () = sleep_until(window_end) => {
                    window_end = Instant::now();
                    self.end_window()?;
                    window_end += Duration::from_nanos(self.window_ns);
                    progress(self.progress());
                    if self.options.filter.by_process != 0 && !self.targets.any_left()? {
                        return Ok(Stop::TargetsGone);
                    }
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        let elapsed = Duration::from_nanos(monotonic_ns().saturating_sub(self.start_ns));
        Progress { elapsed, samples: self.collector.total() }
    }

    fn read_events(&mut self) -> usize {
        let (symbolizer, lost) = (&mut self.symbolizer, &mut self.lost_events);
        let unwinding = &mut self.unwinding;
        self.sideband.get_mut().0.read(|event| {
            if let ProcessEvent::Lost { count } = event {
                *lost += count;
            }
            symbolizer.observe(event);
            if let Some(unwinding) = unwinding {
                unwinding.observe(event);
            }
        })
    }

    /// Tells the kernel side of new mappings at once: what they replaced would be walked wrongly.
    fn tell_changes(&mut self) -> Result<(), SessionError> {
        match &mut self.unwinding {
            Some(unwinding) => unwinding.tell_changes(&mut self.symbolizer),
            None => Ok(()),
        }
    }

    /// Answers the kernel side's requests for mappings and tables, behind the events that tell of them.
    fn answer_requests(&mut self) -> Result<(), SessionError> {
        self.read_events();
        match &mut self.unwinding {
            Some(unwinding) => unwinding.answer(&mut self.symbolizer),
            None => Ok(()),
        }
    }

    fn end_window(&mut self) -> Result<(), SessionError> {
        let end_ns = monotonic_ns();
        let window = self.samples.rotate()?;
        if let Some(unwinding) = &mut self.unwinding {
            unwinding.window_ended();
        }
        // Events first: they tell which images the window's samples belong to.
        self.read_events();
        self.tell_changes()?;
        self.add(&window);
        self.window_ns = self.sizing.next_window_ns(self.window_ns, &window);
        self.symbolizer.drained(end_ns);
        self.window_start_ns = end_ns.saturating_sub(self.start_ns);
        self.kernel.flush_log();
        Ok(())
    }

    fn add(&mut self, window: &Window) {
        self.collector.add(window, self.window_start_ns, &mut self.symbolizer);
    }

    /// Stops sampling, drains what is left and resolves all names.
    pub fn finish(mut self, stop: Stop) -> Result<Outcome, SessionError> {
        for probe in &mut self.probes {
            probe.disable(&mut self.samples)?;
        }
        let end_ns = monotonic_ns();
        let window = self.samples.finish(end_ns)?;
        self.read_events();
        self.add(&window);
        self.kernel.flush_log();
        drop(window);
        let mut losses = self.losses()?;
        self.note_new_cpus();
        let mut meta = meta(Facts {
            options: self.options,
            probes: &self.probes,
            samples: &self.samples,
            cpus: self.cpus.len(),
            start_unix_ns: self.start_unix_ns,
            duration_ns: end_ns.saturating_sub(self.start_ns),
            window_ns: self.collector.window_ns(),
            notes: std::mem::take(&mut self.notes),
        })?;
        if self.options.events.iter().any(|chosen| chosen.event.is_timed()) {
            let missed = meta.expected_ticks.saturating_sub(meta.ticks);
            losses.counters.insert("ticks_not_delivered".to_owned(), missed);
        }
        left_out(&self.probes, &self.samples, &mut losses, &mut meta)?;
        let mut cost = self.recording_cost();
        let cpu_before_naming = cpu_ns();
        // The kernel side is done: its memory and descriptors are given back before names are read.
        let Self { collector, symbolizer, options, kernel, samples, targets, sideband, unwinding, .. } = self;
        drop((samples, targets, kernel, sideband, unwinding));
        let built = build(&collector, symbolizer, &BuildOptions::of(options));
        let mut profile = built.profile;
        meta.idle_samples = built.idle_samples;
        losses.unresolved = std::mem::take(&mut profile.losses.unresolved);
        let cpu = cpu_ns();
        cost.setup_and_naming_cpu_ns += (cpu.0 + cpu.1) - (cpu_before_naming.0 + cpu_before_naming.1);
        cost.peak_rss_bytes = peak_rss_bytes();
        cost.naming_ns = monotonic_ns().saturating_sub(end_ns);
        (profile.meta, profile.losses, profile.cost) = (meta, losses, cost);
        Ok(Outcome { profile, stop })
    }

    fn note_new_cpus(&mut self) {
        for cpu in cpus::online().into_iter().filter(|cpu| !self.cpus.contains(cpu)) {
            self.notes.push(format!("CPU {cpu} came online while recording: it was not sampled"));
        }
    }

    fn losses(&self) -> Result<Losses, SessionError> {
        let mut losses = Losses::default();
        for (loss, count) in self.samples.losses()? {
            losses.counters.insert(loss.name().to_owned(), count);
        }
        losses.counters.insert("process_events_lost".to_owned(), self.lost_events);
        if let Some(unwinding) = &self.unwinding {
            let stats = unwinding.stats();
            losses.counters.insert("unwind_tables_failed".to_owned(), stats.failed);
            losses.counters.insert("unwind_memory_full".to_owned(), stats.without_room);
            losses.counters.insert("unwind_tables_evicted".to_owned(), stats.evicted);
        }
        losses.lost_sample_causes =
            [Loss::CountsFull, Loss::NoScratch].into_iter().map(|loss| loss.name().to_owned()).collect();
        Ok(losses)
    }

    fn recording_cost(&self) -> Cost {
        let (user, system) = cpu_ns();
        let (ebpf_run_ns, ebpf_runs) = self.run_time.read(&self.kernel.ebpf);
        let unwind = self.unwinding.as_ref().map(Unwinding::stats).unwrap_or_default();
        Cost {
            ebpf_run_ns,
            ebpf_runs,
            user_cpu_ns: user - self.cpu_at_start.0,
            system_cpu_ns: system - self.cpu_at_start.1,
            setup_and_naming_cpu_ns: self.cpu_at_start.0 + self.cpu_at_start.1,
            recording_peak_rss_bytes: peak_rss_bytes(),
            kernel_map_bytes: self.kernel.map_memory()
                + self.samples.map_memory()
                + self.targets.map_memory()
                + self.unwinding.as_ref().map_or(0, Unwinding::memory),
            unwind_tables: unwind.tables,
            unwind_bytes: unwind.bytes,
            unwind_tables_ns: unwind.built_ns,
            ..self.cost
        }
    }
}

/// What the kernel side needs next; never, if it needs nothing.
async fn next_of(unwinding: &mut Option<Unwinding>) -> Result<Option<Built>, SessionError> {
    match unwinding {
        Some(unwinding) => unwinding.next().await,
        None => std::future::pending().await,
    }
}

fn watch_events(sideband: Sideband) -> Result<AsyncFd<SidebandFd>, SessionError> {
    // SAFETY: the side band owns the descriptor it gives, gives the same one each time, and keeps it open until dropped.
    unsafe { AsyncFd::register_with_interest(SidebandFd(sideband), Interest::READABLE) }
        .map_err(|error| SessionError::Sideband(error.into()))
}

/// Completes then; never without a time.
pub async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
