//! Old windows become fewer: those older than an hour are merged to minutes, those older than a day to ten minutes.
//!
//! Only neighbours are merged, in the order in which they were kept, of one run of the daemon (and so of one boot), with
//! the same rates and circumstances, that begin in the same minute (or ten) in ascending order. Counters and histograms
//! add up in integers; of gauges, the last one stays.

use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::{
    Maintained, StoreError, histogram,
    record::{self, Lost},
    write::Database,
};
use crate::model::{Cost, sched::Histogram};

/// A step: windows that began before so many seconds become windows of so many seconds.
struct Step {
    age_s: u64,
    resolution_s: u64,
}

const STEPS: [Step; 2] = [Step { age_s: 3600, resolution_s: 60 }, Step { age_s: 86_400, resolution_s: 600 }];

/// Most windows that are looked at in one call, for each step: twelve minutes of windows of 10 s, so that what was missed
/// is soon caught up with.
const MAX_WINDOWS: i64 = 72;

const SECOND_NS: u64 = 1_000_000_000;

/// Merges what is old enough.
pub fn run(
    path: &Path,
    database: &mut Database,
    now_unix_ns: u64,
    done: &mut Maintained,
) -> Result<(), StoreError> {
    for step in &STEPS {
        let size = step.resolution_s * SECOND_NS;
        // Whole minutes only: the rest of the last one is still to come of age.
        let before = now_unix_ns.saturating_sub(step.age_s * SECOND_NS) / size * size;
        let candidates =
            candidates(&database.connection, step, before).map_err(|cause| StoreError::sql(path, cause))?;
        done.more |= candidates.len() as i64 == MAX_WINDOWS;
        for group in candidates.chunk_by(|a, b| a.goes_with(b, size)) {
            // The last group may go on beyond what was looked at.
            let is_cut = candidates.len() as i64 == MAX_WINDOWS
                && group.len() < candidates.len()
                && group.as_ptr_range().end == candidates.as_ptr_range().end;
            if is_cut {
                continue;
            }
            database.transaction(path, |connection, _| merge(connection, group, step))?;
            done.merged += group.len() as u64 - 1;
        }
    }
    Ok(())
}

/// What decides whether a window goes with the next one.
struct Candidate {
    id: i64,
    /// What must be the same.
    key: (i64, String, i64, Option<i64>, i64, i64, i64),
    /// Whether another window, which is no candidate, was kept before it.
    is_apart: bool,
    start_ns: i64,
    end_ns: i64,
}

/// How much before the end of a window the next one may begin: beyond it, the clock was set back between.
const OVERLAP_NS: i64 = 50_000_000;

impl Candidate {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            key: (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(10)?),
            start_ns: row.get(7)?,
            end_ns: row.get(8)?,
            is_apart: row.get(9)?,
        })
    }

    /// Ends and starts are read from a clock and a timer apart: a start may be some milliseconds before the last end.
    fn goes_with(&self, next: &Self, size_ns: u64) -> bool {
        let bucket = |ns: i64| u64::try_from(ns).map(|ns| ns / size_ns).ok();
        self.key == next.key
            && !next.is_apart
            && bucket(self.start_ns) == bucket(next.start_ns)
            && self.start_ns < next.start_ns
            && self.end_ns - next.start_ns <= OVERLAP_NS
            && self.end_ns <= next.end_ns
    }
}

/// The oldest windows that are old enough and not merged yet.
fn candidates(connection: &Connection, step: &Step, before_ns: u64) -> rusqlite::Result<Vec<Candidate>> {
    let sql =
        "SELECT id, run, boot, frequency_hz, min_block_ns, stack_depth, circumstances, start_ns, end_ns,
            coalesce((SELECT b.start_ns >= ?1 OR b.resolution_s >= ?2 FROM windows b WHERE b.id < w.id
                ORDER BY b.id DESC LIMIT 1), 0), blocked_every
        FROM windows w WHERE start_ns < ?1 AND resolution_s < ?2 ORDER BY id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let before = i64::try_from(before_ns).unwrap_or(i64::MAX);
    let rows = statement.query_map((before, step.resolution_s as i64, MAX_WINDOWS), Candidate::read)?;
    rows.collect()
}

