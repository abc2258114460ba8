//! vLLM's pooling routes: `/classify`, `/score`, `/rerank` and `/pooling`.
//!
//! verl reads its rewards from `/classify`. Scores pass through the logistic function unless the request says
//! `use_activation: false`, as vLLM does with models of one label.

mod classify;
mod input;
mod pooling;
mod rerank;
mod score;

use aide::{
    axum::routing::{get_with, post_with},
    transform::TransformOperation,
};
use axum::{Json, extract::State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    dialect::{self, Claim, Dialect, ErrorShape, Paths, Route},
    parts::{KnownFields, without_422, worth_a_retry},
};
use crate::api::{AppState, problem::Problem};
pub(super) use classify::LABEL;
pub(super) use input::{Input, UsageBody};
pub(super) use rerank::DocumentText;

/// The dialect of vLLM.
pub(super) static DIALECT: Dialect = Dialect {
    name: "vllm",
    title: "vLLM",
    paths: Paths::Expected,
    routes: &[
        Route::new("/v1/classify", || post_with(classify::classify, classify::describe("V1"))),
        Route::new("/ping", || get_with(ping, describe_ping).post_with(ping, describe_ping_post)),
        Route::new("/version", || get_with(version, describe_version)),
        Route::new("/score", || post_with(score::score, score::describe(""))),
        Route::new("/v1/rerank", || post_with(rerank::rerank, rerank::describe("V1"))),
        Route::new("/v2/rerank", || post_with(rerank::rerank, rerank::describe("V2"))),
        Route::new("/pooling", || post_with(pooling::pooling, pooling::describe)),
        Route::new("/classify", || post_with(classify::classify, classify::describe(""))),
        Route::new("/rerank", || post_with(rerank::rerank, rerank::describe(""))),
        Route::sharing("/v1/score", PAIRS, || post_with(score::score, score::describe("V1"))),
    ],
    fields: KnownFields {
        harmless: &["user", "request_id", "priority", "cache_salt"],
        advice: &[
            ("raw_scores", "write \"use_activation\": false"),
            ("instruction", RENDERED),
            ("chat_template", RENDERED),
            ("chat_template_kwargs", RENDERED),
            ("dimensions", "a reward is one number; leave it out"),
        ],
    },
    // 400 to everything that a client should change.
    status: |kind| without_422(worth_a_retry(kind)),
    error: ErrorShape::of::<ErrorBody>(),
};

/// What to do instead of sending how texts are rendered.
const RENDERED: &str = "pairs are rendered as the model's manifest says; write it into the texts, or leave it out";

/// What karat's own `/v1/score` doesn't take.
const PAIRS: Claim = Claim { any_of: &["queries", "data_1", "text_1"], none_of: &["inputs"] };

/// What runs.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VllmVersion")]
struct Version {
    /// karat's version.
    version: &'static str,
}

fn describe_version(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("vllmVersion").summary("Which version runs")
}

async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

fn describe_ping(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("vllmPing")
        .summary("Whether the server takes requests, as SageMaker asks")
        .response_with::<200, (), _>(|response| response.description("Every model is ready"))
        .response_with::<503, (), _>(|response| response.description("Models are loading, or all failed"))
}

fn describe_ping_post(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    describe_ping(operation).id("vllmPingPost")
}

async fn ping(State(state): State<AppState>) -> StatusCode {
    if state.engine.repository().is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The body of an error.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// An error in `OpenAI`'s shape.
#[derive(Debug, Serialize, JsonSchema)]
struct ErrorDetail {
    /// What is wrong and what to change.
    message: String,
    /// The kind of error.
    r#type: &'static str,
    /// Always null.
    param: Option<String>,
    /// The HTTP status.
    code: u16,
}

impl dialect::ErrorBody for ErrorBody {
    fn new(problem: &Problem, status: StatusCode) -> Self {
        let kind = match status.as_u16() {
            401 => "AuthenticationError",
            403 => "PermissionDeniedError",
            404 => "NotFoundError",
            429 => "RateLimitError",
            503 => "ServiceUnavailableError",
            400..500 => "BadRequestError",
            _ => "InternalServerError",
        };
        let message = problem.detail().to_owned();
        Self { error: ErrorDetail { message, r#type: kind, param: None, code: status.as_u16() } }
    }
}
