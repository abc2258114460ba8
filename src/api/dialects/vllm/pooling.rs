//! `POST /pooling`: rewards as vectors of one number, and the scores of a process model's steps.
//!
//! Steps have the scores that the head gives, which are probabilities already: activation and transforms leave them.

use aide::transform::TransformOperation;
use karat_engine::text::TextOptions;
use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Common, Content, UsageBody};
use crate::api::{
    dialects::parts::{Body, Call, Encoding, ModelField, Unread, Vector, invalid, now},
    problem::Problem,
    reply::Reply,
    reply_id::ReplyKind,
};

/// Texts to pool.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "VllmPoolingBody")]
pub(super) struct PoolingBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    model: Option<String>,
    #[serde(flatten)]
    content: Content,
    #[serde(flatten)]
    common: Common,
    /// What is wanted: `classify` or `score` for one reward a text, `token_classify` for the scores of its steps.
    #[serde(default)]
    task: Option<String>,
    /// Numbers as a list, or as base64 of 32-bit floats in little-endian order.
    #[serde(default)]
    encoding_format: Option<Encoding>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

/// One vector for each text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VllmPoolingReply")]
pub(super) struct PoolingReply {
    id: String,
    object: &'static str,
    created: u64,
    model: ModelName,
    data: Vec<Pooled>,
    usage: UsageBody,
}

/// The vector of one text.
#[derive(Debug, Serialize, JsonSchema)]
struct Pooled {
    index: usize,
    object: &'static str,
    data: Vector,
}

pub(super) fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("vllmPooling").summary("Score texts or a chat as vectors").description(
        "The vector of a text holds its reward, through the logistic function unless `use_activation` is false; with the \
         task `token_classify` it has a row for each step of the response, with the score that the head gives.",
    )
}

pub(super) async fn pooling(call: Call<PoolingBody>) -> Result<Reply<PoolingReply>, Problem> {
    let (call, body) = call.split();
    let by_step = match body.task.as_deref() {
        None | Some("classify" | "score") => false,
        Some("token_classify") => true,
        Some(other) => {
            let detail = format!("the task {other:?} is not served; write \"classify\" or \"token_classify\"");
            return Err(invalid(detail));
        }
    };
    let activation = call.activation(body.common.activation());
    let text = body.common.text()?;
    let (samples, special_tokens) = body.content.into_samples()?;
    let field = ModelField::named(body.model.as_deref());
    let report = call.score(field, samples, TextOptions { special_tokens, ..text }).await?;
    let activation = activation.of(&report);
    let encoding = body.encoding_format.unwrap_or_default();
    let pooled = report.results.iter().enumerate().map(|(index, result)| {
        let data = match (&result.detail().steps, by_step) {
            (_, true) if result.refused.is_some() => encoding.rows(&[result.reward.get()]),
            (_, false) => encoding.vector(activation.apply(result)),
            (Some(steps), true) => encoding.rows(steps),
            (None, true) => {
                let detail = "the model gives one score a text and none for its steps; write the task \"classify\"";
                return Err(invalid(detail));
            }
        };
        Ok(Pooled { index, object: "pooling", data })
    });
    let data = pooled.collect::<Result<Vec<_>, _>>()?;
    let reply = PoolingReply {
        id: ReplyKind::Pool.id(&call.id),
        object: "list",
        created: now(),
        model: report.model.clone(),
        data,
        usage: UsageBody::new(report.usage),
    };
    Ok(Reply::new(&report, reply))
}

impl Body for PoolingBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
