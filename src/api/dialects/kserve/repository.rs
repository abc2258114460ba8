//! Triton's model repository calls.

use axum::{Json, extract::State};
use karat_engine::repository::ModelStatus;
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelPath;
use crate::api::{AppState, body, checks, dialects::parts::RawCall, path::PathOf, problem::Problem};

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
        .filter(|(_, listed)| !only_ready || matches!(listed.status, ModelStatus::Ready(_)))
        .map(|(name, listed)| {
            let (version, word, reason) = match listed.status {
                ModelStatus::Ready(model) => (Some(model.version.clone()), "READY", String::new()),
                ModelStatus::Loading => (None, "LOADING", "loading".to_owned()),
                ModelStatus::Building(_) => (None, "LOADING", "TensorRT builds engines".to_owned()),
                ModelStatus::Failed(reason) => (None, "UNAVAILABLE", reason),
                ModelStatus::Unloaded => (None, "UNAVAILABLE", "unloaded".to_owned()),
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
    state.engine.repository().load(checks::model(&model)?).await?;
    Ok(Json(Done {}))
}

pub(super) async fn unload(
    State(state): State<AppState>,
    PathOf(ModelPath { model }): PathOf<ModelPath>,
) -> Result<Json<Done>, Problem> {
    state.engine.repository().unload(checks::model(&model)?).await?;
    Ok(Json(Done {}))
}
