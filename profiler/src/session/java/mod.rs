//! What a JVM does, looked at from outside: exact accounts of its threads, samples with stacks of the same time, and what the JVM
//! itself counts and says of its threads, read in its memory.
//!
//! | what | from |
//! |---|---|
//! | on-CPU, run-queue and blocked times of threads | accounts ([`super::sched`]) |
//! | what a blocked thread waits for, monitors | waits with their stacks (`offcpu`); for what began before, its innermost code |
//! | methods | samples (`cpu`) |
//! | collections, safepoints, compilations, classes, heap | the JVM's counters |
//! | states, allocation, classes of monitors | the JVM's threads, now and then |

mod threads;
mod tops;
pub(in crate::session) mod watch;

use std::{future::pending, mem, thread, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    RecordOptions, Recording, SessionError, Stop,
    cost::thread_cpu,
    recording::at,
    sched::{AccountOptions, Accounting, Loaded},
    spans::{self, Intervals, Spans},
    together::OfAccounts,
};
use crate::{
    host::cpus,
    model::{Profile, java::Span, sched},
};
use tops::Tops;
use watch::Part;
pub use watch::Watch;

/// How often it is looked at whose monitors threads wait for.
const POLL: Duration = Duration::from_millis(50);
/// How many times as long as that took, in CPU time, it is left alone at least.
const PAUSE: u32 = 20;
/// How often the JVM's counters and threads are read, so that they are known when it ends.
const LOOK: Duration = Duration::from_millis(500);

/// What to look at.
#[derive(Clone, Debug)]
pub struct JavaOptions {
    /// The JVM.
    pub pid: u32,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Give what happened in each such time too.
    pub interval: Option<Duration>,
    /// Accounts of its threads, without end and intervals.
    pub accounts: AccountOptions,
    /// Samples: of `cpu` and `offcpu`, without end.
    pub samples: RecordOptions,
}

/// A run in progress.
pub struct JavaRun<'a> {
    options: &'a JavaOptions,
    accounts: Accounting<'a>,
    recording: Recording<'a>,
    watch: Watch,
    looks: Looks,
    begun_ns: u64,
}

/// When the JVM is to be looked at next: goes on from one interval to the next, which may be shorter.
struct Looks {
    poll: Instant,
    look: Instant,
}

impl<'a> JavaRun<'a> {
    /// Attaches everything; the accounts begin. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// What cannot be attached.
    pub fn start(options: &'a JavaOptions, watch: Watch, begun_ns: u64) -> Result<Self, SessionError> {
        // Most of the start is the verifier's time, in both.
        let (recording, accounts) = thread::scope(|scope| {
            let accounts = scope.spawn(|| Loaded::of(&options.accounts));
            let recording = Recording::attach(&options.samples, &cpus::online());
            let accounts = accounts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (recording, accounts)
        });
        let (recording, loaded) = (recording?, accounts?);
        let accounts = Accounting::attach(&options.accounts, loaded, begun_ns)?;
        let looks = Looks { poll: Instant::now(), look: Instant::now() };
        Ok(Self { options, accounts, recording, watch, looks, begun_ns })
    }

    fn interval(&mut self) -> Result<Span, SessionError> {
        self.watch.look();
        let accounts = self.accounts.interval()?;
        let profile = self.recording.interval()?;
        let span = span(&self.watch, accounts, &profile, Part::Interval);
        self.watch.begin_interval();
        Ok(span)
    }

    /// Accounts, samples and looks until something ends it, or the interval is over (`None`).
    async fn go_on(
        &mut self,
        ended: impl Future<Output = Stop>,
        deadline: Option<Instant>,
        interval_end: Option<Instant>,
    ) -> Result<Option<Stop>, SessionError> {
        let Self { accounts, recording, watch, looks, .. } = self;
        tokio::select! {
            // What is due is done before an interval ends, however late intervals are.
            biased;
            stop = ended => Ok(Some(stop)),
            () = at(deadline) => Ok(Some(Stop::Duration)),
            () = look(watch, looks) => Ok(None),
            stop = spans::keep::<_, SessionError>(accounts, pending(), |_| Ok(())) => stop.map(Some),
            stop = recording.run(pending(), |_| {}) => stop.map(Some),
            () = at(interval_end) => Ok(None),
        }
    }
}

