//! The file's tables.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::StoreError;

/// The version that this file writes.
const VERSION: u32 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS runs (
    name TEXT PRIMARY KEY,
    updated INTEGER NOT NULL,
    -- The last of the run's outcomes that its state knows.
    outcomes INTEGER NOT NULL,
    state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outcomes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    request TEXT NOT NULL,
    place INTEGER NOT NULL,
    value REAL NOT NULL,
    model TEXT NOT NULL,
    step INTEGER NOT NULL,
    reward REAL NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS outcomes_of_a_run ON outcomes (run, id);
-- An outcome that is sent again, as after a timeout, is the same one.
CREATE UNIQUE INDEX IF NOT EXISTS outcomes_by_place ON outcomes (run, request, place);
CREATE TABLE IF NOT EXISTS learned (
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    place INTEGER NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (model, version, place)
);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    ended INTEGER,
    state TEXT NOT NULL,
    options TEXT NOT NULL,
    -- The name of the key that it came with.
    key TEXT,
    size INTEGER NOT NULL,
    done INTEGER NOT NULL,
    failed INTEGER NOT NULL
);
-- By what a job is known that is handed over again.
CREATE TABLE IF NOT EXISTS job_submissions (
    job TEXT PRIMARY KEY,
    submission TEXT NOT NULL,
    digest TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS job_submissions_by_name ON job_submissions (submission);
CREATE TABLE IF NOT EXISTS job_rows (
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job_results (
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, place)
) WITHOUT ROWID;
";

/// Makes a file one that survives, and this process its only user.
pub(super) fn prepare_file(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is on the disk before it is acknowledged: power may fail as well.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The lock is taken with the first write, and who comes second is to hear of it now.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT")
}

pub(super) fn create(connection: &Connection, folder: Option<&Path>) -> Result<(), StoreError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        let folder = folder.map_or_else(PathBuf::new, Path::to_owned);
        return Err(StoreError::Newer { folder, found, known: VERSION });
    }
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}
