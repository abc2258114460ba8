//! `GET /v1/runs/{run}/events`: what happens in a run, as it happens.

use std::{collections::VecDeque, convert::Infallible, pin::Pin, sync::Arc};

use aide::{
    OperationOutput,
    generate::GenContext,
    openapi::{MediaType, Operation, Response as ResponseDoc},
    transform::TransformOperation,
};
use axum::{
    extract::{Path, Query},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::stream;
use http::HeaderMap;
use karat_runs::run::Event;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{RunPath, unknown};
use crate::api::{problem::Problem, visit::Visited};

/// From where to tell.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Tell the signals again that came after the event of that number, which the header `Last-Event-ID` says as well.
    #[serde(default)]
    after: Option<u64>,
}

/// A stream of events.
pub(super) struct Events {
    past: VecDeque<Event>,
    future: Receiver<Arc<Event>>,
    left: Pin<Box<WaitForCancellationFutureOwned>>,
}

pub(super) fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("runEvents").tag("Runs").summary("Hear what happens in a run").description(
        "Server-sent events: `signal` when one begins to fire or stops, with its evidence, `step` with a step's statistics \
         when the next one begins, and `missed` with a number where a reader was too slow for as many. The stream ends \
         when the run is forgotten or the server is about to end.",
    )
}

pub(super) async fn events(
    Visited(state): Visited,
    Path(path): Path<RunPath>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Events, Problem> {
    let name = path.visible_to(&state).await?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (past, future) =
        state.runs.runs.listen(&name, query.after.or(seen).unwrap_or(0)).ok_or_else(|| unknown(&name))?;
    Ok(Events { past: past.into(), future, left: Box::pin(state.closing.left()) })
}

impl Events {
    async fn next(mut self) -> Option<(Result<sse::Event, Infallible>, Self)> {
        if let Some(event) = self.past.pop_front() {
            return Some((Ok(written(&event)), self));
        }
        let heard = tokio::select! {
            heard = self.future.recv() => heard,
            // Whoever listens asks another server from here on, instead of holding this one.
            () = &mut self.left => return None,
        };
        match heard {
            Ok(event) => Some((Ok(written(&event)), self)),
            Err(RecvError::Lagged(missed)) => {
                Some((Ok(sse::Event::default().event("missed").data(missed.to_string())), self))
            }
            Err(RecvError::Closed) => None,
        }
    }
}

/// No type of an event fails to be written.
fn written(event: &Event) -> sse::Event {
    let named = sse::Event::default().id(event.id.to_string()).event(event.kind.word());
    named.json_data(event).unwrap_or_else(|error| {
        tracing::error!(%error, "an event can't be written");
        sse::Event::default().event("missed").data("1")
    })
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        Sse::new(stream::unfold(self, Self::next)).keep_alive(KeepAlive::default()).into_response()
    }
}

impl OperationOutput for Events {
    type Inner = Event;

    fn operation_response(_: &mut GenContext, _: &mut Operation) -> Option<ResponseDoc> {
        Some(ResponseDoc {
            description: "Events, each with a number, a name and JSON".to_owned(),
            content: [("text/event-stream".to_owned(), MediaType::default())].into_iter().collect(),
            ..ResponseDoc::default()
        })
    }

    fn inferred_responses(context: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, ResponseDoc)> {
        Self::operation_response(context, operation).map(|response| (Some(200), response)).into_iter().collect()
    }
}
