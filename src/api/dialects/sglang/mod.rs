//! SGLang: `POST /classify` with `text`, and `POST /v1/embeddings` as verl reads rewards from it.
//!
//! Rewards are sent as they are. (SGLang's own `/v1/classify` takes a softmax over the only logit, which makes every
//! score 1; karat has no such route.)

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::text::TextOptions;

use super::{
    dialect::{Claim, Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, KnownFields, ModelField, without_422, worth_a_retry},
    vllm,
};
use crate::api::{problem::Problem, reply::Reply};
use dto::{ClassifyBody, ClassifyReply, EmbeddingsBody, EmbeddingsReply};

/// What vLLM's `/classify` doesn't take.
const TEXT_OR_IDS: Claim = Claim { any_of: &["text", "input_ids"], none_of: &["input", "messages"] };

/// The dialect of SGLang.
pub(super) static DIALECT: Dialect = Dialect {
    name: "sglang",
    title: "SGLang",
    paths: Paths::Expected,
    routes: &[
        Route::new("/v1/embeddings", || post_with(embeddings, describe_embeddings)),
        Route::sharing("/classify", TEXT_OR_IDS, || post_with(classify, describe_classify)),
    ],
    fields: KnownFields {
        harmless: &["rid", "user", "priority", "log_metrics", "sampling_params", "routing_key"],
        advice: &[("dimensions", "a reward is one number; leave it out")],
    },
    status: |kind| without_422(worth_a_retry(kind)),
    error: ErrorShape::of::<vllm::ErrorBody>(),
};

fn describe_classify(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("sglangClassify")
        .summary("Score texts")
        .description("The reward is `embedding[0]`. One text gives one object, a list gives a list.")
}

/// Answers `POST /classify` with `text` or `input_ids`.
async fn classify(call: Call<ClassifyBody>) -> Result<Reply<ClassifyReply>, Problem> {
    let (call, body) = call.split();
    let activation = call.activation(Activation::None);
    let model = body.model.clone();
    let (samples, single) = body.into_samples()?;
    let report = call.score(ModelField::named(model.as_deref()), samples, ADDED).await?;
    let reply = ClassifyReply::new(&call.id, &report, activation.of(&report), single);
    Ok(Reply::new(&report, reply))
}

fn describe_embeddings(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("sglangEmbeddings")
        .summary("Score texts as embeddings of one number")
        .description("The embedding of a text holds its reward alone: it says nothing about what texts have in common.")
}

async fn embeddings(call: Call<EmbeddingsBody>) -> Result<Reply<EmbeddingsReply>, Problem> {
    let (call, body) = call.split();
    let activation = call.activation(Activation::None);
    let samples = body.input.into_samples("input");
    let report = call.score(ModelField::named(body.model.as_deref()), samples, ADDED).await?;
    let reply = EmbeddingsReply::new(&report, activation.of(&report), body.encoding_format.unwrap_or_default());
    Ok(Reply::new(&report, reply))
}

/// Clients of these routes leave the beginning-of-sequence token to the server.
const ADDED: TextOptions = TextOptions {
    truncation: None,
    max_tokens: None,
    max_response_tokens: None,
    special_tokens: Some(true),
    ending: karat_engine::text::Ending::AsSent,
};
