//! Where the table's routes stand: at the paths that clients expect, at the same paths under each dialect's name, and at
//! all of these under `/m/{model}`.
//!
//! The OpenAPI document describes each route once, under its dialect's name.

use aide::{
    axum::{ApiRouter, routing::ApiMethodRouter},
    generate::in_context,
    openapi::{Operation, PathItem, ReferenceOr},
};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};

use super::{
    TABLE,
    dialect::{Dialect, Paths, Route},
    shared_paths,
};
use http::{HeaderMap, HeaderValue, header};

use crate::api::{AppState, problem::Problem};

/// Every dialect's routes under its name.
pub(in crate::api) fn documented() -> ApiRouter<AppState> {
    TABLE.iter().fold(ApiRouter::new(), |routes, dialect| routes.merge(prefixed(dialect)))
}

/// The routes without a prefix, and all routes under a model's name.
pub(in crate::api) fn undocumented() -> Router<AppState> {
    let others = || TABLE.into_iter().filter(|dialect| dialect.paths != Paths::NamingModels);
    let of_a_model = others()
        .fold(bare(others()).merge(unowned(others())), |routes, dialect| routes.merge(Router::from(prefixed(dialect))));
    bare(TABLE.into_iter()).nest("/m/{model}", of_a_model)
}

/// A dialect's routes under its name.
fn prefixed(dialect: &'static Dialect) -> ApiRouter<AppState> {
    let routes = dialect.routes.iter().fold(ApiRouter::new(), |routes, route| {
        let documented = ApiRouter::new().api_route(route.path, speaking(dialect, route));
        routes.merge(documented.with_path_items(|mut item| {
            describe(dialect, item.inner_mut());
            item
        }))
    });
    ApiRouter::new().nest(&format!("/{}", dialect.name), routes)
}

/// The paths that clients expect.
fn bare(dialects: impl Iterator<Item = &'static Dialect>) -> Router<AppState> {
    let owned = expected(dialects).filter(|(_, route)| route.claim.is_none());
    owned.fold(Router::new(), |routes, (dialect, route)| {
        let method = || shared_paths::share(route.path, speaking(dialect, route).into());
        routes.route(route.path, method()).route(&format!("{}/", route.path), method())
    })
}

/// The paths that are karat's own where no model's name stands before them, and a dialect's where one does.
fn unowned(dialects: impl Iterator<Item = &'static Dialect>) -> Router<AppState> {
    let (owned, claimed): (Vec<_>, Vec<_>) = expected(dialects).partition(|(_, route)| route.claim.is_none());
    let unowned = claimed.iter().filter(|(_, claim)| owned.iter().all(|(_, route)| route.path != claim.path));
    unowned.fold(Router::new(), |routes, (dialect, route)| {
        routes.route(route.path, MethodRouter::from(speaking(dialect, route)))
    })
}

/// The routes that stand at the paths which clients expect.
pub(super) fn expected(
    dialects: impl Iterator<Item = &'static Dialect>,
) -> impl Iterator<Item = (&'static Dialect, &'static Route)> {
    let expected = dialects.filter(|dialect| dialect.paths != Paths::Prefixed);
    expected.flat_map(|dialect| dialect.routes.iter().map(move |route| (dialect, route)))
}

/// What answers at a route, with the dialect known to it and its problems told in the dialect's shape.
pub(super) fn speaking(dialect: &'static Dialect, route: &Route) -> ApiMethodRouter<AppState> {
    (route.method)().route_layer(from_fn_with_state(dialect, speak))
}

async fn speak(State(dialect): State<&'static Dialect>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(dialect);
    let response = next.run(request).await;
    match response.extensions().get::<Problem>() {
        Some(problem) => dialect.tell(problem),
        None => response,
    }
}

/// A problem of a request that reached no route, in the shape of the dialect whose path it is.
pub(in crate::api) fn tell(path: &str, problem: &Problem) -> Response {
    let of_model = path.strip_prefix("/m/").and_then(|rest| rest.find('/').map(|end| &rest[end..]));
    let path = of_model.unwrap_or(path);
    let first = path.trim_start_matches('/').split('/').next();
    let prefixed = TABLE.into_iter().find(|dialect| Some(dialect.name) == first);
    let known = prefixed.or_else(|| {
        let mut routes = expected(TABLE.into_iter()).filter(|(_, route)| route.claim.is_none());
        routes.find(|(_, route)| route.path == path.trim_end_matches('/')).map(|(dialect, _)| dialect)
    });
    known.map_or_else(|| problem.clone().into_response(), |dialect| dialect.tell(problem))
}

/// The same of a request that may have come over gRPC.
pub(in crate::api) fn tell_any(path: &str, headers: &HeaderMap, problem: &Problem) -> Response {
    let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    match headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        true => super::kserve::tell_grpc(problem),
        false => tell(path, problem),
    }
}

/// What all operations of a dialect have in common.
fn describe(dialect: &Dialect, item: &mut PathItem) {
    for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
        operation.tags.push(dialect.title.to_owned());
        describe_error(dialect, operation);
    }
}

/// Puts the dialect's own shape of errors where the handler's says that it may fail.
fn describe_error(dialect: &Dialect, operation: &mut Operation) {
    let fails = operation.responses.as_ref().is_some_and(|responses| responses.default.is_some());
    if fails && let Some(error) = in_context(|context| dialect.describe_error(context, operation)) {
        operation.responses.get_or_insert_default().default = Some(ReferenceOr::Item(error));
    }
}