/// What happened in a span, of what was found out of it.
fn span(watch: &Watch, accounts: sched::Span, profile: &Profile, part: Part) -> Span {
    let (before, now) = watch.moments(part);
    let tops = Tops::of(profile);
    let rows = accounts.accounts.rows.iter().filter(|row| row.tid.is_some());
    let threads = rows.map(|row| threads::thread(row, &tops, before, now, part)).collect();
    let mut monitors = tops.monitors();
    for monitor in &mut monitors {
        monitor.classes = watch.classes_at(&monitor.method);
    }
    let mut meta = accounts.meta;
    meta.notes.extend(watch.notes().iter().cloned());
    Span {
        number: accounts.number,
        meta,
        losses: accounts.losses,
        cost: accounts.cost,
        jvm: watch.facts(),
        counts: watch.counts(part),
        threads: threads::sorted(threads),
        samples: tops.samples(),
        methods: tops.methods(),
        monitors,
    }
}

/// Looks at the JVM without end; but not most of the time, if it has so many threads.
async fn look(watch: &mut Watch, next: &mut Looks) {
    loop {
        sleep_until(next.poll).await;
        // Of this thread only: others read tables meanwhile.
        let before = thread_cpu();
        watch.poll();
        if Instant::now() >= next.look {
            watch.look();
            next.look = Instant::now() + LOOK;
        }
        next.poll = Instant::now() + POLL.max((thread_cpu() - before) * PAUSE);
    }
}

impl Spans for JavaRun<'_> {
    type Span = Span;

    fn add_targets(&mut self, pids: &[u32]) -> Result<(), SessionError> {
        self.accounts.add_targets(pids)?;
        self.recording.add_targets(pids)
    }

    fn begin(&mut self) -> Result<(), SessionError> {
        self.recording.begin(self.begun_ns)?;
        self.watch.begin();
        Ok(())
    }

    async fn run<E: From<SessionError>>(
        &mut self,
        ended: impl Future<Output = Stop>,
        mut each: impl FnMut(Span) -> Result<(), E>,
    ) -> Result<Stop, E> {
        let JavaOptions { pid, duration, interval, .. } = *self.options;
        self.recording.scan_existing(|other| other == pid)?;
        let deadline = duration.map(|duration| Instant::now() + duration);
        let mut interval_end = interval.map(|interval| Instant::now() + interval);
        tokio::pin!(ended);
        loop {
            if let Some(stop) = self.go_on(&mut ended, deadline, interval_end).await? {
                return Ok(stop);
            }
            interval_end = interval_end.zip(interval).map(|(end, interval)| end + interval);
            each(self.interval()?)?;
        }
    }

    fn finish(mut self) -> Result<Span, SessionError> {
        self.watch.end();
        self.recording.end()?;
        let Self { accounts, recording, watch, .. } = self;
        let accounts = accounts.whole()?;
        // Names come last.
        let profile = recording.finish(Stop::Signal)?.profile;
        let mut span = span(&watch, accounts, &profile, Part::Whole);
        let of_accounts = OfAccounts {
            events: mem::take(&mut span.meta.events),
            duration_ns: span.meta.duration_ns,
            notes: mem::take(&mut span.meta.notes),
            losses: mem::take(&mut span.losses),
            ebpf: (span.cost.ebpf_run_ns, span.cost.ebpf_runs),
            kernel_map_bytes: span.cost.kernel_map_bytes,
        };
        (span.meta, span.losses, span.cost) = of_accounts.and_of_samples(&profile);
        Ok(span)
    }
}
