//! `POST /v1/models/{name}/load` and `…/unload`: models come, change and go while the server runs.

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use axum::{
    Json,
    extract::{Path, State},
};
use karat_engine::repository::Loaded;
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::JsonSchema;
use serde::Serialize;

use super::models::ModelPath;
use crate::api::{AppState, checks, problem::Problem};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/v1/models/{name}/load", post_with(load, describe_load))
        .api_route("/v1/models/{name}/unload", post_with(unload, describe_unload))
}

/// What loading a model came to.
#[derive(Debug, Serialize, JsonSchema)]
struct LoadReply {
    /// The model.
    model: ModelName,
    /// The version that takes requests now.
    version: ModelVersion,
    /// The version that took them before; null where none did. Equal to the other where the folder holds what was loaded
    /// already.
    replaced: Option<ModelVersion>,
}

/// A model that is out of memory.
#[derive(Debug, Serialize, JsonSchema)]
struct UnloadReply {
    /// The model.
    model: ModelName,
    /// Always `unloaded`.
    status: &'static str,
}

fn describe_load(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("loadModel")
        .tag("Models")
        .summary("Load a model, or what lies in its folder now")
        .description(
            "Answers when the model takes requests. What took them before does so until then, and still does when the new \
             files can't be loaded (422) or give other scores than their `expected.json`. Requests that have begun end on \
             the version that they began with. Composites change with their members. Without a version in its name, a model \
             whose folder holds several is loaded in each that isn't yet.",
        )
}

async fn load(
    State(state): State<AppState>,
    Path(ModelPath { name }): Path<ModelPath>,
) -> Result<Json<LoadReply>, Problem> {
    let model = checks::model(&name)?;
    let Loaded { version, before } = state.engine.repository().load(model.clone()).await?;
    Ok(Json(LoadReply { model, version, replaced: before }))
}

fn describe_unload(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("unloadModel")
        .tag("Models")
        .summary("Take a model out of memory")
        .description("Requests that have begun end first. A model that composites are made of stays (409).")
}

async fn unload(
    State(state): State<AppState>,
    Path(ModelPath { name }): Path<ModelPath>,
) -> Result<Json<UnloadReply>, Problem> {
    let model = checks::model(&name)?;
    state.engine.repository().unload(model.clone()).await?;
    Ok(Json(UnloadReply { model, status: "unloaded" }))
}
