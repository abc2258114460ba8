//! Text Embeddings Inference: `POST /predict`, `POST /rerank`, `GET /info`, `GET /health`.

mod dto;

use aide::{
    axum::{
        ApiRouter,
        routing::{get_with, post_with},
    },
    transform::TransformOperation,
};
use axum::extract::{FromRequestParts, RawPathParams, State};
use http::{StatusCode, request::Parts};
use karat_engine::{engine::ScoreReport, repository::Model};
use karat_runtime::ProviderKind;

use super::{
    AppState,
    dialect::{Activation, Call, Dialect, Failure, ModelField, Reply, pairs, rank},
    problem::{Problem, ProblemType},
};
use dto::{ErrorBody, Info, PredictBody, PredictReply, RankResult, RerankBody};

/// The dialect of Text Embeddings Inference.
#[derive(Debug)]
pub(super) struct Tei;

impl Dialect for Tei {
    const NAME: &'static str = "tei";
    type Error = ErrorBody;

    fn status(kind: ProblemType) -> StatusCode {
        match kind {
            ProblemType::NoInputs => StatusCode::BAD_REQUEST,
            ProblemType::MalformedJson | ProblemType::UnknownModel => StatusCode::UNPROCESSABLE_ENTITY,
            ProblemType::ModelFailed | ProblemType::Internal => StatusCode::FAILED_DEPENDENCY,
            other => other.status(),
        }
    }

    fn error(problem: &Problem, _: StatusCode) -> ErrorBody {
        ErrorBody::new(problem)
    }
}

/// The routes whose paths no other dialect wants.
pub(super) fn own_routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/predict", post_with(predict, describe_predict))
        .api_route("/info", get_with(info, describe_info))
        .api_route("/health", get_with(health, describe_health))
}

/// The routes whose paths other dialects want too.
pub(super) fn contested_routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/rerank", post_with(rerank, describe_rerank))
}

fn describe_predict(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("teiPredict").tag("Text Embeddings Inference").summary("Score texts or pairs of texts").description(
        "A list of two strings is one pair; a batch is a list of lists. Scores pass through the logistic function \
         unless `raw_scores` is true.",
    )
}

async fn predict(call: Call<Tei, PredictBody>) -> Result<Reply<PredictReply>, Failure<Tei>> {
    let (call, body) = call.split();
    let activation = call.activation(Activation::sigmoid_if(!body.raw_scores));
    let text = body.truncation.options();
    let (samples, single) = body.into_samples()?;
    let report = call.score(ModelField::Absent, samples, text).await?;
    let reply = PredictReply::new(&report, activation, single);
    Ok(timed(&call.state, &report, reply))
}

fn describe_rerank(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("teiRerank").tag("Text Embeddings Inference").summary("Rank texts")
}

/// Answers `POST /rerank` with `texts`.
pub(super) async fn rerank(call: Call<Tei, RerankBody>) -> Result<Reply<Vec<RankResult>>, Failure<Tei>> {
    let (call, body) = call.split();
    let activation = call.activation(Activation::sigmoid_if(!body.raw_scores));
    let samples = pairs("texts", &body.query, &body.texts)?;
    let report = call.score(ModelField::Absent, samples, body.truncation.options()).await?;
    let ranked = rank(&report, activation, None).into_iter();
    let reply: Vec<RankResult> = ranked
        .map(|ranked| RankResult {
            index: ranked.index,
            score: ranked.score,
            text: body.return_text.then(|| body.texts[ranked.index].clone()),
        })
        .collect();
    Ok(timed(&call.state, &report, reply))
}

/// Adds the times of the stages under this dialect's names.
fn timed<T>(state: &AppState, report: &ScoreReport, body: T) -> Reply<T> {
    let device = state.engine.model(&report.model).map_or("cpu", |model| device(&model));
    let timings = report.timings;
    Reply::new(report, body)
        .with_header("x-compute-type", device)
        .with_header("x-compute-tokens", &report.usage.tokens.to_string())
        .with_time("x-total-time", timings.total)
        .with_time("x-tokenization-time", timings.tokenize)
        .with_time("x-queue-time", timings.queue)
        .with_time("x-inference-time", timings.infer)
}

fn device(model: &Model) -> &'static str {
    let on_cpu =
        |leaf: &karat_engine::repository::GraphModel| leaf.units.iter().all(|unit| unit.provider == ProviderKind::Cpu);
    if model.leaves().iter().all(|leaf| on_cpu(leaf)) { "cpu" } else { "gpu" }
}

fn describe_info(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("teiInfo").tag("Text Embeddings Inference").summary("What is served, and its bounds")
}

async fn info(target: Target) -> Result<Reply<Info>, Failure<Tei>> {
    let Target { state, model } = target;
    let name = match model {
        Some(name) => name.parse().map_err(|_| {
            let detail = format!("there is no model {name:?}; GET /v1/models lists them");
            Problem::new(ProblemType::UnknownModel, detail)
        })?,
        None => state.dialects.default_model.clone().or_else(|| state.engine.repository().only_model()).ok_or_else(
            || {
                let detail = "the server has several models; ask for /m/{model}/info, or start it with --default-model";
                Problem::new(ProblemType::InvalidRequest, detail)
            },
        )?,
    };
    let model = state.engine.model(&name)?;
    Ok(Reply::unscored(Info::new(&model, device(&model), state.limits)))
}

/// The model that a path names.
struct Target {
    state: AppState,
    model: Option<String>,
}

impl FromRequestParts<AppState> for Target {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let parameters = RawPathParams::from_request_parts(parts, state).await.ok();
        let model = parameters.and_then(|parameters| {
            parameters.iter().find(|(name, _)| *name == "model").map(|(_, value)| value.to_owned())
        });
        Ok(Self { state: state.clone(), model })
    }
}

impl aide::OperationInput for Target {}

fn describe_health(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("teiHealth")
        .tag("Text Embeddings Inference")
        .summary("Whether the server takes requests")
        .response_with::<200, (), _>(|response| response.description("Every model is ready"))
        .response_with::<503, (), _>(|response| response.description("Models are loading, or all failed"))
}

async fn health(State(state): State<AppState>) -> StatusCode {
    if state.engine.repository().is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
