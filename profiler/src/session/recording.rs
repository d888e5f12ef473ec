//! The recording loop: windows, process events, and the reasons to stop.

pub(super) mod continuous;
mod end;

use std::{
    os::fd::{AsRawFd, RawFd},
    path::PathBuf,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

pub use self::continuous::Closeness;
use self::continuous::Endless;
use super::{
    RecordOptions, SessionError,
    build::{BuildOptions, build_interval},
    collect::Collector,
    cost::cpu_ns,
    fallbacks::Fallbacks,
    load::{Loaded, load},
    owners::Owners,
    pace::Pace,
    unwinding::Unwinding,
};
use crate::{
    bpf::{
        load::Kernel,
        samples::{Follow, Samples, Sizing, WalkPrograms, Window},
        stats::RunTime,
        targets::Targets,
    },
    host::{cpu_times::stolen_ns, features::Feature},
    model::{Cost, Profile, when::unix_ns},
    perf::{clock::monotonic_ns, record::ProcessEvent, sideband::Sideband},
    probe::{Probe, Setup, between},
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
    /// Whose sockets are, if there are events of what happens to them.
    owners: Option<Owners>,
    _walk: Option<Vec<WalkPrograms>>,
    sideband: AsyncFd<SidebandFd>,
    unwinding: Option<Unwinding>,
    symbolizer: Symbolizer,
    collector: Collector,
    /// What only recordings without end have.
    endless: Option<Endless>,
    run_time: Option<RunTime>,
    sizing: Sizing,
    cpus: Vec<u32>,
    start_unix_ns: u64,
    /// CPU time that the hypervisor had taken when sampling began, ns.
    stolen_before_ns: u64,
    /// What it took from then until sampling ended.
    stolen_ns: u64,
    start_ns: u64,
    /// When sampling ended; 0: it goes on.
    end_ns: u64,
    window_ns: u64,
    window_start_ns: u64,
    /// `window_start_ns` where what is collected begins.
    collected_from_ns: u64,
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
        let mut recording = Self::attach(options, cpus)?;
        recording.begin(begun_ns)?;
        Ok(recording)
    }

    /// Prepares everything. Nothing is sampled yet.
    pub fn attach(options: &'a RecordOptions, cpus: &[u32]) -> Result<Self, SessionError> {
        let mut fallbacks = Fallbacks::new(options, cpus.first().copied().unwrap_or(0));
        let access = fallbacks.task_access(options);
        // Before the programs: it tells their names too, which samples can hit.
        let sideband =
            Sideband::open(cpus, fallbacks.may_use(Feature::MmapBuildId)).map_err(SessionError::Sideband)?;
        fallbacks.tried(Feature::MmapBuildId, sideband.build_ids());
        let Loaded { mut kernel, walk, note: unwind_note } = load(options, &access)?;
        let (unwinding, walk) = walk.unzip();
        let mut notes = Vec::new();
        let run_time = RunTime::if_asked(options.ebpf_cost, &mut notes);
        notes.extend(unwind_note);
        let mut targets = kernel.targets()?;
        if options.filter.follow_children != 0 {
            kernel.follow_children()?;
        }
        let sizes = options.events.iter().map(|chosen| chosen.event.sizing(options.frequency_hz, cpus.len()));
        let sizing = sizes.reduce(Sizing::and).ok_or(SessionError::NoEvent)?;
        let sizing = if options.small { sizing.small() } else { sizing };
        let follow = Follow {
            waits: options.waits.is_some(),
            calls: options.call_stacks.is_some(),
            spans: between::asked(&options.events).is_some(),
        };
        let samples = Samples::new(&mut kernel, &sizing, follow)?;
        let setup = Setup {
            cpus,
            timer: options.timer(),
            wakers: options.wakers(),
            queued: options.queued(),
            timed_calls: options.timed_calls(),
        };
        let probes = Probe::open_all(&options.events, &mut kernel, &setup)?;
        targets.add_all(&options.targets)?;
        let owners = options.net.as_ref().and_then(|facts| facts.owners);
        let owners = owners.map(|(sockets, _)| Owners::open(&mut kernel, sockets, options.filter.is_open()));
        let owners = owners.transpose()?;
        notes.extend(fallbacks.into_notes());
        // A filter by process names who is looked at; the others can match any process, also one that starts later.
        // Who wakes a task can be any as well.
        let watch =
            if options.filter.by_process != 0 && !options.wakers() { Watch::Known } else { Watch::All };
        Ok(Self {
            options,
            kernel,
            targets,
            samples,
            probes,
            owners,
            _walk: walk,
            sideband: watch_events(sideband)?,
            unwinding,
            symbolizer: Symbolizer::new(watch),
            collector: Collector::new(sizing.longest_window_ns),
            endless: None,
            run_time,
            sizing,
            cpus: cpus.to_vec(),
            start_unix_ns: 0,
            stolen_before_ns: 0,
            stolen_ns: 0,
            start_ns: 0,
            end_ns: 0,
            window_ns: sizing.first_window_ns,
            window_start_ns: 0,
            collected_from_ns: 0,
            lost_events: 0,
            notes,
            cost: Cost::default(),
            cpu_at_start: cpu_ns(),
        })
    }

    /// Starts sampling.
    pub fn begin(&mut self, begun_ns: u64) -> Result<(), SessionError> {
        for probe in &mut self.probes {
            probe.enable(&mut self.kernel)?;
        }
        self.samples.begin_spans()?;
        self.stolen_before_ns = stolen_ns();
        (self.start_ns, self.start_unix_ns) = (monotonic_ns(), unix_ns());
        self.cost.start_ns = self.start_ns.saturating_sub(begun_ns);
        self.cpu_at_start = cpu_ns();
        Ok(())
    }

    /// Adds processes that became targets between choosing and attaching (children of the first ones).
    pub fn add_targets(&mut self, pids: &[u32]) -> Result<(), SessionError> {
        self.targets.add_all(pids)?;
        match &mut self.owners {
            // The sockets that they have already.
            Some(owners) if !pids.is_empty() => owners.look(&mut self.kernel),
            _ => Ok(()),
        }
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
        let mut pace = Pace::new()?;
        loop {
            let more_events = pace.is_more_expected(self.symbolizer.replacements());
            let events = async {
                pace.next().await?;
                if more_events {
                    return Ok(());
                }
                self.sideband.get_mut().0.wait().map_err(SessionError::Sideband)?;
                let mut ready = self.sideband.readable().await.map_err(SessionError::Sideband)?;
                ready.clear_ready();
                Ok::<_, SessionError>(())
            };
            tokio::select! {
                stop = &mut ended => return Ok(stop),
                () = at(deadline) => return Ok(Stop::Duration),
                ready = events => {
                    ready?;
                    pace.read(self.read_events())?;
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
        let (unwinding, endless) = (&mut self.unwinding, &mut self.endless);
        self.sideband.get_mut().0.read(|event| {
            if let ProcessEvent::Lost { count } = event {
                *lost += count;
            }
            symbolizer.observe(event);
            if let Some(endless) = endless {
                endless.places.observe(event);
            }
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
        let mut window = self.samples.rotate()?;
        self.settle(&mut window)?;
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

    /// What was sampled since the last such call, or since the beginning, with the names that are known already
    /// ([`Symbolizer::known`]); without circumstances, losses and cost.
    pub fn interval(&mut self) -> Result<Profile, SessionError> {
        self.end_window()?;
        let built = build_interval(&self.collector, &self.symbolizer, &BuildOptions::of(self.options));
        self.collector.begin_interval();
        Ok(built.profile)
    }

    /// Finds whose the packets are that the kernel side counted without.
    fn settle(&mut self, window: &mut Window) -> Result<(), SessionError> {
        match &mut self.owners {
            Some(owners) => owners.settle(&mut self.kernel, window),
            None => Ok(()),
        }
    }

    fn add(&mut self, window: &Window) {
        let start_ns = self.window_start_ns - self.collected_from_ns;
        self.collector.add(window, start_ns, &mut self.symbolizer);
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
