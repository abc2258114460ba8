//! vLLM's pooling routes: `/classify`, `/score`, `/rerank` and `/pooling`.
//!
//! verl reads its rewards from `/classify`. Scores pass through the logistic function unless the request says
//! `use_activation: false`, as vLLM does with models of one label.

mod classify;
mod input;
mod pooling;
mod rerank;
mod score;

use aide::axum::routing::post_with;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    dialect::{self, Claim, Dialect, ErrorShape, Paths, Route},
    parts::{without_422, worth_a_retry},
};
use crate::api::problem::Problem;
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
        Route::new("/score", || post_with(score::score, score::describe(""))),
        Route::new("/v1/rerank", || post_with(rerank::rerank, rerank::describe("V1"))),
        Route::new("/v2/rerank", || post_with(rerank::rerank, rerank::describe("V2"))),
        Route::new("/pooling", || post_with(pooling::pooling, pooling::describe)),
        Route::new("/classify", || post_with(classify::classify, classify::describe(""))),
        Route::new("/rerank", || post_with(rerank::rerank, rerank::describe(""))),
        Route::sharing("/v1/score", PAIRS, || post_with(score::score, score::describe("V1"))),
    ],
    // 400 to everything that a client should change.
    status: |kind| without_422(worth_a_retry(kind)),
    error: ErrorShape::of::<ErrorBody>(),
};

/// What karat's own `/v1/score` doesn't take.
const PAIRS: Claim = Claim { any_of: &["queries", "data_1", "text_1"], none_of: &["inputs"] };

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
