//! What a dialect is: a value that says where its routes stand, which bodies are its own where others want the path too,
//! and how its clients are told of errors.

use std::fmt;

use aide::{
    OperationOutput,
    axum::routing::ApiMethodRouter,
    generate::GenContext,
    openapi::{Operation, Response as ResponseDoc},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::parts::KnownFields;
use crate::api::{
    AppState,
    problem::{Problem, ProblemType},
};

/// A protocol that somebody else defined.
pub(in crate::api) struct Dialect {
    /// The first part of its prefixed paths, and its name in `--shed`.
    pub(super) name: &'static str,
    /// Its heading in the OpenAPI document.
    pub(super) title: &'static str,
    /// Where its routes stand beside the prefix.
    pub(super) paths: Paths,
    pub(super) routes: &'static [Route],
    /// What it does with the fields that its bodies don't read.
    pub(super) fields: KnownFields,
    /// The status by which its clients know what to do.
    pub(super) status: fn(ProblemType) -> StatusCode,
    pub(super) error: ErrorShape,
}

/// Where a dialect's routes stand beside its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paths {
    /// At the paths that its clients expect, and everywhere under `/m/{model}`.
    Expected,
    /// Not without the prefix: its users write the whole URL, or another dialect has the paths.
    Prefixed,
    /// At the paths that its clients expect, which name the model themselves: never under `/m/{model}`.
    NamingModels,
}

/// A path of a dialect, and what answers there.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) method: fn() -> ApiMethodRouter<AppState>,
    /// Which bodies it answers where the path isn't its own alone.
    pub(super) claim: Option<Claim>,
}

impl Route {
    pub(super) const fn new(path: &'static str, method: fn() -> ApiMethodRouter<AppState>) -> Self {
        Self { path, method, claim: None }
    }

    /// A route whose path another one has, which answers all that this one doesn't claim.
    pub(super) const fn sharing(path: &'static str, claim: Claim, method: fn() -> ApiMethodRouter<AppState>) -> Self {
        Self { path, method, claim: Some(claim) }
    }
}

/// Which bodies are a dialect's: those with one of some fields and without some others. A null counts as no field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) any_of: &'static [&'static str],
    pub(super) none_of: &'static [&'static str],
}

/// The body of a dialect's errors.
pub(super) trait ErrorBody: Serialize + JsonSchema {
    fn new(problem: &Problem, status: StatusCode) -> Self;
}

/// How a dialect's errors look.
#[derive(Clone, Copy)]
pub(super) struct ErrorShape {
    render: fn(&Problem, StatusCode) -> Response,
    document: fn(&mut GenContext, &mut Operation) -> Option<ResponseDoc>,
}

impl ErrorShape {
    pub(super) const fn of<T: ErrorBody>() -> Self {
        Self {
            render: |problem, status| (status, Json(T::new(problem, status))).into_response(),
            document: Json::<T>::operation_response,
        }
    }
}

impl Dialect {
    /// A problem as the dialect's clients expect it.
    pub(super) fn tell(&self, problem: &Problem) -> Response {
        let mut response = (self.error.render)(problem, (self.status)(problem.kind()));
        problem.set_retry_after(response.headers_mut());
        response
    }

    /// The description of its errors.
    pub(super) fn describe_error(&self, context: &mut GenContext, operation: &mut Operation) -> Option<ResponseDoc> {
        let mut response = (self.error.document)(context, operation)?;
        "What is wrong, in the dialect's own shape".clone_into(&mut response.description);
        Some(response)
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect").field("name", &self.name).finish_non_exhaustive()
    }
}
