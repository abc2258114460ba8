//! SGLang: `POST /classify` with `text`, and `POST /v1/embeddings` as verl reads rewards from it.
//!
//! Rewards are sent as they are. (SGLang's own `/v1/classify` takes a softmax over the only logit, which makes every
//! score 1; karat has no such route.)

mod dto;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use http::StatusCode;
use karat_engine::text::TextOptions;

use super::{
    AppState,
    dialect::{Activation, Call, Dialect, Failure, ModelField, Reply},
    problem::{Problem, ProblemType},
    vllm,
};
use dto::{ClassifyBody, ClassifyReply, EmbeddingsBody, EmbeddingsReply};

/// The dialect of SGLang.
#[derive(Debug)]
pub(super) struct Sglang;

impl Dialect for Sglang {
    const NAME: &'static str = "sglang";
    type Error = vllm::ErrorBody;

    fn status(kind: ProblemType) -> StatusCode {
        vllm::status(kind)
    }

    fn error(problem: &Problem, status: StatusCode) -> vllm::ErrorBody {
        vllm::ErrorBody::new(problem, status)
    }
}

/// The routes whose paths no other dialect wants.
pub(super) fn own_routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/embeddings", post_with(embeddings, describe_embeddings))
}

/// The routes whose paths other dialects want too.
pub(super) fn contested_routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/classify", post_with(classify, describe_classify))
}

fn describe_classify(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("sglangClassify")
        .tag("SGLang")
        .summary("Score texts")
        .description("The reward is `embedding[0]`. One text gives one object, a list gives a list.")
}

/// Answers `POST /classify` with `text` or `input_ids`.
pub(super) async fn classify(call: Call<Sglang, ClassifyBody>) -> Result<Reply<ClassifyReply>, Failure<Sglang>> {
    let (call, body) = call.split();
    let activation = call.activation(Activation::None);
    let model = body.model.clone();
    let (samples, single) = body.into_samples()?;
    let report = call.score(ModelField::named(model.as_deref()), samples, ADDED).await?;
    let reply = ClassifyReply::new(&call.id, &report, activation, single);
    Ok(Reply::new(&report, reply))
}

fn describe_embeddings(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("sglangEmbeddings")
        .tag("SGLang")
        .summary("Score texts as embeddings of one number")
        .description("The embedding of a text holds its reward alone: it says nothing about what texts have in common.")
}

async fn embeddings(call: Call<Sglang, EmbeddingsBody>) -> Result<Reply<EmbeddingsReply>, Failure<Sglang>> {
    let (call, body) = call.split();
    let activation = call.activation(Activation::None);
    let samples = body.input.into_samples("input")?;
    let report = call.score(ModelField::named(body.model.as_deref()), samples, ADDED).await?;
    let reply = EmbeddingsReply::new(&report, activation, body.encoding_format.unwrap_or_default());
    Ok(Reply::new(&report, reply))
}

/// Clients of these routes leave the beginning-of-sequence token to the server.
const ADDED: TextOptions = TextOptions {
    truncation: None,
    max_tokens: None,
    special_tokens: Some(true),
    ending: karat_engine::text::Ending::AsSent,
};
