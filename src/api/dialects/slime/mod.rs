//! slime's remote reward: the whole body of the answer is the reward, a bare number or an object.

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::{engine::ScoreError, text::TextOptions};
use karat_rules::domain::Reward;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Call, DetailBody, KnownFields, ModelField, Scored, Scores, worth_a_retry},
};
use crate::api::{problem::Problem, reply::Reply};
use dto::{RewardObject, RolloutBody};

/// The dialect of slime and its relatives.
pub(super) static DIALECT: Dialect = Dialect {
    name: "slime",
    title: "slime",
    paths: Paths::Prefixed,
    routes: &[
        Route::new("/scalar", || post_with(scalar, describe_scalar)),
        Route::new("/dict", || post_with(dict, describe_dict)),
    ],
    fields: KnownFields { harmless: &["label"], advice: &[] },
    status: worth_a_retry,
    error: ErrorShape::of::<DetailBody>(),
};

fn describe_scalar(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("slimeScalar").summary("Score one response as a bare number").description(
        "A prompt that is a string is what the user said; `?prompt=rendered` says that it is text in a chat template, \
         which the response continues.",
    )
}

async fn scalar(call: Call<RolloutBody>) -> Result<Reply<Reward>, Problem> {
    let (report, result) = score(call).await?;
    Ok(Reply::new(&report, result.reward))
}

fn describe_dict(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("slimeDict")
        .summary("Score one response as an object")
        .description("For a trainer that is told under which key to look, such as `score`.")
}

async fn dict(call: Call<RolloutBody>) -> Result<Reply<RewardObject>, Problem> {
    let (report, result) = score(call).await?;
    Ok(Reply::new(&report, RewardObject::new(&report, &result)))
}

async fn score(call: Call<RolloutBody>) -> Result<(Scores, Scored), Problem> {
    let (call, body) = call.split();
    let sample = body.into_sample(call.url.prompt.unwrap_or_default())?;
    let report = call.score(ModelField::Absent, vec![sample], TextOptions::default()).await?;
    // A report has as many results as its request had samples.
    let result = report.results.first().cloned().ok_or(ScoreError::Panicked)?;
    Ok((report, result))
}
