//! Jobs: rows that wait to be scored, and what came of them.

use rusqlite::{Connection, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Its rows are still arriving; it is dropped if they don't all arrive.
    Receiving,
    /// Its rows are being scored, or wait for that.
    Running,
    /// Every row has a result.
    Done,
    /// It was cancelled; the results so far stay.
    Cancelled,
}

impl JobState {
    fn of(word: &str) -> Self {
        match word {
            "receiving" => Self::Receiving,
            "running" => Self::Running,
            "done" => Self::Done,
            _ => Self::Cancelled,
        }
    }
}

/// A job without its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// When it came, in milliseconds since 1970.
    pub created: u64,
    /// When it was done or cancelled.
    pub ended: Option<u64>,
    /// How far it is.
    pub state: JobState,
    /// What holds for every row, as JSON.
    pub options: String,
    /// The name of the key that it came with, if it came with one.
    pub key: Option<String>,
    /// How many rows it has.
    pub rows: u64,
    /// How many of them have results.
    pub done: u64,
    /// How many of those couldn't be scored.
    pub failed: u64,
}

/// A job that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its id.
    pub id: String,
    /// What holds for every row, as JSON.
    pub options: String,
    /// The name of the key that it came with, if it came with one.
    pub key: Option<String>,
}

/// By what a job is known that is handed over again, as by a client that heard no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// What its client calls it: one word for each job that is meant.
    pub name: String,
    /// A digest over its options and rows.
    pub digest: String,
}

/// What became of a job whose rows have all arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It lasts from now on.
    New,
    /// It was accepted before, as the job of that id, and isn't kept again.
    Before(String),
    /// What its client calls it is the name of the job of that id, which is another. It isn't kept.
    Other(String),
}

/// A job with rows that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    /// Its id.
    pub id: String,
    /// The name of the key that it came with, if it came with one.
    pub key: Option<String>,
}

/// A row that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its place in the job, counted from 0.
    pub place: u64,
    /// What to score, as JSON.
    pub body: String,
}

/// A row's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRow {
    /// The row's place in the job.
    pub place: u64,
    /// What came of it, as JSON.
    pub body: String,
    /// Whether it couldn't be scored.
    pub failed: bool,
}

/// The jobs of a [`Store`].
#[derive(Debug, Clone)]
pub struct JobStore(Store);

const COLUMNS: &str = "id, created, ended, state, options, key, size, done, failed";

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let number = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
    Ok(Job {
        id: row.get(0)?,
        created: number(1)?,
        ended: row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
        state: JobState::of(&row.get::<_, String>(3)?),
        options: row.get(4)?,
        key: row.get(5)?,
        rows: number(6)?,
        done: number(7)?,
        failed: number(8)?,
    })
}

fn find(connection: &Connection, id: &str) -> rusqlite::Result<Option<Job>> {
    let found = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
    connection.prepare_cached(&found)?.query_row([id], job).optional()
}

