//! Whether the server lives, whether it is ready, and what it counts.

use std::collections::BTreeMap;

use aide::{
    axum::{ApiRouter, routing::get_with},
    transform::TransformOperation,
};
use axum::{Json, extract::State, response::IntoResponse};
use http::{StatusCode, header};
use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    api::{
        AppState,
        problem::{Problem, ProblemType},
        visit::Visited,
    },
    telemetry::state_word,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/health/live", get_with(live, describe_live))
        .api_route("/health/ready", get_with(ready, describe_ready))
        .api_route("/metrics", get_with(metrics, describe_metrics))
}

/// Whether the server takes requests.
#[derive(Debug, Serialize, JsonSchema)]
struct Health {
    /// `live`, `ready` or `loading`; `failed` when no model could be loaded, `leaving` when the server is about to end.
    status: &'static str,
    /// How far each model has come: `ready`, `loading`, `building`, `failed` or `unloaded`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    models: BTreeMap<ModelName, &'static str>,
}

fn describe_live(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("live").tag("Operation").summary("Whether the process lives")
}

async fn live() -> Json<Health> {
    Json(Health { status: "live", models: BTreeMap::new() })
}

fn describe_ready(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("ready")
        .tag("Operation")
        .summary("Whether every model has warmed up")
        .description("200 once every model is ready, has failed or builds TensorRT engines, at least one is ready, and those that \
             `--require` names are; 503 otherwise, and from when the server is told to end. What is loaded or replaced \
             later doesn't count: the others take requests meanwhile.")
        .response_with::<200, Json<Health>, _>(|response| response.description("Every model has warmed up or failed"))
        .response_with::<503, Json<Health>, _>(|response| response.description("Models are loading, or all failed, or the server is about to end"))
}

async fn ready(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    let ready = state.is_ready();
    let models: BTreeMap<_, _> = state
        .engine
        .repository()
        .models()
        .iter()
        .map(|(name, listed)| (name.clone(), state_word(&listed.status)))
        .collect();
    let status = match (ready, models.values().any(|word| matches!(*word, "loading" | "building"))) {
        _ if state.closing.is_leaving() => "leaving",
        (true, _) => "ready",
        (false, false) if !models.is_empty() => "failed",
        _ => "loading",
    };
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status, models }))
}

fn describe_metrics(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("metrics").tag("Operation").summary("Counters in the Prometheus text format").description(
        "On a server with keys, those of training runs that are another key's are left out, unless the key is an admin one.",
    )
}

async fn metrics(Visited(state): Visited) -> Result<MetricsText, Problem> {
    state.metrics.engine().cache_bytes(state.engine.cache_bytes());
    state.runs.show(&state.metrics).await;
    let models = state.engine.repository().models();
    state.metrics.models(models.iter().map(|(name, listed)| (name, &listed.status)));
    let hidden = state.runs.runs.list(|owner| !state.visit.may_use(owner)).into_iter().map(|run| run.run).collect();
    state.metrics.render_without(&hidden).map(MetricsText).map_err(|error| {
        tracing::error!(%error, "metrics can't be written");
        Problem::new(ProblemType::Internal, "the metrics can't be written; the server's log has the cause")
    })
}

/// Counters in the Prometheus text format.
struct MetricsText(String);

impl IntoResponse for MetricsText {
    fn into_response(self) -> axum::response::Response {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.0).into_response()
    }
}

impl aide::OperationOutput for MetricsText {
    type Inner = String;

    fn inferred_responses(
        context: &mut aide::generate::GenContext,
        operation: &mut aide::openapi::Operation,
    ) -> Vec<(Option<u16>, aide::openapi::Response)> {
        String::inferred_responses(context, operation)
    }
}
