//! `POST /v1/tokens`: rewards for the tokens of a response, with the characters that they stand for.
//!
//! A trainer whose policy has another tokenizer maps them by the characters.

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use karat_engine::engine::SampleReport;
use karat_rules::{
    domain::{Cut, Reward},
    head::TokenReward,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Call, OwnBody},
    envelope::{Envelope, each},
    request::{Input, samples},
    result::Outcome,
};
use crate::api::{
    AppState,
    body::objects,
    images::ImageSource,
    problem::{Problem, invalid},
    reply::Reply,
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

impl OwnBody for TokensBody {
    fn inputs(&self) -> usize {
        self.inputs.len()
    }

    fn images(&mut self) -> Vec<&mut ImageSource> {
        self.inputs.iter_mut().flat_map(Input::images).collect()
    }
}

/// The tokens' rewards.
#[derive(Debug, Serialize, JsonSchema)]
struct TokensResponse {
    /// One result for each input.
    results: Vec<Outcome<TokensResult>>,
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
    Call { state, id, run, body, options }: Call<TokensBody>,
) -> Result<Reply<Envelope<TokensResponse>>, Problem> {
    let samples = samples("inputs", body.inputs, Input::into_sample);
    let request = options.into_request(samples, false)?;
    let report = state.score(run.as_ref(), &id, request).await?;
    Envelope::reply(id, report, |reports| Ok(TokensResponse { results: each(reports, result)? }))
}

fn result((index, sample): (usize, SampleReport)) -> Result<TokensResult, Problem> {
    let token_rewards = sample.detail.and_then(|detail| detail.tokens).ok_or_else(|| {
        invalid("this model gives one score a response; choose a model with a token head, or use POST /v1/score")
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
}
