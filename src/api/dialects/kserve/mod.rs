//! KServe's V2 protocol (the Open Inference Protocol) with Triton's extensions: binary tensors, model configuration and
//! model repository. NeMo-Aligner and every Triton client speak it.

mod binary;
mod describe;
mod dto;
mod grpc;
mod inference;
mod repository;
mod tensor;

use aide::{
    axum::routing::{ApiMethodRouter, get_with, post_with},
    transform::TransformOperation,
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use karat_engine::{
    engine::ScoreError,
    repository::{Model, NoModel},
};
use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    dialect::{self, Dialect, ErrorShape, Paths, Route},
    parts::{KnownFields, RawCall, without_422, worth_a_retry},
};
use crate::api::{AppState, checks, path::PathOf, problem::Problem};
use dto::{ModelConfig, ModelMetadata, ServerMetadata};
pub(in crate::api) use grpc::{routes as grpc_routes, tell as tell_grpc};

/// The dialect of KServe and Triton.
pub(super) static DIALECT: Dialect = Dialect {
    name: "kserve",
    title: "KServe",
    paths: Paths::NamingModels,
    routes: &[
        Route::new("/v2", || get_with(server, describe("", "kserveServer", "What the server is"))),
        Route::new("/v2/health/live", || {
            get_with(live, describe_health("", "kserveLive", "Whether the process lives"))
        }),
        Route::new("/v2/health/ready", || {
            get_with(ready, describe_health("", "kserveReady", "Whether every model is ready"))
        }),
        Route::new("/v2/models/{model}", || metadata_route::<ModelPath>("")),
        Route::new("/v2/models/{model}/ready", || ready_route::<ModelPath>("")),
        Route::new("/v2/models/{model}/config", || config_route::<ModelPath>("")),
        Route::new("/v2/models/{model}/infer", || infer_route::<ModelPath>("")),
        Route::new("/v2/models/{model}/versions/{version}", || metadata_route::<VersionPath>(VERSION)),
        Route::new("/v2/models/{model}/versions/{version}/ready", || ready_route::<VersionPath>(VERSION)),
        Route::new("/v2/models/{model}/versions/{version}/config", || config_route::<VersionPath>(VERSION)),
        Route::new("/v2/models/{model}/versions/{version}/infer", || infer_route::<VersionPath>(VERSION)),
        Route::new("/v2/repository/index", || {
            post_with(repository::index, describe("", "kserveIndex", "List the models"))
        }),
        Route::new("/v2/repository/models/{model}/load", || {
            post_with(repository::load, describe("", "kserveLoad", "Load a model, or what lies in its folder now"))
        }),
        Route::new("/v2/repository/models/{model}/unload", || {
            post_with(repository::unload, describe("", "kserveUnload", "Take a model out of memory"))
        }),
    ],
    // What its bodies hold stands in lists of parameters, each with a table of its own.
    fields: KnownFields { harmless: &[], advice: &[] },
    status: |kind| without_422(worth_a_retry(kind)),
    error: ErrorShape::of::<ErrorBody>(),
};

/// What the routes of a model's version have behind their names.
const VERSION: &str = "Version";

/// The body of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KserveError")]
struct ErrorBody {
    /// What is wrong and what to change.
    error: String,
}

impl dialect::ErrorBody for ErrorBody {
    fn new(problem: &Problem, _: StatusCode) -> Self {
        Self { error: problem.detail().to_owned() }
    }
}

fn metadata_route<A: Address>(suffix: &'static str) -> ApiMethodRouter<AppState> {
    get_with(metadata::<A>, describe(suffix, "kserveModel", "A model's tensors"))
}

fn ready_route<A: Address>(suffix: &'static str) -> ApiMethodRouter<AppState> {
    get_with(model_ready::<A>, describe_health(suffix, "kserveModelReady", "Whether a model is ready"))
}

fn config_route<A: Address>(suffix: &'static str) -> ApiMethodRouter<AppState> {
    get_with(config::<A>, describe(suffix, "kserveModelConfig", "A model's configuration as Triton writes it"))
}

fn infer_route<A: Address>(suffix: &'static str) -> ApiMethodRouter<AppState> {
    post_with(infer::<A>, describe_infer(suffix))
}

fn describe(
    suffix: &'static str,
    id: &'static str,
    summary: &'static str,
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| operation.id(&format!("{id}{suffix}")).summary(summary)
}

