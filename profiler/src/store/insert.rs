//! A window into the tables, within the caller's transaction.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, params};

use super::{
    StoreError, histogram,
    intern::{
        CIRCUMSTANCES, Cell, FUNCTIONS, Interner, LOCATIONS, MEASURES, MODULES, PLACES, SERIES, STACKS,
        THREAD_NAMES,
    },
    record::{self, Circumstances, Lost},
    schema::COLUMNS,
};
use crate::model::{
    FunctionId, LocationId, Losses, ModuleId, Profile, Reason, SampleType, StackEnd, StackId,
    sched::Histogram,
    window::{Account, Series, Window},
};

/// Largest number that is kept: sums of a thousand windows stay below what SQLite's integers hold. As times, a hundred
/// days of one window.
pub const MAX_VALUE: i64 = 1 << 53;

/// Most buckets of a histogram: what the kernel side has are some hundreds.
const MAX_BUCKETS: usize = 4096;

/// Key of the losses for numbers that were larger.
const TOO_LARGE: &str = "store_number_too_large";

/// The series of the machine as a whole.
pub const HOST: i64 = 0;

/// Which of a sample's values belongs in which column.
type Places = [Option<usize>; COLUMNS.len()];

/// Whether a window is consistent, before anything of it is written.
///
/// # Errors
/// [`StoreError::Window`], [`StoreError::SampleType`].
pub fn check(window: &Window) -> Result<Places, StoreError> {
    let profile = &window.profile;
    let known = |column: &SampleType| COLUMNS.iter().any(|known| known.sample_type() == *column);
    if let Some(other) = profile.sample_types.iter().find(|sample_type| !known(sample_type)) {
        return Err(StoreError::SampleType { name: other.name.clone() });
    }
    let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(StoreError::Window(what)) };
    ensure(window.series_of.len() == profile.threads.len(), "not every thread has a series")?;
    let in_accounts = |index: &u32| (*index as usize) < window.accounts.len();
    ensure(window.series_of.iter().all(in_accounts), "a thread is of a series that is not there")?;
    let mut seen = HashSet::new();
    ensure(window.accounts.iter().all(|account| seen.insert(&account.series)), "a series is there twice")?;
    let buckets = window.accounts.iter().flat_map(|account| &account.distributions).map(|d| d.buckets.len());
    ensure(buckets.max() <= Some(MAX_BUCKETS), "a histogram has too many buckets")?;
    let is_whole = profile.samples.iter().all(|sample| {
        sample.values.len() == profile.sample_types.len()
            && sample.thread.index() < profile.threads.len()
            && sample.stack.index() < profile.stacks.len()
    });
    ensure(is_whole, "a sample is of nothing that is there")?;
    let is_location = |id: &LocationId| id.index() < profile.locations.len();
    let stacks = profile.stacks.iter().all(|stack| stack.locations.iter().all(is_location));
    ensure(stacks, "a stack is of locations that are not there")?;
    let locations = profile.locations.iter().all(|location| {
        location.module.index() < profile.modules.len()
            && !location.lines.is_empty()
            && location.lines.iter().all(|line| line.function.index() < profile.functions.len())
    });
    ensure(locations, "a location is of a module or function that is not there")?;
    Ok(COLUMNS.map(|column| profile.column(column.name)))
}

/// Writes windows with one connection.
pub struct Insert<'a> {
    pub connection: &'a Connection,
    pub interner: &'a mut Interner,
}

