//! Request and response of `POST /v1/score/evaluation`.

use std::num::NonZeroUsize;

use karat_engine::{
    engine::Draft,
    text::{TextOptions, Truncation},
};
use karat_rules::domain::{ModelName, Reward};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    dialects::parts::{Body, Scores, Unread, invalid, texts},
    problem::Problem,
    reply_id::ReplyKind,
};

/// Rendered chats to score.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct EvaluationBody {
    /// Counts only if it is a model's name: the client always writes `model`.
    #[serde(default)]
    pub(super) model: Option<String>,
    /// The chats, each one text.
    messages: Vec<String>,
    /// Cut longer texts at their end to this many tokens. Without it they are handled as the model's manifest says.
    #[serde(default)]
    max_length: Option<usize>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

impl EvaluationBody {
    pub(super) fn text(&self) -> Result<TextOptions, Problem> {
        let Some(length) = self.max_length else { return Ok(TextOptions::default()) };
        let max_tokens = NonZeroUsize::new(length)
            .ok_or_else(|| invalid("max_length is 0, which leaves nothing to score; leave it out or send more"))?;
        let truncation = Some(Truncation::ResponseEnd);
        Ok(TextOptions { truncation, max_tokens: Some(max_tokens), ..TextOptions::default() })
    }

    pub(super) fn samples(self) -> Vec<Draft> {
        texts("messages", self.messages)
    }
}

/// The scores, in the order of the chats.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EvaluationReply {
    id: String,
    object: &'static str,
    model: ModelName,
    scores: Vec<Reward>,
}

impl EvaluationReply {
    pub(super) fn new(id: &str, report: &Scores) -> Self {
        Self {
            id: ReplyKind::Evaluation.id(id),
            object: "score.evaluation",
            model: report.model.clone(),
            scores: report.results.iter().map(|result| result.reward).collect(),
        }
    }
}

impl Body for EvaluationBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
