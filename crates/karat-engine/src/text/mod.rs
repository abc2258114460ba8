//! From a sample to the token ids that its model was trained on.
//!
//! A reward model scores nonsense when its text is rendered by another template, gets two BOS tokens, or loses the
//! end of its response to a silent truncation, and the score looks as good as any. So each model has one
//! [`TextPipeline`], built from its manifest: render → tokenise → truncate, the same for every API dialect.
//!
//! This is the only layer that names the tokenizer library.

mod beginnings;
mod config;
mod control;
mod detokenize;
mod error;
mod gate;
mod padding;
mod parse_template;
mod probe;
mod rating;
mod render;
mod shared;
mod size;
mod steps;
mod stop;
mod template;
mod truncate;
mod vocabulary;
mod word;

use std::{borrow::Cow, ops::Range, path::Path, sync::Arc};

use karat_rules::domain::{RenderedText, Sample, TokenizedInput};
use tokenizers::{Encoding, Tokenizer};

use beginnings::Beginnings;
pub use config::{Ending, Render, SpecialTokensInText, StepForm, TextConfig, TextOptions, Truncation};
use control::ControlTokens;
pub(crate) use detokenize::Detokenizer;
pub use error::TextError;
use gate::Gate;
pub use parse_template::{Markers, PolicyTemplate, TurnMarkers};
pub use rating::RatingParser;
use render::{Rendered, Renderer, ResponseSpan};
use shared::Shared;
pub(crate) use shared::SharedTokenizers;
use size::LongestText;
pub use size::TooManyBytes;
use steps::Steps;
pub(crate) use stop::StopMatcher;
pub use stop::{EmptyStop, StopStrings};
pub use truncate::TooLong;

/// What tokenising a sample gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// The tokens.
    pub input: TokenizedInput,
    /// Whether a second beginning-of-sequence token was dropped: a client adds one that the server adds too.
    pub doubled_beginning: bool,
}

/// Renders, tokenises and truncates the samples of one model.
#[derive(Debug)]
pub struct TextPipeline {
    renderer: Renderer,
    tokenizer: Arc<Tokenizer>,
    special_tokens: bool,
    beginning: Option<u32>,
    end: Option<String>,
    padding: u32,
    steps: Steps,
    control: ControlTokens,
    last_token: Option<u32>,
    gate: Option<Gate>,
    token_offsets: bool,
    reads_response: bool,
    padding_text: Option<String>,
    parse_template: Option<Markers>,
    longest: LongestText,
    beginnings: Beginnings,
    max_tokens: usize,
    truncation: Truncation,
}

impl TextPipeline {
    /// Builds the pipeline that `config` describes, with its files in `folder`.
    ///
    /// # Errors
    /// When a file is missing or unreadable, or names tokens that the tokenizer doesn't know.
    pub fn load(folder: &Path, config: &TextConfig) -> Result<Self, TextError> {
        Self::load_sharing(folder, config, &SharedTokenizers::default())
    }

