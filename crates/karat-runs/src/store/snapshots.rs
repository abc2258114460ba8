//! Runs as they were some seconds ago, and what was acknowledged since.

use rusqlite::{Connection, params};

use super::{Outcome, Store, StoreError, outcomes};
use crate::{
    registry::Runs,
    run::{Beside, Run, RunName},
};

impl Store {
    /// Writes down what changed of the runs since this was last done.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn save(&self, runs: &Runs) -> Result<(), StoreError> {
        let (changed, gone) = runs.changes();
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.call(move |connection| write(connection, &changed, &gone)).await
    }

    /// [`Self::save`] for who isn't asynchronous, as at the end.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn save_blocking(&self, runs: &Runs) -> Result<(), StoreError> {
        let (changed, gone) = runs.changes();
        self.call_blocking(move |connection| write(connection, &changed, &gone))
    }

    /// Puts the runs back that were written down, the one heard of last at the end, with every outcome that was
    /// acknowledged. A run that can't be read any more is left out, and the log says so.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn restore(&self, runs: &Runs) -> Result<(), StoreError> {
        let found = self.call_blocking(|connection| {
            let mut rows = connection.prepare("SELECT name, state, outcomes FROM runs ORDER BY updated")?;
            let rows =
                rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
            let written = rows.map(|row| {
                let (name, state, last): (String, String, i64) = row?;
                let later = outcomes::after(connection, &name, last)?;
                Ok((name, state, later))
            });
            let mut found = written.collect::<rusqlite::Result<Vec<_>>>()?;
            // Outcomes of runs that ended before they were written down.
            let mut alone =
                connection.prepare("SELECT DISTINCT run FROM outcomes WHERE run NOT IN (SELECT name FROM runs)")?;
            for name in alone.query_map([], |row| row.get::<_, String>(0))? {
                let name = name?;
                let later = outcomes::after(connection, &name, 0)?;
                found.push((name, String::new(), later));
            }
            Ok(found)
        })?;
        for (name, state, later) in found {
            if state.is_empty() {
                // Only names of runs were written.
                if let Ok(name) = name.parse() {
                    put_back(runs, Run::new(name, later.first().map_or(0, |(_, outcome)| outcome.at)), later);
                }
                continue;
            }
            match serde_json::from_str::<Run>(&state) {
                Ok(run) => put_back(runs, run, later),
                Err(error) => tracing::warn!(run = name, %error, "a run's state can't be read any more"),
            }
        }
        Ok(())
    }
}

fn put_back(runs: &Runs, mut run: Run, outcomes: Vec<(u64, Outcome)>) {
    for (number, Outcome { matched, value, at, .. }) in outcomes {
        run.add_beside(Beside::Outcome, &matched, value, at);
        run.know_outcomes(number);
    }
    runs.restore(run);
}

/// Writes runs down. Outcomes are committed by the same thread, each after it was laid beside its reward: what a copy of a
/// run may know of them is what was committed before the copy is.
fn write(connection: &Connection, changed: &[Run], gone: &[RunName]) -> rusqlite::Result<()> {
    for name in gone {
        connection.execute("DELETE FROM runs WHERE name = ?1", [name.as_str()])?;
        connection.execute("DELETE FROM outcomes WHERE run = ?1", [name.as_str()])?;
    }
    for run in changed {
        // A run has no keys but text, and no numbers but finite ones.
        let Ok(state) = serde_json::to_string(run) else { continue };
        let updated = run.summary().updated;
        connection.execute(
            "INSERT INTO runs (name, updated, outcomes, state) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET updated = ?2, outcomes = ?3, state = ?4",
            params![run.name().as_str(), updated.cast_signed(), run.outcomes().cast_signed(), state],
        )?;
    }
    Ok(())
}
