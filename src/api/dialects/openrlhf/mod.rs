//! OpenRLHF's remote reward model: `POST /get_reward`.
//!
//! All generations of its client are served: those that send `query` alone, those that add `prompts` and `labels`, and
//! those that read `scores` and `extra_logs`. One generation sends empty lists to all servers but the first, and loses a
//! sample's reward unless they answer 200.

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::text::TextOptions;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Call, DetailBody, KnownFields, ModelField, worth_a_retry},
};
use crate::api::{problem::Problem, reply::Reply};
use dto::{RewardBody, RewardReply};

/// The dialect of OpenRLHF.
pub(super) static DIALECT: Dialect = Dialect {
    name: "openrlhf",
    title: "OpenRLHF",
    paths: Paths::Expected,
    routes: &[Route::new("/get_reward", || post_with(get_reward, describe))],
    fields: KnownFields { harmless: &["labels"], advice: &[] },
    status: worth_a_retry,
    error: ErrorShape::of::<DetailBody>(),
};

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("openrlhfGetReward").summary("Score whole sequences").description(
        "Each query is the prompt with its response, as the trainer decoded it. Where `prompts` tells them apart, models \
         of sentence pairs get a pair. No special tokens are added to models that render by a template; \
         `?ending=one_eos` ends each text with one end-of-sequence token.",
    )
}

async fn get_reward(call: Call<RewardBody>) -> Result<Reply<RewardReply>, Problem> {
    let (call, body) = call.split();
    let samples = body.into_samples()?;
    if samples.is_empty() {
        return Ok(Reply::unscored(RewardReply::empty()));
    }
    let report = call.score(ModelField::Absent, samples, TextOptions::default()).await?;
    let body = RewardReply::new(&report, call.url.on_refused.is_some(), call.firing());
    Ok(Reply::new(&report, body))
}