/// Makes one window of a group, with the id of its first one.
fn merge(connection: &Connection, group: &[Candidate], step: &Step) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(()) };
    if group.len() > 1 {
        let ids = (first.id, last.id);
        merge_histograms(connection, ids)?;
        // Neighbours by id: no other window is between.
        const ROWS: [&str; 3] = [
            "INSERT INTO samples
            SELECT ?1, series, thread, stack, sum(samples), sum(cpu_ns), sum(offcpu_ns), sum(blocks) FROM samples
            WHERE window > ?1 AND window <= ?2 GROUP BY series, thread, stack
            ON CONFLICT DO UPDATE SET samples = samples + excluded.samples, cpu_ns = cpu_ns + excluded.cpu_ns,
                offcpu_ns = offcpu_ns + excluded.offcpu_ns, blocks = blocks + excluded.blocks",
            "INSERT INTO numbers
            SELECT ?1, series, measure, sum(value) FROM numbers
            WHERE window > ?1 AND window <= ?2 AND measure NOT IN (SELECT m.id FROM measures m JOIN metrics k
                ON k.name = m.metric WHERE k.kind = 'gauge')
            GROUP BY series, measure ON CONFLICT DO UPDATE SET value = value + excluded.value",
            "INSERT INTO numbers
            SELECT ?1, series, measure, value FROM (SELECT series, measure, value, max(window) FROM numbers
                WHERE window > ?1 AND window <= ?2 AND measure IN (SELECT m.id FROM measures m JOIN metrics k
                    ON k.name = m.metric WHERE k.kind = 'gauge')
                GROUP BY series, measure)
            WHERE true ON CONFLICT DO UPDATE SET value = excluded.value",
        ];
        for sql in ROWS {
            connection.prepare_cached(sql)?.execute(ids)?;
        }
        for table in ["samples", "numbers", "histograms"] {
            let sql = format!("DELETE FROM {table} WHERE window > ?1 AND window <= ?2");
            connection.prepare_cached(&sql)?.execute(ids)?;
        }
        merge_heads(connection, ids)?;
    }
    let sql = "UPDATE windows SET resolution_s = ?2 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute((first.id, step.resolution_s as i64))?;
    Ok(())
}

fn merge_histograms(connection: &Connection, (first, last): (i64, i64)) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT series, measure, count, sum, buckets FROM histograms WHERE window >= ?1 AND window <= ?2
        ORDER BY series, measure",
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO histograms (window, series, measure, count, sum, buckets)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let rows = select.query_map((first, last), |row| {
        let buckets = histogram::decode(row.get_ref(4)?.as_blob()?)?;
        Ok(((row.get(0)?, row.get(1)?), row.get(2)?, row.get(3)?, buckets))
    })?;
    let rows: Vec<((i64, i64), i64, i64, Histogram)> = rows.collect::<Result<_, _>>()?;
    for same in rows.chunk_by(|a, b| a.0 == b.0) {
        let ((series, measure), count, sum, buckets) =
            same.iter().skip(1).fold(same[0].clone(), |(key, count, sum, buckets), more| {
                let buckets = histogram::add(&buckets, &more.3);
                (key, count.saturating_add(more.1), sum.saturating_add(more.2), buckets)
            });
        let bytes = histogram::encode(&buckets);
        insert.execute(params![first, series, measure, count, sum, bytes])?;
    }
    Ok(())
}

/// The rows of the windows themselves.
fn merge_heads(connection: &Connection, (first, last): (i64, i64)) -> rusqlite::Result<()> {
    let mut select = connection
        .prepare_cached("SELECT losses, cost, notes FROM windows WHERE id >= ?1 AND id <= ?2 ORDER BY id")?;
    let (mut losses, mut cost, mut notes) = (Lost::default(), Cost::default(), Vec::new());
    let mut rows = select.query((first, last))?;
    while let Some(row) = rows.next()? {
        losses.add(&record::from_json::<Lost>(row.get_ref(0)?.as_str()?)?);
        cost = record::add_cost(&cost, &record::from_json(row.get_ref(1)?.as_str()?)?);
        record::add_notes(&mut notes, &record::from_json::<Vec<String>>(row.get_ref(2)?.as_str()?)?);
    }
    drop(rows);
    connection
        .prepare_cached(
            "UPDATE windows SET (last_number, merged, end_ns, duration_ns, ticks, expected_ticks, idle_samples,
                stolen_ns, lost_samples) = (SELECT max(last_number), sum(merged), max(end_ns), sum(duration_ns),
                sum(ticks), sum(expected_ticks), sum(idle_samples), sum(stolen_ns), sum(lost_samples)
                FROM windows WHERE id >= ?1 AND id <= ?2),
                losses = ?3, cost = ?4, notes = ?5 WHERE id = ?1",
        )?
        .execute(params![first, last, record::to_json(&losses)?, record::cost_to_json(&cost)?, record::to_json(&notes)?])?;
    let sql = "DELETE FROM windows WHERE id > ?1 AND id <= ?2";
    connection.prepare_cached(sql)?.execute((first, last))?;
    Ok(())
}
