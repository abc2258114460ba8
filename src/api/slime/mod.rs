//! slime's remote reward: the whole body of the answer is the reward, a bare number or an object.

mod dto;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use http::StatusCode;
use karat_engine::{
    engine::{SampleReport, ScoreError, ScoreReport},
    text::TextOptions,
};
use karat_rules::domain::Reward;

use super::{
    AppState,
    dialect::{Call, DetailBody, Dialect, Failure, ModelField, Reply, detail, worth_a_retry},
    problem::{Problem, ProblemType},
};
use dto::{RewardObject, RolloutBody};

/// The dialect of slime and its relatives.
#[derive(Debug)]
pub(super) struct Slime;

impl Dialect for Slime {
    const NAME: &'static str = "slime";
    type Error = DetailBody;

    fn status(kind: ProblemType) -> StatusCode {
        worth_a_retry(kind)
    }

    fn error(problem: &Problem, _: StatusCode) -> DetailBody {
        detail(problem)
    }
}

/// The routes. They have no paths of slime's own: its user writes the whole URL.
pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/scalar", post_with(scalar, describe_scalar))
        .api_route("/dict", post_with(dict, describe_dict))
}

fn describe_scalar(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("slimeScalar").tag("slime").summary("Score one response as a bare number").description(
        "A prompt that is a string is what the user said; `?prompt=rendered` says that it is text in a chat template, \
         which the response continues.",
    )
}

async fn scalar(call: Call<Slime, RolloutBody>) -> Result<Reply<Reward>, Failure<Slime>> {
    let (report, result) = score(call).await?;
    Ok(Reply::new(&report, result.reward))
}

fn describe_dict(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("slimeDict")
        .tag("slime")
        .summary("Score one response as an object")
        .description("For a trainer that is told under which key to look, such as `score`.")
}

async fn dict(call: Call<Slime, RolloutBody>) -> Result<Reply<RewardObject>, Failure<Slime>> {
    let (report, result) = score(call).await?;
    Ok(Reply::new(&report, RewardObject::new(&report, &result)))
}

async fn score(call: Call<Slime, RolloutBody>) -> Result<(ScoreReport, SampleReport), Failure<Slime>> {
    let (call, body) = call.split();
    let sample = body.into_sample(call.url.prompt.unwrap_or_default())?;
    let report = call.score(ModelField::Absent, vec![sample], TextOptions::default()).await?;
    // A report has as many results as its request had samples.
    let result = report.results.first().cloned().ok_or(ScoreError::Panicked)?;
    Ok((report, result))
}
