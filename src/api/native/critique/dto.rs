//! What a request for critiques says, and what its reply and its events hold.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Instant};

use karat_engine::{
    engine::{Critique, CritiqueRequest, Ending},
    generate::Sampling,
    text::{StopStrings, Truncation},
};
use karat_rules::domain::{Conversation, Message, ModelName, ModelVersion, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{
    call::OwnBody,
    request::{Options, turns},
    result::{Include, SampleResult, UsageBody},
    turn::{optional_text, optional_texts},
};
use crate::api::problem::{Problem, invalid};

/// A response to criticise.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct CritiqueBody {
    /// What was asked, as a single turn; with `response`.
    #[serde(default)]
    pub(super) prompt: Option<String>,
    /// The response to criticise.
    #[serde(default, deserialize_with = "optional_text")]
    pub(super) response: Option<String>,
    /// A dialogue that ends with the assistant's message, which is criticised; instead of `prompt` and `response`.
    #[serde(default, deserialize_with = "optional_texts")]
    pub(super) messages: Option<Vec<Message>>,
    /// How many critiques to write; several need a temperature above 0, or they would all be the same.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub(super) critiques: usize,
    /// 0 always takes the likeliest token; 1 draws by the model's own probabilities.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub(super) temperature: f64,
    /// Draws out of the fewest likeliest tokens that make up this share of the probability.
    #[serde(default = "all")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) top_p: f64,
    /// What the draws depend on. The same seed gives the same critiques while the model writes nothing else; beside other
    /// texts the last digits of a logit may differ, and where two tokens are about equally likely, the draw may fall on the
    /// other one. The n-th of several critiques, counted from 0, is drawn with `seed` + n.
    #[serde(default)]
    pub(super) seed: u64,
    /// The most tokens of each critique; by default as the model's manifest says.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(super) max_tokens: Option<usize>,
    /// Texts that end a critique when they appear, and aren't part of it.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub(super) stop: Vec<String>,
    /// The model that scores; by default the one that writes.
    #[serde(default)]
    pub(super) scorer: Option<String>,
    /// Whether to score at all.
    #[serde(default = "yes")]
    pub(super) score: bool,
    /// Whether to send the critique as server-sent events while it is being written.
    #[serde(default)]
    pub(super) stream: bool,
    /// What to add to each score.
    #[serde(default)]
    pub(super) include: BTreeSet<Include>,
}

impl OwnBody for CritiqueBody {
    fn inputs(&self) -> usize {
        self.critiques
    }
}

fn one() -> usize {
    1
}

fn all() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

/// The critiques and what became of the score.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CritiqueResponse {
    /// The critiques, in their order.
    pub(super) critiques: Vec<CritiqueResult>,
    #[serde(flatten)]
    pub(super) score: CritiqueScore,
    #[serde(flatten)]
    pub(super) summary: Summary,
}

/// One complete critique; the data of the event `critique`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct CritiqueResult {
    /// Which, counted from 0.
    pub(super) index: usize,
    /// All of it.
    pub(super) text: String,
    /// Why it ended: the model ended it (`end`), it was as long as it may be (`length`), or a stop string appeared
    /// (`stop`).
    pub(super) finish: FinishWord,
    /// How many tokens were generated.
    pub(super) tokens: usize,
    /// The number that the model wrote, if its manifest says how to find one: null when the text holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>")]
    pub(super) rating: Option<Option<f64>>,
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FinishWord {
    End,
    Length,
    Stop,
}

/// What the critiques come to; the data of the event `score`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct CritiqueScore {
    /// The mean of the critiques' rewards: of the response, scored with each critique in view. Null when all critiques
    /// are empty; left out when no score was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>")]
    pub(super) reward: Option<Option<f64>>,
    /// The mean of the ratings that were found, if the model's manifest says how to find one: null when none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>")]
    pub(super) rating: Option<Option<f64>>,
    /// The scores, one for each critique that isn't empty, which `index` tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) scores: Vec<SampleResult>,
    /// The model that scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scorer: Option<ModelName>,
    /// Exactly which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scorer_version: Option<ModelVersion>,
    /// What scoring cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scoring: Option<UsageBody>,
}

/// Who wrote, and what it cost; the data of the event `done`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Summary {
    /// The request's id, as in the `X-Request-Id` header.
    pub(super) id: String,
    /// The model that wrote.
    pub(super) model: ModelName,
    /// Exactly which one: a digest over its manifest, graphs and tokenizer.
    pub(super) model_version: ModelVersion,
    /// The length of the question in tokens.
    pub(super) prompt_tokens: usize,
    /// The tokens of all critiques.
    pub(super) generated_tokens: usize,
}

/// The next letters of a critique; the data of the event `token`.
#[derive(Debug, Serialize)]
pub(super) struct TokenEvent {
    pub(super) index: usize,
    pub(super) text: String,
}

impl CritiqueBody {
    /// What the engine is asked for.
    ///
    /// # Errors
    /// When the fields contradict each other or are out of their ranges.
    pub(super) fn into_request(self, options: &Options, deadline: Option<Instant>) -> Result<CritiqueRequest, Problem> {
        let subject = match (self.prompt, self.response, self.messages) {
            (prompt, Some(response), messages) => {
                let mut turns = turns(prompt, messages).map_err(invalid)?;
                turns.push(Message { role: Role::Assistant, content: response });
                Conversation::new(turns)
            }
            (None, None, Some(messages)) => Conversation::new(messages),
            _ => {
                return Err(invalid("write {\"prompt\", \"response\"}, or {\"messages\"} that end with the response"));
            }
        };
        if self.critiques == 0 {
            return Err(invalid("critiques must be at least 1"));
        }
        if self.critiques > 1 && self.temperature == 0.0 {
            return Err(invalid("at temperature 0 all critiques are the same; ask for one, or set a temperature"));
        }
        if options.truncation().is_some_and(|truncation| truncation != Truncation::Refuse) {
            return Err(invalid(
                "what is criticised, and what the model is asked about it, are never cut: leave truncation out, and \
                 shorten the dialogue if it is too long",
            ));
        }
        let max_tokens =
            self.max_tokens.map(|most| NonZeroUsize::new(most).ok_or_else(|| invalid("max_tokens must be at least 1")));
        let sampling = Sampling::new(self.temperature, self.top_p, self.seed).map_err(invalid)?;
        Ok(CritiqueRequest {
            model: options.model_name()?,
            subject: subject.map_err(invalid)?,
            texts: (0..self.critiques as u64).map(|index| sampling.nth(index)).collect(),
            max_tokens: max_tokens.transpose()?,
            stop: StopStrings::new(self.stop).map_err(invalid)?,
            deadline,
        })
    }
}

impl CritiqueResult {
    /// `rates` tells whether the model's manifest says how to find a rating.
    pub(super) fn new(critique: &Critique, rates: bool) -> Self {
        Self {
            index: critique.index,
            text: critique.text.clone(),
            finish: match critique.ending {
                Ending::End => FinishWord::End,
                Ending::Length => FinishWord::Length,
                Ending::Stop => FinishWord::Stop,
            },
            tokens: critique.tokens,
            rating: rates.then_some(critique.rating),
        }
    }
}
