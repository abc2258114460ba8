//! Triton's model repository calls. Models are loaded when the server starts; nothing is loaded or unloaded later.

use axum::{Json, extract::State};
use karat_engine::repository::ModelStatus;
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ModelPath, find};
use crate::api::{
    AppState, body,
    dialects::parts::{RawCall, invalid},
    path::PathOf,
    problem::Problem,
};

/// Why nothing is unloaded.
pub(super) const STAYS_LOADED: &str =
    "models stay loaded while the server runs; take the model out of the repository and restart it";

/// Which models to list.
#[derive(Debug, Default, Deserialize)]
struct IndexBody {
    #[serde(default)]
    ready: bool,
}

/// A model of the repository.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "KserveIndexEntry")]
pub(super) struct IndexEntry {
    pub(super) name: ModelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<ModelVersion>,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub(super) state: &'static str,
    /// Why it isn't ready.
    pub(super) reason: String,
}

/// The models, or those of them that are ready.
pub(super) fn entries(state: &AppState, only_ready: bool) -> Vec<IndexEntry> {
    let models = state.engine.repository().models().into_iter();
    models
        .filter(|(_, status)| !only_ready || matches!(status, ModelStatus::Ready(_)))
        .map(|(name, status)| {
            let (version, word, reason) = match status {
                ModelStatus::Ready(model) => (Some(model.version.clone()), "READY", String::new()),
                ModelStatus::Loading => (None, "LOADING", "loading".to_owned()),
                ModelStatus::Building(_) => (None, "LOADING", "TensorRT builds engines".to_owned()),
                ModelStatus::Failed(reason) => (None, "UNAVAILABLE", reason),
            };
            IndexEntry { name, version, state: word, reason }
        })
        .collect()
}

pub(super) async fn index(RawCall(call): RawCall) -> Result<Json<Vec<IndexEntry>>, Problem> {
    let (call, bytes) = call.split();
    let wanted: IndexBody = if bytes.is_empty() { IndexBody::default() } else { body::parse(&bytes)? };
    Ok(Json(entries(&call.state, wanted.ready)))
}

/// An empty object.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Done {}

pub(super) async fn load(
    State(state): State<AppState>,
    PathOf(ModelPath { model }): PathOf<ModelPath>,
) -> Result<Json<Done>, Problem> {
    find(&state, &model, None)?;
    Ok(Json(Done {}))
}

pub(super) async fn unload(
    State(state): State<AppState>,
    PathOf(ModelPath { model }): PathOf<ModelPath>,
) -> Result<Json<Done>, Problem> {
    find(&state, &model, None)?;
    Err(invalid(STAYS_LOADED))
}
