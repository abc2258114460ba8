//! HTTP: thin dialects over the one engine call.
//!
//! Each dialect is a folder with its routes, its request and response types, and its own shape for errors. What they
//! share stands here: the [`state`](AppState), the [body extractor](body), [problems](problem), the
//! [middleware](middleware), and for foreign dialects [`dialect`]. A new dialect is a new folder and a line or two in
//! [`foreign`].

mod body;
mod cohere;
mod contested;
mod dialect;
mod foreign;
mod intake;
mod jina;
mod kserve;
mod llama_factory;
mod middleware;
mod native;
mod nemo_gym;
mod openapi;
mod openrlhf;
mod problem;
mod sglang;
mod slime;
mod state;
mod tei;
mod timing;
mod vector;
mod vllm;

use aide::axum::ApiRouter;
use axum::{Router, middleware::from_fn_with_state, response::IntoResponse};

pub use dialect::DialectSettings;
pub use foreign::DIALECTS;
pub use openapi::document as openapi_document;
pub use state::{ApiLimits, AppState};

/// Every route of the server.
pub fn router(state: AppState) -> Router {
    let document = openapi::serve();
    let (routes, _) = openapi::describe(documented_routes());
    let routes = routes
        .merge(foreign::other_routes())
        .merge(kserve::grpc_routes(&state))
        .layer(from_fn_with_state(state.clone(), contested::score))
        .merge(document)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    middleware::wrap(routes, &state).with_state(state)
}

/// The routes that the OpenAPI document describes.
fn documented_routes() -> ApiRouter<AppState> {
    ApiRouter::new().merge(native::router()).merge(foreign::documented_routes())
}

async fn unknown_route(uri: http::Uri) -> impl IntoResponse {
    problem::Problem::new(
        problem::ProblemType::UnknownRoute,
        format!("there is nothing at {}; GET /openapi.json lists every route", uri.path()),
    )
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> impl IntoResponse {
    problem::Problem::new(
        problem::ProblemType::WrongMethod,
        format!("{} doesn't take {method}; the Allow header names the methods it takes", uri.path()),
    )
}
