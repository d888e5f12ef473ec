//! The run time of the daemon's eBPF programs.
//!
//! It is measured in parts of each window only: while the kernel measures it, each run of a program takes some 60 ns more. Where
//! the parts are differs from window to window: what happens every ten seconds would otherwise be in all of them, or in none.
//!
//! Loads come in bursts, of which a tenth of the time has three, or none. But nearly all that programs do comes with switches of
//! tasks, and these are counted all the time. So what was measured is taken for the whole window with a correction: if
//! there were more switches in the window than in its parts, by what one was seen to cost (the regression estimator of survey
//! sampling: Cochran, Sampling Techniques, chapter 7). What one costs is learned from the parts of some windows. If it is
//! wrong, or what programs do has nothing to do with switches, the correction is noise and no bias.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    bpf::{
        accounts::Switches,
        runs::Runs,
        stats::{RunTime, runs_of},
    },
    host::cpus,
    perf::clock::monotonic_ns,
};

/// How long it is measured in a window; of short windows, a quarter.
const MEASURE: Duration = Duration::from_secs(1);
/// In so many parts, one in each part of the window.
const PARTS: u32 = 10;
/// By how much of a part of the window later than in the one before it is measured: the golden ratio, whose multiples are spread
/// evenly however many there are.
const STRIDE: f64 = 0.618_033_988_749_895;
/// What a part weighs when another one is known.
const FADING: f64 = 0.98;
/// Parts without which nothing is said of what a switch costs.
const ENOUGH: f64 = 8.0;

/// Run time of the eBPF programs, as far as it is measured.
#[derive(Default)]
pub struct Measured {
    programs: Vec<OwnedFd>,
    switches: Option<Switches>,
    window: Duration,
    /// Online: with others, a session begins anew.
    cpus: usize,
    /// The window in progress: its number, when it began, and how many parts of it are done.
    number: u32,
    began: Option<Instant>,
    done: u32,
    /// Why it cannot be measured.
    problem: Option<String>,
    /// What there was when the window began: of each program, and switches by then.
    before: Vec<Runs>,
    start: Moment,
    /// Programs that took more than a hundredth of what all took in the last window: the others are not asked in each part.
    busy: Vec<usize>,
    /// When nothing was measured last.
    idle: Moment,
    /// The sum of the parts of this window.
    parts: Moment,
    /// Run time and runs, by switches.
    relations: (Relation, Relation),
    /// Of the last window in which anything was measured: run time, and runs, in one ns.
    rates: (f64, f64),
}

/// A moment, or the time between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moment {
    ns: u64,
    switches: u64,
    /// Of the busy programs, or of all.
    run: Runs,
}

impl Moment {
    const fn since(&self, before: &Self) -> Self {
        Self {
            ns: self.ns.saturating_sub(before.ns),
            switches: self.switches.saturating_sub(before.switches),
            run: self.run.since(&before.run),
        }
    }

    fn add(&mut self, other: &Self) {
        self.ns += other.ns;
        self.switches += other.switches;
        self.run = self.run.and(other.run);
    }

    /// Switches in one ns.
    fn rate(&self) -> f64 {
        self.switches as f64 / self.ns.max(1) as f64
    }
}

/// How one number changes with another one, by the method of least squares; what was long ago fades.
#[derive(Debug, Default)]
struct Relation {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Relation {
    fn add(&mut self, x: f64, y: f64) {
        for (sum, value) in [
            (&mut self.n, 1.0),
            (&mut self.x, x),
            (&mut self.y, y),
            (&mut self.xx, x * x),
            (&mut self.xy, x * y),
        ] {
            *sum = *sum * FADING + value;
        }
    }

    /// By how much `y` is more where `x` is 1 more; 0 where it is not known, or would be less.
    fn slope(&self) -> f64 {
        let spread = self.xx - self.x * self.x / self.n;
        // What is left of equal numbers is rounding.
        if self.n < ENOUGH || spread <= self.xx * 1e-6 {
            return 0.0;
        }
        ((self.xy - self.x * self.y / self.n) / spread).max(0.0)
    }
}

/// Measuring in progress, until it is dropped.
struct Part<'a> {
    measured: &'a mut Measured,
    enabled: Option<RunTime>,
    start: Moment,
}

impl<'a> Part<'a> {
    fn begin(measured: &'a mut Measured) -> Self {
        let now = measured.now();
        measured.others(now);
        let (enabled, problem) = RunTime::enable();
        measured.problem = problem;
        Self { start: Moment { ns: monotonic_ns(), ..now }, measured, enabled: Some(enabled) }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.enabled = None;
        let now = self.measured.now();
        self.measured.part(now.since(&self.start));
        self.measured.idle = now;
    }
}

