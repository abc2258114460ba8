//! What a path names, so that a name that is no text is told as any other problem.

use aide::{OperationInput, generate::GenContext, openapi::Operation};
use axum::extract::{FromRequestParts, Path, RawPathParams};
use http::request::Parts;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::problem::{Problem, invalid};

/// The parameters of a path.
#[derive(Debug)]
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Path::from_request_parts(parts, state).await.map(|Path(named)| Self(named)).map_err(|_| unreadable())
    }
}

impl<T: JsonSchema> OperationInput for PathOf<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Path::<T>::operation_input(context, operation);
    }
}

/// The model that the path names, if it names one.
pub(crate) async fn model<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Option<String>, Problem> {
    match RawPathParams::from_request_parts(parts, state).await {
        Ok(parameters) => Ok(parameters.iter().find(|(name, _)| *name == "model").map(|(_, value)| value.to_owned())),
        Err(_) => Err(unreadable()),
    }
}

fn unreadable() -> Problem {
    invalid("the path is not UTF-8 once its %-escapes are read; names of models are plain letters")
}
