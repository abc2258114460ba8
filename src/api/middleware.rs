//! What every request passes through: an id, a log line, a count, and a net for panics.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use karat_engine::engine::Timings;
use tower::ServiceBuilder;
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer, Predicate,
        predicate::{NotForContentType, SizeAbove},
    },
    decompression::RequestDecompressionLayer,
    map_request_body::MapRequestBodyLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
};

use tracing::{Instrument, field};

use super::{
    AppState,
    intake::{self, Intake},
    keys,
    problem::{Problem, ProblemType},
    visit::Visit,
    visitors,
};
use crate::telemetry::{RequestTrace, TraceContext};

/// The header that carries a request's id: the caller's, or a new one.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Which part of which trace a request became (W3C Trace Context, level 2).
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// A caller's id that is longer is replaced: it would come back with every reply and into every log line.
const LONGEST_ID: usize = 256;

/// Wraps the routes; the first layer named here is the outermost.
pub(super) fn wrap(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    let intake = Arc::new(Intake::new(state.limits, state.closing.clone(), Arc::clone(&state.metrics)));
    routes.layer(
        ServiceBuilder::new()
            .map_request(without_long_id)
            .layer(SetRequestIdLayer::new(REQUEST_ID, NewRequestId))
            .layer(PropagateRequestIdLayer::new(REQUEST_ID))
            .layer(from_fn_with_state(state.clone(), observe))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(state.clone(), visitors::admit))
            .layer(from_fn_with_state(state.clone(), keys::admit))
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_compressing()))
            // What comes out of a compressed body is bounded and counted like any other; what can't be read is refused
            // where the body is wanted, in the shape of the route's dialect.
            .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
            .layer(MapRequestBodyLayer::new(Body::new))
            .layer(from_fn_with_state(intake, intake::receive)),
    )
}

fn without_long_id(mut request: Request) -> Request {
    if request.headers().get(REQUEST_ID).is_some_and(|id| id.len() > LONGEST_ID) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

/// Replies that are long, and come whole: a stream of events would wait for more to compress.
fn worth_compressing() -> impl Predicate {
    SizeAbove::new(4096).and(NotForContentType::GRPC).and(NotForContentType::SSE)
}

#[derive(Debug, Clone, Copy)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &http::Request<B>) -> Option<RequestId> {
        // Hexadecimal digits and hyphens always make a header value.
        uuid::Uuid::now_v7().to_string().parse().ok().map(RequestId::new)
    }
}

/// Counts and logs a request under its route's pattern, never its path: paths hold what clients choose.
async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let version = request.version();
    let id = request_id(&request);
    let arrived = TraceContext::among(request.headers());
    let traced = state.traces.as_ref().map(|traces| traces.begin(arrived, &method, &route));
    let trace = traced.as_ref().map(RequestTrace::context).or(arrived);
    let visit = Visit::default();
    request.extensions_mut().insert(visit.clone());
    let started = Instant::now();
    let observation = state.metrics.request(&route);
    // What is logged on the way says of which request it is.
    let span = tracing::error_span!("request", id, trace = trace.map(|trace| field::display(trace.trace_id())));
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = grpc_status(response.headers()).unwrap_or_else(|| response.status());
    observation.finish(status.as_u16());
    span.in_scope(|| log(&method, &route, status, started.elapsed(), &visit));
    if let Some(traced) = traced {
        if let Ok(context) = HeaderValue::from_str(&traced.context().to_string()) {
            response.headers_mut().insert(TRACE_RESPONSE, context);
        }
        traced.finish(status, id, visit.key_name(), &visit.work());
    }
    if state.closing.is_leaving() && version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What an error of gRPC's, which comes with 200, would be in HTTP.
fn grpc_status(headers: &HeaderMap) -> Option<StatusCode> {
    let code = headers.get("grpc-status")?.to_str().ok()?;
    Some(match code {
        "0" => StatusCode::OK,
        "3" | "9" | "11" => StatusCode::BAD_REQUEST,
        "4" => StatusCode::GATEWAY_TIMEOUT,
        "5" => StatusCode::NOT_FOUND,
        "8" => StatusCode::TOO_MANY_REQUESTS,
        "12" => StatusCode::NOT_IMPLEMENTED,
        "14" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

/// One line a request: what was asked and what became of it, never a word of what was scored. Who asks every few seconds
/// whether the server lives is told of only where more is wanted.
fn log(method: &Method, route: &str, status: StatusCode, took: Duration, visit: &Visit) {
    let status = status.as_u16();
    let seconds = took.as_secs_f64();
    if keys::is_probe(route) {
        tracing::debug!(%method, route, status, seconds, "request");
        return;
    }
    let work = visit.work();
    let models = work.iter().map(|work| work.model.as_str()).collect::<Vec<_>>().join(",");
    let longest = |stage: fn(&Timings) -> Duration| {
        work.iter().map(|work| stage(&work.timings)).max().unwrap_or_default().as_secs_f64()
    };
    let (queue, infer) = (longest(|timings| timings.queue), longest(|timings| timings.infer));
    let tokens: usize = work.iter().map(|work| work.tokens).sum();
    let key = visit.key_name();
    tracing::info!(%method, route, status, models, key, tokens, seconds, queue, infer, "request");
}

/// The id of a request, after the first layer has seen it.
pub(super) fn request_id<B>(request: &http::Request<B>) -> String {
    id_among(request.extensions())
}

/// The same of a request that is taken apart.
pub(super) fn id_among(extensions: &http::Extensions) -> String {
    extensions.get::<RequestId>().map(id_text).unwrap_or_default()
}

/// A request's id as text; empty when the caller's id isn't text.
fn id_text(id: &RequestId) -> String {
    id.header_value().to_str().unwrap_or_default().to_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    Problem::new(ProblemType::Internal, "karat failed on this request; the server's log has the cause").into_response()
}