impl Insert<'_> {
    /// Writes a window that [`check`] has seen.
    pub fn window(&mut self, window: &Window, places: &Places, run: i64) -> rusqlite::Result<()> {
        let mut too_large = 0;
        let id = self.head(window, run)?;
        let mut series = Vec::with_capacity(window.accounts.len());
        for account in &window.accounts {
            series.push(self.series(&account.series)?);
        }
        self.samples(id, window, places, &series, &mut too_large)?;
        // In the order of the table's key.
        let mut accounts: Vec<_> = series.into_iter().zip(&window.accounts).collect();
        accounts.push((HOST, &window.host));
        accounts.sort_by_key(|(series, _)| *series);
        for (series, account) in accounts {
            self.numbers(id, series, account, &mut too_large)?;
        }
        self.losses(id, &window.profile.losses, too_large)
    }

    /// The row of the window itself; its losses come at the end.
    fn head(&mut self, window: &Window, run: i64) -> rusqlite::Result<i64> {
        let (meta, rates) = (&window.profile.meta, &window.rates);
        let text = record::to_json(&Circumstances::of(&window.profile))?;
        let circumstances = self.interner.id(self.connection, &CIRCUMSTANCES, &[Cell::Text(&text)])?;
        let start = bounded(window.start_unix_ns, i64::MAX);
        let duration = bounded(window.duration_ns, MAX_VALUE);
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO windows (boot, run, number, last_number, merged, resolution_s, start_ns, end_ns, duration_ns,
                frequency_hz, min_block_ns, stack_depth, circumstances, ticks, expected_ticks, idle_samples, stolen_ns,
                lost_samples, losses, cost, notes)
            VALUES (?1, ?2, ?3, ?3, 1, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, '', ?15, ?16)",
        )?;
        statement.insert(params![
            window.boot_id,
            run,
            bounded(window.number, i64::MAX),
            start,
            start.saturating_add(duration),
            duration,
            bounded(rates.frequency_hz, MAX_VALUE),
            rates.min_block_ns.map(|ns| bounded(ns, MAX_VALUE)),
            rates.stack_depth,
            circumstances,
            bounded(meta.ticks, MAX_VALUE),
            bounded(meta.expected_ticks, MAX_VALUE),
            bounded(meta.idle_samples, MAX_VALUE),
            bounded(meta.stolen_ns, MAX_VALUE),
            record::cost_to_json(&window.profile.cost)?,
            record::to_json(&meta.notes)?,
        ])
    }

    fn losses(&self, id: i64, losses: &Losses, too_large: u64) -> rusqlite::Result<()> {
        let mut lost = Lost::of(losses);
        if too_large != 0 {
            lost.counters.insert(TOO_LARGE.to_owned(), too_large);
        }
        let sql = "UPDATE windows SET lost_samples = ?2, losses = ?3 WHERE id = ?1";
        let samples = bounded(losses.lost_samples(), MAX_VALUE);
        self.connection.prepare_cached(sql)?.execute(params![id, samples, record::to_json(&lost)?])?;
        Ok(())
    }

    fn samples(
        &mut self,
        id: i64,
        window: &Window,
        places: &Places,
        series: &[i64],
        too_large: &mut u64,
    ) -> rusqlite::Result<()> {
        let profile = &window.profile;
        let mut contents = Contents::new(profile);
        let mut rows: BTreeMap<(i64, i64, i64), [i64; COLUMNS.len()]> = BTreeMap::new();
        for sample in &profile.samples {
            let thread = contents.thread(self, sample.thread.index())?;
            let stack = contents.stack(self, sample.stack)?;
            let series = series[window.series_of[sample.thread.index()] as usize];
            let sums = rows.entry((series, thread, stack)).or_default();
            for (sum, place) in sums.iter_mut().zip(places) {
                *sum = sum.saturating_add(place.map_or(0, |place| sample.values[place]));
            }
        }
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO samples (window, series, thread, stack, samples, cpu_ns, offcpu_ns, blocks)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for ((series, thread, stack), values) in rows {
            let [a, b, c, d] = values.map(|value| {
                let kept = value.clamp(-MAX_VALUE, MAX_VALUE);
                *too_large += u64::from(kept != value);
                kept
            });
            if (a, b, c, d) != (0, 0, 0, 0) {
                statement.execute(params![id, series, thread, stack, a, b, c, d])?;
            }
        }
        Ok(())
    }

    fn numbers(
        &mut self,
        id: i64,
        series: i64,
        account: &Account,
        too_large: &mut u64,
    ) -> rusqlite::Result<()> {
        let mut bound = |value: u64| {
            *too_large += u64::from(value > MAX_VALUE as u64);
            bounded(value, MAX_VALUE)
        };
        // In the order of the table's key.
        let mut numbers = BTreeMap::new();
        for number in account.numbers.iter().filter(|number| number.value != 0) {
            let sum: &mut u64 = numbers.entry(self.measure(number.metric, &number.label)?).or_default();
            *sum = sum.saturating_add(number.value);
        }
        let sql = "INSERT INTO numbers (window, series, measure, value) VALUES (?1, ?2, ?3, ?4)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for (measure, value) in numbers {
            statement.execute((id, series, measure, bound(value)))?;
        }
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO histograms (window, series, measure, count, sum, buckets) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let mut distributions: BTreeMap<i64, (u64, Histogram)> = BTreeMap::new();
        for distribution in account.distributions.iter().filter(|d| !d.buckets.is_empty()) {
            let measure = self.measure(distribution.metric, &distribution.label)?;
            let (sum, buckets) = distributions.entry(measure).or_default();
            *sum = sum.saturating_add(distribution.sum);
            // Sorted and apart, whatever they were.
            *buckets = histogram::add(buckets, &distribution.buckets);
        }
        for (measure, (sum, buckets)) in distributions {
            let count = bound(histogram::count(&buckets));
            statement.execute(params![
                id,
                series,
                measure,
                count,
                bound(sum),
                histogram::encode(&buckets)
            ])?;
        }
        Ok(())
    }

    fn measure(&mut self, metric: &str, label: &str) -> rusqlite::Result<i64> {
        self.interner.id(self.connection, &MEASURES, &[Cell::Text(metric), Cell::Text(label)])
    }

    fn series(&mut self, series: &Series) -> rusqlite::Result<i64> {
        let place = &series.place;
        let content = [
            Cell::Text(&place.cgroup),
            place.unit.as_deref().into(),
            place.runtime.as_deref().into(),
            place.container.as_deref().into(),
            place.pod.as_deref().into(),
        ];
        let place = self.interner.id(self.connection, &PLACES, &content)?;
        let content = [
            series.pid.map_or(Cell::Null, |pid| Cell::Int(pid.into())),
            Cell::Int(bounded(series.start_ns, i64::MAX)),
            Cell::Text(&series.comm),
            Cell::Int(place),
        ];
        self.interner.id(self.connection, &SERIES, &content)
    }
}

