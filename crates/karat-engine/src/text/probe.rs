//! Tokens of the texts that a decoder's head asks about.

use karat_rules::domain::{After, Message, Probe, Reading, Sample};

use super::{TextError, TextOptions, TextPipeline, Tokenized, Truncation, truncate, word::one_token};

impl TextPipeline {
    /// Turns a probe into tokens, with what is read of them.
    ///
    /// # Errors
    /// As [`Self::tokenize_with`]; also when the text whose likelihood is wanted can't be found among the tokens, nothing
    /// goes before it, a word is not one token, or the model has no template.
    pub(crate) fn tokenize_probe(&self, probe: &Probe, options: TextOptions) -> Result<Tokenized, TextError> {
        match probe {
            Probe::Response(sample) => self.likelihood(self.tokens(sample, options)?, options),
            Probe::LastTurn { turns, kept } => {
                let tokens = self.encode(&self.renderer.last_turn(turns, *kept)?, options, None)?;
                self.likelihood(tokens, self.keep_end(options)).map_err(keep_what_is_asked)
            }
            Probe::NextWord { turns, kept, words } => {
                let ids = words.iter().map(|word| self.word(word)).collect::<Result<_, _>>()?;
                let tokenized = self.tokenize_opening(turns, *kept, options).map_err(keep_what_is_asked)?;
                read(tokenized, Reading::Logits(After::End, ids))
            }
            Probe::NextLogit { sample, word } => {
                let Sample::Conversation(conversation) = sample else { return Err(TextError::WantsTurns) };
                let turns = conversation.messages();
                let tokenized = self.tokenize_opening(turns, turns.len() - 1, options).map_err(keep_what_is_asked)?;
                read(tokenized, Reading::Logits(After::End, [self.word(word)?].into()))
            }
            Probe::Steps { sample, words } => {
                let ids = words.iter().map(|word| self.word(word)).collect::<Result<_, _>>()?;
                read(self.tokenize_with(sample, options)?, Reading::Logits(After::Steps, ids))
            }
            Probe::LastState(sample) => read(self.tokenize_with(sample, options)?, Reading::LastState),
            Probe::Text(text) => {
                let sample = Sample::from_text(text.clone()).map_err(|_| TextError::NoTokens)?;
                self.tokenize_with(&sample, options)
            }
            Probe::Image(_) => Err(TextError::Image),
        }
    }

    /// Turns a dialogue into tokens up to where the assistant speaks next; the turns from `kept` on, if any, are never cut.
    ///
    /// # Errors
    /// When the model has no template, or the template refuses the turns or writes nothing, or the text is too long.
    pub(crate) fn tokenize_opening(
        &self,
        turns: &[Message],
        kept: usize,
        options: TextOptions,
    ) -> Result<Tokenized, TextError> {
        let rendered = self.renderer.opening(turns, kept)?;
        let mut tokens = self.encode(&rendered, options, None)?;
        let doubled_beginning = self.fit(&mut tokens, self.keep_end(options))?;
        let input = tokens.into_input().ok_or(TextError::NoTokens)?;
        Ok(Tokenized { input, doubled_beginning })
    }

    /// Never cuts the end of a text that ends with what the model is asked.
    pub(super) fn keep_end(&self, options: TextOptions) -> TextOptions {
        match options.truncation.unwrap_or(self.truncation) {
            Truncation::ResponseEnd => TextOptions { truncation: Some(Truncation::Refuse), ..options },
            Truncation::PromptStart | Truncation::Refuse => options,
        }
    }

    /// Asks for the likelihood of the response's tokens, but for a first token that nothing goes before.
    fn likelihood(&self, mut tokens: truncate::Tokens, options: TextOptions) -> Result<Tokenized, TextError> {
        tokens.need_response()?;
        tokens.end_with_response();
        let doubled_beginning = self.fit(&mut tokens, options)?;
        let input = tokens.into_input().ok_or(TextError::NoTokens)?;
        let response = input.response();
        let range = response.start.max(1)..response.end;
        if range.is_empty() {
            return Err(TextError::NothingBefore);
        }
        read(Tokenized { input, doubled_beginning }, Reading::LogProbabilities(range))
    }

    /// The one token that a word is.
    fn word(&self, word: &str) -> Result<u32, TextError> {
        one_token(&self.tokenizer, word)?.map_err(|tokens| TextError::Word { word: word.to_owned(), tokens })
    }
}

/// Says of a text that doesn't fit what may be cut where a head asks something about it.
pub(super) fn keep_what_is_asked(error: TextError) -> TextError {
    match error {
        TextError::TooLong(too_long) => TextError::TooLong(truncate::TooLong {
            advice: "what is judged, and what the model is asked about it, are never cut: shorten them, or let \
                     \"prompt_start\" cut the turns before",
            ..too_long
        }),
        other => other,
    }
}

fn read(tokenized: Tokenized, reading: Reading) -> Result<Tokenized, TextError> {
    let input = tokenized.input.with_reading(reading).ok_or(TextError::NothingBefore)?;
    Ok(Tokenized { input, ..tokenized })
}
