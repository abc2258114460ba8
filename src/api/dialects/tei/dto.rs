//! Requests and responses of Text Embeddings Inference.

use http::StatusCode;
use karat_engine::{
    engine::Draft,
    repository::Model,
    text::{TextOptions, Truncation},
};
use karat_rules::domain::{ModelName, ModelVersion, Sample};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ApiLimits,
    dialects::{
        dialect,
        parts::{Activation, Body, Scored, Scores, Unread, sample},
        vllm::LABEL,
    },
    problem::{Problem, ProblemType},
};

/// The body of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TeiError")]
pub(crate) struct ErrorBody {
    /// What is wrong and what to change.
    error: String,
    /// Who is at fault.
    error_type: ErrorType,
}

/// Who is at fault.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
enum ErrorType {
    Unhealthy,
    Backend,
    Overloaded,
    Validation,
    Empty,
}

impl dialect::ErrorBody for ErrorBody {
    fn new(problem: &Problem, _: StatusCode) -> Self {
        let error_type = match problem.kind() {
            ProblemType::NoInputs => ErrorType::Empty,
            ProblemType::ModelUnavailable => ErrorType::Unhealthy,
            ProblemType::Overloaded | ProblemType::OutOfTokens => ErrorType::Overloaded,
            ProblemType::ModelFailed | ProblemType::Internal | ProblemType::DeadlinePassed | ProblemType::StateFull => {
                ErrorType::Backend
            }
            _ => ErrorType::Validation,
        };
        Self { error: problem.detail().to_owned(), error_type }
    }
}

/// What happens to texts that are too long.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
pub(crate) struct TruncationFields {
    /// Whether longer texts are cut; without it they are handled as the model's manifest says.
    #[serde(default)]
    truncate: Option<bool>,
    /// The side from which tokens are removed; by default the right.
    #[serde(default)]
    truncation_direction: Direction,
}

/// A side of a text.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
enum Direction {
    #[serde(alias = "left")]
    Left,
    #[default]
    #[serde(alias = "right")]
    Right,
}

impl TruncationFields {
    pub(super) fn options(self) -> TextOptions {
        let truncation = self.truncate.map(|cut| match (cut, self.truncation_direction) {
            (false, _) => Truncation::Refuse,
            (true, Direction::Left) => Truncation::PromptStart,
            (true, Direction::Right) => Truncation::ResponseEnd,
        });
        TextOptions { truncation, ..TextOptions::default() }
    }
}

/// Texts or pairs of texts to score.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PredictBody {
    /// One text, one pair, or a batch of either.
    inputs: PredictInputs,
    #[serde(flatten)]
    pub(super) truncation: TruncationFields,
    /// Whether the reward is sent as it is, and not through the logistic function.
    #[serde(default)]
    pub(super) raw_scores: bool,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// One text, one pair, or a batch of either.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "inputs must be a string, a list of one or two strings, or a list of such lists")]
enum PredictInputs {
    /// One text.
    Text(String),
    /// One text, or the two of a pair.
    Sequence(Vec<String>),
    /// Several of either.
    Batch(Vec<Vec<String>>),
}

impl PredictBody {
    /// The samples, and whether there is one that wasn't in a batch.
    pub(super) fn into_samples(self) -> (Vec<Draft>, bool) {
        match self.inputs {
            PredictInputs::Text(text) => (vec![sequence(0, vec![text])], true),
            PredictInputs::Sequence(texts) if texts.is_empty() => (Vec::new(), false),
            PredictInputs::Sequence(texts) => (vec![sequence(0, texts)], true),
            PredictInputs::Batch(batch) => {
                let batch = batch.into_iter().enumerate();
                (batch.map(|(index, texts)| sequence(index, texts)).collect(), false)
            }
        }
    }
}

fn sequence(index: usize, texts: Vec<String>) -> Draft {
    let mut texts = texts.into_iter();
    let made = match (texts.next(), texts.next(), texts.next()) {
        (Some(text), None, None) => Sample::from_text(text),
        (Some(first), Some(second), None) => Sample::from_prompt(first, second),
        _ => return Err(format!("inputs[{index}]: a sequence is one text, or the two of a pair")),
    };
    sample("inputs", index, made)
}

/// A text's labels and their scores.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Prediction {
    score: f64,
    label: &'static str,
}

/// The only label of one text, or of each text of a batch.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PredictReply {
    /// The text wasn't in a batch.
    Single([Prediction; 1]),
    /// One list for each text.
    Batch(Vec<[Prediction; 1]>),
}

impl PredictReply {
    pub(super) fn new(report: &Scores, activation: Activation, single: bool) -> Self {
        let prediction = |result: &Scored| [Prediction { score: activation.apply(result), label: LABEL }];
        match report.results.as_slice() {
            [only] if single => Self::Single(prediction(only)),
            results => Self::Batch(results.iter().map(prediction).collect()),
        }
    }
}

/// A query and the texts to rank.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "TeiRerankBody")]
pub(crate) struct RerankBody {
    /// What is asked.
    pub(super) query: String,
    /// What may answer it.
    pub(super) texts: Vec<String>,
    #[serde(flatten)]
    pub(super) truncation: TruncationFields,
    /// Whether the reward is sent as it is, and not through the logistic function.
    #[serde(default)]
    pub(super) raw_scores: bool,
    /// Whether each text is sent back.
    #[serde(default)]
    pub(super) return_text: bool,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// One text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TeiRank")]
pub(crate) struct RankResult {
    /// Its place in the request.
    pub(super) index: usize,
    pub(super) score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
}

/// What is served, and its bounds.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Info {
    model_id: ModelName,
    model_sha: ModelVersion,
    model_dtype: &'static str,
    model_type: ModelType,
    device: &'static str,
    max_input_length: usize,
    max_client_batch_size: usize,
    auto_truncate: bool,
    version: &'static str,
}

/// What kind of model it is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ModelType {
    Reranker(Labels),
}

/// The labels by their numbers and the other way round.
#[derive(Debug, Serialize, JsonSchema)]
struct Labels {
    id2label: std::collections::BTreeMap<&'static str, &'static str>,
    label2id: std::collections::BTreeMap<&'static str, usize>,
}

impl Info {
    pub(super) fn new(model: &Model, device: &'static str, limits: ApiLimits) -> Self {
        Self {
            model_id: model.name.clone(),
            model_sha: model.version.clone(),
            model_dtype: "float32",
            model_type: ModelType::Reranker(Labels { id2label: [("0", LABEL)].into(), label2id: [(LABEL, 0)].into() }),
            device,
            max_input_length: model.max_tokens(),
            max_client_batch_size: limits.inputs,
            auto_truncate: false,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl Body for PredictBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}

impl Body for RerankBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
