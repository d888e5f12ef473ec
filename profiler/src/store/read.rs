//! The reader: windows, series, profiles and accounts of a range. Any number of them, with the daemon running or not.
//!
//! Each question opens the database anew, in a fraction of a millisecond: the writer may have moved it aside meanwhile.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Row, Transaction};

use super::{
    Query, Range, SeriesInfo, StoreError, WindowInfo, histogram,
    insert::HOST,
    profile, record,
    schema::{self, COLUMNS, FILE},
};
use crate::model::{
    Profile,
    window::{Account, Distribution, Kind, METRICS, Number, Place, Rates, Series, metric},
};

/// Reads a store.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
}

impl Reader {
    /// The store in a directory.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Denied`], or what keeps its database from being opened.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        match fs::File::open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { dir: dir.to_owned() });
            }
            Err(error) => return Err(StoreError::io(&path, error)),
        }
        let reader = Self { path };
        reader.read(|_| Ok(()))?;
        Ok(reader)
    }

    /// Windows that overlap a range, in the order in which they were kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn windows(&self, range: Range) -> Result<Vec<WindowInfo>, StoreError> {
        self.read(|connection| Ok(heads(connection, range)?.into_iter().map(|head| head.info).collect()))
    }

    /// Series that have samples or numbers in the range, most CPU time first. [`Query::events`] is not looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn series(&self, query: &Query) -> Result<Vec<SeriesInfo>, StoreError> {
        self.read(|connection| series(connection, query))
    }

    /// The samples of the range as one profile, as renderers take it: its notes tell of ranges without windows and of
    /// changes of rates, its losses and cost are the sums of all windows in the range, whatever processes are asked for.
    /// Threads of one process and name are one, with the thread id 0; so are processes of a series without pid.
    ///
    /// # Errors
    /// [`StoreError::NoEvent`], and others.
    pub fn profile(&self, query: &Query) -> Result<Profile, StoreError> {
        let columns = columns(&query.events)?;
        let profile = self.read(|connection| profile::read(connection, query, columns))?;
        // There are windows, and none of them has it.
        if profile.sample_types.is_empty() && profile.meta.duration_ns != 0 && !query.events.is_empty() {
            let known = profile.meta.events.join(", ");
            return Err(StoreError::NoEvent { name: query.events.join(", "), known });
        }
        Ok(profile)
    }

    /// Exact numbers of the range, summed by series; of gauges, the last. Those of metrics that this version does not know
    /// are left out. [`Query::events`] are names of metrics.
    ///
    /// # Errors
    /// [`StoreError::NoEvent`], and others.
    pub fn accounts(&self, query: &Query) -> Result<Vec<Account>, StoreError> {
        for name in &query.events {
            if metric(name).is_none() {
                let known = METRICS.iter().map(|metric| metric.name).collect::<Vec<_>>().join(", ");
                return Err(StoreError::NoEvent { name: name.clone(), known });
            }
        }
        self.read(|connection| {
            let series = matching(connection, query)?;
            accounts(connection, query, bounds(&series), |id| series.get(&id).cloned())
        })
    }

    /// The numbers of the machine as a whole, summed over the range.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn host(&self, range: Range) -> Result<Account, StoreError> {
        let query = Query::all(range);
        let accounts =
            self.read(|connection| accounts(connection, &query, (HOST, HOST), |_| Some(Series::default())))?;
        Ok(accounts.into_iter().next().unwrap_or_default())
    }

    /// Looks at one state of the database.
    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let connection = schema::open_to_read(&self.path)?;
        let result = connection.unchecked_transaction().and_then(|transaction| work(&transaction));
        result.map_err(|cause| StoreError::sql(&self.path, cause))
    }
}

/// Which columns of samples are asked for.
fn columns(events: &[String]) -> Result<[bool; COLUMNS.len()], StoreError> {
    if let Some(name) =
        events.iter().find(|name| !COLUMNS.iter().any(|c| c.name == **name || c.event == **name))
    {
        let known = COLUMNS.map(|column| column.name).join(", ");
        return Err(StoreError::NoEvent { name: name.clone(), known });
    }
    let is_asked = |names: [&str; 2]| events.iter().any(|name| names.contains(&name.as_str()));
    Ok(COLUMNS.map(|column| events.is_empty() || is_asked([column.name, column.event])))
}

/// The row of a window.
pub struct Head {
    pub id: i64,
    pub info: WindowInfo,
    pub circumstances: i64,
    pub ticks: u64,
    pub expected_ticks: u64,
    pub idle_samples: u64,
    pub stolen_ns: u64,
    pub losses: String,
    pub cost: String,
}

