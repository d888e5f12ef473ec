//! One profile of the samples of a range.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use rusqlite::{Connection, Row};

use super::{
    Query,
    error::damage,
    notes,
    read::{Head, bounds, heads, matching},
    record::{self, Circumstances, Lost},
    schema::COLUMNS,
};
use crate::model::{
    Cost, FrameKind, Function, FunctionId, Line, Location, LocationId, Losses, Meta, Module, ModuleId,
    ModuleKind, Profile, Reason, Sample, Stack, StackEnd, StackId, Thread, ThreadId, window::Series,
};

/// Most times that samples are told apart by: of more windows, several are one.
const MAX_TIMES: u64 = 360;

/// Samples by time, thread and stack.
type Sums = BTreeMap<(u64, u32, u32), [i64; COLUMNS.len()]>;

/// Reads the samples of the columns that are asked for.
pub fn read(
    connection: &Connection,
    query: &Query,
    asked: [bool; COLUMNS.len()],
) -> rusqlite::Result<Profile> {
    let heads = heads(connection, query.range)?;
    let series = matching(connection, query)?;
    let circumstances = circumstances(connection, &heads)?;
    let recorded = |name: &str| {
        let has = |c: &Circumstances| c.sample_types.iter().any(|sample_type| sample_type.name == name);
        circumstances.values().any(has)
    };
    let columns: Vec<usize> =
        (0..COLUMNS.len()).filter(|&at| asked[at] && recorded(COLUMNS[at].name)).collect();
    let start = heads.iter().map(|head| head.info.start_unix_ns).min().unwrap_or(query.range.from_unix_ns);
    let end = heads.iter().map(|head| head.info.end_unix_ns).max().unwrap_or(start);
    let longest = heads.iter().map(|head| head.info.end_unix_ns.saturating_sub(head.info.start_unix_ns));
    let time_ns = longest.max().unwrap_or(0).max(end.saturating_sub(start) / MAX_TIMES).max(1);

    let mut tables = Tables { connection, profile: Profile::default(), ids: Ids::default() };
    let mut sums = Sums::new();
    for head in &heads {
        let time = match heads.len() as u64 {
            0..=MAX_TIMES => head.info.start_unix_ns - start,
            _ => (head.info.start_unix_ns - start) / time_ns * time_ns,
        };
        tables.samples(head.id, time, &series, &columns, &mut sums)?;
    }
    let mut profile = tables.profile;
    profile.samples = sums
        .into_iter()
        .map(|((time, thread, stack), values)| Sample {
            thread: ThreadId(thread),
            stack: StackId(stack),
            window_start_ns: time,
            values: columns.iter().map(|&at| values[at]).collect(),
        })
        .collect();
    profile.sample_types = columns.iter().map(|&at| COLUMNS[at].sample_type()).collect();
    profile.losses = losses(&heads, &circumstances)?;
    for head in &heads {
        profile.cost = record::add_cost(&profile.cost, &record::from_json::<Cost>(&head.cost)?);
    }
    profile.meta = meta(&heads, &circumstances, query);
    profile.meta.start_unix_ns = start;
    profile.meta.window_ns = time_ns;
    Ok(profile)
}

/// Those of the windows, by id.
fn circumstances(connection: &Connection, heads: &[Head]) -> rusqlite::Result<HashMap<i64, Circumstances>> {
    let mut statement = connection.prepare("SELECT text FROM circumstances WHERE id = ?1")?;
    let mut all = HashMap::new();
    for head in heads {
        if let Entry::Vacant(entry) = all.entry(head.circumstances) {
            let text: String = statement.query_row([head.circumstances], |row| row.get(0))?;
            entry.insert(record::from_json(&text)?);
        }
    }
    Ok(all)
}

