//! NeMo-Gym's resource server: `POST /verify` for one response, `POST /compare` for a group.
//!
//! NeMo-RL and axolotl train on it. The components of a reward sum to it, as NeMo-RL demands.

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::{engine::ScoreError, text::TextOptions};

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Call, DetailBody, KnownFields, ModelField, Scores, worth_a_retry},
};
use crate::api::{problem::Problem, reply::Reply};
use dto::{CompareBody, CompareReply, VerifyBody, VerifyReply};

/// The dialect of NeMo-Gym.
pub(super) static DIALECT: Dialect = Dialect {
    name: "nemo-gym",
    title: "NeMo-Gym",
    paths: Paths::Expected,
    routes: &[
        Route::new("/verify", || post_with(verify, describe_verify)),
        Route::new("/compare", || post_with(compare, describe_compare)),
    ],
    fields: KnownFields { harmless: &[], advice: &[] },
    status: worth_a_retry,
    error: ErrorShape::of::<DetailBody>(),
};

fn describe_verify(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("nemoGymVerify").summary("Score one response").description(
        "The reply is the request with `reward` and `reward_components`. The components are `ensemble_mean`, what \
         `aggregation` and what the `transforms` added to it; they sum to the reward.",
    )
}

async fn verify(call: Call<VerifyBody>) -> Result<Reply<VerifyReply>, Problem> {
    let (call, body) = call.split();
    let sample = body.sample()?;
    let report = call.score(ModelField::Absent, vec![sample], TextOptions::default()).await?;
    // A report has as many results as its request had samples.
    let result = report.results.first().ok_or(ScoreError::Panicked)?;
    let reply = VerifyReply::new(body, result);
    Ok(Reply::new(&report, reply))
}

fn describe_compare(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("nemoGymCompare")
        .summary("Score a group of responses")
        .description("Each response is scored by itself, unless aggregation or transforms compare them; the comparisons follow from the rewards.")
}

async fn compare(call: Call<CompareBody>) -> Result<Reply<CompareReply>, Problem> {
    let (call, body) = call.split();
    let samples = body.into_samples()?;
    let request = call.request(ModelField::Absent, samples, TextOptions::default())?;
    let report = Scores::from(call.run(request.as_group(true)).await?);
    let reply = CompareReply::new(&report);
    Ok(Reply::new(&report, reply))
}
