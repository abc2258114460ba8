//! HTTP: thin dialects over the one engine call.
//!
//! `native` has karat's own routes, `dialects` those of other servers, a folder each and one table, and `console` the page
//! that a browser shows. What they share stands here: the [state](AppState), `checks` that every request goes through, bodies, replies, problems and the middleware.

mod apart;
mod body;
mod checks;
mod closing;
mod console;
mod dialects;
mod examples;
mod images;
mod intake;
mod keys;
mod middleware;
mod native;
mod openapi;
mod path;
mod problem;
mod reply;
mod reply_id;
mod runs;
mod state;
mod visit;
mod visitors;

use aide::axum::ApiRouter;
use axum::{Router, response::Response};

pub use apart::LargeBodies;
pub use closing::Closing;
pub use dialects::DialectSettings;
pub(crate) use dialects::names as dialect_names;
#[cfg(feature = "offline")]
pub(crate) use images::ImageSource;
pub use images::{Fetcher, ImageHost};
pub use keys::Keys;
pub(crate) use keys::{Entry as KeyEntry, generate as generate_key};
pub(crate) use openapi::document as openapi_document;
pub use runs::{RunSettings, RunState, RunStateError};
pub use state::{ApiLimits, AppState};
pub use visit::Visit;
pub use visitors::Visitors;

/// Every route of the server.
pub fn router(state: AppState) -> Router {
    let document = openapi::serve();
    let (routes, _) = openapi::describe(documented_routes());
    let routes = routes
        .merge(dialects::undocumented())
        .merge(dialects::grpc_routes(&state))
        .merge(document)
        .merge(console::routes())
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    middleware::wrap(routes, &state).with_state(state)
}

/// The routes that the OpenAPI document describes.
fn documented_routes() -> ApiRouter<AppState> {
    ApiRouter::new().merge(native::router()).merge(dialects::documented())
}

async fn unknown_route(uri: http::Uri) -> Response {
    let detail = format!("there is nothing at {}; GET /openapi.json lists every route", uri.path());
    dialects::tell(uri.path(), &problem::Problem::new(problem::ProblemType::UnknownRoute, detail))
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> Response {
    let detail = format!("{} doesn't take {method}; the Allow header names the methods it takes", uri.path());
    dialects::tell(uri.path(), &problem::Problem::new(problem::ProblemType::WrongMethod, detail))
}
