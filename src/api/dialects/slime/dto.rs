//! Request and responses of slime's reward.

use indexmap::IndexMap;
use karat_engine::engine::Draft;
use karat_rules::domain::{Conversation, Message, ModelName, ModelVersion, RenderedText, Reward, Role, Sample};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    dialects::parts::{Body, Prompt, PromptForm, Scored, Scores, Unread, messages},
    problem::Problem,
};

/// One response to score. `label` may be sent too: a reward model has no use for it.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RolloutBody {
    /// What was asked.
    prompt: Prompt,
    /// The answer to score.
    response: String,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

impl RolloutBody {
    pub(super) fn into_sample(self, form: PromptForm) -> Result<Draft, Problem> {
        let made = match (self.prompt, form) {
            (Prompt::Text(prompt), PromptForm::Plain) => Sample::from_prompt(prompt, self.response),
            (Prompt::Text(prompt), PromptForm::Rendered) => {
                let text = RenderedText::new(format!("{prompt}{}", self.response));
                text.map(|text| Sample::Text(text.with_prompt(&prompt)))
            }
            (Prompt::Messages(turns), _) => {
                let mut turns = messages("prompt", turns)?;
                turns.push(Message { role: Role::Assistant, content: self.response });
                Conversation::new(turns).map(Sample::Conversation)
            }
        };
        Ok(made.map_err(|error| error.to_string()))
    }
}

/// The reward and what it was made from.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RewardObject {
    /// The reward after all transforms.
    score: Reward,
    /// The aggregate before any transform.
    raw: Reward,
    /// The mean of the members.
    mean: Reward,
    /// The lowest member.
    worst_case: Reward,
    /// The population standard deviation of the members.
    deviation: f64,
    /// Each member's score.
    members: Vec<Reward>,
    /// The score of each of the model's objectives, if it has any.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    objectives: IndexMap<String, Reward>,
    /// Why the response wasn't scored and has the number that the URL states; left out when it was scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// The model that scored.
    model: ModelName,
    /// Exactly which one.
    model_version: ModelVersion,
}

impl RewardObject {
    pub(super) fn new(report: &Scores, result: &Scored) -> Self {
        Self {
            score: result.reward,
            raw: result.raw,
            mean: result.ensemble.mean,
            worst_case: result.ensemble.worst_case,
            deviation: result.ensemble.variance.get().sqrt(),
            members: result.ensemble.members.clone(),
            objectives: result.detail().objectives.iter().cloned().collect(),
            refused: result.refused.clone(),
            model: report.model.clone(),
            model_version: report.version.clone(),
        }
    }
}

impl Body for RolloutBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
