//! A reply that says in its headers what bodies of foreign shapes have no place for.

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
use karat_engine::engine::{ScoreReport, Timings};
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::timing;

const MODEL: HeaderName = HeaderName::from_static("x-karat-model");
const VERSION: HeaderName = HeaderName::from_static("x-karat-model-version");

/// A JSON body, and in the headers the model that scored, its version and the times of the stages.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    scored_by: Option<ScoredBy>,
    headers: HeaderMap,
    body: T,
}

#[derive(Debug)]
struct ScoredBy {
    model: ModelName,
    version: ModelVersion,
    timings: Timings,
}

impl<T> Reply<T> {
    /// A reply to a request that was scored.
    pub(crate) fn new(report: &ScoreReport, body: T) -> Self {
        let scored_by =
            ScoredBy { model: report.model.clone(), version: report.version.clone(), timings: report.timings };
        Self { scored_by: Some(scored_by), headers: HeaderMap::new(), body }
    }

    /// A reply that no model had a part in.
    pub(crate) fn unscored(body: T) -> Self {
        Self { scored_by: None, headers: HeaderMap::new(), body }
    }

    /// Adds a header of the dialect's own.
    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// Adds a time in whole milliseconds under a name of the dialect's own.
    pub(crate) fn with_time(self, name: &'static str, time: Duration) -> Self {
        self.with_header(name, &time.as_millis().to_string())
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.body).into_response();
        let headers = response.headers_mut();
        headers.extend(self.headers);
        if let Some(ScoredBy { model, version, timings }) = self.scored_by {
            // Names and versions are made of characters that headers take.
            let text = |text: &str| HeaderValue::from_str(text).ok();
            let known = [(MODEL, text(model.as_str())), (VERSION, text(version.as_str()))];
            headers.extend(known.into_iter().filter_map(|(name, value)| Some((name, value?))));
            headers.insert(timing::SERVER_TIMING, timing::header(&timings));
        }
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
