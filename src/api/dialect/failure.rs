//! Problems in the shape that a dialect's clients expect.

use std::marker::PhantomData;

use aide::{
    OperationOutput,
    generate::GenContext,
    openapi::{Operation, Response as ResponseDoc},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use karat_engine::engine::ScoreError;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::problem::{Problem, ProblemType};

/// A protocol that somebody else defined.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// The first part of its prefixed paths, and its name in `--shed`.
    const NAME: &'static str;

    /// The body of its errors.
    type Error: Serialize + JsonSchema;

    /// The status by which its clients know what to do.
    fn status(kind: ProblemType) -> StatusCode;

    /// The body of an error.
    fn error(problem: &Problem, status: StatusCode) -> Self::Error;
}

/// The status for clients that try again after a 503 and give up on a 429, as trainers do.
pub(crate) fn worth_a_retry(kind: ProblemType) -> StatusCode {
    match kind {
        ProblemType::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        other => other.status(),
    }
}

/// A problem on its way to a client of the dialect `D`.
#[derive(Debug)]
pub(crate) struct Failure<D> {
    problem: Problem,
    dialect: PhantomData<D>,
}

impl<D> Failure<D> {
    /// The problem, for protocols that have no bodies for errors.
    pub(crate) fn into_problem(self) -> Problem {
        self.problem
    }
}

impl<D> From<Problem> for Failure<D> {
    fn from(problem: Problem) -> Self {
        Self { problem, dialect: PhantomData }
    }
}

impl<D> From<ScoreError> for Failure<D> {
    fn from(error: ScoreError) -> Self {
        Problem::from(error).into()
    }
}

impl<D: Dialect> IntoResponse for Failure<D> {
    fn into_response(self) -> Response {
        let status = D::status(self.problem.kind());
        let mut response = (status, Json(D::error(&self.problem, status))).into_response();
        self.problem.set_retry_after(response.headers_mut());
        response
    }
}

impl<D: Dialect> OperationOutput for Failure<D> {
    type Inner = D::Error;

    fn operation_response(context: &mut GenContext, operation: &mut Operation) -> Option<ResponseDoc> {
        let mut response = Json::<D::Error>::operation_response(context, operation)?;
        "What is wrong, in the dialect's own shape".clone_into(&mut response.description);
        Some(response)
    }

    fn inferred_responses(context: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, ResponseDoc)> {
        Self::operation_response(context, operation).map(|response| (None, response)).into_iter().collect()
    }
}

/// The body of an error on servers made with `FastAPI`, as most reward servers of trainers are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DetailBody {
    /// What is wrong and what to change.
    detail: String,
}

/// A problem as such servers write it.
pub(crate) fn detail(problem: &Problem) -> DetailBody {
    DetailBody { detail: problem.detail().to_owned() }
}