    /// The same with a tokenizer that other models may have.
    pub(crate) fn load_sharing(
        folder: &Path,
        config: &TextConfig,
        tokenizers: &SharedTokenizers,
    ) -> Result<Self, TextError> {
        let Shared { tokenizer, padding } = tokenizers.read(&folder.join(&config.tokenizer))?;
        let tokens = template::SpecialTokens::load(folder, config)?;
        let padding = padding::padding(folder, config, &tokens, &tokenizer, padding)?;

        let known = |key: &'static str, token: Option<&str>| match token {
            None => Ok(None),
            Some(token) => tokenizer.token_to_id(token).map(Some).ok_or_else(|| TextError::Config {
                key,
                reason: format!("the tokenizer doesn't know the token {token:?}; write one of its vocabulary"),
            }),
        };
        let beginning = known("text.bos_token", tokens.get("bos_token"))?;
        let last_token = known("text.last_token", config.last_token.as_deref())?;
        let steps = Steps::load(config, &tokenizer)?;
        let gate = config.gate_mark.as_deref().map(|mark| Gate::load(mark, &tokenizer)).transpose()?;
        let parse_template = config.parse_template.as_ref().map(PolicyTemplate::markers).transpose()?;
        Ok(Self {
            end: tokens.get("eos_token").map(str::to_owned),
            padding_text: tokens.get("pad_token").map(str::to_owned),
            parse_template,
            longest: LongestText::new(&tokenizer, config.max_tokens.get()),
            beginnings: Beginnings::new(&tokenizer),
            special_tokens: config.special_tokens.unwrap_or_else(|| config.render.adds_special_tokens()),
            renderer: Renderer::load(folder, config, tokens, ControlTokens::load(config, &tokenizer))?,
            control: ControlTokens::load(config, &tokenizer),
            tokenizer,
            beginning,
            padding,
            steps,
            last_token,
            gate,
            token_offsets: false,
            reads_response: false,
            max_tokens: config.max_tokens.get(),
            truncation: config.truncation,
        })
    }

    /// Notes, for every token of a response, the characters that it stands for; for heads that reward tokens.
    #[must_use]
    pub(crate) fn with_token_offsets(mut self, wanted: bool) -> Self {
        self.token_offsets = wanted;
        self
    }

    /// Refuses samples whose response can't be found among the tokens; for heads that read tokens or steps of it. A
    /// head that reads one score after the whole text needs no more than the text.
    #[must_use]
    pub(crate) fn reading_response(mut self, wanted: bool) -> Self {
        self.reads_response = wanted;
        self
    }

    /// Writes a list of steps as one response, each ended as the model expects; `None` when the model reads no steps.
    ///
    /// # Errors
    /// When a step holds what ends one, and would be taken for several.
    pub fn join_steps(&self, steps: &[String]) -> Result<Option<String>, TextError> {
        self.steps.join(steps)
    }

    /// The most tokens that a sample may have, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The token id that fills short rows of a batch.
    #[must_use]
    pub(crate) fn padding_id(&self) -> u32 {
        self.padding
    }

    /// Turns a sample into tokens; `truncation` overrides the manifest's policy.
    ///
    /// # Errors
    /// When the template refuses the conversation, nothing is left to score, or the sample is longer than the model
    /// takes and the policy doesn't allow (or can't do) the cut.
    pub fn tokenize(&self, sample: &Sample, truncation: Option<Truncation>) -> Result<TokenizedInput, TextError> {
        let options = TextOptions { truncation, ..TextOptions::default() };
        self.tokenize_with(sample, options).map(|tokenized| tokenized.input)
    }

    /// Turns a sample into tokens as the manifest says, but for what `options` say.
    ///
    /// # Errors
    /// As [`Self::tokenize`]; also when a token id is unknown, rendered text isn't in the template that the manifest
    /// names, or is to end with a token that the model doesn't have; or when the response must be found and the template
    /// changes it.
    pub(crate) fn tokenize_with(&self, sample: &Sample, options: TextOptions) -> Result<Tokenized, TextError> {
        let mut tokens = self.tokens(sample, options)?;
        if self.reads_response {
            tokens.need_response()?;
        }
        if let Some(last) = self.last_token {
            tokens.end_with(last);
        }
        let doubled_beginning = match self.steps.are_turns() {
            true => self.fit(&mut tokens, self.keep_end(options)).map_err(probe::keep_what_is_asked)?,
            false => self.fit(&mut tokens, options)?,
        };
        let mut input = tokens.into_input().ok_or(TextError::NoTokens)?;
        if let Some(gate) = &self.gate {
            let at = gate.find(input.ids())?;
            input = input.with_gate(at).ok_or(TextError::NoTokens)?;
        }
        Ok(Tokenized { input, doubled_beginning })
    }

    /// A sample's tokens before anything is cut.
    fn tokens(&self, sample: &Sample, options: TextOptions) -> Result<truncate::Tokens, TextError> {
        let sample = self.prepare(sample, options.ending)?;
        let tokens = match &*sample {
            Sample::Tokens(ids) if self.steps.are_marked() => self.known(ids)?,
            Sample::Text(text) if !self.steps.are_turns() => {
                self.encode_response(&self.renderer.callers_text(text), options)?
            }
            Sample::Tokens(_) | Sample::Text(_) => return Err(TextError::WantsTurns),
            Sample::Conversation(conversation) => match self.steps.answer() {
                None => self.encode_response(&self.renderer.render(conversation)?, options)?,
                Some(answer) => self.encode_turns(conversation, answer, options)?,
            },
            Sample::Pair(_) => return Err(TextError::Pair),
            Sample::Picture(_) => return Err(TextError::Image),
        };
        Ok(tokens)
    }

    /// Leaves one beginning-of-sequence token, says whether there were two, and cuts what is too long by the policy.
    fn fit(&self, tokens: &mut truncate::Tokens, options: TextOptions) -> Result<bool, TextError> {
        let doubled_beginning = self.beginning.is_some_and(|beginning| tokens.keep_one_leading(beginning));
        if let Some(most) = options.max_response_tokens {
            tokens.shorten_response(most.get())?;
        }
        let max_tokens = options.max_tokens.map_or(self.max_tokens, |most| most.get().min(self.max_tokens));
        tokens.fit(max_tokens, options.truncation.unwrap_or(self.truncation))?;
        Ok(doubled_beginning)
    }

    /// Gives rendered text its end, and takes it out of the policy's template.
    fn prepare<'a>(&self, sample: &'a Sample, ending: Ending) -> Result<Cow<'a, Sample>, TextError> {
        let Sample::Text(text) = sample else { return Ok(Cow::Borrowed(sample)) };
        let text = match ending {
            Ending::AsSent => Cow::Borrowed(text),
            Ending::OneEos => Cow::Owned(self.end_once(text)?),
        };
        match &self.parse_template {
            Some(markers) => markers.parse(text.text()).map(|parsed| Cow::Owned(Sample::Conversation(parsed))),
            None => Ok(match text {
                Cow::Borrowed(_) => Cow::Borrowed(sample),
                Cow::Owned(text) => Cow::Owned(Sample::Text(text)),
            }),
        }
    }

    fn end_once(&self, text: &RenderedText) -> Result<RenderedText, TextError> {
        let end = self.end.as_deref().filter(|end| !end.is_empty()).ok_or(TextError::NoEndToken)?;
        let padding = self.padding_text.as_deref().filter(|padding| !padding.is_empty()).unwrap_or(end);
        let mut bare = text.text();
        while let Some(shorter) = bare.strip_suffix(end).or_else(|| bare.strip_suffix(padding)) {
            bare = shorter;
        }
        let ended = RenderedText::new(format!("{bare}{end}")).map_err(|_| TextError::NoTokens)?;
        Ok(match text.split() {
            Some((prompt, _)) => ended.with_prompt(prompt),
            None => ended,
        })
    }

    fn known(&self, ids: &[u32]) -> Result<truncate::Tokens, TextError> {
        match ids.iter().find(|id| self.tokenizer.id_to_token(**id).is_none()) {
            Some(unknown) => Err(TextError::UnknownToken(*unknown)),
            None => Ok(truncate::Tokens::of_caller_with_marks(ids, self.steps.mark())),
        }
    }

    /// The tokens of a rendered text; where there is a `mark`, steps are read at it.
    fn encode(
        &self,
        rendered: &Rendered<'_>,
        options: TextOptions,
        mark: Option<u32>,
    ) -> Result<truncate::Tokens, TextError> {
        self.longest.check(rendered.bytes(), options.truncation.unwrap_or(self.truncation))?;
        let encoding = match rendered {
            Rendered::Pair { prompt, response } => self.encode_pair(prompt, response)?,
            Rendered::Single { text, literal, response, .. } => {
                let special = options.special_tokens.unwrap_or(self.special_tokens);
                match response {
                    ResponseSpan::At { bytes, .. } if literal.is_empty() => {
                        self.encode_behind(text, bytes.start, special)?
                    }
                    ResponseSpan::At { .. } | ResponseSpan::CallersText | ResponseSpan::Changed { .. } => {
                        self.encode_text(text, literal, special)?
                    }
                }
            }
        };
        let mut tokens = truncate::Tokens::new(&encoding, rendered, self.token_offsets);
        if let Some(mark) = mark {
            let said = rendered.response();
            let (start, ends) = match rendered {
                Rendered::Single { response: ResponseSpan::At { bytes, .. }, .. } => {
                    (bytes.start, self.steps.ends(said))
                }
                Rendered::Single { response: ResponseSpan::CallersText, .. } => (0, self.steps.ends_within(said)),
                Rendered::Single { .. } | Rendered::Pair { .. } => (0, self.steps.ends(said)),
            };
            tokens.read_at(mark, &encoding, start, &ends)?;
        }
        Ok(tokens)
    }

    fn encode_pair(&self, prompt: &str, response: &str) -> Result<Encoding, TextError> {
        let (asked, said) = (self.control.spelled(prompt)?, self.control.spelled(response)?);
        let encoding = match asked.is_empty() && said.is_empty() {
            true => self.tokenizer.encode((prompt, response), self.special_tokens),
            false => control::encode(&self.tokenizer, prompt, &asked, 0).and_then(|prompt| {
                let response = control::encode(&self.tokenizer, response, &said, 1)?;
                self.tokenizer.post_process(prompt, Some(response), self.special_tokens)
            }),
        };
        encoding.map_err(|error| TextError::Tokenizer(error.to_string()))
    }

    /// The tokens of a text whose response begins at that byte; what it begins with may be known.
    fn encode_behind(&self, text: &str, response: usize, special: bool) -> Result<Encoding, TextError> {
        let known = self.beginnings.encode(&self.tokenizer, text, response);
        let encoding = known.and_then(|known| match known {
            Some(encoding) => self.tokenizer.post_process(encoding, None, special),
            None => self.tokenizer.encode(text, special),
        });
        encoding.map_err(|error| TextError::Tokenizer(error.to_string()))
    }

    /// The tokens of a text in which the control tokens at `literal` are letters.
    fn encode_text(&self, text: &str, literal: &[Range<usize>], special: bool) -> Result<Encoding, TextError> {
        let encoding = match literal.is_empty() {
            true => self.tokenizer.encode(text, special),
            false => control::encode(&self.tokenizer, text, literal, 0)
                .and_then(|encoding| self.tokenizer.post_process(encoding, None, special)),
        };
        encoding.map_err(|error| TextError::Tokenizer(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
