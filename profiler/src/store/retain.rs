//! How much is kept: windows that are too old or for which there is no room go, the oldest first; then what no window
//! uses any more; then the file is made smaller.

use std::{fs, path::Path, time::Duration};

use rusqlite::Connection;

use super::{
    Maintained, StoreError,
    schema::BUSY,
    write::{Database, with_suffix},
};

/// Most windows that are removed at once: their rows are some megabytes.
const BATCH: u64 = 64;

/// Most pages that are given back at once.
const VACUUM_PAGES: u32 = 1024;

/// Part of the bytes that rows may fill; the rest is for the log, for pages that are free and for the next window.
const FILLED: (u64, u64) = (17, 20);

/// Most rounds of making room in one call; each removes a part of the windows.
const ROUNDS: usize = 16;

/// Unused contents are looked for when one window of so many was removed since the last time, or when there is no room:
/// that reads all samples, some 5 ms for a megabyte. Merging leaves nothing unused.
const UNUSED_PART: u64 = 16;

/// Bytes of a database and of its log.
pub fn bytes(path: &Path) -> u64 {
    let length = |suffix| fs::metadata(with_suffix(path, suffix)).map_or(0, |metadata| metadata.len());
    length("") + length("-wal")
}

/// Removes windows that ended too long ago.
pub fn expire(
    path: &Path,
    database: &mut Database,
    now_unix_ns: u64,
    max_age: Duration,
    done: &mut Maintained,
) -> Result<(), StoreError> {
    let age = u64::try_from(max_age.as_nanos()).unwrap_or(u64::MAX);
    let before = i64::try_from(now_unix_ns.saturating_sub(age)).unwrap_or(i64::MAX);
    let removed = database.transaction(path, |connection, _| {
        remove(
            connection,
            "SELECT id FROM windows WHERE start_ns < ?1 AND end_ns < ?1 ORDER BY +id LIMIT ?2",
            before,
        )
    })?;
    done.expired = removed.merged;
    done.more |= removed.rows == BATCH;
    database.since_unused += removed.rows;
    Ok(())
}

/// Removes the oldest windows until the rest has room, and what is not used.
pub fn evict(
    path: &Path,
    database: &mut Database,
    max_bytes: u64,
    done: &mut Maintained,
) -> Result<(), StoreError> {
    let target = max_bytes / FILLED.1 * FILLED.0;
    let fail = |cause| StoreError::sql(path, cause);
    let mut has_looked = false;
    for round in 0..ROUNDS {
        let windows = count(&database.connection).map_err(fail)?;
        let is_over = filled(&database.connection).map_err(fail)? > target;
        if database.since_unused > 0 && (is_over || database.since_unused > windows / UNUSED_PART) {
            // That reads all samples: once in a call.
            if has_looked {
                done.more = true;
                break;
            }
            has_looked = true;
            let unused = database.transaction(path, |connection, interner| {
                interner.forget();
                remove_unused(connection)
            })?;
            done.unused += unused;
            database.since_unused = 0;
            continue;
        }
        if !is_over || windows == 0 {
            break;
        }
        // A part of them: how much they are of what is filled is known only when they are gone.
        let some = (windows / 32).clamp(1, BATCH);
        let some = i64::try_from(some).unwrap_or(1);
        let sql = "SELECT id FROM windows WHERE ?2 > 0 ORDER BY id LIMIT ?1";
        let removed = database.transaction(path, |connection, _| remove(connection, sql, some))?;
        done.evicted += removed.merged;
        database.since_unused += removed.rows;
        done.more |= round + 1 == ROUNDS;
    }
    done.more |= shrink(path, database, max_bytes)?;
    Ok(())
}

/// What was removed.
struct Removed {
    rows: u64,
    /// The daemon's windows that were in them.
    merged: u64,
}

/// Removes windows; `sql` selects their ids, with a parameter and [`BATCH`].
fn remove(connection: &Connection, sql: &str, parameter: i64) -> rusqlite::Result<Removed> {
    let mut select = connection.prepare_cached(sql)?;
    let ids = select.query_map((parameter, BATCH as i64), |row| row.get(0))?;
    let ids: Vec<i64> = ids.collect::<Result<_, _>>()?;
    let mut removed = Removed { rows: ids.len() as u64, merged: 0 };
    for id in ids {
        for table in ["samples", "numbers", "histograms"] {
            connection.prepare_cached(&format!("DELETE FROM {table} WHERE window = ?1"))?.execute([id])?;
        }
        let mut delete = connection.prepare_cached("DELETE FROM windows WHERE id = ?1 RETURNING merged")?;
        removed.merged += u64::try_from(delete.query_row([id], |row| row.get::<_, i64>(0))?).unwrap_or(0);
    }
    Ok(removed)
}

/// Removes what no window uses, from samples down to places. Returns how many rows.
fn remove_unused(connection: &Connection) -> rusqlite::Result<u64> {
    const STATEMENTS: [&str; 9] = [
        "DELETE FROM stacks WHERE id NOT IN (SELECT stack FROM samples)",
        "DELETE FROM thread_names WHERE id NOT IN (SELECT thread FROM samples)",
        "DELETE FROM locations WHERE id NOT IN
            (SELECT l.value FROM stacks k, json_each('[' || k.locations || ']') l)",
        "DELETE FROM functions WHERE id NOT IN
            (SELECT i.value FROM locations o, json_each('[' || o.lines || ']') i WHERE i.key % 2 = 0)",
        "DELETE FROM modules WHERE id NOT IN (SELECT module FROM locations)",
        "DELETE FROM series WHERE id NOT IN
            (SELECT series FROM samples UNION SELECT series FROM numbers UNION SELECT series FROM histograms)",
        "DELETE FROM places WHERE id NOT IN (SELECT place FROM series)",
        "DELETE FROM measures WHERE id NOT IN (SELECT measure FROM numbers UNION SELECT measure FROM histograms)",
        "DELETE FROM circumstances WHERE id NOT IN (SELECT circumstances FROM windows)",
    ];
    let mut removed = 0;
    for statement in STATEMENTS {
        removed += connection.prepare_cached(statement)?.execute([])? as u64;
    }
    Ok(removed)
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .query_row("SELECT count(*) FROM windows", [], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let number: i64 = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// Bytes of pages that hold something.
fn filled(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?);
    Ok(pages * pragma(connection, "page_size")?)
}

/// Gives free pages back to the file system and empties the log, where that is worth it. Returns whether there is more.
fn shrink(path: &Path, database: &Database, max_bytes: u64) -> Result<bool, StoreError> {
    let connection = &database.connection;
    let work = || {
        let (free, pages) = (pragma(connection, "freelist_count")?, pragma(connection, "page_count")?);
        // Pages that the next windows will fill are not given back, unless that is needed.
        let is_tight = bytes(path) > max_bytes / FILLED.1 * FILLED.0;
        let is_worth = free > pages / 5 || (is_tight && free > 0);
        if is_worth {
            // A row for each page.
            let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        let log = fs::metadata(with_suffix(path, "-wal")).map_or(0, |log| log.len());
        if is_tight || log > max_bytes / 20 {
            // While a reader is at work the next call does it: a window must not wait for who does not read on.
            connection.busy_timeout(Duration::ZERO)?;
            let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            connection.busy_timeout(BUSY)?;
            emptied?;
        }
        Ok(is_worth && free > u64::from(VACUUM_PAGES))
    };
    work().map_err(|cause| StoreError::sql(path, cause))
}
