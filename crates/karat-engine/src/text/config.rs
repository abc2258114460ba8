//! The `[text]` table of a manifest: how a sample becomes the text that the model was trained on.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{parse_template::PolicyTemplate, template};

/// How samples are rendered, tokenised and truncated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// The tokenizer file in the Hugging Face `tokenizer.json` format. Its own padding and truncation are ignored.
    #[serde(default = "default_tokenizer")]
    pub tokenizer: PathBuf,
    /// How a conversation becomes text.
    pub render: Render,
    /// The day that a template is told when it asks for today's date (`strftime_now`), such as `2024-07-26`. A score must
    /// not depend on the day, so a template that asks needs one.
    #[serde(default)]
    pub date: Option<Date>,
    /// Whether the tokenizer adds its special tokens (`[CLS]`, `[SEP]`, BOS). By default yes for `pair` and `raw`, and
    /// no for templates, which write them out.
    #[serde(default)]
    pub special_tokens: Option<bool>,
    /// What becomes of control tokens that a user or a policy spells, such as `</s>` in a response.
    #[serde(default)]
    pub special_tokens_in_text: SpecialTokensInText,
    /// The beginning-of-sequence token; read from the files beside the tokenizer when it isn't written here. A text never
    /// starts with two of them.
    #[serde(default)]
    pub bos_token: Option<String>,
    /// The end-of-sequence token, for templates; read from the files beside the tokenizer when it isn't
    /// written here.
    #[serde(default)]
    pub eos_token: Option<String>,
    /// The token that fills short rows of a batch. Leave it out: it is the one that the model looks for, `pad_token_id` of
    /// `config.json` beside the tokenizer, or else what the tokenizer pads with, or token 0. One that contradicts
    /// `config.json` is refused.
    #[serde(default)]
    pub pad_token: Option<String>,
    /// For process reward models: the token that ends each step of a response, at which the head reads its score, such
    /// as `<extra_0>`. A response that is sent as a list of steps gets one after each step. It may stand nowhere else, in
    /// text that is sent rendered neither; where it is all of `step_end`, nothing tells a mark from one that a policy
    /// wrote there: send prompt and steps instead.
    #[serde(default)]
    pub step_mark: Option<String>,
    /// What is written after each step of a response that is sent as a list, when that is more than the mark alone, such
    /// as `" ки\n"`. It must hold the mark. Where `steps` aren't marked, what steps are told apart by.
    #[serde(default)]
    pub step_end: Option<String>,
    /// For process reward models: how the steps of a response are written.
    #[serde(default)]
    pub steps: StepForm,
    /// The token that every sample ends with: appended where it isn't the last one already, counted in `max_tokens` and
    /// never cut. Such as the `[UNUSED_TOKEN_130]` at which InternLM2's reward models read, or an end of sequence that a
    /// model was trained with and its template doesn't write.
    #[serde(default)]
    pub last_token: Option<String>,
    /// For heads that read weights from a second output: the text at whose first token they are read, such as
    /// `"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"` of ArmoRM. The last place counts that has its
    /// tokens; a sample without one is refused.
    #[serde(default)]
    pub gate_mark: Option<String>,
    /// The most tokens that the model takes, special tokens included.
    pub max_tokens: NonZeroUsize,
    /// What happens to longer samples, unless a request says otherwise.
    #[serde(default)]
    pub truncation: Truncation,
    /// The template in which rendered text arrives, when it isn't this model's: the policy's. Such text is parsed back
    /// into messages, which are rendered the model's own way; what can't be parsed is refused. Without it rendered text
    /// is taken as it is. Conversations and token ids are not touched.
    #[serde(default, rename = "retemplate")]
    pub parse_template: Option<PolicyTemplate>,
}

fn default_tokenizer() -> PathBuf {
    PathBuf::from("tokenizer.json")
}

/// How a conversation becomes text. A sample that is sent as rendered text skips this.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Render {
    /// Prompt and response as the tokenizer's sentence pair, as cross-encoders take them. A prompt of several turns is
    /// joined by blank lines, each turn headed `Human:`, `Assistant:`, `System:` or `Tool:`.
    Pair,
    /// The Jinja chat template that the model's `chat_template.jinja` or `tokenizer_config.json` holds.
    ChatTemplate,
    /// A Jinja chat template, written here. It sees what Transformers gives to a template: `messages`, `bos_token` and the
    /// other special tokens that are set, `tools` and `documents` (none), and `add_generation_prompt` (true when the model
    /// is to speak next, for judges and critiques).
    Jinja(String),
    /// A Jinja chat template in a file.
    JinjaFile(PathBuf),
    /// The response alone, exactly as it was sent; prompts are refused.
    Raw,
}

impl Render {
    pub(super) fn adds_special_tokens(&self) -> bool {
        matches!(self, Self::Pair | Self::Raw)
    }
}

/// How the steps of a response are written, and at which tokens they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepForm {
    /// In one text with everything else, `step_mark` at the end of each, where it is read.
    #[default]
    Marked,
    /// Each tokenised by itself with `step_end` behind it, and read at the last token of that, as TRL's process reward
    /// models and Skywork-o1-Open-PRM were trained. Needs a template.
    Apart,
    /// As turns: each step is the user's, the first one behind the question and a space, and the assistant answers each
    /// with this text, one token. A step is read where its answer is predicted. As RLHFlow's models were trained.
    Turns(String),
}

/// What becomes of control tokens (a tokenizer's special ones) that stand in what a user or a policy wrote. Text that is
/// sent rendered already is the caller's, with its control tokens, and the step mark is karat's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokensInText {
    /// They become what they spell, as in Transformers.
    #[default]
    Reference,
    /// They are letters like others, as with `split_special_tokens` of Transformers; those of the template stay.
    Literal,
    /// The sample is refused.
    Refuse,
}

/// What happens to a sample that is longer than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// It is refused, with the number of tokens that are too many.
    #[default]
    Refuse,
    /// Tokens are removed from the start of the prompt. The response stays whole; a sample whose response alone is too
    /// long is refused. Text that was sent already rendered loses its start.
    PromptStart,
    /// Tokens are removed from the end of the response, at least one of which stays. Text that was sent already
    /// rendered loses its end.
    ResponseEnd,
}

/// What a request wants otherwise than the manifest says about text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TextOptions {
    /// What happens to samples that are too long.
    pub truncation: Option<Truncation>,
    /// A lower limit than the model's on a sample's length in tokens.
    pub max_tokens: Option<NonZeroUsize>,
    /// How many tokens of a response are read, whatever the policy: longer ones are cut at their end.
    pub max_response_tokens: Option<NonZeroUsize>,
    /// Whether the tokenizer adds its special tokens. Sentence pairs always have them.
    pub special_tokens: Option<bool>,
    /// How rendered text ends.
    pub ending: Ending,
}

/// How rendered text ends before it is tokenised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// As it was sent.
    #[default]
    AsSent,
    /// With exactly one end-of-sequence token: what padding and ends it has are replaced by one.
    OneEos,
}

impl TextConfig {
    /// The files that decide what the tokens are, relative to the model's folder; some may not exist.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let tokenizer_folder = self.tokenizer.parent().unwrap_or(Path::new(""));
        let mut files = vec![self.tokenizer.clone()];
        let beside = ["tokenizer_config.json", "special_tokens_map.json", "config.json"]
            .into_iter()
            .chain(template::TEMPLATE_FILES);
        files.extend(beside.map(|name| tokenizer_folder.join(name)));
        if let Render::JinjaFile(path) = &self.render {
            files.push(path.clone());
        }
        files
    }
}
