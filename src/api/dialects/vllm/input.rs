//! What vLLM's requests have in common: inputs, truncation, special tokens, activation.

use std::num::NonZeroUsize;

use karat_engine::{
    engine::{Draft, Usage},
    text::{TextOptions, Truncation},
};
use karat_rules::domain::Sample;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{
    dialects::parts::{Activation, ChatMessage, conversation, invalid, sample, texts},
    problem::Problem,
};

/// Text or token ids, one input or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "input must be a string, a list of strings, a list of token ids or a list of lists of token ids"
)]
pub(crate) enum Input {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// The token ids of one text.
    Tokens(Vec<u32>),
    /// The token ids of several texts.
    TokenLists(Vec<Vec<u32>>),
}

impl Input {
    pub(crate) fn into_samples(self, place: &str) -> Vec<Draft> {
        match self {
            Self::Text(text) => texts(place, vec![text]),
            Self::Texts(all) => texts(place, all),
            Self::Tokens(ids) => vec![sample(place, 0, Sample::from_tokens(ids))],
            Self::TokenLists(lists) => {
                let lists = lists.into_iter().enumerate();
                lists.map(|(index, ids)| sample(place, index, Sample::from_tokens(ids))).collect()
            }
        }
    }
}

/// The fields that shape how a text is tokenised and its score sent.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(super) struct Common {
    /// Keep this many tokens of what is longer; -1 for as many as the model takes. Without it longer texts are handled
    /// as the model's manifest says.
    #[serde(default)]
    #[schemars(range(min = -1))]
    truncate_prompt_tokens: Option<i64>,
    /// From which side tokens are removed; by default the right.
    #[serde(default)]
    truncation_side: Option<Side>,
    /// Whether scores pass through the logistic function; by default they do.
    #[serde(default)]
    use_activation: Option<bool>,
    /// An older name of `use_activation`.
    #[serde(default)]
    activation: Option<bool>,
    /// A still older name of `use_activation`.
    #[serde(default)]
    softmax: Option<bool>,
}

/// A side of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Side {
    Left,
    Right,
}

impl Common {
    pub(super) fn activation(&self) -> Activation {
        Activation::sigmoid_if(self.use_activation.or(self.activation).or(self.softmax).unwrap_or(true))
    }

    pub(super) fn text(&self) -> Result<TextOptions, Problem> {
        let Some(tokens) = self.truncate_prompt_tokens else { return Ok(TextOptions::default()) };
        let max_tokens = match usize::try_from(tokens) {
            Ok(tokens) => Some(NonZeroUsize::new(tokens).ok_or_else(|| {
                invalid("truncate_prompt_tokens is 0, which leaves nothing to score; send -1 or a number above 0")
            })?),
            Err(_) if tokens == -1 => None,
            Err(_) => return Err(invalid("truncate_prompt_tokens must be -1 or a number above 0")),
        };
        let truncation = match self.truncation_side {
            Some(Side::Left) => Truncation::PromptStart,
            Some(Side::Right) | None => Truncation::ResponseEnd,
        };
        Ok(TextOptions { truncation: Some(truncation), max_tokens, ..TextOptions::default() })
    }
}

/// How many tokens of a document are read, where 0 stands for all.
pub(super) fn response_limit(tokens: Option<usize>) -> Option<NonZeroUsize> {
    tokens.and_then(NonZeroUsize::new)
}

/// Rendered text, token ids, or a chat.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct Content {
    /// What to score, as text that was rendered already or as token ids.
    #[serde(default)]
    input: Option<Input>,
    /// What to score, as a chat that ends with the response.
    #[serde(default)]
    messages: Option<Vec<ChatMessage>>,
    /// Whether the tokenizer adds its special tokens; by default yes for `input`, and for `messages` as the model's
    /// manifest says.
    #[serde(default)]
    add_special_tokens: Option<bool>,
    /// Refused unless it is null: chats are rendered by the model's own template.
    #[serde(default)]
    chat_template: Option<String>,
    /// Refused unless it is empty.
    #[serde(default)]
    chat_template_kwargs: Option<serde_json::Map<String, Value>>,
    /// Refused if it is true: the response is scored, and nothing follows it.
    #[serde(default)]
    add_generation_prompt: Option<bool>,
    /// Refused if it is true.
    #[serde(default)]
    continue_final_message: Option<bool>,
}

impl Content {
    /// The samples, and whether special tokens are added to them.
    pub(super) fn into_samples(self) -> Result<(Vec<Draft>, Option<bool>), Problem> {
        match (self.input, self.messages) {
            (Some(input), None) => Ok((input.into_samples("input"), Some(self.add_special_tokens.unwrap_or(true)))),
            (None, Some(turns)) => {
                let template = self.chat_template.is_some()
                    || self.chat_template_kwargs.is_some_and(|arguments| !arguments.is_empty());
                if template {
                    return Err(invalid(
                        "chats are rendered by the template of the model's manifest; leave out chat_template and \
                         chat_template_kwargs, or send rendered text as input",
                    ));
                }
                if self.add_generation_prompt == Some(true) || self.continue_final_message == Some(true) {
                    return Err(invalid(
                        "a response is scored as it is; leave out add_generation_prompt and continue_final_message",
                    ));
                }
                Ok((vec![Ok(conversation("messages", turns)?)], self.add_special_tokens))
            }
            _ => Err(invalid("send either input or messages")),
        }
    }
}

/// What a request cost.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct UsageBody {
    /// The tokens of all inputs.
    prompt_tokens: usize,
    /// The same number: nothing is generated.
    total_tokens: usize,
    /// Always 0.
    completion_tokens: usize,
    /// Always null.
    prompt_tokens_details: Option<usize>,
}

impl UsageBody {
    pub(crate) fn new(usage: Usage) -> Self {
        let Usage { tokens, .. } = usage;
        Self { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0, prompt_tokens_details: None }
    }
}
