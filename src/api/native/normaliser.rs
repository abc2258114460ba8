//! `/v1/models/{name}/normaliser`: what a model's running normalisations have learned, and freezing them.

use aide::{
    axum::{ApiRouter, routing::get_with},
    transform::TransformOperation,
};
use axum::{
    Json,
    extract::{Path, State},
};
use karat_engine::repository::Model;
use karat_rules::{
    domain::{ModelName, ModelVersion},
    transform::Learned,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    AppState,
    body::JsonBody,
    checks,
    problem::{Problem, invalid},
    runs::memories,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/v1/models/{name}/normaliser", get_with(show, describe_show).put_with(set, describe_set))
}

/// Which model.
#[derive(Debug, Deserialize, JsonSchema)]
struct ModelPath {
    /// The model's name.
    name: String,
}

/// What a model's running normalisations have learned.
#[derive(Debug, Serialize, JsonSchema)]
struct NormaliserReply {
    /// The model.
    model: ModelName,
    /// Exactly which one: what was learned belongs to this version.
    model_version: ModelVersion,
    /// The links of its transforms that learn, in their order; those that a composite lays over its members come last.
    links: Vec<Link>,
    /// Whether it is still there after a restart: the server was started with `--state`.
    lasts: bool,
}

/// One link.
#[derive(Debug, Serialize, JsonSchema)]
struct Link {
    /// The transform.
    name: String,
    #[serde(flatten)]
    learned: Learned,
}

/// What to change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NormaliserBody {
    /// Which link, counted from 0.
    #[serde(default)]
    link: usize,
    /// Whether it learns no more; as it was where left out.
    #[serde(default)]
    frozen: Option<bool>,
    /// What it is to have learned; as it was where left out.
    #[serde(default)]
    state: Option<Moments>,
}

/// Count, mean and population variance of rewards.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Moments {
    /// How many rewards.
    count: u64,
    /// Their mean.
    mean: f64,
    /// Their population variance.
    #[schemars(range(min = 0.0))]
    variance: f64,
}

fn describe_show(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("showNormaliser")
        .tag("Models")
        .summary("Show what a model's running normalisations have learned")
        .description("With `--state` the reply's figures are on the disk before it is sent.")
}

fn describe_set(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("setNormaliser").tag("Models").summary("Freeze a running normalisation, or replace what it learned").description(
        "A frozen one transforms equal rewards alike. With `--state` the change is on the disk before the reply is sent.",
    )
}

async fn show(
    State(state): State<AppState>,
    Path(ModelPath { name }): Path<ModelPath>,
) -> Result<Json<NormaliserReply>, Problem> {
    let model = state.engine.model(&checks::model(&name)?)?;
    tell(&state, &model).await
}

async fn set(
    State(state): State<AppState>,
    Path(ModelPath { name }): Path<ModelPath>,
    JsonBody(body): JsonBody<NormaliserBody>,
) -> Result<Json<NormaliserReply>, Problem> {
    let model = state.engine.model(&checks::model(&name)?)?;
    // What it had learned before a restart comes first, and is then changed.
    let _ = tell(&state, &model).await?;
    {
        let links = memories(&model);
        let Some((_, memory)) = links.get(body.link) else {
            let detail = match links.len() {
                0 => format!("the model {} has no running_normalise among its transforms", model.name),
                count => format!("link: the model {} has {count} links that learn, counted from 0", model.name),
            };
            return Err(invalid(detail));
        };
        let mut learned = memory.learned();
        if let Some(Moments { count, mean, variance }) = body.state {
            learned = Learned { count, mean, variance, ..learned };
        }
        learned.frozen = body.frozen.unwrap_or(learned.frozen);
        memory.replace(learned).map_err(|reason| invalid(format!("state: {reason}")))?;
    }
    tell(&state, &model).await
}

async fn tell(state: &AppState, model: &Model) -> Result<Json<NormaliserReply>, Problem> {
    let learned = state.runs.learned.keep(model).await?;
    let names = memories(model).into_iter().map(|(name, _)| name.to_owned());
    Ok(Json(NormaliserReply {
        model: model.name.clone(),
        model_version: model.version.clone(),
        links: names.zip(learned).map(|(name, learned)| Link { name, learned }).collect(),
        lasts: state.runs.store.lasts(),
    }))
}
