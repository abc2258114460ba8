//! What running normalisations have learned.

use karat_rules::{domain::ModelName, transform::Learned};
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};

impl Store {
    /// Keeps what the links of a model's transforms have learned, in their order.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn keep_learned(&self, model: ModelName, version: String, learned: Vec<Learned>) -> Result<(), StoreError> {
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

    /// What a link of a model's transforms had learned.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn learned(&self, model: ModelName, version: String, place: usize) -> Result<Option<Learned>, StoreError> {
        let state: Option<String> = self
            .call(move |connection| {
                connection
                    .query_row(
                        "SELECT state FROM learned WHERE model = ?1 AND version = ?2 AND place = ?3",
                        params![model.as_str(), version, place as i64],
                        |row| row.get(0),
                    )
                    .optional()
            })
            .await?;
        Ok(state.and_then(|state| serde_json::from_str(&state).ok()))
    }
}
