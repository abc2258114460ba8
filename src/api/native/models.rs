//! `GET /v1/models`: what the repository holds, and why a model is not there.

use aide::{
    axum::{ApiRouter, routing::get_with},
    transform::TransformOperation,
};
use axum::{Json, extract::State};
use karat_engine::{
    repository::{Change, GraphForm, GraphUnit, Listed, Model, ModelBody, ModelStatus, References},
    schedule::{calibrate::Calibration, trial::Trial},
};
use karat_rules::domain::{GraphSignature, ModelName, ModelVersion, catalogue::Choice};
use karat_runtime::{ProviderKind, SkippedProvider, ort::WeightShare};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        AppState, checks,
        path::PathOf,
        problem::{Problem, without_folders},
    },
    telemetry::state_word,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/v1/models", get_with(list, describe_list))
        .api_route("/v1/models/{name}", get_with(show, describe_show))
}

/// Every model of the repository.
#[derive(Debug, Serialize, JsonSchema)]
struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// The models by name.
    data: Vec<ModelCard>,
}

/// One model.
#[derive(Debug, Serialize, JsonSchema)]
struct ModelCard {
    /// The model's name.
    id: ModelName,
    /// Always `model`.
    object: &'static str,
    /// `ready`, `loading`, `building` (TensorRT builds engines, which takes minutes and happens once), `failed` or
    /// `unloaded`.
    status: &'static str,
    /// How long TensorRT has been building engines, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    building_seconds: Option<u64>,
    /// Why the model failed to load.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What stands between the model that takes requests and the files of its folder; absent where they are what was
    /// loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<ChangeCard>,
    /// What is known once the model is ready.
    #[serde(flatten)]
    details: Option<ModelDetails>,
}

/// What stands between a model that takes requests and the files of its folder.
#[derive(Debug, Serialize, JsonSchema)]
struct ChangeCard {
    /// `noticed` (the files are others now than those that were loaded), `loading` (they are being loaded beside what takes
    /// requests) or `failed` (they couldn't be loaded).
    status: &'static str,
    /// Why they couldn't be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ChangeCard {
    fn of(change: &Change) -> Self {
        let (status, reason) = match change {
            Change::Noticed => ("noticed", None),
            Change::Loading => ("loading", None),
            Change::Failed(reason) => ("failed", Some(reason.clone())),
        };
        Self { status, reason }
    }
}

/// What is known of a model that is ready.
#[derive(Debug, Serialize, JsonSchema)]
struct ModelDetails {
    /// Exactly which model it is: a digest over its manifest, graphs and tokenizer.
    version: ModelVersion,
    /// The models of the Hugging Face Hub that it is made of, each as `org/name@commit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hub: Vec<String>,
    /// What its score means.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The licence of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    /// The most tokens that a sample may have, special tokens included.
    max_tokens: usize,
    /// How the members become one, unless a request says otherwise.
    aggregate: Choice,
    /// What happens to the reward after that, unless a request says otherwise.
    transforms: Vec<Choice>,
    /// How the model's scores compare with those of its reference that lie beside it in `expected.json`; null where none
    /// lie there, so that nobody has compared them.
    references: Option<ReferencesCard>,
    /// The graphs of the model; empty for a composite.
    graphs: Vec<GraphCard>,
    /// The models of a composite; empty for others.
    ensemble: Vec<ModelName>,
}

/// A model's scores beside its reference's, which were compared when it was loaded.
#[derive(Debug, Serialize, JsonSchema)]
struct ReferencesCard {
    /// How many texts were compared.
    count: usize,
    /// The largest difference between two scores.
    largest_difference: f64,
    /// How large it may be: a model with a larger one fails to load.
    tolerance: f64,
}

impl ReferencesCard {
    fn of(references: References) -> Self {
        let References { count, largest_difference, tolerance } = references;
        Self { count, largest_difference, tolerance }
    }
}

