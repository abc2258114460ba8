//! Text Embeddings Inference: `POST /predict`, `POST /rerank`, `GET /info`, `GET /health`.

mod dto;

use std::time::Duration;

use aide::{
    axum::routing::{get_with, post_with},
    transform::TransformOperation,
};
use axum::extract::{FromRequestParts, State};
use http::{HeaderName, StatusCode, request::Parts};
use karat_engine::repository::Model;
use karat_runtime::ProviderKind;

use super::{
    dialect::{Claim, Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, KnownFields, ModelField, Reranking, Scores, invalid},
};
use crate::api::{
    AppState, checks, path,
    problem::{Problem, ProblemType},
    reply::Reply,
};
use dto::{ErrorBody, Info, PredictBody, PredictReply, RankResult, RerankBody};

/// What vLLM's `/rerank` doesn't take.
const TEXTS: Claim = Claim { any_of: &["texts"], none_of: &["documents"] };

fn status(kind: ProblemType) -> StatusCode {
    match kind {
        ProblemType::NoInputs => StatusCode::BAD_REQUEST,
        ProblemType::MalformedJson | ProblemType::BodyIncomplete | ProblemType::UnknownModel => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ProblemType::ModelFailed | ProblemType::Internal => StatusCode::FAILED_DEPENDENCY,
        other => other.status(),
    }
}

/// The dialect of Text Embeddings Inference.
pub(super) static DIALECT: Dialect = Dialect {
    name: "tei",
    title: "Text Embeddings Inference",
    paths: Paths::Expected,
    routes: &[
        Route::new("/predict", || post_with(predict, describe_predict)),
        Route::new("/info", || get_with(info, describe_info)),
        Route::new("/health", || get_with(health, describe_health)),
        Route::sharing("/rerank", TEXTS, || post_with(rerank, describe_rerank)),
    ],
    fields: KnownFields { harmless: &[], advice: &[("parameters", "write raw_scores and truncate beside the inputs")] },
    status,
    error: ErrorShape::of::<ErrorBody>(),
};

fn describe_predict(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("teiPredict").summary("Score texts or pairs of texts").description(
        "A list of two strings is one pair; a batch is a list of lists. Scores pass through the logistic function \
         unless `raw_scores` is true.",
    )
}

async fn predict(call: Call<PredictBody>) -> Result<Reply<PredictReply>, Problem> {
    let (call, body) = call.split();
    let activation = call.activation(Activation::sigmoid_if(!body.raw_scores));
    let text = body.truncation.options();
    let (samples, single) = body.into_samples();
    let report = call.score(ModelField::Absent, samples, text).await?;
    let reply = PredictReply::new(&report, activation.of(&report), single);
    Ok(timed(&call.state, &report, reply))
}

fn describe_rerank(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("teiRerank").summary("Rank texts")
}

/// Answers `POST /rerank` with `texts`.
async fn rerank(call: Call<RerankBody>) -> Result<Reply<Vec<RankResult>>, Problem> {
    let (call, body) = call.split();
    let asked = Reranking {
        place: "texts",
        query: body.query,
        documents: body.texts,
        model: None,
        text: body.truncation.options(),
        activation: Activation::sigmoid_if(!body.raw_scores),
        top: None,
    };
    let (report, ranked) = asked.rank(&call).await?;
    let results = ranked.into_iter().map(|ranked| RankResult {
        index: ranked.index,
        score: ranked.score,
        text: body.return_text.then_some(ranked.text),
    });
    let reply = results.collect();
    Ok(timed(&call.state, &report, reply))
}

/// Adds the times of the stages under this dialect's names.
fn timed<T>(state: &AppState, report: &Scores, body: T) -> Reply<T> {
    let device = state.engine.model(&report.model).map_or("cpu", |model| device(&model));
    let timings = report.timings;
    let ms = |time: Duration| time.as_millis().to_string();
    Reply::new(report, body)
        .with_header(HeaderName::from_static("x-compute-type"), device)
        .with_header(HeaderName::from_static("x-compute-tokens"), &report.usage.tokens.to_string())
        .with_header(HeaderName::from_static("x-total-time"), &ms(timings.total))
        .with_header(HeaderName::from_static("x-tokenization-time"), &ms(timings.tokenize))
        .with_header(HeaderName::from_static("x-queue-time"), &ms(timings.queue))
        .with_header(HeaderName::from_static("x-inference-time"), &ms(timings.infer))
}

fn device(model: &Model) -> &'static str {
    let on_cpu =
        |leaf: &karat_engine::repository::GraphModel| leaf.units.iter().all(|unit| unit.provider == ProviderKind::Cpu);
    if model.leaves().iter().all(|leaf| on_cpu(leaf)) { "cpu" } else { "gpu" }
}

fn describe_info(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("teiInfo").summary("What is served, and its bounds")
}

async fn info(State(state): State<AppState>, Target(model): Target) -> Result<Reply<Info>, Problem> {
    let name = match model {
        Some(name) => checks::model(&name)?,
        None => state.dialects.default_model.clone().or_else(|| state.engine.repository().only_model()).ok_or_else(
            || invalid("the server has several models; ask for /m/{model}/info, or start it with --default-model"),
        )?,
    };
    let model = state.engine.model(&name)?;
    Ok(Reply::unscored(Info::new(&model, device(&model), state.limits)))
}

/// The model that a path names.
struct Target(Option<String>);

impl FromRequestParts<AppState> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        path::model(parts, state).await.map(Self)
    }
}

impl aide::OperationInput for Target {}

fn describe_health(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("teiHealth")
        .summary("Whether the server takes requests")
        .response_with::<200, (), _>(|response| response.description("Every model is ready"))
        .response_with::<503, (), _>(|response| response.description("Models are loading, or all failed"))
}

async fn health(State(state): State<AppState>) -> StatusCode {
    if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
