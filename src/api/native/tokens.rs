//! `POST /v1/tokens`: rewards for the tokens of a response, with the characters that they stand for.
//!
//! A trainer whose policy has another tokenizer maps them by the characters.

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use axum::{Extension, extract::State};
use karat_rules::{
    domain::{Cut, ModelName, ModelVersion, Reward},
    head::TokenReward,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_http::request_id::RequestId;

use super::{
    request::{Input, Options, check_count, samples},
    result::UsageBody,
};
use crate::api::{
    AppState,
    body::{SharedBody, objects},
    middleware::id_text,
    problem::{Problem, ProblemType},
    timing::Timed,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/tokens", post_with(tokens, describe))
}

/// Responses to score token by token.
#[derive(Debug, Deserialize, JsonSchema)]
struct TokensBody {
    /// What to score, at least one.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    inputs: Vec<Input>,
}

/// The tokens' rewards.
#[derive(Debug, Serialize, JsonSchema)]
struct TokensResponse {
    /// The request's id, as in the `X-Request-Id` header.
    id: String,
    /// The model that scored.
    model: ModelName,
    /// Exactly which one: a digest over its manifest, graphs and tokenizer.
    model_version: ModelVersion,
    /// One result for each input.
    results: Vec<TokensResult>,
    /// What it cost.
    usage: UsageBody,
}

/// One response's tokens.
#[derive(Debug, Serialize, JsonSchema)]
struct TokensResult {
    /// The input's place in the request, counted from 0.
    index: usize,
    /// The reward of each token of the response that stands for text. Ranges count characters (Unicode scalar values)
    /// from the response's start.
    token_rewards: Vec<TokenReward>,
    /// The reward of the whole response after the transforms.
    reward: Reward,
    /// The head's own reward of the whole response, before any transform.
    raw: Reward,
    /// The length in tokens, after any truncation.
    tokens: usize,
    /// Whether anything was cut.
    truncated: bool,
    /// What was cut; left out when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("tokens").tag("Scoring").summary("Score the tokens of responses").description(
        "For models with a token head: a reward for each token of the response, with the range of characters that it \
         stands for.",
    )
}

async fn tokens(
    State(state): State<AppState>,
    Extension(id): Extension<RequestId>,
    SharedBody { own: body, shared: options }: SharedBody<TokensBody, Options>,
) -> Result<Timed<TokensResponse>, Problem> {
    check_count(body.inputs.len(), &state.limits)?;
    let samples = samples("inputs", body.inputs, Input::into_sample)?;
    let request = options.into_request(samples, false, &state.limits)?;
    let report = state.engine.score(request).await?;
    let results = report.results.into_iter().enumerate().map(|(index, sample)| {
        let token_rewards = sample.detail.tokens.ok_or_else(|| {
            Problem::new(
                ProblemType::InvalidRequest,
                "this model gives one score a response; choose a model with a token head, or use POST /v1/score",
            )
        })?;
        Ok(TokensResult {
            index,
            token_rewards,
            reward: sample.reward,
            raw: sample.raw,
            tokens: sample.tokens,
            truncated: sample.cut.is_cut(),
            cut: sample.cut.is_cut().then_some(sample.cut),
        })
    });
    let response = TokensResponse {
        id: id_text(&id),
        model: report.model,
        model_version: report.version,
        results: results.collect::<Result<_, Problem>>()?,
        usage: report.usage.into(),
    };
    Ok(Timed { timings: report.timings, body: response })
}