fn describe_health(
    suffix: &'static str,
    id: &'static str,
    summary: &'static str,
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        describe(suffix, id, summary)(operation)
            .response_with::<200, (), _>(|response| response.description("Yes"))
            .response_with::<503, (), _>(|response| response.description("Not yet"))
    }
}

/// Which model a path names.
trait Address: DeserializeOwned + JsonSchema + Send + 'static {
    fn model(&self) -> &str;
    fn version(&self) -> Option<&str>;
}

/// A model.
#[derive(Debug, Deserialize, JsonSchema)]
struct ModelPath {
    /// The model's name.
    model: String,
}

/// A version of a model.
#[derive(Debug, Deserialize, JsonSchema)]
struct VersionPath {
    /// The model's name.
    model: String,
    /// Its version: the number of its folder, or the digest that `GET /v1/models` shows; `1` for what has no numbers.
    version: String,
}

impl Address for ModelPath {
    fn model(&self) -> &str {
        &self.model
    }

    fn version(&self) -> Option<&str> {
        None
    }
}

impl Address for VersionPath {
    fn model(&self) -> &str {
        &self.model
    }

    fn version(&self) -> Option<&str> {
        Some(&self.version)
    }
}

/// The name of a model in the version that a path or a message asks for.
fn addressed(state: &AppState, name: &str, version: Option<&str>) -> Result<ModelName, Problem> {
    let model = checks::model(name)?;
    let Some(version) = version.filter(|version| !version.is_empty()) else { return Ok(model) };
    let labelled = checks::version(&model, version)?;
    match state.engine.model(&labelled) {
        // What has no versions of its own is its only one.
        Err(ScoreError::NoModel(NoModel::OtherVersion { .. })) if version == "1" => Ok(model),
        Err(ScoreError::NoModel(other @ NoModel::OtherVersion { .. })) => Err(checks::unknown(&other.to_string(), "")),
        _ => Ok(labelled),
    }
}

/// The model of that name and version.
fn find(state: &AppState, name: &str, version: Option<&str>) -> Result<std::sync::Arc<Model>, Problem> {
    Ok(state.engine.model(&addressed(state, name, version)?)?)
}

async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata::current())
}

async fn live() -> StatusCode {
    StatusCode::OK
}

async fn ready(State(state): State<AppState>) -> StatusCode {
    if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn model_ready<A: Address>(
    State(state): State<AppState>,
    PathOf(address): PathOf<A>,
) -> Result<StatusCode, Problem> {
    find(&state, address.model(), address.version())?;
    Ok(StatusCode::OK)
}

async fn metadata<A: Address>(
    State(state): State<AppState>,
    PathOf(address): PathOf<A>,
) -> Result<Json<ModelMetadata>, Problem> {
    Ok(Json(ModelMetadata::of(&*find(&state, address.model(), address.version())?)))
}

async fn config<A: Address>(
    State(state): State<AppState>,
    PathOf(address): PathOf<A>,
) -> Result<Json<ModelConfig>, Problem> {
    let model = find(&state, address.model(), address.version())?;
    Ok(Json(ModelConfig::of(&model, state.limits.inputs)))
}

fn describe_infer(suffix: &'static str) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        operation
            .id(&format!("kserveInfer{suffix}"))
            .summary("Score tensors")
            .input::<Json<dto::InferBody>>()
            .response::<200, Json<dto::InferReply>>()
            .default_response::<Problem>()
            .description(
                "Inputs: `text` (or `sentences`) for rendered text, `prompt` and `response` for pairs, or `tokens` with \
                 `sequence_lengths`. Outputs: `rewards`, `raw`, `mean`, `worst_case`, `variance`, `members` and \
                 `exceeded`, which says whether anything was cut; all of them unless the request names some. Binary \
                 tensors are taken and given.",
            )
    }
}

async fn infer<A: Address>(PathOf(address): PathOf<A>, RawCall(call): RawCall) -> Response {
    let answered = async move {
        let model = addressed(&call.state, address.model(), address.version())?;
        call.state.engine.model(&model)?;
        let call = call.for_model(&model);
        let header_length = binary::header_length(&call.headers)?;
        let (call, body) = call.split();
        let (bodies, length) = (call.state.large_bodies.clone(), body.len());
        let (request, wanted) = bodies.read(length, move || binary::decode(&body, header_length)).await??;
        let scored = inference::run(call, request).await?;
        Ok::<_, Problem>(binary::encode(&scored, &wanted))
    };
    answered.await.unwrap_or_else(IntoResponse::into_response)
}