impl Measured {
    /// Of these programs, in windows of that length; nothing is measured yet.
    pub fn of(programs: Vec<OwnedFd>, switches: Switches, window: Duration) -> Self {
        let mut measured = Self {
            busy: (0..programs.len()).collect(),
            programs,
            switches: Some(switches),
            window,
            cpus: cpus::online().len(),
            began: Some(Instant::now()),
            ..Self::default()
        };
        measured.before = measured.runs();
        measured.idle = measured.now();
        measured.start = measured.idle;
        measured
    }

    /// A window ends: what was measured in it.
    pub fn end_window(&mut self) {
        let runs = self.runs();
        self.end(self.moment(|program| runs[program]), runs);
    }

    fn end(&mut self, now: Moment, runs: Vec<Runs>) {
        self.others(now);
        if self.parts.ns != 0 {
            let added: Vec<_> =
                runs.iter().zip(&self.before).map(|(now, before)| now.since(before)).collect();
            let Runs { ns, count, .. } = Runs::sum(added.iter().copied());
            let more = now.since(&self.start).rate() - self.parts.rate();
            let rate = |sum: u64, relation: &Relation| {
                (sum as f64 / self.parts.ns as f64 + more * relation.slope()).max(0.0)
            };
            self.rates = (rate(ns, &self.relations.0), rate(count, &self.relations.1));
            self.busy = (0..added.len()).filter(|&program| added[program].ns > ns / 100).collect();
        }
        // Others may be busy now.
        self.idle = Moment { run: self.of_busy(|program| runs[program]), ..now };
        (self.before, self.parts, self.start) = (runs, Moment::default(), now);
    }

    /// If somebody else has measured while this did not, it is known what programs did in that time too.
    fn others(&mut self, now: Moment) {
        let since = now.since(&self.idle);
        // Of a run that was in progress it is known later, one of a program on each CPU.
        if since.run.count > (self.busy.len() * self.cpus) as u64 {
            self.part(since);
        }
        self.idle = now;
    }

    fn part(&mut self, part: Moment) {
        if part.ns != 0 {
            let of_ns = |number: u64| number as f64 / part.ns as f64;
            self.relations.0.add(part.rate(), of_ns(part.run.ns));
            self.relations.1.add(part.rate(), of_ns(part.run.count));
        }
        self.parts.add(&part);
    }

    /// The next one begins.
    pub fn begin_window(&mut self) {
        self.number = self.number.wrapping_add(1);
        (self.began, self.done) = (Some(Instant::now()), 0);
    }

    /// How long a part is measured.
    fn length(&self) -> Duration {
        MEASURE.min(self.window / 4) / PARTS
    }

    /// How long after the beginning of a window one of its parts begins to be measured.
    fn after(&self, part: u32) -> Duration {
        let room = self.window / PARTS;
        let later = (room - self.length()).mul_f64((f64::from(self.number) * STRIDE).fract());
        room * part + later
    }

    /// Measures parts of the window, then waits without end. May be dropped and begun again.
    pub async fn run(&mut self) {
        while let Some(began) = self.began
            && self.done < PARTS
        {
            sleep_until(began + self.after(self.done)).await;
            let length = self.length();
            let part = Part::begin(self);
            sleep(length).await;
            drop(part);
            self.done += 1;
        }
        std::future::pending().await
    }

