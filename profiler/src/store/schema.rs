//! The schema of the database, how older ones are brought to it, and how connections are opened.
//!
//! `docs/store.md` documents it for users of the `sqlite3` shell: what changes here changes there.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::error::{Note, StoreError};
use crate::model::{SampleType, Unit, window::METRICS};

/// Name of the database in the store's directory.
pub const FILE: &str = "history.db";

/// What tells our databases from those of others (`PRAGMA application_id`): `prof`.
pub const APPLICATION: i64 = 0x7072_6f66;

/// Each brings the schema of its index to the next one; a new database has schema 0.
const STEPS: [&str; 1] = [include_str!("schema.sql")];

/// The schema of this version.
pub const VERSION: i64 = STEPS.len() as i64;

/// A sample type that is kept.
pub struct Column {
    /// Name of the sample type.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// The event that it is of.
    pub event: &'static str,
}

/// The columns of values in the table `samples`, in order.
pub const COLUMNS: [Column; 4] = [
    Column { name: "samples", unit: Unit::Count, event: "cpu" },
    Column { name: "cpu", unit: Unit::Nanoseconds, event: "cpu" },
    Column { name: "offcpu", unit: Unit::Nanoseconds, event: "offcpu" },
    Column { name: "blocks", unit: Unit::Count, event: "offcpu" },
];

impl Column {
    /// As a profile has it.
    pub fn sample_type(&self) -> SampleType {
        SampleType::new(self.name, self.unit)
    }
}

/// How long another process that locks the database is waited for.
pub const BUSY: Duration = Duration::from_secs(5);

/// Statements that a connection keeps prepared: all that the writer has.
const STATEMENTS: usize = 64;

/// A connection that writes.
pub fn open_to_write(path: &Path) -> Result<Connection, StoreError> {
    let fail = |cause| StoreError::sql(path, cause);
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(fail)?;
    connection.busy_timeout(BUSY).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Before anything in it is changed.
    version(&connection, path)?;
    // A database that has tables keeps its way of vacuuming. A commit is on the disk after a kill; after a loss of power,
    // the last ones can be missing, and the database is whole.
    let settings = "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
        PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
        PRAGMA cell_size_check = ON; PRAGMA cache_size = -4096;";
    connection.execute_batch(settings).map_err(fail)?;
    Ok(connection)
}

/// A connection that reads.
pub fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let fail = |cause| StoreError::sql(path, cause);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(BUSY).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let settings = "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA query_only = ON;";
    connection.execute_batch(settings).map_err(fail)?;
    let found = version(&connection, path)?;
    if found < VERSION {
        return Err(StoreError::Older { path: path.to_owned(), found, known: VERSION });
    }
    Ok(connection)
}

/// The schema of a database; that of an empty one is 0.
fn version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|cause| StoreError::sql(path, cause))
    };
    let (application, found) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    let is_empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    if application != APPLICATION && !(is_empty && application == 0) {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    Ok(if is_empty { 0 } else { found })
}

/// Brings a database to the schema of this version.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<Option<Note>, StoreError> {
    let from = version(connection, path)?;
    run_steps(connection, &STEPS, from).map_err(|cause| StoreError::sql(path, cause))?;
    Ok((from != 0 && from != VERSION).then_some(Note::Migrated { from, to: VERSION }))
}

/// All steps that are missing, or none of them; and the table of metrics, which is that of this version.
fn run_steps(connection: &mut Connection, steps: &[&str], from: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    if usize::try_from(from) != Ok(steps.len()) {
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", steps.len() as i64)?;
    }
    for metric in METRICS {
        transaction.execute(
            "INSERT INTO metrics (name, unit, kind, label, help) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET unit = ?2, kind = ?3, label = ?4, help = ?5
            WHERE (unit, kind, label, help) IS NOT (?2, ?3, ?4, ?5)",
            params![metric.name, metric.unit.name(), metric.kind.name(), metric.label, metric.help],
        )?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_schemas_get_the_steps_that_they_lack() {
        let mut connection = Connection::open_in_memory().unwrap();
        run_steps(&mut connection, &STEPS, 0).unwrap();
        connection.execute("INSERT INTO thread_names (hash, name) VALUES (1, 'x')", []).unwrap();
        let steps = [STEPS[0], "ALTER TABLE thread_names ADD COLUMN more INTEGER"];
        run_steps(&mut connection, &steps, 1).unwrap();
        run_steps(&mut connection, &steps, 2).unwrap();
        let row = connection
            .query_row("SELECT name, more FROM thread_names", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(row, ("x".to_owned(), None::<i64>));
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 2);
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        run_steps(&mut connection, &[STEPS[0], "ALTER TABLE none ADD COLUMN x"], 0).unwrap_err();
        assert_eq!(version(&connection, Path::new("x")).unwrap(), 0);
    }
}
