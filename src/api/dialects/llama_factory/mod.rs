//! LLaMA-Factory's remote reward model (`reward_model_type: api`): `POST /v1/score/evaluation`.
//!
//! Its client looks at no status: every failure shows there as a missing `scores`.

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};
use http::StatusCode;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Call, DetailBody, KnownFields, ModelField, worth_a_retry},
};
use crate::api::{
    problem::{Problem, ProblemType},
    reply::Reply,
};
use dto::{EvaluationBody, EvaluationReply};

/// The dialect of LLaMA-Factory.
pub(super) static DIALECT: Dialect = Dialect {
    name: "llama-factory",
    title: "LLaMA-Factory",
    paths: Paths::Expected,
    routes: &[Route::new("/v1/score/evaluation", || post_with(score, describe))],
    fields: KnownFields { harmless: &[], advice: &[] },
    status: |kind| match kind {
        ProblemType::NoInputs => StatusCode::BAD_REQUEST,
        other => worth_a_retry(other),
    },
    error: ErrorShape::of::<DetailBody>(),
};

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("llamaFactoryEvaluate").summary("Score rendered chats").description(
        "Each message is a whole chat, rendered by the trainer. No special tokens are added to models that render by a \
         template.",
    )
}

async fn score(call: Call<EvaluationBody>) -> Result<Reply<EvaluationReply>, Problem> {
    let (call, body) = call.split();
    let model = body.model.clone();
    let field = model.as_deref().map_or(ModelField::Absent, ModelField::Habitual);
    let text = body.text()?;
    let report = call.score(field, body.samples(), text).await?;
    let reply = EvaluationReply::new(&call.id, &report);
    Ok(Reply::new(&report, reply))
}
