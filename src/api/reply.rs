//! Replies that say in their headers what their bodies have no place for: how long the stages took (W3C Server Timing),
//! and to clients of other servers which model scored.

use std::time::Duration;

use aide::{
    OperationOutput,
    generate::GenContext,
    openapi::{Operation, Response as ResponseDoc},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use karat_engine::engine::Timings;
use schemars::JsonSchema;
use serde::Serialize;

use super::dialects::Scores;

const MODEL: HeaderName = HeaderName::from_static("x-karat-model");
const VERSION: HeaderName = HeaderName::from_static("x-karat-model-version");
const REFUSED: HeaderName = HeaderName::from_static("x-karat-refused");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A JSON body and its headers.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    headers: HeaderMap,
    body: T,
}

impl<T> Reply<T> {
    /// A reply that no model had a part in.
    pub(crate) fn unscored(body: T) -> Self {
        Self { headers: HeaderMap::new(), body }
    }

    /// A reply with the times of its stages.
    pub(crate) fn timed(timings: &Timings, body: T) -> Self {
        Self::unscored(body).with_header(SERVER_TIMING, &server_timing(timings))
    }

    /// A reply to a request that was scored, with the model, its version, the times of the stages, and how many samples
    /// were refused if some were.
    pub(crate) fn new(scores: &Scores, body: T) -> Self {
        let reply = Self::timed(&scores.timings, body)
            .with_header(MODEL, scores.model.as_str())
            .with_header(VERSION, scores.version.as_str());
        match scores.refused {
            0 => reply,
            refused => reply.with_header(REFUSED, &refused.to_string()),
        }
    }

    /// Adds a header. Names, versions and times are made of characters that headers take.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// The times of the stages in milliseconds.
fn server_timing(timings: &Timings) -> String {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    format!(
        "tokenise;dur={:.3}, queue;dur={:.3}, infer;dur={:.3}, total;dur={:.3}",
        ms(timings.tokenize),
        ms(timings.queue),
        ms(timings.infer),
        ms(timings.total)
    )
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.body).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

impl<T: JsonSchema> OperationOutput for Reply<T> {
    type Inner = T;

    fn operation_response(context: &mut GenContext, operation: &mut Operation) -> Option<ResponseDoc> {
        Json::<T>::operation_response(context, operation)
    }

    fn inferred_responses(context: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, ResponseDoc)> {
        Json::<T>::inferred_responses(context, operation)
    }
}
