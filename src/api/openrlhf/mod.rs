//! OpenRLHF's remote reward model: `POST /get_reward`.
//!
//! All generations of its client are served: those that send `query` alone, those that add `prompts` and `labels`, and
//! those that read `scores` and `extra_logs`. One generation sends empty lists to all servers but the first, and loses a
//! sample's reward unless they answer 200.

mod dto;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use http::StatusCode;
use karat_engine::text::TextOptions;

use super::{
    AppState,
    dialect::{Call, DetailBody, Dialect, Failure, ModelField, Reply, detail, worth_a_retry},
    problem::{Problem, ProblemType},
};
use dto::{RewardBody, RewardReply};

/// The dialect of OpenRLHF.
#[derive(Debug)]
pub(super) struct OpenRlhf;

impl Dialect for OpenRlhf {
    const NAME: &'static str = "openrlhf";
    type Error = DetailBody;

    fn status(kind: ProblemType) -> StatusCode {
        worth_a_retry(kind)
    }

    fn error(problem: &Problem, _: StatusCode) -> DetailBody {
        detail(problem)
    }
}

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/get_reward", post_with(get_reward, describe))
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("openrlhfGetReward").tag("OpenRLHF").summary("Score whole sequences").description(
        "Each query is the prompt with its response, as the trainer decoded it. Where `prompts` tells them apart, models \
         of sentence pairs get a pair. No special tokens are added to models that render by a template; \
         `?ending=one_eos` ends each text with one end-of-sequence token.",
    )
}

async fn get_reward(call: Call<OpenRlhf, RewardBody>) -> Result<Reply<RewardReply>, Failure<OpenRlhf>> {
    let (call, body) = call.split();
    let samples = body.into_samples()?;
    if samples.is_empty() {
        return Ok(Reply::unscored(RewardReply::empty()));
    }
    let report = call.score(ModelField::Absent, samples, TextOptions::default()).await?;
    let body = RewardReply::new(&report);
    Ok(Reply::new(&report, body))
}
