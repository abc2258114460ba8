//! `POST /v1/score`: rewards for a list of samples.

use std::collections::BTreeSet;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use axum::{Extension, extract::State};
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_http::request_id::RequestId;

use super::{
    request::{Input, Options, check_count, samples},
    result::{Include, SampleResult, UsageBody},
};
use crate::api::{
    AppState,
    body::{SharedBody, objects},
    middleware::id_text,
    problem::Problem,
    timing::Timed,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/score", post_with(score, describe))
}

/// Samples to score with one model.
#[derive(Debug, Deserialize, JsonSchema)]
struct ScoreBody {
    /// What to score, at least one.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    inputs: Vec<Input>,
    /// Whether the inputs are candidates for one prompt, which rules that compare responses need.
    #[serde(default)]
    group: bool,
    /// What to add to each result.
    #[serde(default)]
    include: BTreeSet<Include>,
}

/// The rewards, in the order of the inputs.
#[derive(Debug, Serialize, JsonSchema)]
struct ScoreResponse {
    /// The request's id, as in the `X-Request-Id` header.
    id: String,
    /// The model that scored.
    model: ModelName,
    /// Exactly which one: a digest over its manifest, graphs and tokenizer.
    model_version: ModelVersion,
    /// One result for each input.
    results: Vec<SampleResult>,
    /// What it cost.
    usage: UsageBody,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("score").tag("Scoring").summary("Score responses").description(
        "Scores each input with one model. The reply carries `Server-Timing` (tokenise, queue, infer, total, in \
         milliseconds) and `X-Request-Id`.",
    )
}

async fn score(
    State(state): State<AppState>,
    Extension(id): Extension<RequestId>,
    SharedBody { own: body, shared: options }: SharedBody<ScoreBody, Options>,
) -> Result<Timed<ScoreResponse>, Problem> {
    check_count(body.inputs.len(), &state.limits)?;
    let samples = samples("inputs", body.inputs, Input::into_sample)?;
    let request = options.into_request(samples, body.group, &state.limits)?;
    let report = state.engine.score(request).await?;
    let results = report.results.into_iter().enumerate();
    let response = ScoreResponse {
        id: id_text(&id),
        model: report.model,
        model_version: report.version,
        results: results.map(|(index, sample)| SampleResult::new(index, sample, &body.include)).collect(),
        usage: report.usage.into(),
    };
    Ok(Timed { timings: report.timings, body: response })
}
