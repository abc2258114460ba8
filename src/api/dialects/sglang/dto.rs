//! Requests and responses of SGLang's routes.

use karat_engine::engine::Draft;
use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    dialects::{
        parts::{Activation, Body, Encoding, Scored, Scores, Unread, Vector, invalid},
        vllm::{Input, UsageBody},
    },
    problem::Problem,
};

/// Texts to score.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "SglangClassifyBody")]
pub(crate) struct ClassifyBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    pub(super) model: Option<String>,
    /// One text or several, rendered already.
    #[serde(default)]
    text: Option<Input>,
    /// The token ids of one text or several.
    #[serde(default)]
    input_ids: Option<Input>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

impl ClassifyBody {
    /// The samples, and whether there is one that didn't come in a list.
    pub(super) fn into_samples(self) -> Result<(Vec<Draft>, bool), Problem> {
        match (self.text, self.input_ids) {
            (Some(text @ (Input::Text(_) | Input::Texts(_))), None) => {
                let single = matches!(text, Input::Text(_));
                Ok((text.into_samples("text"), single))
            }
            // An empty list is one of no texts, whatever they would have been.
            (None, Some(ids @ (Input::Tokens(_) | Input::TokenLists(_) | Input::Texts(_)))) => {
                let single = matches!(ids, Input::Tokens(_));
                Ok((ids.into_samples("input_ids"), single))
            }
            _ => Err(invalid("send either text, as a string or a list of strings, or input_ids")),
        }
    }
}

/// One score for a single text, a list of them for a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "SglangClassifyReply")]
pub(crate) enum ClassifyReply {
    /// The text wasn't in a list.
    One(Classified),
    /// The texts were in a list.
    Many(Vec<Classified>),
}

/// The score of one text.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Classified {
    /// The reward.
    embedding: [f64; 1],
    meta_info: MetaInfo,
}

/// What a text cost.
#[derive(Debug, Serialize, JsonSchema)]
struct MetaInfo {
    id: String,
    prompt_tokens: usize,
    /// The time of the whole request in seconds.
    e2e_latency: f64,
}

impl ClassifyReply {
    pub(super) fn new(id: &str, report: &Scores, activation: Activation, single: bool) -> Self {
        let classified = |result: &Scored| Classified {
            embedding: [activation.apply(result)],
            meta_info: MetaInfo {
                id: id.to_owned(),
                prompt_tokens: result.tokens,
                e2e_latency: report.timings.total.as_secs_f64(),
            },
        };
        match report.results.as_slice() {
            [only] if single => Self::One(classified(only)),
            results => Self::Many(results.iter().map(classified).collect()),
        }
    }
}

/// Texts to embed.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct EmbeddingsBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    pub(super) model: Option<String>,
    /// Rendered text or token ids.
    pub(super) input: Input,
    /// Numbers as a list, or as base64 of 32-bit floats in little-endian order.
    #[serde(default)]
    pub(super) encoding_format: Option<Encoding>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

/// One embedding for each text.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EmbeddingsReply {
    object: &'static str,
    model: ModelName,
    data: Vec<Embedding>,
    usage: UsageBody,
}

/// The embedding of one text: its reward alone.
#[derive(Debug, Serialize, JsonSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

impl EmbeddingsReply {
    pub(super) fn new(report: &Scores, activation: Activation, encoding: Encoding) -> Self {
        let results = report.results.iter().enumerate();
        Self {
            object: "list",
            model: report.model.clone(),
            data: results
                .map(|(index, result)| Embedding {
                    object: "embedding",
                    index,
                    embedding: encoding.vector(activation.apply(result)),
                })
                .collect(),
            usage: UsageBody::new(report.usage),
        }
    }
}

impl Body for ClassifyBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}

impl Body for EmbeddingsBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