    /// Why it cannot be measured, if it cannot.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn runs(&self) -> Vec<Runs> {
        self.programs.iter().map(|program| runs_of(program.as_fd())).collect()
    }

    fn now(&self) -> Moment {
        self.moment(|program| runs_of(self.programs[program].as_fd()))
    }

    /// Now; `run`: what a program has done.
    fn moment(&self, run: impl Fn(usize) -> Runs) -> Moment {
        Moment {
            ns: monotonic_ns(),
            switches: self.switches.as_ref().and_then(|switches| switches.sum().ok()).unwrap_or(0),
            run: self.of_busy(run),
        }
    }

    fn of_busy(&self, run: impl Fn(usize) -> Runs) -> Runs {
        Runs::sum(self.busy.iter().map(|&program| run(program)))
    }

    /// What was measured last, in so much time: run time (ns) and runs.
    pub fn in_time(&self, duration_ns: u64) -> (u64, u64) {
        let scaled = |rate: f64| (rate * duration_ns as f64).round() as u64;
        (scaled(self.rates.0), scaled(self.rates.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(ns: u64, switches: u64, run_ns: u64, count: u64) -> Moment {
        Moment { ns, switches, run: Runs { ns: run_ns, count, missed: 0 } }
    }

    #[test]
    fn what_was_measured_is_taken_for_the_whole_window() {
        let mut measured = Measured::default();
        assert_eq!(measured.in_time(10), (0, 0));
        let run = |ns, count| Runs { ns, count, missed: 0 };
        measured.before = vec![run(500, 5), run(0, 0), run(7, 1)];
        measured.parts = moment(1_000_000, 0, 0, 0);
        measured.end(Moment::default(), vec![run(1_500, 9), run(1_000, 6), run(7, 1)]);
        assert_eq!((measured.in_time(10_000_000), &measured.busy[..]), ((20_000, 100), &[0, 1][..]));
        // Of one in which nothing is measured it is the one's before.
        measured.end(Moment::default(), vec![run(1_500, 9), run(1_000, 6), run(7, 1)]);
        assert_eq!((measured.in_time(10_000_000), &measured.busy[..]), ((20_000, 100), &[0, 1][..]));
    }

    #[test]
    fn what_others_measure_is_of_the_time_in_which_they_did() {
        let mut measured =
            Measured { idle: moment(5_000, 0, 10, 100), busy: vec![0], cpus: 1, ..Measured::default() };
        measured.others(moment(6_000, 5, 20, 101));
        assert_eq!((measured.parts, measured.idle.ns), (Moment::default(), 6_000));
        measured.others(moment(9_000, 7, 1_020, 100_101));
        assert_eq!(measured.parts, moment(3_000, 2, 1_000, 100_000));
    }

    #[test]
    fn a_slope_is_that_of_a_line() {
        let mut line = Relation::default();
        for x in 0..20 {
            assert!(x >= 8 || line.slope() == 0.0);
            line.add(f64::from(x), 7.0 + 3.0 * f64::from(x));
        }
        assert!((line.slope() - 3.0).abs() < 1e-9, "{line:?}");
        let (mut flat, mut falling) = (Relation::default(), Relation::default());
        for i in 0..20 {
            flat.add(5.0, f64::from(i));
            falling.add(f64::from(i), -f64::from(i));
        }
        assert_eq!([flat.slope(), falling.slope()], [0.0; 2]);
    }

    /// Each 2.1 s there are 40,000 switches in 120 ms, of 1 us each; and always 300 in a second.
    #[test]
    fn bursts_that_were_not_met_are_known_by_their_switches() {
        const MS: u64 = 1_000_000;
        let switches = |ms: u64| {
            let (bursts, rest) = (ms / 2_100, ms % 2_100);
            (bursts * 120 + rest.min(120)) * 333 + ms * 3 / 10
        };
        let at = |ms: u64| moment(ms * MS, switches(ms), switches(ms) * 1_000, switches(ms));
        let mut measured = Measured { window: Duration::from_secs(10), ..Measured::default() };
        let (mut seen, mut errors) = (Runs::default(), Vec::new());
        measured.before = vec![seen];
        for window in 0..30 {
            let start = window * 10_000;
            measured.start = at(start);
            for part in 0..PARTS {
                let begin = start + measured.after(part).as_millis() as u64;
                let part = at(begin + 100).since(&at(begin));
                seen = seen.and(part.run);
                measured.part(part);
            }
            measured.idle = at(start + 10_000);
            measured.end(at(start + 10_000), vec![seen]);
            measured.begin_window();
            let is = at(start + 10_000).since(&at(start)).run.ns as f64;
            errors.push((measured.in_time(10_000 * MS).0 as f64 / is - 1.0).abs());
        }
        assert!(errors[2..].iter().all(|error| *error < 0.02), "{errors:?}");
    }

    #[test]
    fn all_of_a_window_is_measured_in_time() {
        for window in [Duration::from_secs(10), Duration::from_secs(1)] {
            let mut measured = Measured { window, ..Measured::default() };
            let room = (window / PARTS - measured.length()).as_secs_f64();
            let mut fifths = [false; 5];
            for _ in 0..10 {
                let begins: Vec<_> = (0..PARTS).map(|part| measured.after(part)).collect();
                for pair in begins.windows(2) {
                    assert!(pair[0] + measured.length() <= pair[1], "{begins:?}");
                }
                assert!(begins[begins.len() - 1] + measured.length() <= window, "{begins:?}");
                fifths[(begins[0].as_secs_f64() / room * 5.0) as usize] = true;
                measured.begin_window();
            }
            assert_eq!(fifths, [true; 5], "{window:?}");
        }
    }
}