fn losses(heads: &[Head], circumstances: &HashMap<i64, Circumstances>) -> rusqlite::Result<Losses> {
    let mut losses = Losses::default();
    for known in circumstances.values() {
        losses.counters.extend(known.watched.iter().map(|cause| (cause.clone(), 0)));
        losses.lost_sample_causes.extend(known.lost_sample_causes.iter().cloned());
    }
    losses.lost_sample_causes.sort_unstable();
    losses.lost_sample_causes.dedup();
    for head in heads {
        let lost: Lost = record::from_json(&head.losses)?;
        record::add_counts(&mut losses.counters, &lost.counters);
        record::add_counts(&mut losses.unresolved, &lost.unresolved);
    }
    Ok(losses)
}

/// The circumstances of the last window, and sums of what windows have of their own.
fn meta(heads: &[Head], circumstances: &HashMap<i64, Circumstances>, query: &Query) -> Meta {
    let last = heads.last().and_then(|head| circumstances.get(&head.circumstances));
    let sum =
        |number: fn(&Head) -> u64| heads.iter().fold(0u64, |sum, head| sum.saturating_add(number(head)));
    let mut notes = Vec::new();
    for head in heads {
        record::add_notes(&mut notes, &head.info.notes);
    }
    let of: Vec<_> = heads.iter().filter_map(|head| circumstances.get(&head.circumstances)).collect();
    notes.extend(notes::circumstances(heads, &of));
    notes.extend(notes::windows(heads, query.range));
    let mut meta = last.map(|last| last.meta.clone()).unwrap_or_default();
    for other in &of {
        for event in &other.meta.events {
            if !meta.events.contains(event) {
                meta.events.push(event.clone());
            }
        }
    }
    Meta {
        duration_ns: sum(|head| head.info.duration_ns),
        ticks: sum(|head| head.ticks),
        expected_ticks: sum(|head| head.expected_ticks),
        idle_samples: sum(|head| head.idle_samples),
        stolen_ns: sum(|head| head.stolen_ns),
        frequency_hz: heads.iter().map(|head| head.info.rates.frequency_hz).max().unwrap_or(0),
        notes,
        ..meta
    }
}

/// Which entry of the profile a row of the database is.
#[derive(Default)]
struct Ids {
    threads: HashMap<(i64, i64), u32>,
    stacks: HashMap<i64, u32>,
    locations: HashMap<i64, u32>,
    functions: HashMap<i64, u32>,
    modules: HashMap<i64, u32>,
}

/// The profile's tables as they grow.
struct Tables<'a> {
    connection: &'a Connection,
    profile: Profile,
    ids: Ids,
}

