//! `POST /classify`: the reward as the probability (or, without activation, the logit) of the only label.

use aide::transform::TransformOperation;
use karat_engine::text::TextOptions;
use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Common, Content, UsageBody};
use crate::api::{
    dialects::parts::{Body, Call, ModelField, Unread, now},
    problem::Problem,
    reply::Reply,
    reply_id::ReplyKind,
};

/// The name of a model's only label, as Transformers writes it by default.
pub(crate) const LABEL: &str = "LABEL_0";

/// Texts to classify.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "VllmClassifyBody")]
pub(crate) struct ClassifyBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    model: Option<String>,
    #[serde(flatten)]
    content: Content,
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

/// One class for each text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VllmClassifyReply")]
pub(crate) struct ClassifyReply {
    id: String,
    object: &'static str,
    created: u64,
    model: ModelName,
    data: Vec<Class>,
    usage: UsageBody,
}

/// The class of one text.
#[derive(Debug, Serialize, JsonSchema)]
struct Class {
    index: usize,
    /// The only label.
    label: &'static str,
    /// The reward, through the logistic function unless the request says otherwise.
    probs: [f64; 1],
    /// Always 1.
    num_classes: usize,
}

pub(super) fn describe(version: &'static str) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        operation.id(&format!("vllmClassify{version}")).summary("Score texts or a chat").description(
            "A reward model has one label, whose probability is the logistic function of the reward; \
             `use_activation: false` gives the reward itself, which is what verl asks for.",
        )
    }
}

pub(super) async fn classify(call: Call<ClassifyBody>) -> Result<Reply<ClassifyReply>, Problem> {
    let (call, body) = call.split();
    let activation = call.activation(body.common.activation());
    let text = body.common.text()?;
    let (samples, special_tokens) = body.content.into_samples()?;
    let field = ModelField::named(body.model.as_deref());
    let report = call.score(field, samples, TextOptions { special_tokens, ..text }).await?;
    let activation = activation.of(&report);
    let classes = report.results.iter().enumerate();
    let reply = ClassifyReply {
        id: ReplyKind::Classify.id(&call.id),
        object: "list",
        created: now(),
        model: report.model.clone(),
        data: classes
            .map(|(index, result)| Class { index, label: LABEL, probs: [activation.apply(result)], num_classes: 1 })
            .collect(),
        usage: UsageBody::new(report.usage),
    };
    Ok(Reply::new(&report, reply))
}

impl Body for ClassifyBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
