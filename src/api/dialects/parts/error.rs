//! The statuses and bodies of errors that several dialects have.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::{
    dialects::dialect::ErrorBody,
    problem::{Problem, ProblemType},
};

/// The status for clients that try again after a 503 and give up on a 429, as trainers do.
pub(crate) fn worth_a_retry(kind: ProblemType) -> StatusCode {
    match kind {
        ProblemType::Overloaded | ProblemType::OutOfTokens => StatusCode::SERVICE_UNAVAILABLE,
        other => other.status(),
    }
}

/// The same status but for what a client should change, which is 400.
pub(crate) fn without_422(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    }
}

/// The body of an error on servers made with `FastAPI`, as most reward servers of trainers are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DetailBody {
    /// What is wrong and what to change.
    detail: String,
}

impl ErrorBody for DetailBody {
    fn new(problem: &Problem, _: StatusCode) -> Self {
        Self { detail: problem.detail().to_owned() }
    }
}
