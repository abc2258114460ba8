//! The OpenAPI document, derived from the routes and their types, and a page that renders it.

use aide::{axum::ApiRouter, openapi::OpenApi, redoc::Redoc};
use axum::{Router, response::IntoResponse, routing::get};
use http::header;

use super::{AppState, examples};

/// The OpenAPI document as JSON, pretty-printed and ending in a line break: the file in `openapi/`.
pub(crate) fn document() -> String {
    let (_, api) = describe(super::documented_routes());
    // The document is made of maps with string keys and plain values, which always have a JSON form.
    let mut json = serde_json::to_string_pretty(&api).unwrap_or_default();
    json.push('\n');
    json
}

/// Splits documented routes into plain ones and their description.
pub(super) fn describe(routes: ApiRouter<AppState>) -> (Router<AppState>, OpenApi) {
    let mut api = OpenApi::default();
    let routes = routes.finish_api_with(&mut api, |api| {
        api.title("karat").version(env!("CARGO_PKG_VERSION")).summary("A reward-model inference server").description(
            "Scores responses with ensembles of reward models: the mean, the worst case, the \
                 uncertainty-weighted score, and bounded transforms of them. Errors are problem details (RFC 9457) \
                 that say what to change.",
        )
    });
    examples::add(&mut api);
    (routes, api)
}

/// Routes that serve the document and its page.
pub(super) fn serve() -> Router<AppState> {
    let json: bytes::Bytes = document().into();
    Router::new()
        .route(
            "/openapi.json",
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], json).into_response() }),
        )
        .route("/docs", Redoc::new("/openapi.json").with_title("karat").axum_route().into())
}