/// A number that cannot be below 0.
pub fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// The windows that overlap a range, in the order in which they were kept.
pub fn heads(connection: &Connection, range: Range) -> rusqlite::Result<Vec<Head>> {
    let mut statement = connection.prepare(
        "SELECT id, circumstances, losses, cost, notes, boot, start_ns, end_ns, duration_ns, number, last_number, merged,
            run, frequency_hz, min_block_ns, stack_depth, lost_samples, ticks, expected_ticks, idle_samples, stolen_ns,
            blocked_every
        FROM windows WHERE start_ns < ?2 AND end_ns > ?1 ORDER BY id",
    )?;
    let bound = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    let rows = statement.query_map((bound(range.from_unix_ns), bound(range.to_unix_ns)), |row| {
        let min_block: Option<i64> = row.get(14)?;
        let info = WindowInfo {
            start_unix_ns: unsigned(row, 6)?,
            end_unix_ns: unsigned(row, 7)?,
            duration_ns: unsigned(row, 8)?,
            number: unsigned(row, 9)?,
            last_number: unsigned(row, 10)?,
            merged: unsigned(row, 11)?,
            run: unsigned(row, 12)?,
            boot_id: row.get(5)?,
            rates: Rates {
                frequency_hz: unsigned(row, 13)?,
                min_block_ns: min_block.map(|_| unsigned(row, 14)).transpose()?,
                stack_depth: row.get(15)?,
                blocked_every: row.get(21)?,
            },
            lost_samples: unsigned(row, 16)?,
            notes: record::from_json(row.get_ref(4)?.as_str()?)?,
        };
        Ok(Head {
            id: row.get(0)?,
            info,
            circumstances: row.get(1)?,
            ticks: unsigned(row, 17)?,
            expected_ticks: unsigned(row, 18)?,
            idle_samples: unsigned(row, 19)?,
            stolen_ns: unsigned(row, 20)?,
            losses: row.get(2)?,
            cost: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// Series that match, by id.
pub fn matching(connection: &Connection, query: &Query) -> rusqlite::Result<HashMap<i64, Series>> {
    let mut statement = connection.prepare(
        "SELECT s.id, s.pid, s.start_ns, s.comm, p.cgroup, p.unit, p.runtime, p.container, p.pod
        FROM series s JOIN places p ON p.id = s.place WHERE ?1 IS NULL OR s.pid = ?1",
    )?;
    let rows = statement.query_map([query.pid], |row| {
        let place = Place {
            cgroup: row.get(4)?,
            unit: row.get(5)?,
            runtime: row.get(6)?,
            container: row.get(7)?,
            pod: row.get(8)?,
        };
        let series = Series { pid: row.get(1)?, start_ns: unsigned(row, 2)?, comm: row.get(3)?, place };
        Ok((row.get(0)?, series))
    })?;
    let is_match = |series: &Series| {
        let place = &series.place;
        let parts =
            [place.container.as_deref(), place.pod.as_deref(), place.unit.as_deref(), Some(&place.cgroup)];
        query.process.as_ref().is_none_or(|regex| regex.is_match(&series.comm))
            && query
                .container
                .as_ref()
                .is_none_or(|regex| parts.into_iter().flatten().any(|part| regex.is_match(part)))
    };
    rows.filter(|row| row.as_ref().map_or(true, |(_, series)| is_match(series))).collect()
}

fn series(connection: &Connection, query: &Query) -> rusqlite::Result<Vec<SeriesInfo>> {
    let matching = matching(connection, query)?;
    let mut found: HashMap<i64, (SeriesInfo, [u64; COLUMNS.len()])> = HashMap::new();
    let mut select = connection.prepare(
        "SELECT series, sum(samples), sum(cpu_ns), sum(offcpu_ns), sum(blocks), 0 FROM samples WHERE window = ?1
            GROUP BY series
        UNION ALL SELECT series, 0, 0, 0, 0, sum(CASE measure WHEN ?2 THEN value ELSE 0 END) FROM numbers
            WHERE window = ?1 GROUP BY series
        ORDER BY series",
    )?;
    let cpu: Option<i64> = connection.query_row(
        "SELECT max(id) FROM measures WHERE metric = 'cpu' AND label = ''",
        [],
        |r| r.get(0),
    )?;
    for head in heads(connection, query.range)? {
        let mut rows = select.query((head.id, cpu))?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let Some(series) = matching.get(&id) else { continue };
            let (info, totals) =
                found.entry(id).or_insert_with(|| (new_info(series, &head.info), Default::default()));
            if last.replace(id) != Some(id) {
                info.windows += 1;
            }
            info.first_unix_ns = info.first_unix_ns.min(head.info.start_unix_ns);
            info.last_unix_ns = info.last_unix_ns.max(head.info.end_unix_ns);
            for (at, total) in totals.iter_mut().enumerate() {
                let value: i64 = row.get(1 + at)?;
                *total = total.saturating_add(u64::try_from(value).unwrap_or(0));
            }
            info.cpu_ns = info.cpu_ns.saturating_add(unsigned(row, 5)?);
        }
    }
    let with_totals = |(mut info, totals): (SeriesInfo, [u64; COLUMNS.len()])| {
        let totals = COLUMNS.iter().zip(totals).filter(|(_, total)| *total != 0);
        info.totals = totals.map(|(column, total)| (column.sample_type(), total)).collect();
        info
    };
    let mut all: Vec<_> = found.into_values().map(with_totals).collect();
    all.sort_by(|a, b| (b.cpu_ns, &a.series).cmp(&(a.cpu_ns, &b.series)));
    Ok(all)
}

fn new_info(series: &Series, window: &WindowInfo) -> SeriesInfo {
    SeriesInfo {
        series: series.clone(),
        windows: 0,
        first_unix_ns: window.start_unix_ns,
        last_unix_ns: window.end_unix_ns,
        totals: Vec::new(),
        cpu_ns: 0,
    }
}

/// Sums by measure.
#[derive(Default)]
struct Sums {
    numbers: BTreeMap<i64, u64>,
    histograms: BTreeMap<i64, Distribution>,
}

/// The least and the largest id of series: rows of a window are in their order. Without any, bounds that nothing is within.
pub fn bounds(series: &HashMap<i64, Series>) -> (i64, i64) {
    (series.keys().copied().min().unwrap_or(i64::MAX), series.keys().copied().max().unwrap_or(i64::MIN))
}

fn accounts(
    connection: &Connection,
    query: &Query,
    (least, largest): (i64, i64),
    series: impl Fn(i64) -> Option<Series>,
) -> rusqlite::Result<Vec<Account>> {
    let measures = measures(connection, &query.events)?;
    let mut sums: HashMap<i64, (Series, Sums)> = HashMap::new();
    let mut numbers = connection.prepare(
        "SELECT series, measure, value FROM numbers WHERE window = ?1 AND series BETWEEN ?2 AND ?3",
    )?;
    let mut histograms = connection.prepare(
        "SELECT series, measure, sum, buckets FROM histograms WHERE window = ?1 AND series BETWEEN ?2 AND ?3",
    )?;
    for head in heads(connection, query.range)? {
        let mut rows = numbers.query((head.id, least, largest))?;
        while let Some(row) = rows.next()? {
            let Some((measure, (kind, ..), sums)) = find(row, &measures, &series, &mut sums)? else {
                continue;
            };
            let value = unsigned(row, 2)?;
            let sum = sums.numbers.entry(measure).or_default();
            *sum = if *kind == Kind::Gauge { value } else { sum.saturating_add(value) };
        }
        let mut rows = histograms.query((head.id, least, largest))?;
        while let Some(row) = rows.next()? {
            let Some((measure, (_, metric, label), sums)) = find(row, &measures, &series, &mut sums)? else {
                continue;
            };
            let buckets = histogram::decode(row.get_ref(3)?.as_blob()?)?;
            let new = || Distribution { metric, label: label.clone(), sum: 0, buckets: Vec::new() };
            let all = sums.histograms.entry(measure).or_insert_with(new);
            all.sum = all.sum.saturating_add(unsigned(row, 2)?);
            all.buckets = histogram::add(&all.buckets, &buckets);
        }
    }
    let mut accounts: Vec<_> =
        sums.into_values().map(|(series, sums)| account(series, sums, &measures)).collect();
    accounts.sort_by(|a, b| a.series.cmp(&b.series));
    Ok(accounts)
}

/// What a measure is.
type Measure = (Kind, &'static str, String);

/// The measures that are asked for and known.
fn measures(connection: &Connection, events: &[String]) -> rusqlite::Result<HashMap<i64, Measure>> {
    let mut statement = connection.prepare("SELECT id, metric, label FROM measures")?;
    let mut rows = statement.query([])?;
    let mut measures = HashMap::new();
    while let Some(row) = rows.next()? {
        let name = row.get_ref(1)?.as_str()?;
        let is_asked = events.is_empty() || events.iter().any(|event| event == name);
        if let Some(metric) = metric(name).filter(|_| is_asked) {
            measures.insert(row.get(0)?, (metric.kind, metric.name, row.get(2)?));
        }
    }
    Ok(measures)
}

/// Whose and what a row of numbers is, if it is asked for.
fn find<'a, 'm>(
    row: &Row<'_>,
    measures: &'m HashMap<i64, Measure>,
    series: impl Fn(i64) -> Option<Series>,
    sums: &'a mut HashMap<i64, (Series, Sums)>,
) -> rusqlite::Result<Option<(i64, &'m Measure, &'a mut Sums)>> {
    let (id, measure): (i64, i64) = (row.get(0)?, row.get(1)?);
    let Some(what) = measures.get(&measure) else { return Ok(None) };
    let sums = match sums.entry(id) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let Some(series) = series(id) else { return Ok(None) };
            entry.insert((series, Sums::default()))
        }
    };
    Ok(Some((measure, what, &mut sums.1)))
}

fn account(series: Series, sums: Sums, measures: &HashMap<i64, Measure>) -> Account {
    let number = |(id, value)| {
        let (_, metric, label) = measures.get(&id)?;
        Some(Number { metric, label: label.clone(), value })
    };
    let mut numbers: Vec<_> = sums.numbers.into_iter().filter_map(number).collect();
    let order = |name: &str| METRICS.iter().position(|metric| metric.name == name);
    numbers.sort_by(|a, b| (order(a.metric), &a.label).cmp(&(order(b.metric), &b.label)));
    let mut distributions: Vec<_> = sums.histograms.into_values().collect();
    distributions.sort_by(|a, b| (order(a.metric), &a.label).cmp(&(order(b.metric), &b.label)));
    Account { series, numbers, distributions }
}
