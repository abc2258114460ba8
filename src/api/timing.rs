//! Replies that tell how long their stages took (W3C Server Timing).

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
use http::{HeaderName, HeaderValue};
use karat_engine::engine::Timings;
use schemars::JsonSchema;
use serde::Serialize;

/// A JSON body with the stages of its request in the `Server-Timing` header, in milliseconds.
#[derive(Debug)]
pub(crate) struct Timed<T> {
    pub(crate) timings: Timings,
    pub(crate) body: T,
}

/// The header's name.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The header's value.
pub(crate) fn header(timings: &Timings) -> HeaderValue {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let text = format!(
        "tokenise;dur={:.3}, queue;dur={:.3}, infer;dur={:.3}, total;dur={:.3}",
        ms(timings.tokenize),
        ms(timings.queue),
        ms(timings.infer),
        ms(timings.total)
    );
    // Letters, digits and punctuation always make a header value.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

impl<T: Serialize> IntoResponse for Timed<T> {
    fn into_response(self) -> Response {
        ([(SERVER_TIMING, header(&self.timings))], Json(self.body)).into_response()
    }
}

impl<T: JsonSchema> OperationOutput for Timed<T> {
    type Inner = T;

    fn operation_response(context: &mut GenContext, operation: &mut Operation) -> Option<ResponseDoc> {
        Json::<T>::operation_response(context, operation)
    }

    fn inferred_responses(context: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, ResponseDoc)> {
        Json::<T>::inferred_responses(context, operation)
    }
}