/// One graph of a model.
#[derive(Debug, Serialize, JsonSchema)]
struct GraphCard {
    /// The execution provider that really runs it.
    provider: ProviderKind,
    /// The providers that the manifest prefers and that could not start, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    skipped_providers: Vec<SkippedProvider>,
    /// The memory of its weights.
    memory: MemoryCard,
    /// Whether each sample is computed alone, since the graph's scores would depend on its company.
    runs_alone: bool,
    /// Whether what samples begin with in common, such as a prompt with many candidates, is computed once.
    shares_prefixes: bool,
    /// Whether samples are computed as one row of tokens, without padding.
    packed: bool,
    /// How the graph uses the machine: as was measured once, or as suits most models until that can be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<Calibration>,
    /// Whether it is still to be measured how the graph uses the machine: when it has nothing to do.
    awaits_calibration: bool,
    /// What trying the graph came to when it was loaded: whether a text's score is the same whatever it is batched with.
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
    /// What the graph takes and gives.
    signature: GraphSignature,
}

/// The memory that a graph's weights take.
#[derive(Debug, Serialize, JsonSchema)]
struct MemoryCard {
    /// How many bytes the weights have.
    weight_bytes: u64,
    /// How many graphs hold them together, since they lie in the same file; 1 where nobody else does.
    shared_by: usize,
    /// This graph's share of the bytes.
    share_bytes: u64,
}

impl MemoryCard {
    fn of(weights: &WeightShare) -> Self {
        Self { weight_bytes: weights.bytes(), shared_by: weights.graphs(), share_bytes: weights.share() }
    }
}

fn describe_list(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("listModels").tag("Models").summary("List the models")
}

async fn list(State(state): State<AppState>) -> Json<ModelList> {
    let models = state.engine.repository().models();
    Json(ModelList { object: "list", data: models.into_iter().map(|(name, listed)| card(name, &listed)).collect() })
}

/// Which model.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ModelPath {
    /// The model's name.
    pub(super) name: String,
}

fn describe_show(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("getModel").tag("Models").summary("Show one model")
}

async fn show(
    State(state): State<AppState>,
    PathOf(ModelPath { name }): PathOf<ModelPath>,
) -> Result<Json<ModelCard>, Problem> {
    let found = name.parse::<ModelName>().ok().and_then(|name| {
        let listed = state.engine.repository().models().remove(&name)?;
        Some(card(name, &listed))
    });
    found.map(Json).ok_or_else(|| checks::unknown_model(&name))
}

fn card(id: ModelName, listed: &Listed) -> ModelCard {
    let Listed { status, change } = listed;
    let (reason, details) = match status {
        ModelStatus::Loading | ModelStatus::Building(_) | ModelStatus::Unloaded => (None, None),
        ModelStatus::Failed(reason) => (Some(without_folders(reason)), None),
        ModelStatus::Ready(model) => (None, Some(details(model))),
    };
    let building_seconds = match status {
        ModelStatus::Building(since) => Some(since.elapsed().as_secs()),
        ModelStatus::Loading | ModelStatus::Ready(_) | ModelStatus::Failed(_) | ModelStatus::Unloaded => None,
    };
    let change = change.as_ref().map(ChangeCard::of);
    ModelCard { id, object: "model", status: state_word(status), building_seconds, reason, change, details }
}

fn details(model: &Model) -> ModelDetails {
    let (graphs, ensemble) = match &model.body {
        ModelBody::Graph(graph) => {
            (graph.units.iter().flat_map(GraphUnit::sides).map(graph_card).collect(), Vec::new())
        }
        ModelBody::Composite(members) => (Vec::new(), members.iter().map(|member| member.model.name.clone()).collect()),
    };
    ModelDetails {
        version: model.version.clone(),
        hub: model.hub.iter().map(ToString::to_string).collect(),
        description: model.description.clone(),
        license: model.license.clone(),
        max_tokens: model.max_tokens(),
        aggregate: model.written.aggregate.clone(),
        transforms: model.written.transforms.clone(),
        references: model.references.map(ReferencesCard::of),
        graphs,
        ensemble,
    }
}

fn graph_card(unit: &GraphUnit) -> GraphCard {
    GraphCard {
        provider: unit.provider,
        memory: MemoryCard::of(&unit.weights),
        skipped_providers: unit.skipped.clone(),
        runs_alone: unit.runs_alone(),
        shares_prefixes: unit.form.shares_prefixes(),
        packed: matches!(unit.form, GraphForm::Packed { .. }),
        calibration: unit.machine.chosen(),
        awaits_calibration: unit.machine.awaits_calibration(),
        trial: unit.trial.clone(),
        signature: unit.signature.clone(),
    }
}