/// Ids of a profile's tables, as far as samples need them.
struct Contents<'a> {
    profile: &'a Profile,
    threads: Vec<Option<i64>>,
    stacks: Vec<Option<i64>>,
    locations: Vec<Option<i64>>,
    functions: Vec<Option<i64>>,
    modules: Vec<Option<i64>>,
}

impl<'a> Contents<'a> {
    fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            threads: vec![None; profile.threads.len()],
            stacks: vec![None; profile.stacks.len()],
            locations: vec![None; profile.locations.len()],
            functions: vec![None; profile.functions.len()],
            modules: vec![None; profile.modules.len()],
        }
    }

    fn thread(&mut self, insert: &mut Insert<'_>, index: usize) -> rusqlite::Result<i64> {
        let content = [Cell::Text(&self.profile.threads[index].name)];
        known(&mut self.threads[index], || insert.interner.id(insert.connection, &THREAD_NAMES, &content))
    }

    fn stack(&mut self, insert: &mut Insert<'_>, id: StackId) -> rusqlite::Result<i64> {
        if let Some(known) = self.stacks[id.index()] {
            return Ok(known);
        }
        let stack = &self.profile.stacks[id.index()];
        let mut ids = Vec::with_capacity(stack.locations.len());
        for location in &stack.locations {
            ids.push(self.location(insert, location.index())?);
        }
        let leaf = stack.locations.first().map(|leaf| self.profile.locations[leaf.index()].lines[0].function);
        let leaf = leaf.map(|function| self.function(insert, function)).transpose()?;
        let cut = (stack.end != StackEnd::Complete).then(|| stack.end.key());
        let content = [cut.into(), leaf.map_or(Cell::Null, Cell::Int), Cell::Text(&joined(&ids))];
        known(&mut self.stacks[id.index()], || insert.interner.id(insert.connection, &STACKS, &content))
    }

    fn location(&mut self, insert: &mut Insert<'_>, index: usize) -> rusqlite::Result<i64> {
        if let Some(known) = self.locations[index] {
            return Ok(known);
        }
        let location = &self.profile.locations[index];
        let mut lines = Vec::with_capacity(2 * location.lines.len());
        for line in &location.lines {
            lines.extend([self.function(insert, line.function)?, line.line.into()]);
        }
        let content = [
            Cell::Int(self.module(insert, location.module)?),
            Cell::Int(location.address.cast_signed()),
            Cell::Text(location.kind.key()),
            Cell::Text(&joined(&lines)),
        ];
        known(&mut self.locations[index], || insert.interner.id(insert.connection, &LOCATIONS, &content))
    }

    fn function(&mut self, insert: &mut Insert<'_>, id: FunctionId) -> rusqlite::Result<i64> {
        let function = &self.profile.functions[id.index()];
        let unresolved = function.unresolved.map(Reason::key);
        let content = [Cell::Text(&function.name), function.file.as_deref().into(), unresolved.into()];
        known(&mut self.functions[id.index()], || insert.interner.id(insert.connection, &FUNCTIONS, &content))
    }

    fn module(&mut self, insert: &mut Insert<'_>, id: ModuleId) -> rusqlite::Result<i64> {
        let module = &self.profile.modules[id.index()];
        let content =
            [Cell::Text(&module.path), module.build_id.as_deref().into(), Cell::Text(module.kind.key())];
        known(&mut self.modules[id.index()], || insert.interner.id(insert.connection, &MODULES, &content))
    }
}

/// What is known already, or is made now.
fn known(known: &mut Option<i64>, make: impl FnOnce() -> rusqlite::Result<i64>) -> rusqlite::Result<i64> {
    match *known {
        Some(id) => Ok(id),
        None => make().inspect(|id| *known = Some(*id)),
    }
}

fn bounded(value: u64, most: i64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX).min(most)
}

/// Numbers with commas between.
fn joined(numbers: &[i64]) -> String {
    let mut text = String::with_capacity(numbers.len() * 6);
    for (at, number) in numbers.iter().enumerate() {
        if at != 0 {
            text.push(',');
        }
        text += &number.to_string();
    }
    text
}