impl JobStore {
    /// The jobs of a store. Those whose rows hadn't all arrived when the process ended are dropped.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn new(store: Store) -> Result<Self, StoreError> {
        store.call_blocking(|connection| {
            connection.execute_batch(
                "DELETE FROM job_rows WHERE job IN (SELECT id FROM jobs WHERE state = 'receiving');
                 DELETE FROM jobs WHERE state = 'receiving';",
            )
        })?;
        Ok(Self(store))
    }

    /// Begins a job, whose rows follow.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn begin(&self, new: NewJob, now: u64) -> Result<(), StoreError> {
        let NewJob { id, options, key } = new;
        let begun = "INSERT INTO jobs (id, created, state, options, key, size, done, failed) \
                     VALUES (?1, ?2, 'receiving', ?3, ?4, 0, 0, 0)";
        self.0
            .call(move |connection| connection.execute(begun, params![id, now.cast_signed(), options, key]).map(drop))
            .await
    }

    /// Adds rows, the first of them at `place`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn add_rows(&self, id: String, place: u64, rows: Vec<String>) -> Result<(), StoreError> {
        self.0
            .call(move |connection| {
                let mut insert =
                    connection.prepare_cached("INSERT INTO job_rows (job, place, body) VALUES (?1, ?2, ?3)")?;
                for (place, body) in (place..).zip(&rows) {
                    insert.execute(params![id, place.cast_signed(), body])?;
                }
                Ok(())
            })
            .await
    }

    /// Says that all rows have arrived: from now on the job lasts, unless its key's client has handed it over before.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn accept(&self, id: String, rows: u64, submission: Option<Submission>) -> Result<Accepted, StoreError> {
        self.0
            .call(move |connection| {
                if let Some(Submission { name, digest }) = submission {
                    let earlier = "SELECT jobs.id, digest FROM job_submissions JOIN jobs ON jobs.id = job
                                   WHERE submission = ?1 AND key IS (SELECT key FROM jobs WHERE id = ?2)";
                    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
                    let earlier = connection.query_row(earlier, [&name, &id], read).optional()?;
                    if let Some((earlier, digest_then)) = earlier {
                        remove(connection, &id)?;
                        let is_same = digest_then == digest;
                        return Ok(if is_same { Accepted::Before(earlier) } else { Accepted::Other(earlier) });
                    }
                    let kept = "INSERT INTO job_submissions (job, submission, digest) VALUES (?1, ?2, ?3)";
                    connection.execute(kept, [&id, &name, &digest])?;
                }
                let accepted = "UPDATE jobs SET state = 'running', size = ?2 WHERE id = ?1";
                connection.execute(accepted, params![id, rows.cast_signed()])?;
                Ok(Accepted::New)
            })
            .await
    }

    /// Drops a job with its rows and results; whether there was one.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn remove(&self, id: String) -> Result<bool, StoreError> {
        self.0.call(move |connection| remove(connection, &id)).await
    }

    /// The job of that id.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn find(&self, id: String) -> Result<Option<Job>, StoreError> {
        self.0.call(move |connection| find(connection, &id)).await
    }

    /// All jobs, the latest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn list(&self) -> Result<Vec<Job>, StoreError> {
        self.0
            .call(|connection| {
                let all = format!("SELECT {COLUMNS} FROM jobs ORDER BY created DESC, id DESC");
                connection.prepare_cached(&all)?.query_map([], job)?.collect()
            })
            .await
    }

    /// The jobs with rows that wait, by their ids.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn running(&self) -> Result<Vec<RunningJob>, StoreError> {
        self.0
            .call(|connection| {
                let running = "SELECT id, key FROM jobs WHERE state = 'running' ORDER BY id";
                let job = |row: &Row<'_>| Ok(RunningJob { id: row.get(0)?, key: row.get(1)? });
                connection.prepare_cached(running)?.query_map([], job)?.collect()
            })
            .await
    }

    /// A job that runs, and the first of its rows that wait, up to `most`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn next(&self, id: String, most: u32) -> Result<Option<(Job, Vec<JobRow>)>, StoreError> {
        self.0
            .call(move |connection| {
                let running = find(connection, &id)?.filter(|job| job.state == JobState::Running);
                let Some(found) = running else { return Ok(None) };
                let mut rows = connection.prepare_cached(
                    "SELECT place, body FROM job_rows WHERE job = ?1 AND place >= ?2 ORDER BY place LIMIT ?3",
                )?;
                let row =
                    |row: &Row<'_>| Ok(JobRow { place: row.get::<_, i64>(0)?.cast_unsigned(), body: row.get(1)? });
                let rows = rows.query_map(params![found.id, found.done.cast_signed(), most], row)?;
                let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(Some((found, rows)))
            })
            .await
    }

    /// Keeps the results of the rows that were next, and says whether there are more. The rows themselves go: what was
    /// scored needs no second copy. Nothing is kept of a job that was cancelled or removed meanwhile.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn finish(&self, id: String, results: Vec<ResultRow>, now: u64) -> Result<(), StoreError> {
        self.0
            .call(move |connection| {
                if find(connection, &id)?.is_none_or(|job| job.state != JobState::Running) {
                    return Ok(());
                }
                let mut insert =
                    connection.prepare_cached("INSERT INTO job_results (job, place, body) VALUES (?1, ?2, ?3)")?;
                let mut delete = connection.prepare_cached("DELETE FROM job_rows WHERE job = ?1 AND place = ?2")?;
                for ResultRow { place, body, .. } in &results {
                    insert.execute(params![id, place.cast_signed(), body])?;
                    delete.execute(params![id, place.cast_signed()])?;
                }
                let failed = results.iter().filter(|result| result.failed).count();
                connection.execute(
                    "UPDATE jobs SET done = done + ?2, failed = failed + ?3 WHERE id = ?1",
                    params![id, results.len() as i64, failed as i64],
                )?;
                connection.execute(
                    "UPDATE jobs SET state = 'done', ended = ?2 WHERE id = ?1 AND done >= size",
                    params![id, now.cast_signed()],
                )?;
                Ok(())
            })
            .await
    }

    /// How many rows wait to be scored.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn waiting(&self) -> Result<u64, StoreError> {
        let sum = "SELECT coalesce(sum(size - done), 0) FROM jobs WHERE state = 'running'";
        self.0
            .call(|connection| connection.query_row(sum, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned))
            .await
    }

    /// Cancels a job that isn't done; its rows go, its results stay. The job as it is then.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn cancel(&self, id: String, now: u64) -> Result<Option<Job>, StoreError> {
        self.0
            .call(move |connection| {
                let cancelled = "UPDATE jobs SET state = 'cancelled', ended = ?2 WHERE id = ?1 AND state = 'running'";
                if connection.execute(cancelled, params![id, now.cast_signed()])? > 0 {
                    connection.execute("DELETE FROM job_rows WHERE job = ?1", [&id])?;
                }
                find(connection, &id)
            })
            .await
    }

    /// The results from the row at `place` on, up to `most`, in the order of the rows.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn results(&self, id: String, place: u64, most: u32) -> Result<Vec<String>, StoreError> {
        self.0
            .call(move |connection| {
                let mut rows = connection.prepare_cached(
                    "SELECT body FROM job_results WHERE job = ?1 AND place >= ?2 ORDER BY place LIMIT ?3",
                )?;
                rows.query_map(params![id, i64::try_from(place).unwrap_or(i64::MAX), most], |row| row.get(0))?.collect()
            })
            .await
    }

    /// Drops jobs that ended before a time, and the oldest of those that ended until at most `rows` results are left.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn retain(&self, ended_before: u64, rows: u64) -> Result<usize, StoreError> {
        self.0
            .call(move |connection| {
                let mut ended = connection
                    .prepare_cached("SELECT id, ended, done FROM jobs WHERE ended IS NOT NULL ORDER BY ended DESC")?;
                let ended = ended.query_map([], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
                })?;
                let (mut kept, mut dropped) = (0_u64, 0);
                for row in ended.collect::<rusqlite::Result<Vec<_>>>()? {
                    let (id, ended, done) = row;
                    kept += done.cast_unsigned();
                    if ended.cast_unsigned() < ended_before || kept > rows {
                        remove(connection, &id)?;
                        dropped += 1;
                    }
                }
                Ok(dropped)
            })
            .await
    }
}

fn remove(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    connection.execute("DELETE FROM job_rows WHERE job = ?1", [id])?;
    connection.execute("DELETE FROM job_results WHERE job = ?1", [id])?;
    connection.execute("DELETE FROM job_submissions WHERE job = ?1", [id])?;
    Ok(connection.execute("DELETE FROM jobs WHERE id = ?1", [id])? > 0)
}
