//! `POST /v1/metrics/{metric}`: statistics over scores that are sent in.

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use axum::Json;
use karat_rules::{domain::catalogue::Choice, metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{
    AppState,
    apart::apart,
    body::JsonBody,
    path::PathOf,
    problem::{Problem, ProblemType, invalid},
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/metrics/{metric}", post_with(compute, describe))
}

/// Which metric.
#[derive(Debug, Deserialize, JsonSchema)]
struct MetricPath {
    /// The metric's name: `GET /v1/catalogue` lists them.
    metric: String,
}

/// A metric's value.
#[derive(Debug, Serialize, JsonSchema)]
struct MetricResponse {
    /// The metric's name.
    metric: String,
    /// What it gives; `GET /v1/catalogue` describes each.
    result: Value,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("computeMetric").tag("Metrics").summary("Compute a statistic over scores").description(
        "The body is the metric's input, as `GET /v1/catalogue` describes it. No model is involved: agreement of two \
         scorers, distance of two reward models, benchmark scores, calibration, preference strength.",
    )
}

async fn compute(
    PathOf(MetricPath { metric }): PathOf<MetricPath>,
    JsonBody(parameters): JsonBody<Value>,
) -> Result<Json<MetricResponse>, Problem> {
    let choice = Choice { name: metric.clone(), parameters };
    let built = metrics::CATALOGUE.build(&choice).map_err(|error| {
        let known = metrics::CATALOGUE.entries.iter().any(|entry| entry.name == metric);
        let kind = if known { ProblemType::InvalidRequest } else { ProblemType::UnknownRoute };
        Problem::new(kind, error.to_string())
    })?;
    let computed = apart(move || built.compute()).await?;
    let result = computed.map_err(invalid)?;
    Ok(Json(MetricResponse { metric, result }))
}
