//! `GET /v1/catalogue`: every rule that the server knows, generated from the code that runs it.

use aide::{
    axum::{ApiRouter, routing::get_with},
    transform::TransformOperation,
};
use axum::Json;
use karat_rules::catalogue::{Section, sections};
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::AppState;

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/catalogue", get_with(list, describe))
}

/// Every rule, by kind.
#[derive(Debug, Serialize, JsonSchema)]
struct Catalogue {
    /// Heads, aggregations, transforms, selection rules and metrics.
    sections: Vec<Section>,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("catalogue").tag("Models").summary("List every rule").description(
        "Every head, aggregation, transform, selection rule and metric with its parameters, formula and source.",
    )
}

async fn list() -> Json<Catalogue> {
    Json(Catalogue { sections: sections() })
}
