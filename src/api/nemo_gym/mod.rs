//! NeMo-Gym's resource server: `POST /verify` for one response, `POST /compare` for a group.
//!
//! NeMo-RL and axolotl train on it. The components of a reward sum to it, as NeMo-RL demands.

mod dto;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use http::StatusCode;
use karat_engine::{engine::ScoreError, text::TextOptions};

use super::{
    AppState,
    dialect::{Call, DetailBody, Dialect, Failure, ModelField, Reply, detail, worth_a_retry},
    problem::{Problem, ProblemType},
};
use dto::{CompareBody, CompareReply, VerifyBody, VerifyReply};

/// The dialect of NeMo-Gym.
#[derive(Debug)]
pub(super) struct NemoGym;

impl Dialect for NemoGym {
    const NAME: &'static str = "nemo-gym";
    type Error = DetailBody;

    fn status(kind: ProblemType) -> StatusCode {
        worth_a_retry(kind)
    }

    fn error(problem: &Problem, _: StatusCode) -> DetailBody {
        detail(problem)
    }
}

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/verify", post_with(verify, describe_verify))
        .api_route("/compare", post_with(compare, describe_compare))
}

fn describe_verify(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("nemoGymVerify").tag("NeMo-Gym").summary("Score one response").description(
        "The reply is the request with `reward` and `reward_components`. The components are `ensemble_mean`, what \
         `aggregation` and what the `transforms` added to it; they sum to the reward.",
    )
}

async fn verify(call: Call<NemoGym, VerifyBody>) -> Result<Reply<VerifyReply>, Failure<NemoGym>> {
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
        .tag("NeMo-Gym")
        .summary("Score a group of responses")
        .description("Each response is scored by itself, unless aggregation or transforms compare them; the comparisons follow from the rewards.")
}

async fn compare(call: Call<NemoGym, CompareBody>) -> Result<Reply<CompareReply>, Failure<NemoGym>> {
    let (call, body) = call.split();
    let samples = body.into_samples()?;
    let request = call.request(ModelField::Absent, samples, TextOptions::default())?;
    let report = call.state.engine.score(request.as_group(true)).await?;
    let reply = CompareReply::new(&report);
    Ok(Reply::new(&report, reply))
}
