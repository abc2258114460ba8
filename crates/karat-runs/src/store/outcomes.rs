//! Outcomes that were reported, each with the reward that it is laid beside.

use rusqlite::{Connection, params};

use super::{Store, StoreError};
use crate::run::{Matched, RunName};

/// An outcome that was reported for a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The request that the sample was scored by.
    pub request: String,
    /// The sample's place in it, counted from 0.
    pub place: u32,
    /// The outcome.
    pub value: f64,
    /// What it is laid beside.
    pub matched: Matched,
    /// When it was reported, in milliseconds since 1970.
    pub at: u64,
}

impl Store {
    /// Keeps outcomes of a run; of each whether it is new, and the number of the last one, once they are committed. One of
    /// a sample that has an outcome already is left out: it was sent again.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn add_outcomes(&self, run: RunName, outcomes: Vec<Outcome>) -> Result<(Vec<bool>, u64), StoreError> {
        self.call(move |connection| {
            let mut insert = connection.prepare_cached(
                "INSERT OR IGNORE INTO outcomes (run, request, place, value, model, step, reward, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            let mut new = Vec::with_capacity(outcomes.len());
            for Outcome { request, place, value, matched, at } in &outcomes {
                let added = insert.execute(params![
                    run.as_str(),
                    request,
                    place,
                    value,
                    matched.model.as_str(),
                    matched.step.cast_signed(),
                    matched.reward,
                    at.cast_signed()
                ])?;
                new.push(added > 0);
            }
            drop(insert);
            Ok((new, connection.last_insert_rowid().cast_unsigned()))
        })
        .await
    }

    /// All outcomes of a run that were kept.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn outcomes(&self, run: RunName) -> Result<Vec<Outcome>, StoreError> {
        let all = self.call(move |connection| after(connection, run.as_str(), 0)).await?;
        Ok(all.into_iter().map(|(_, outcome)| outcome).collect())
    }
}

/// The outcomes of a run after one of them.
pub(super) fn after(connection: &Connection, run: &str, last: i64) -> rusqlite::Result<Vec<(u64, Outcome)>> {
    let mut rows = connection.prepare_cached(
        "SELECT request, place, value, model, step, reward, at, id FROM outcomes WHERE run = ?1 AND id > ?2 ORDER BY id",
    )?;
    let rows = rows.query_map(params![run, last], |row| {
        let model: String = row.get(3)?;
        let outcome = |model| {
            let outcome = Outcome {
                request: row.get(0)?,
                place: row.get(1)?,
                value: row.get(2)?,
                matched: Matched { model, step: row.get::<_, i64>(4)?.cast_unsigned(), reward: row.get(5)? },
                at: row.get::<_, i64>(6)?.cast_unsigned(),
            };
            Ok((row.get::<_, i64>(7)?.cast_unsigned(), outcome))
        };
        // Only models' names were written.
        model.parse().map(outcome).ok().transpose()
    })?;
    rows.filter_map(Result::transpose).collect()
}
