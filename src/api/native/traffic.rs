//! `/v1/models/{name}/traffic`: shares of a model's requests for another version, before that takes over.

use aide::{
    axum::{
        ApiRouter,
        routing::{get_with, put_with},
    },
    transform::TransformOperation,
};
use axum::{
    Json,
    extract::{Path, State},
};
use karat_engine::{
    engine::ScoreError,
    repository::{Branch, Share, Traffic},
};
use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::models::ModelPath;
use crate::api::{
    AppState,
    body::JsonBody,
    checks,
    problem::{Problem, invalid},
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/v1/models/{name}/traffic", get_with(show, describe_show).merge(put_with(set, describe_set)))
}

/// Another version, and its share of the requests.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BranchBody {
    /// The version, such as `reward@2`.
    model: ModelName,
    /// The share of the requests, from 0 to 1; equal prompts go the same way.
    #[schemars(range(min = 0, max = 1))]
    share: f64,
}

/// Where requests go beside the model that they name; `{}` ends it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TrafficBody {
    /// What answers a share of them.
    #[serde(default)]
    canary: Option<BranchBody>,
    /// What scores a share of them as well, at the lowest priority and for nobody to wait for.
    #[serde(default)]
    shadow: Option<BranchBody>,
}

/// Where requests go beside the model that they name, and what came of it.
#[derive(Debug, Serialize, JsonSchema)]
struct TrafficReply {
    /// The model that they name.
    model: ModelName,
    /// What answers a share of them.
    canary: Option<BranchBody>,
    /// What scores a share of them as well.
    shadow: Option<BranchBody>,
    /// How many requests came since it was set; 0 where nothing is.
    requests: u64,
    /// How many of them the canary answered.
    canary_requests: u64,
    /// How the shadow's rewards differ from those that were given.
    differences: DifferencesReply,
}

/// How the rewards of a shadow differ from those that were given.
#[derive(Debug, Serialize, JsonSchema)]
struct DifferencesReply {
    /// How many samples were compared.
    samples: u64,
    /// The shadow's reward less the one that was given, on average; null before the first.
    mean: Option<f64>,
    /// The same without signs.
    mean_absolute: Option<f64>,
    /// The largest of them.
    largest: f64,
    /// Neighbouring samples of one request whose rewards differ in both versions.
    pairs: u64,
    /// How many of these pairs the two versions rank differently.
    swapped: u64,
    /// Requests that the shadow left out, since too many waited for it.
    dropped: u64,
    /// Requests on which it failed.
    failed: u64,
}

impl BranchBody {
    fn of(branch: &Branch) -> Self {
        Self { model: branch.model.clone(), share: branch.share.get() }
    }

    fn parse(self, field: &str) -> Result<Branch, Problem> {
        let share = Share::try_from(self.share).map_err(|error| invalid(format!("{field}.share: {error}")))?;
        Ok(Branch { model: self.model, share })
    }
}

fn reply(model: ModelName, traffic: &Traffic) -> Json<TrafficReply> {
    let (requests, canary_requests) = traffic.outcome.requests();
    let (dropped, failed) = traffic.outcome.missed();
    let differences = traffic.outcome.differences();
    Json(TrafficReply {
        model,
        canary: traffic.canary.as_ref().map(BranchBody::of),
        shadow: traffic.shadow.as_ref().map(BranchBody::of),
        requests,
        canary_requests,
        differences: DifferencesReply {
            samples: differences.samples,
            mean: differences.mean(),
            mean_absolute: differences.mean_absolute(),
            largest: differences.largest,
            pairs: differences.pairs,
            swapped: differences.swapped,
            dropped,
            failed,
        },
    })
}

fn describe_show(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("getTraffic").tag("Models").summary("Where a model's requests go beside it, and how versions differ")
}

async fn show(
    State(state): State<AppState>,
    Path(ModelPath { name }): Path<ModelPath>,
) -> Result<Json<TrafficReply>, Problem> {
    let model = checks::model(&name)?;
    state.engine.model(&model)?;
    let traffic = state.engine.repository().traffic(&model);
    Ok(reply(model, &traffic))
}

fn describe_set(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("setTraffic").tag("Models").summary("Send a share of a model's requests to another version").description(
        "A canary answers its share of the requests that name the model without a version; a shadow scores its share as \
         well, and the reply to GET tells how its rewards differ. Holds until it is set again, or the server ends.",
    )
}

async fn set(
    State(state): State<AppState>,
    Path(ModelPath { name }): Path<ModelPath>,
    JsonBody(body): JsonBody<TrafficBody>,
) -> Result<Json<TrafficReply>, Problem> {
    let model = checks::model(&name)?;
    let canary = body.canary.map(|branch| branch.parse("canary")).transpose()?;
    let shadow = body.shadow.map(|branch| branch.parse("shadow")).transpose()?;
    let repository = state.engine.repository();
    repository
        .set_traffic(&model, Traffic { canary, shadow, ..Traffic::default() })
        .map_err(|error| Problem::from(ScoreError::from(error)))?;
    Ok(reply(model.clone(), &repository.traffic(&model)))
}
