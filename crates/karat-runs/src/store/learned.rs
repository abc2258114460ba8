//! What running normalisations have learned.

use karat_rules::{domain::ModelName, transform::Learned};
use rusqlite::params;

use super::{Store, StoreError};

/// A model's name and version, and what its links had learned.
type OfModel = ((ModelName, String), Vec<Learned>);

impl Store {
    /// Keeps what the links of a model's transforms have learned, in their order.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn keep_learned(
        &self,
        model: ModelName,
        version: String,
        learned: Vec<Learned>,
    ) -> Result<(), StoreError> {
        self.call(move |connection| {
            for (place, learned) in learned.iter().enumerate() {
                let Ok(state) = serde_json::to_string(learned) else { continue };
                connection.execute(
                    "INSERT OR REPLACE INTO learned (model, version, place, state) VALUES (?1, ?2, ?3, ?4)",
                    params![model.as_str(), version, place as i64, state],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// What every model had learned, by its name and version, the links in their order; blocks.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn all_learned(&self) -> Result<Vec<OfModel>, StoreError> {
        let rows = self.call_blocking(|connection| {
            let mut rows =
                connection.prepare("SELECT model, version, state FROM learned ORDER BY model, version, place")?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, String, String)>>>()
        })?;
        let mut found: Vec<OfModel> = Vec::new();
        for (model, version, state) in rows {
            // Only names of models and whole states were written.
            let (Ok(model), Ok(state)) = (model.parse::<ModelName>(), serde_json::from_str(&state)) else { continue };
            match found.last_mut() {
                Some((key, states)) if key.0 == model && key.1 == version => states.push(state),
                _ => found.push(((model, version), vec![state])),
            }
        }
        Ok(found)
    }
}