impl Tables<'_> {
    fn samples(
        &mut self,
        window: i64,
        time: u64,
        series: &HashMap<i64, Series>,
        columns: &[usize],
        sums: &mut Sums,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT series, thread, stack, samples, cpu_ns, offcpu_ns, blocks FROM samples
            WHERE window = ?1 AND series BETWEEN ?2 AND ?3",
        )?;
        let (least, largest) = bounds(series);
        let mut rows = statement.query((window, least, largest))?;
        while let Some(row) = rows.next()? {
            let Some((id, series)) = series.get_key_value(&row.get(0)?) else { continue };
            let values: [i64; COLUMNS.len()] = [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
            if columns.iter().all(|&at| values[at] == 0) {
                continue;
            }
            let (thread, stack) = (self.thread(*id, series, row.get(1)?)?, self.stack(row.get(2)?)?);
            let sum = sums.entry((time, thread, stack)).or_default();
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum = sum.saturating_add(value);
            }
        }
        Ok(())
    }

    fn thread(&mut self, series_id: i64, series: &Series, name: i64) -> rusqlite::Result<u32> {
        if let Some(&known) = self.ids.threads.get(&(series_id, name)) {
            return Ok(known);
        }
        let text = self.row("SELECT name FROM thread_names WHERE id = ?1", name, |row| row.get(0))?;
        let thread = Thread {
            pid: series.pid.unwrap_or(0),
            tid: 0,
            process: series.comm.clone(),
            name: text,
            // Series of one name and pid can differ in their place alone.
            incarnation: if series.pid.is_some() { series.start_ns } else { series_id.cast_unsigned() },
        };
        let id = push(&mut self.profile.threads, thread);
        self.ids.threads.insert((series_id, name), id);
        Ok(id)
    }

    fn stack(&mut self, id: i64) -> rusqlite::Result<u32> {
        if let Some(&known) = self.ids.stacks.get(&id) {
            return Ok(known);
        }
        let (cut, text): (Option<String>, String) =
            self.row("SELECT cut, locations FROM stacks WHERE id = ?1", id, |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let end = match cut {
            None => StackEnd::Complete,
            Some(cut) => StackEnd::from_key(&cut).ok_or_else(|| damage("a stack with an unknown end"))?,
        };
        let mut locations = Vec::new();
        for location in numbers(&text)? {
            locations.push(LocationId(self.location(location)?));
        }
        let new = push(&mut self.profile.stacks, Stack { locations, end });
        self.ids.stacks.insert(id, new);
        Ok(new)
    }

    fn location(&mut self, id: i64) -> rusqlite::Result<u32> {
        if let Some(&known) = self.ids.locations.get(&id) {
            return Ok(known);
        }
        let sql = "SELECT module, address, kind, lines FROM locations WHERE id = ?1";
        let (module, address, kind, text): (i64, i64, String, String) =
            self.row(sql, id, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let kind = FrameKind::from_key(&kind).ok_or_else(|| damage("a location of an unknown kind"))?;
        let module = ModuleId(self.module(module)?);
        let mut lines = Vec::new();
        for pair in numbers(&text)?.chunks(2) {
            let &[function, line] = pair else { return Err(damage("a function without a line")) };
            let line = u32::try_from(line).map_err(|_| damage("a line beyond all files"))?;
            lines.push(Line { function: FunctionId(self.function(function)?), line });
        }
        if lines.is_empty() {
            return Err(damage("a location without a function"));
        }
        let location = Location { module, address: address.cast_unsigned(), lines, kind };
        let new = push(&mut self.profile.locations, location);
        self.ids.locations.insert(id, new);
        Ok(new)
    }

    fn function(&mut self, id: i64) -> rusqlite::Result<u32> {
        if let Some(&known) = self.ids.functions.get(&id) {
            return Ok(known);
        }
        let (name, file, reason): (String, Option<String>, Option<String>) =
            self.row("SELECT name, file, unresolved FROM functions WHERE id = ?1", id, |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let reason = reason.map(|key| Reason::from_key(&key).ok_or_else(|| damage("an unknown reason")));
        let function = Function { name, file, unresolved: reason.transpose()? };
        let new = push(&mut self.profile.functions, function);
        self.ids.functions.insert(id, new);
        Ok(new)
    }

    fn module(&mut self, id: i64) -> rusqlite::Result<u32> {
        if let Some(&known) = self.ids.modules.get(&id) {
            return Ok(known);
        }
        let (path, build_id, kind): (String, Option<String>, String) =
            self.row("SELECT path, build_id, kind FROM modules WHERE id = ?1", id, |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let kind = ModuleKind::from_key(&kind).ok_or_else(|| damage("a module of an unknown kind"))?;
        let new = push(&mut self.profile.modules, Module { path, build_id, kind });
        self.ids.modules.insert(id, new);
        Ok(new)
    }

    fn row<T>(
        &self,
        sql: &str,
        id: i64,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection.prepare_cached(sql)?.query_row([id], read)
    }
}

/// Adds an entry, and says its index.
fn push<T>(table: &mut Vec<T>, entry: T) -> u32 {
    table.push(entry);
    (table.len() - 1) as u32
}

/// The numbers between commas.
fn numbers(text: &str) -> rusqlite::Result<Vec<i64>> {
    let parse = |number: &str| number.parse().map_err(|_| damage("a number that is none"));
    text.split(',').filter(|_| !text.is_empty()).map(parse).collect()
}
